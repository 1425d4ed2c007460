//! Which layer a file comes from.

use std::collections::{HashMap, HashSet};
use std::io;

use content::Provider;
use progress::StepProgress;
use stdx::sys::Root;
use stdx::task::blocking;

use crate::chain::chain_of;
use crate::{Error, Ref, Result};

impl Ref {
    /// The uppermost layer that has each of these paths, counted from the bottom as in
    /// [`Ref::layers`]; paths no layer has are left out. What a layer takes away it does not
    /// have: then it is the one below that had it. Layers that are not here are fetched.
    pub async fn places(
        &self,
        paths: HashSet<String>,
        provider: &dyn Provider,
        step: &StepProgress,
    ) -> Result<HashMap<String, usize>> {
        self.unpack(provider, step).await?;
        let refs = self.refs().clone();
        let chain = refs.0.parts.db.read(|tx| chain_of(tx, self.id()))?;
        blocking(move || {
            let mut missing = paths;
            let mut found = HashMap::new();
            for (at, chained) in chain.iter().enumerate().rev() {
                if missing.is_empty() {
                    break;
                }
                let layer = refs.layer_of(chained.link)?;
                let layer = layer.ok_or_else(|| Error::NotUnpacked(chained.of.clone()))?;
                let tree = refs.0.parts.snapshots.layer(&layer)?;
                let mut here = Vec::new();
                for path in &missing {
                    if has(tree.root(), path)? {
                        here.push(path.clone());
                    }
                }
                for path in here {
                    missing.remove(&path);
                    found.insert(path, at);
                }
            }
            Ok(found)
        })
        .await
    }
}

fn has(layer: &Root, path: &str) -> io::Result<bool> {
    match layer.lstat(path) {
        Ok(stat) => Ok(!stat.is_whiteout()),
        // Somebody else wrote the path: one that cannot be is one that is not there.
        Err(error) => match error
            .raw_os_error()
            .map(rustix::io::Errno::from_raw_os_error)
        {
            Some(rustix::io::Errno::IO | rustix::io::Errno::ACCESS) => Err(error),
            _ => Ok(false),
        },
    }
}
