//! Both ends of a session over messages in memory.

mod ends;
mod group;
mod lifetime;
mod offers;
