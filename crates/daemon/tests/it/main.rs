//! The daemon as its users and clients see it.

mod config;
mod containers;
mod life;
mod listen;
mod robust;
mod services;
