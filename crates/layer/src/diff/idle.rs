//! What a change holds without having changed it.

use super::Found;
use super::walk::Visit;
use crate::Result;

/// Looks for what a tar of the changes leaves out.
#[derive(Default)]
pub(super) struct Idle {
    found: bool,
    /// Directories as they were, each in the one before it, in which nothing changed so far.
    still: Vec<Vec<u8>>,
}

impl Idle {
    /// The answer, after the walk.
    pub(super) fn found(&self) -> bool {
        self.found || !self.still.is_empty()
    }

    /// The walk is at `path` now: what it is not in was left without a change.
    fn at(&mut self, path: &[u8]) {
        let outer = |dir: &[u8]| {
            path.strip_prefix(dir)
                .is_some_and(|rest| rest.starts_with(b"/"))
        };
        self.found |= self.still.last().is_some_and(|dir| !outer(dir));
    }

    fn change(&mut self, path: &[u8]) {
        self.at(path);
        self.still.clear();
    }
}

impl Visit for Idle {
    fn deleted(&mut self, path: &[u8]) -> Result<()> {
        self.change(path);
        Ok(())
    }

    fn changed(&mut self, found: &Found<'_>) -> Result<()> {
        self.change(found.path);
        Ok(())
    }

    fn unchanged(&mut self, found: &Found<'_>, whole: bool) -> Result<()> {
        if found.stat.is_dir() {
            self.at(found.path);
            self.still.push(found.path.to_vec());
        } else {
            // In a directory that says all there is, what did not change must stand, too.
            self.found |= !whole;
        }
        Ok(())
    }

    fn idle(&mut self) {
        self.found = true;
    }

    fn has_enough(&self) -> bool {
        self.found
    }
}
