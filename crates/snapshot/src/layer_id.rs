//! Names of directories on disk.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The name of a layer directory. Never used twice, also not by another process: the time it was
/// made, which process made it and a number. The time lets one tell which layers were made
/// before the disk was last flushed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(String);

/// The name of a directory that is kept and stays writable, like a cache mount.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeptId(String);

/// The text is no name of a directory of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a layer or kept directory")]
pub struct InvalidId(String);

impl LayerId {
    pub(crate) fn new() -> LayerId {
        LayerId(unique())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// When it was made, in nanoseconds since 1970.
    pub(crate) fn made(&self) -> u64 {
        self.0
            .split('-')
            .next()
            .and_then(|time| u64::from_str_radix(time, 16).ok())
            .unwrap_or(0)
    }
}

impl KeptId {
    pub(crate) fn new() -> KeptId {
        KeptId(unique())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos() as u64
}

fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{:x}-{:x}-{number:x}", now(), std::process::id())
}

fn checked(text: &str) -> Result<String, InvalidId> {
    let right = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit());
    match text.split('-').collect::<Vec<_>>().as_slice() {
        [a, b, c] if right(a) && right(b) && right(c) => Ok(text.to_owned()),
        _ => Err(InvalidId(text.to_owned())),
    }
}

impl FromStr for LayerId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<LayerId, InvalidId> {
        checked(text).map(LayerId)
    }
}

impl FromStr for KeptId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<KeptId, InvalidId> {
        checked(text).map(KeptId)
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for KeptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
