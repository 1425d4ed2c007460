//! What was measured is set aside, not removed, until all is measured.
//!
//! ext4 does not give the number of a removed file away again for minutes, and looks at all of
//! those each time it makes a file: after a tree of 50,000 files was removed, making another takes
//! ten times as long, for whoever is measured next.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Error;

/// Files larger than this give their bytes back at once, so that the disk does not fill.
const LARGE: u64 = 16 << 10;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Moves `what` out of the way, to a directory in `dir` that goes at the end.
pub(super) fn set_aside(dir: &Path, what: &Path) -> Result<(), Error> {
    let done = dir.join("done");
    fs::create_dir_all(&done).map_err(Error::io("making", &done))?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let place = done.join(number.to_string());
    fs::rename(what, &place).map_err(Error::io("setting aside", what))?;
    empty(&place)
}

fn empty(dir: &Path) -> Result<(), Error> {
    let reading = || Error::io("reading", dir);
    for entry in fs::read_dir(dir).map_err(reading())? {
        let entry = entry.map_err(reading())?;
        let path = entry.path();
        // Not followed when it is a link.
        let meta = entry.metadata().map_err(Error::io("reading", &path))?;
        if meta.is_dir() {
            empty(&path)?;
        } else if meta.is_file() && meta.len() > LARGE {
            let file = fs::OpenOptions::new().write(true).open(&path);
            file.and_then(|file| file.set_len(0))
                .map_err(Error::io("emptying", &path))?;
        }
    }
    Ok(())
}
