//! Sources against servers over real TCP, a real git, and a session in this
//! process. Results are kept in real layer directories, which needs root.

mod bundle;
mod facts;
mod git;
mod http;
mod image;
mod knowing;
mod local;
mod setup;
mod signature;
mod signing;
