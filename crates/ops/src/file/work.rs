//! The actions of one file op, one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use llb::{Action, ActionKind, File};
use refs::{MutableRef, RecordMeta, Ref, Refs};
use snapshot::Tree;
use stdx::sys::Root;

use super::lent::Lender;
use super::{Cancelled, before, change, copy, needed, owner};
use crate::{Error, Output, Result};

/// All that is needed to do the actions.
pub(super) struct Work {
    pub(super) refs: Refs,
    pub(super) description: String,
    pub(super) file: Arc<File>,
    pub(super) inputs: Vec<Output>,
    /// Inputs that are looked at; `None` is the empty tree.
    pub(super) trees: BTreeMap<usize, Option<Arc<Tree>>>,
    pub(super) cancelled: Cancelled,
    /// The empty tree, once somebody looked at it.
    pub(super) empty: Option<MutableRef>,
}

/// What an action made.
enum Made {
    /// Not needed, or another action went on with it.
    Nothing,
    Writable(MutableRef),
    Final(Ref),
}

/// How often something is used.
#[derive(Clone, Copy, Default)]
struct Uses {
    changed: usize,
    read: usize,
}

/// A tree that is looked at.
struct Seen(Arc<Tree>);

impl AsRef<Root> for Seen {
    fn as_ref(&self) -> &Root {
        self.0.root()
    }
}

impl Work {
    pub(super) fn run(mut self) -> Result<Vec<Output>> {
        let file = Arc::clone(&self.file);
        let needed = needed(&file.actions, self.inputs.len());
        let uses = uses(&file.actions, &needed, self.inputs.len());
        let mut made: Vec<Made> = Vec::with_capacity(file.actions.len());
        for (at, action) in file.actions.iter().enumerate() {
            if !needed[at] {
                made.push(Made::Nothing);
                continue;
            }
            let target = self.target(action, &mut made)?;
            let Uses { changed, read } = uses[at];
            let goes_on = action.output.is_none() && changed + read.min(1) <= 1;
            self.act(action, &target, goes_on, &made)?;
            made.push(if goes_on {
                Made::Writable(target)
            } else {
                Made::Final(target.commit()?)
            });
        }
        let mut outputs = vec![
            Output(None);
            file.actions
                .iter()
                .filter(|action| action.output.is_some())
                .count()
        ];
        for (action, made) in file.actions.iter().zip(&made) {
            if let (Some(number), Made::Final(made)) = (action.output, made) {
                let place = outputs.get_mut(number as usize);
                *place.ok_or_else(|| Error::Invalid(format!("missing output {number}")))? =
                    Output(Some(made.clone()));
            }
        }
        Ok(outputs)
    }

    /// What an action changes.
    fn target(&self, action: &Action, made: &mut [Made]) -> Result<MutableRef> {
        let meta = RecordMeta::new(self.description.clone());
        let Some(number) = action.input.map(|number| number as usize) else {
            return Ok(self.refs.begin(None, meta)?);
        };
        let Some(earlier) = number.checked_sub(self.inputs.len()) else {
            return Ok(self.refs.begin(self.inputs[number].0.as_ref(), meta)?);
        };
        let earlier = made
            .get_mut(earlier)
            .ok_or_else(|| unknown(number as u64))?;
        match std::mem::replace(earlier, Made::Nothing) {
            Made::Writable(writable) => Ok(writable),
            Made::Final(found) => {
                let begun = self.refs.begin(Some(&found), meta)?;
                *earlier = Made::Final(found);
                Ok(begun)
            }
            Made::Nothing => Err(unknown(number as u64)),
        }
    }

    /// A tree to look at.
    fn seen(&mut self, number: Option<u64>, made: &[Made]) -> Result<Seen> {
        let Some(number) = number else {
            return self.nothing();
        };
        let at = usize::try_from(number).map_err(|_| unknown(number))?;
        if let Some(tree) = self.trees.get(&at) {
            let tree = tree.clone();
            return tree.map_or_else(|| self.nothing(), |tree| Ok(Seen(tree)));
        }
        match at
            .checked_sub(self.inputs.len())
            .and_then(|earlier| made.get(earlier))
        {
            Some(Made::Writable(writable)) => Ok(Seen(writable.tree())),
            Some(Made::Final(found)) => {
                let view = self.refs.snapshots().view(&found.unpacked_layers()?);
                Ok(Seen(view.map_err(refs::Error::from)?))
            }
            _ => Err(unknown(number)),
        }
    }

    fn nothing(&mut self) -> Result<Seen> {
        let empty = match self.empty.take() {
            Some(empty) => empty,
            None => self.refs.begin(None, RecordMeta::new("empty"))?,
        };
        let tree = empty.tree();
        self.empty = Some(empty);
        Ok(Seen(tree))
    }

    fn act(
        &mut self,
        action: &Action,
        target: &MutableRef,
        goes_on: bool,
        made: &[Made],
    ) -> Result<()> {
        let tree = target.tree();
        let root = tree.root();
        self.cancelled
            .check()
            .map_err(Error::io("changing files"))?;
        let owner = owner::resolve(action, |number| self.seen(Some(number), made))?;
        match &action.kind {
            ActionKind::Mkfile(mkfile) => change::mkfile(root, mkfile, owner),
            ActionKind::Mkdir(mkdir) => change::mkdir(root, mkdir, owner),
            ActionKind::Rm(rm) => change::rm(root, rm),
            ActionKind::Symlink(link) => change::symlink(root, link, owner),
            ActionKind::Copy(wanted) => {
                let from = self.seen(action.secondary.map(u64::from), made)?;
                let lender = match action.secondary {
                    Some(number) if !goes_on => self.inputs.get(number as usize),
                    _ => None,
                };
                let lender = lender.and_then(|input| input.0.as_ref());
                let lender = lender.map(|from| Lender { from, to: target });
                copy::copy(from.as_ref(), root, wanted, owner, lender, &self.cancelled)
            }
        }
    }
}

fn uses(actions: &[Action], needed: &[bool], inputs: usize) -> Vec<Uses> {
    let mut uses = vec![Uses::default(); actions.len()];
    for (action, _) in actions.iter().zip(needed).filter(|(_, needed)| **needed) {
        for number in before(action) {
            if let Some(used) = usize::try_from(number)
                .ok()
                .and_then(|number| number.checked_sub(inputs))
                && let Some(used) = uses.get_mut(used)
            {
                used.read += 1;
            }
        }
        if let Some(used) = action
            .input
            .and_then(|number| (number as usize).checked_sub(inputs))
            && let Some(used) = uses.get_mut(used)
        {
            used.changed += 1;
            used.read -= 1;
        }
    }
    uses
}

fn unknown(number: u64) -> Error {
    Error::Invalid(format!("there is no input {number}"))
}
