//! The digest of a part of a directory tree: what COPY is cached by.
//!
//! [`Contents`] knows a tree by digests: of each file's header and bytes, of each
//! directory's header and of all that is in it. It looks at the disk only where it
//! is asked about, keeps what it found, and can be stored. Times do not enter, so
//! a fresh checkout of the same files gives the same digests. The bytes hashed are
//! BuildKit's (docs/spec/core.md §0.5), so that caches can be exchanged.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # std::fs::write(dir.path().join("a.txt"), "hello")?;
//! use contenthash::{Contents, Selector};
//! use stdx::sys::Root;
//!
//! let root = Root::open(dir.path())?;
//! let mut contents = Contents::new();
//! let one = contents.digest(&root, &Selector::path("/a.txt"))?;
//! let stored = contents.encode();
//! assert_eq!(Contents::decode(&stored)?.digest(&root, &Selector::path("a.txt"))?, one);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod contents;
mod error;
pub mod glob;
mod header;
mod list;
mod select;
mod store;
mod sum;

pub use contents::Contents;
pub use error::{Error, Result};
pub use header::{FileHasher, Header};
pub use list::Listed;
pub use select::Selector;
