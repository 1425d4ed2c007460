//! What is known of trees by content, kept beside their refs (row C07).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use contenthash::{Contents, Listed, Selector};
use oci::Digest;
use progress::StepProgress;
use refs::Ref;
use source::CONTENTS_NOTE as NOTE;
use stdx::sys::Root;

use crate::{Build, Error, Result};

/// Names known in memory at one time, in all trees together: some 30 MB. The tree used last stays
/// in any case.
const NAMES_IN_MEMORY: usize = 200_000;
/// What a tree weighs by itself, so that many small ones do not go uncounted.
const TREE: usize = 100;

/// What is known of trees by content, by the ids of their refs. A ref never changes:
/// a client's directory in another state is another ref.
#[derive(Default)]
pub struct ContentsCache(Mutex<Known>);

#[derive(Default)]
struct Known {
    trees: HashMap<String, (Tree, usize)>,
    /// Newest used last.
    order: Vec<String>,
}

/// One tree, kept with how many names are known of it. `None` until its note was read. It is waited
/// for in a task: a build asks for parts of its context a thousand times at once, and each of them
/// would hold a thread.
type Tree = Arc<tokio::sync::Mutex<Option<Contents>>>;

impl ContentsCache {
    /// The digests of parts of a result, which is unpacked for that.
    pub async fn digests(
        &self,
        of: &Ref,
        selectors: Vec<Selector>,
        build: &Build,
        step: &StepProgress,
    ) -> Result<Vec<Digest>> {
        let (known, selectors) = self.known(of, selectors).await?;
        if let Some(known) = known {
            return Ok(known);
        }
        self.of_each(of, selectors, build, step, |contents, root, selector| {
            contents.digest(root, selector)
        })
        .await
    }

    /// The digests if they are known: then the tree need not even be mounted.
    async fn known(
        &self,
        of: &Ref,
        selectors: Vec<Selector>,
    ) -> Result<(Option<Vec<Digest>>, Vec<Selector>)> {
        self.with(of, false, move |contents| {
            let known = |selector| contents.known(selector).map_err(failed(selector));
            let known = selectors.iter().map(known).collect::<Result<_>>()?;
            Ok((known, selectors))
        })
        .await
    }

    /// What those digests are made of, about `limit` names in all. Parts that come after so many
    /// are not listed.
    pub async fn list(
        &self,
        of: &Ref,
        selectors: Vec<Selector>,
        limit: usize,
        build: &Build,
        step: &StepProgress,
    ) -> Result<Vec<Listed>> {
        let mut left = limit;
        let list = move |contents: &mut Contents, root: &Root, selector: &Selector| {
            if left == 0 {
                return Ok(Vec::new());
            }
            let listed = contents.list(root, selector, left)?;
            left = left.saturating_sub(listed.len());
            Ok(listed)
        };
        let lists = self.of_each(of, selectors, build, step, list);
        Ok(lists.await?.into_iter().flatten().collect())
    }

    async fn of_each<T: Send + 'static>(
        &self,
        of: &Ref,
        selectors: Vec<Selector>,
        build: &Build,
        step: &StepProgress,
        mut ask: impl FnMut(&mut Contents, &Root, &Selector) -> contenthash::Result<T> + Send + 'static,
    ) -> Result<Vec<T>> {
        let tree = of.tree(&*build.provider, step).await?;
        self.with(of, true, move |contents| {
            let answer = |selector: &Selector| {
                ask(contents, tree.root(), selector).map_err(failed(selector))
            };
            selectors.iter().map(answer).collect()
        })
        .await
    }

    /// Asks what is known of a tree. `learns` when more may be known afterwards, which is then
    /// noted.
    async fn with<T: Send + 'static>(
        &self,
        of: &Ref,
        learns: bool,
        ask: impl FnOnce(&mut Contents) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut tree = self.of(of.id()).lock_owned().await;
        let asked = of.clone();
        let done = stdx::task::blocking(move || {
            let mut changed = tree.is_none();
            let contents = match &mut *tree {
                Some(contents) => contents,
                none => none.insert(noted(&asked)?),
            };
            let answer = ask(contents)?;
            if learns && let Some(note) = contents.unsaved() {
                asked.set_note(NOTE, &note)?;
                changed = true;
            }
            let names = changed.then(|| contents.names());
            Ok::<_, Error>((answer, names))
        });
        let (answer, names) = done.await?;
        if let Some(names) = names {
            self.weigh(of.id(), names);
        }
        Ok(answer)
    }

    /// A tree is of this size now. What was not used for longest makes room.
    fn weigh(&self, id: &str, names: usize) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { trees, order } = &mut *known;
        if let Some((_, weight)) = trees.get_mut(id) {
            *weight = TREE + names;
        }
        let mut all: usize = trees.values().map(|(_, weight)| *weight).sum();
        while all > NAMES_IN_MEMORY && order.len() > 1 {
            let oldest = order.remove(0);
            all -= trees.remove(&oldest).map_or(0, |(_, weight)| weight);
        }
    }

    /// The place for what is known of a tree.
    fn of(&self, id: &str) -> Tree {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.order.retain(|other| other != id);
        known.order.push(id.to_owned());
        let place = known.trees.entry(id.to_owned());
        Arc::clone(&place.or_insert_with(|| (Tree::default(), TREE)).0)
    }
}

fn failed(selector: &Selector) -> impl FnOnce(contenthash::Error) -> Error {
    let path = selector.path.display().to_string();
    move |source| match source {
        contenthash::Error::NotFound(_) => Error::NotFound { path },
        source => Error::Contents { path, source },
    }
}

/// What was noted beside a ref. A note that cannot be read is as good as none: the tree
/// is digested again.
fn noted(of: &Ref) -> Result<Contents> {
    let note = of.note(NOTE)?;
    Ok(note
        .and_then(|note| Contents::decode(&note).ok())
        .unwrap_or_default())
}
