//! One build from request to result: frontend, solve, export, remote cache.
//!
//! [`Engine::open`] opens a state directory, [`Engine::build`] does one [`Request`]. What
//! happens in between reads from top to bottom in `build.rs`: a [`solver::Job`] is made, a
//! frontend (or the client's own) asks the `bridge` to solve graphs, the results are
//! exported side by side, and what was learnt goes to remote caches. Dropping the future
//! of a build cancels it.
#![forbid(unsafe_code)]

mod attestations;
mod bridge;
mod build;
mod cache;
mod compatibility;
mod error;
mod export;
mod facts;
mod gateway;
mod lazy_executor;
mod nested;
mod places;
mod platforms;
mod policy;
mod provenance;
mod proxy;
mod request;
mod rewrite;
mod sink;
mod usage;
mod verify;
mod warnings;
mod worker;

pub use compatibility::{Compatibility, UnknownCompatibility};
pub use error::{Failure, Lack};
pub use gateway::{FrontendServer, Line};
pub use request::{Built, ClientFrontend, Policy, Predicate, Request, Spec, What};
pub use worker::{Config, Engine, Frontends, OpenError, Runner, WorkerInfo};
