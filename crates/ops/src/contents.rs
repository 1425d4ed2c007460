//! What is known of trees by content, kept beside their refs (row C07).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use contenthash::{Contents, Selector};
use oci::Digest;
use progress::StepProgress;
use refs::Ref;

use crate::{Build, Error, Result};

/// Trees known in memory at one time.
const TREES_IN_MEMORY: usize = 20;
/// The note beside a ref.
use source::CONTENTS_NOTE as NOTE;

/// What is known of trees by content. Newest used last.
#[derive(Default)]
pub struct ContentsCache(Mutex<Known>);

#[derive(Default)]
struct Known {
    trees: HashMap<String, Arc<Mutex<Contents>>>,
    order: Vec<String>,
}

impl ContentsCache {
    /// The digests of parts of a result, which is unpacked for that.
    pub async fn digests(
        &self,
        of: &Ref,
        selectors: Vec<Selector>,
        build: &Build,
        step: &StepProgress,
    ) -> Result<Vec<Digest>> {
        let tree = of.tree(&*build.provider, step).await?;
        let contents = self.contents(of)?;
        let of = of.clone();
        stdx::task::blocking(move || {
            let mut contents = contents.lock().unwrap_or_else(PoisonError::into_inner);
            let before = contents.clone();
            let mut digests = Vec::with_capacity(selectors.len());
            for selector in &selectors {
                let digest = contents.digest(tree.root(), selector).map_err(|source| Error::Contents {
                    path: selector.path.display().to_string(),
                    source,
                })?;
                digests.push(digest);
            }
            if *contents != before {
                of.set_note(NOTE, &contents.encode())?;
            }
            Ok(digests)
        })
        .await
    }

    fn contents(&self, of: &Ref) -> Result<Arc<Mutex<Contents>>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = of.id().to_owned();
        known.order.retain(|other| *other != id);
        known.order.push(id.clone());
        if let Some(found) = known.trees.get(&id) {
            return Ok(found.clone());
        }
        // A note that cannot be read is as good as none: the tree is digested again.
        let noted = of.note(NOTE)?.and_then(|note| Contents::decode(&note).ok());
        let contents = Arc::new(Mutex::new(noted.unwrap_or_default()));
        known.trees.insert(id, contents.clone());
        if known.order.len() > TREES_IN_MEMORY {
            let oldest = known.order.remove(0);
            known.trees.remove(&oldest);
        }
        Ok(contents)
    }
}
