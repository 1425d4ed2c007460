//! How much text a file may become.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Error;

/// In bytes. Each step has its whole environment, and each stage what the one below it has: a file of
/// a few kilobytes can ask for all memory there is. No file that is meant comes near.
const MOST: usize = 128 << 20;

/// What was made of it so far.
#[derive(Debug, Default)]
pub(super) struct Budget(AtomicUsize);

impl Budget {
    /// Counts text before it is made.
    pub(super) fn spend(&self, bytes: usize) -> Result<(), Error> {
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        match before.saturating_add(bytes) > MOST {
            true => Err(Error::TooLarge { most: MOST >> 20 }),
            false => Ok(()),
        }
    }
}
