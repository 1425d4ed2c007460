//! Finds the result of a graph of vertices, running as little as it can.
//!
//! A build is a [`Job`]. It [loads](JobHandle::load) vertices and [asks](JobHandle::solve)
//! for one output of one of them. Equal vertices of several jobs are one vertex,
//! and vertices with equal keys share one run. Dropping the job is leaving:
//! what nobody else waits for stops at once.
//!
//! ```text
//!            Job::solve ─────────────┐                       ┌── Op::cache_map, content_key, run
//!                                    ▼                       │
//!    events: Wanted, Ran, …   State::apply   actions: Run, … ▼
//!            ▲                                            driver ── Index, ResultStore, RecordStore
//!            └────────────────────────────────────────────┘
//! ```
//!
//! How an output is found, each step only if the one before did not help:
//!
//! 1. *definition keys*: the op's digest and the keys of its inputs. Nothing is
//!    made, loaded or fetched;
//! 2. the inputs' own content keys, then *content keys* of this vertex: the
//!    inputs that count by content are made and digested;
//! 3. the newest record of a matching key is loaded; one that cannot be loaded
//!    is passed over;
//! 4. all inputs are made and the op runs.
//!
//! The deciding part ([`state::State`]) knows no clock, no disk, no task and no
//! lock: it can be played from a seed (`tests/it/sim.rs`) and from a recording
//! (`trace`).
#![forbid(unsafe_code)]

pub mod action;
mod driver;
mod error;
pub mod event;
pub mod export;
pub mod index;
pub mod key;
mod op;
pub mod state;
mod store;
pub mod trace;

pub use action::{Miss, MissedInput};
pub use driver::{Job, JobHandle, JobOptions, Options, Solver};
pub use error::{Doing, Error, VertexError};
pub use event::JobId;
pub use index::{DbIndex, Entry, Index, IndexError, MemoryIndex, Node, Record};
pub use key::{CacheMap, Created, InputMap, KeyDigest, KeyId, Link, ResultId};
pub use op::{Edge, Missed, Op, OpContext, OpError, VertexSpec};
pub use store::{RecordStore, ResultStore};

/// What the solver's calls give.
pub type Result<T, E = Error> = std::result::Result<T, E>;
