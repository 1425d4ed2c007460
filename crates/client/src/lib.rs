//! Rust library for talking to the daemon: solve, status, session.
