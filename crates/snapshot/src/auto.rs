//! Which kind of snapshotter to use.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::{Copies, Error, Overlay, Result, Snapshotter};

/// What the user asked for (row D20).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Overlayfs where it works, copies elsewhere.
    #[default]
    Auto,
    /// Overlayfs or an error.
    Overlay,
    /// Copies.
    Native,
}

impl FromStr for Choice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Choice> {
        match text {
            "" | "auto" => Ok(Choice::Auto),
            "overlayfs" => Ok(Choice::Overlay),
            "native" => Ok(Choice::Native),
            other => Err(Error::UnknownKind(other.to_owned())),
        }
    }
}

/// Opens the snapshots beneath `dir`. Each kind has a folder of its own there, because their
/// layers differ in who may read them.
pub fn open(dir: impl AsRef<Path>, choice: Choice) -> Result<Arc<dyn Snapshotter>> {
    let dir = dir.as_ref();
    let overlay = || Overlay::open(dir.join("overlayfs"));
    let copies = || Copies::open(dir.join("native"));
    Ok(match choice {
        Choice::Overlay => Arc::new(overlay()?),
        Choice::Native => Arc::new(copies()?),
        Choice::Auto => match overlay() {
            Ok(overlay) => Arc::new(overlay),
            Err(error) => {
                tracing::warn!(%error, source = ?std::error::Error::source(&error), "overlayfs does not work here: copying whole trees instead, which is slow and takes much disk");
                Arc::new(copies()?)
            }
        },
    })
}
