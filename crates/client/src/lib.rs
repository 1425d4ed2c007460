//! For talking to a daemon: ask what it is and keeps, and have it build.
//!
//! ```no_run
//! # async fn example() -> client::Result<()> {
//! use client::{Address, BuildOptions, Client};
//!
//! let client = Client::connect(&Address::parse("unix:///run/buildkit/buildkitd.sock")?).await?;
//! let dirs = session::local::Dirs::new().with("context", ".").with("dockerfile", ".");
//! let mut build = client.build(BuildOptions {
//!     frontend: "dockerfile.v0".into(),
//!     offers: session::Attachables::new().with_dirs(dirs),
//!     ..BuildOptions::default()
//! });
//! while let Some(event) = build.next().await {
//!     tracing::info!(?event);
//! }
//! let answer = build.finish().await?;
//! # drop(answer); Ok(()) }
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod address;
mod build;
mod control;
mod convert;
mod error;
mod helper;

pub use address::{Address, Tls};
pub use build::{Build, BuildOptions, CacheEntry, Export, random_id};
pub use control::{
    Client, DiskRecord, GcPolicy, HistoryEvent, HistoryKind, HistoryRecord, Info, OpenSession,
    PruneOptions, Worker,
};
pub use error::{Error, Excerpt, Failure};

/// The result of anything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;
