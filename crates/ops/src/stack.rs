//! Merge, diff and passthrough: results made of results, without copying a file.

use async_trait::async_trait;
use llb::preimage;
use oci::Digest;
use refs::Ref;
use solver::{CacheMap, KeyDigest, Op, OpContext, OpError};

use crate::{Deeds, Error, Output, Result};

fn map(preimage: &str, inputs: usize) -> CacheMap {
    CacheMap::new(KeyDigest::Stable(Digest::of(preimage)), inputs)
}

/// An input by its number; no number is the empty tree.
fn pick(inputs: &[Output], number: Option<u32>) -> Result<Option<Ref>> {
    match number {
        None => Ok(None),
        Some(number) => match inputs.get(number as usize) {
            Some(output) => Ok(output.0.clone()),
            None => Err(Error::Invalid(format!("there is no input {number}"))),
        },
    }
}

pub(crate) struct MergeOp {
    deeds: Deeds,
    op: llb::Merge,
    inputs: usize,
}

impl MergeOp {
    pub(crate) fn new(deeds: Deeds, op: &llb::Merge, inputs: usize) -> MergeOp {
        MergeOp {
            deeds,
            op: op.clone(),
            inputs,
        }
    }
}

#[async_trait]
impl Op for MergeOp {
    type Output = Output;

    async fn cache_map(&self, _: &OpContext, _: usize) -> Result<CacheMap, OpError> {
        Ok(map(&preimage::merge(&self.op), self.inputs))
    }

    async fn run(&self, _: &OpContext, inputs: Vec<Output>) -> Result<Vec<Output>, OpError> {
        let mut merged: Vec<Ref> = Vec::new();
        for number in &self.op.inputs {
            merged.extend(pick(&inputs, *number)?);
        }
        let output = match merged.len() {
            0 => None,
            1 => merged.pop(),
            _ => {
                let refs = self.deeds.parts.refs.clone();
                let made = stdx::task::blocking(move || refs.merge(merged)).await;
                Some(made.map_err(Error::from)?)
            }
        };
        Ok(vec![Output(output)])
    }
}

pub(crate) struct DiffOp {
    deeds: Deeds,
    op: llb::Diff,
    inputs: usize,
}

impl DiffOp {
    pub(crate) fn new(deeds: Deeds, op: &llb::Diff, inputs: usize) -> DiffOp {
        DiffOp {
            deeds,
            op: op.clone(),
            inputs,
        }
    }
}

#[async_trait]
impl Op for DiffOp {
    type Output = Output;

    async fn cache_map(&self, _: &OpContext, _: usize) -> Result<CacheMap, OpError> {
        Ok(map(&preimage::diff(&self.op), self.inputs))
    }

    async fn run(&self, _: &OpContext, inputs: Vec<Output>) -> Result<Vec<Output>, OpError> {
        let (lower, upper) = (pick(&inputs, self.op.lower)?, pick(&inputs, self.op.upper)?);
        let refs = self.deeds.parts.refs.clone();
        let made = stdx::task::blocking(move || refs.diff(lower.as_ref(), upper.as_ref())).await;
        Ok(vec![Output(made.map_err(Error::from)?)])
    }
}

pub(crate) struct PassthroughOp {
    op: llb::Passthrough,
    inputs: usize,
}

impl PassthroughOp {
    pub(crate) fn new(op: &llb::Passthrough, inputs: usize) -> PassthroughOp {
        PassthroughOp {
            op: op.clone(),
            inputs,
        }
    }
}

#[async_trait]
impl Op for PassthroughOp {
    type Output = Output;

    async fn cache_map(&self, _: &OpContext, _: usize) -> Result<CacheMap, OpError> {
        Ok(map(&preimage::passthrough(&self.op), self.inputs))
    }

    async fn run(&self, _: &OpContext, inputs: Vec<Output>) -> Result<Vec<Output>, OpError> {
        let outputs = self
            .op
            .outputs
            .iter()
            .map(|number| pick(&inputs, *number).map(Output));
        Ok(outputs.collect::<Result<_>>()?)
    }
}
