//! The daemon as its users and clients see it.

mod config;
mod listen;
mod services;
