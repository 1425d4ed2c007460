//! The daemon as its users and clients see it.

mod config;
mod containers;
mod life;
mod listen;
mod policies;
mod pretender;
mod robust;
mod services;
