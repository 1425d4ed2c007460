//! A layer tar becomes a directory.
//!
//! Three ways ([`Whiteouts`]): as one overlayfs layer by itself, onto the tree it
//! changes, or as a plain archive. Layers are unpacked without looking at those
//! below them, so all layers of an image can be unpacked at the same time; what
//! does depend on the ones below (directories the tar does not describe, hard
//! links to files it does not hold) is reported and set right by [`settle`].

mod entry;
mod settle;
mod stream;
mod whiteout;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Read;
use std::path::PathBuf;

use oci::DiffId;
use stdx::sys::{Root, Time};

use crate::tar::Reader;
use crate::{Error, Format, Result};

pub use settle::settle;

/// What whiteouts (`.wh.name`) in the tar become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// What overlayfs understands: device 0/0, and a mark on opaque directories.
    Overlay(Namespace),
    /// The directory holds the tree below already: what is whited out is removed.
    Remove,
    /// Nothing special, a file with that name (archives people ADD).
    Literal,
}

/// Whose extended attributes mark opaque directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// `trusted.overlay.*`, for root.
    Trusted,
    /// `user.overlay.*`, for overlayfs mounted with `userxattr`.
    User,
}

/// What to do with devices in the tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {
    /// Make them.
    Create,
    /// Leave them out (nobody but root may make them).
    Skip,
    /// Fail.
    Refuse,
}

/// How to unpack.
#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions {
    /// What whiteouts become.
    pub whiteouts: Whiteouts,
    /// What becomes of devices.
    pub devices: Devices,
    /// Give everything to this user and group instead of the tar's.
    pub owner: Option<(u32, u32)>,
    /// Do not change owners at all (we are not root).
    pub keep_our_owner: bool,
}

impl Default for ApplyOptions {
    /// An overlayfs layer, by root.
    fn default() -> ApplyOptions {
        ApplyOptions {
            whiteouts: Whiteouts::Overlay(Namespace::Trusted),
            devices: Devices::Create,
            owner: None,
            keep_our_owner: false,
        }
    }
}

/// A hard link to a file that the layer does not hold itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignLink {
    /// The new name.
    pub path: PathBuf,
    /// The existing name, in a layer below.
    pub target: PathBuf,
}

/// What was unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Digest of the uncompressed tar, all bytes of it.
    pub diff_id: DiffId,
    /// Length of the uncompressed tar.
    pub size: u64,
    /// How the tar was compressed.
    pub format: Format,
    /// How many entries it had.
    pub entries: u64,
    /// Directories that had to be there but were not described; see [`settle`].
    pub implied: Vec<PathBuf>,
    /// Hard links into layers below; see [`settle`].
    pub foreign_links: Vec<ForeignLink>,
    /// The whole tree below is hidden.
    pub opaque_root: bool,
}

impl Applied {
    /// Whether [`settle`] has something to do.
    pub fn depends_on_below(&self) -> bool {
        !self.implied.is_empty() || !self.foreign_links.is_empty()
    }
}

/// Unpacks a tar of any compression into `dir`. Reading, decompressing and
/// hashing go on beside the writing. On failure `dir` holds a part of it.
pub fn apply(input: impl Read + Send, dir: &Root, options: &ApplyOptions) -> Result<Applied> {
    let (mut applying, stream) = stream::beside(input, |bytes| {
        let mut reader = Reader::new(bytes);
        let mut applying = Applying::new(dir, *options)?;
        while let Some(entry) = reader.entry()? {
            applying.entry(&entry, &mut reader)?;
        }
        // What follows the end mark belongs to the digest too.
        std::io::copy(&mut reader.into_inner(), &mut std::io::sink()).map_err(Error::Read)?;
        Ok(applying)
    })?;
    applying.finish()?;
    Ok(Applied {
        diff_id: DiffId(stream.digest),
        size: stream.size,
        format: stream.format,
        entries: applying.entries,
        implied: applying.implied.into_iter().collect(),
        foreign_links: applying.foreign_links,
        opaque_root: applying.opaque_root,
    })
}

/// The state of one unpacking.
struct Applying<'a> {
    root: &'a Root,
    options: ApplyOptions,
    entries: u64,
    implied: BTreeSet<PathBuf>,
    foreign_links: Vec<ForeignLink>,
    opaque_root: bool,
    /// Times of directories, set when nothing is put into them any more.
    times: BTreeMap<PathBuf, (Time, Time)>,
    /// What this tar made, where whiteouts remove things.
    made: HashSet<PathBuf>,
    /// The directory the last entry was in.
    parent: Option<(PathBuf, Root)>,
    buffer: Vec<u8>,
}
