//! The daemon as its users and clients see it.

mod config;
mod life;
mod listen;
mod robust;
mod services;
