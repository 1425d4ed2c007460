//! Remote caches with a real solver.

mod golden;
