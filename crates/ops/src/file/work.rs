//! The actions of one file op, one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use llb::{Action, ActionKind, File};
use refs::{MutableRef, RecordMeta, Ref, Refs};
use snapshot::Tree;
use stdx::sys::Root;

use super::lent::Lender;
use super::{Cancelled, before, change, copy, needed, owner};
use crate::remains::{Becomes, Left};
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

/// An action failed.
pub(super) struct Failed {
    pub(super) cause: Error,
    /// Its place.
    pub(super) action: usize,
    /// What it and others had made, by their places.
    pub(super) left: Left,
}

impl Failed {
    fn new(cause: Error, action: usize, mut made: Vec<Made>) -> Box<Failed> {
        // What is looked at stays until its build has ended: a full disk cannot wait for that.
        if cause.is_full_disk() {
            made.clear();
        }
        let left = made.into_iter().enumerate();
        let left = left.filter_map(|(place, made)| match made {
            Made::Nothing => None,
            Made::Writable(written) => Some((place, Becomes::New(written))),
            Made::Final(found) => Some((place, Becomes::Same(Output(Some(found))))),
        });
        Box::new(Failed {
            cause,
            action,
            left: Left(left.collect()),
        })
    }
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
    pub(super) fn run(mut self) -> Result<Vec<Output>, Box<Failed>> {
        let file = Arc::clone(&self.file);
        let needed = needed(&file.actions, self.inputs.len());
        let uses = uses(&file.actions, &needed, self.inputs.len());
        let mut made: Vec<Made> = Vec::with_capacity(file.actions.len());
        for (at, action) in file.actions.iter().enumerate() {
            if !needed[at] {
                made.push(Made::Nothing);
                continue;
            }
            if let Err(cause) = self.one(action, uses[at], &mut made) {
                return Err(Failed::new(cause, at, made));
            }
        }
        outputs(&file.actions, made)
    }

    /// One action. What it made is added to the rest, also when it failed on the way.
    fn one(&mut self, action: &Action, uses: Uses, made: &mut Vec<Made>) -> Result<()> {
        let target = self.target(action, made)?;
        let goes_on = action.output.is_none() && uses.changed + uses.read.min(1) <= 1;
        let acted = self.act(action, &target, goes_on, made);
        made.push(match acted.is_ok() && !goes_on {
            true => Made::Final(target.commit()?),
            false => Made::Writable(target),
        });
        acted
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

/// The outputs of the actions, by their numbers.
fn outputs(actions: &[Action], made: Vec<Made>) -> Result<Vec<Output>, Box<Failed>> {
    let count = actions.iter().filter(|action| action.output.is_some());
    let mut outputs = vec![Output(None); count.count()];
    for (at, action) in actions.iter().enumerate() {
        let (Some(number), Made::Final(found)) = (action.output, &made[at]) else {
            continue;
        };
        let Some(place) = outputs.get_mut(number as usize) else {
            let missing = Error::Invalid(format!("missing output {number}"));
            return Err(Failed::new(missing, at, made));
        };
        *place = Output(Some(found.clone()));
    }
    Ok(outputs)
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
