//! The file op: trees are changed without running anything.
//!
//! Its actions are a small graph of their own. What one action made and only the next one
//! changes stays one writable tree; it is made final where it is an output, or where more
//! than one looks at it.

mod change;
mod copy;
mod describe;
mod inputs;
mod lent;
mod mode;
mod owner;
#[cfg(test)]
mod tests;
mod walk;
mod wildcard;
mod work;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use frontend::FailedPart;
use futures::future::try_join_all;
use llb::{Action, File, OpKind, preimage};
use oci::Digest;
use solver::{CacheMap, KeyDigest, Op, OpContext, OpError};

use crate::remains::Step;
use crate::{Deeds, Error, Output, Result};
use inputs::Selectors;
use work::{Failed, Work};

pub(crate) struct FileOp {
    deeds: Deeds,
    file: Arc<File>,
    step: Arc<Step>,
    description: String,
    inputs: usize,
    selectors: Selectors,
}

impl FileOp {
    pub(crate) fn new(deeds: Deeds, vertex: &llb::Vertex, step: Arc<Step>) -> Result<FileOp> {
        let OpKind::File(file) = &vertex.op.kind else {
            return Err(Error::Invalid("not a file op".into()));
        };
        let inputs = vertex.inputs.len();
        Ok(FileOp {
            deeds,
            file: Arc::new(file.clone()),
            step,
            description: crate::graph::name(vertex),
            inputs,
            selectors: Selectors::of(file, inputs)?,
        })
    }

    /// The parts of an input that count by content.
    pub(crate) fn parts(&self, input: usize) -> Option<Vec<contenthash::Selector>> {
        self.selectors.parts(input)
    }
}

#[async_trait]
impl Op for FileOp {
    type Output = Output;

    async fn cache_map(&self, _: &OpContext, _: usize) -> Result<CacheMap, OpError> {
        let digest = Digest::of(preimage::file(&self.file, self.inputs));
        let mut map = CacheMap::new(KeyDigest::Stable(digest), self.inputs);
        for (number, input) in map.inputs.iter_mut().enumerate() {
            input.selector = self.selectors.digest(number);
            input.by_content = input.selector.is_some();
        }
        Ok(map)
    }

    async fn content_key(
        &self,
        cx: &OpContext,
        input: usize,
        output: &Output,
    ) -> Result<Option<Digest>, OpError> {
        let Some(parts) = self.selectors.parts(input) else {
            return Ok(None);
        };
        let build = &self.deeds.build;
        let digests = match &output.0 {
            None => inputs::of_nothing(&parts)?,
            Some(found) => {
                let required = self.selectors.required(input);
                if !required.is_empty() {
                    let tree = found.tree(&*build.provider, &cx.step).await;
                    let tree = tree.map_err(Error::from)?;
                    let check = move || inputs::check_required(tree.root(), &required);
                    stdx::task::blocking(check).await?;
                }
                let contents = &self.deeds.parts.contents;
                contents.digests(found, parts, build, &cx.step).await?
            }
        };
        Ok(Some(inputs::join(&digests)))
    }

    async fn run(&self, cx: &OpContext, inputs: Vec<Output>) -> Result<Vec<Output>, OpError> {
        let build = &self.deeds.build;
        let (changed, read) = used(&self.file, inputs.len());
        let unpacking = changed.iter().filter_map(|input| inputs[*input].0.as_ref());
        try_join_all(unpacking.map(|found| found.unpack(&*build.provider, &cx.step)))
            .await
            .map_err(Error::from)?;
        let trees = read
            .iter()
            .map(|input| inputs[*input].tree(build, &cx.step));
        let trees = try_join_all(trees).await?;
        let cancelled = Cancelled::default();
        let _guard = cancelled.when_dropped();
        let began: Vec<_> = inputs.iter().cloned().map(Some).collect();
        let work = Work {
            refs: self.deeds.parts.refs.clone(),
            description: self.description.clone(),
            file: Arc::clone(&self.file),
            inputs,
            trees: read.into_iter().zip(trees).collect(),
            cancelled,
            empty: None,
        };
        let done = stdx::task::blocking(move || work.run()).await;
        done.map_err(|failed| {
            let (part, actions) = (FailedPart::Action(failed.action), self.file.actions.len());
            let Failed { cause, left, .. } = *failed;
            Arc::new(self.step.failed(cause, part, began, actions, left)) as OpError
        })
    }
}

/// Which inputs are changed, and which are only looked at.
fn used(file: &File, inputs: usize) -> (BTreeSet<usize>, BTreeSet<usize>) {
    let of_inputs = |number: u64| {
        usize::try_from(number)
            .ok()
            .filter(|number| *number < inputs)
    };
    let mut changed = BTreeSet::new();
    let mut read = BTreeSet::new();
    for action in &file.actions {
        changed.extend(action.input.and_then(|number| of_inputs(number.into())));
        read.extend(action.secondary.and_then(|number| of_inputs(number.into())));
        read.extend(owner::trees(action).filter_map(of_inputs));
    }
    (changed, read)
}

/// Which actions an output comes from, and the actions those need.
fn needed(actions: &[Action], inputs: usize) -> Vec<bool> {
    let mut needed: Vec<bool> = actions
        .iter()
        .map(|action| action.output.is_some())
        .collect();
    for at in (0..actions.len()).rev() {
        if !needed[at] {
            continue;
        }
        for number in before(&actions[at]) {
            if let Some(earlier) = usize::try_from(number)
                .ok()
                .and_then(|number| number.checked_sub(inputs))
            {
                needed[earlier] = true;
            }
        }
    }
    needed
}

/// The numbers of all trees an action uses.
fn before(action: &Action) -> impl Iterator<Item = u64> + '_ {
    let numbers = [action.input, action.secondary]
        .into_iter()
        .flatten()
        .map(u64::from);
    numbers.chain(owner::trees(action))
}

/// Whether nobody waits for the result any more.
#[derive(Clone, Default)]
struct Cancelled(Arc<AtomicBool>);

struct Guard(Cancelled);

impl Cancelled {
    fn when_dropped(&self) -> Guard {
        Guard(self.clone())
    }

    fn check(&self) -> io::Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(io::Error::new(
                io::ErrorKind::Interrupted,
                "nobody waits for it any more",
            )),
            false => Ok(()),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}
