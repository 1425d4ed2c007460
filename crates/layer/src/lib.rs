//! A directory change to a layer tar and back.
//!
//! - [`apply`] unpacks a tar of any compression into a directory, by default as
//!   one overlayfs layer. Nothing in the tar can lead out of the directory.
//! - [`diff`] writes what an overlayfs upper directory changes as a tar, byte for
//!   byte as BuildKit would; [`compare`] does so for two whole trees.
//! - [`pack`] compresses on the way and knows both digests at the end.
//! - [`clamp_times`] sets times in a tar back to `SOURCE_DATE_EPOCH`.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (upper, below, copy) = (tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?);
//! # std::fs::write(upper.path().join("new"), "text")?;
//! use layer::{Algorithm, apply, diff, pack};
//! use stdx::sys::Root;
//!
//! let (upper, below) = (Root::open(upper.path())?, Root::open(below.path())?);
//! let (packed, blob) = pack(Algorithm::Gzip.into(), Vec::new(), |tar| {
//!     diff(&upper, Some(&below), tar).map(drop)
//! })?;
//! let applied = apply(&blob[..], &Root::open(copy.path())?, &Default::default())?;
//! assert_eq!(applied.diff_id, packed.diff_id);
//! # Ok(())
//! # }
//! ```

mod apply;
mod compress;
mod decompress;
mod diff;
mod error;
mod rewrite;
pub mod tar;

pub use apply::{Applied, ApplyOptions, Devices, ForeignLink, Namespace, Whiteouts, apply, settle};
pub use compress::{Algorithm, Compression, Packed, Packer, pack, to_docker, to_oci};
pub use decompress::{Format, decompress};
pub use diff::{Archive, compare, diff, holds_more};
pub use error::{Error, Result};
pub use rewrite::clamp_times;
