//! The graph against what BuildKit made of the same input, and against graphs
//! nobody sends in good faith.

mod builder;
mod golden;
mod hostile;
