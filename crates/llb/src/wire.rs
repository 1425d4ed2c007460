//! Between our words and the bytes of the wire.
//!
//! An op's digest names its bytes, so they are written as the Go programs write
//! them: fields by number, maps sorted, and the member of a oneof after all else.

mod exec;
mod file;

use bytes::{Bytes, BytesMut};
use oci::Platform;
use prost::Message as _;
use proto::pb;

use self::exec::{exec_from, exec_to};
use self::file::{action_from, action_to};
use crate::{
    Build, Definition, Diff, Edge, Error, File, Merge, Op, OpKind, Passthrough, Result, Source,
};

/// An op as it is read: the last one of a definition has no kind.
pub(crate) struct RawOp {
    pub(crate) inputs: Vec<Edge>,
    pub(crate) kind: Option<OpKind>,
    pub(crate) platform: Option<Platform>,
    pub(crate) constraints: Option<Vec<String>>,
}

impl Op {
    /// The bytes whose digest is the name of this op.
    pub fn encode(&self) -> Bytes {
        encode(
            &self.inputs,
            Some(&self.kind),
            self.platform.as_ref(),
            self.constraints.as_deref(),
        )
    }

    /// Reads an op. Bytes that name no kind of op are refused.
    pub fn decode(bytes: Bytes) -> Result<Op> {
        let digest = oci::Digest::of(&bytes);
        let raw = decode(bytes)?;
        Ok(Op {
            inputs: raw.inputs,
            kind: raw.kind.ok_or(Error::NoOperation(digest))?,
            platform: raw.platform,
            constraints: raw.constraints,
        })
    }
}

/// Writes an op, the kind last.
pub(crate) fn encode(
    inputs: &[Edge],
    kind: Option<&OpKind>,
    platform: Option<&Platform>,
    constraints: Option<&[String]>,
) -> Bytes {
    let head = pb::Op {
        inputs: inputs
            .iter()
            .map(|e| pb::Input {
                digest: e.digest.to_string(),
                index: i64::from(e.index),
            })
            .collect(),
        platform: platform.map(platform_to),
        constraints: constraints.map(|c| pb::WorkerConstraints { filter: c.to_vec() }),
        op: None,
    };
    let tail = pb::Op {
        op: kind.map(kind_to),
        ..pb::Op::default()
    };
    let mut bytes = BytesMut::with_capacity(head.encoded_len() + tail.encoded_len());
    // Writing into memory that grows cannot fail.
    head.encode_raw(&mut bytes);
    tail.encode_raw(&mut bytes);
    bytes.freeze()
}

/// Reads an op.
pub(crate) fn decode(bytes: Bytes) -> Result<RawOp> {
    let op = pb::Op::decode(bytes).map_err(|e| Error::Decode(e.to_string()))?;
    let mut inputs = Vec::with_capacity(op.inputs.len());
    for input in op.inputs {
        let index = u32::try_from(input.index)
            .map_err(|_| Error::op("input", format!("output {} of a step", input.index)))?;
        inputs.push(Edge {
            digest: input.digest.parse()?,
            index,
        });
    }
    Ok(RawOp {
        inputs,
        kind: op.op.map(kind_from).transpose()?,
        platform: op.platform.map(platform_from),
        constraints: op.constraints.map(|c| c.filter),
    })
}

pub(crate) fn platform_to(p: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: p.architecture.clone(),
        os: p.os.clone(),
        variant: p.variant.clone(),
        os_version: p.os_version.clone(),
        os_features: p.os_features.clone(),
    }
}

pub(crate) fn platform_from(p: pb::Platform) -> Platform {
    Platform {
        architecture: p.architecture,
        os: p.os,
        variant: p.variant,
        os_version: p.os_version,
        os_features: p.os_features,
    }
}

fn kind_to(kind: &OpKind) -> pb::op::Op {
    match kind {
        OpKind::Exec(exec) => pb::op::Op::Exec(exec_to(exec)),
        OpKind::Source(source) => pb::op::Op::Source(pb::SourceOp {
            identifier: source.identifier.clone(),
            attrs: source.attrs.clone(),
        }),
        OpKind::File(file) => pb::op::Op::File(pb::FileOp {
            actions: file.actions.iter().map(action_to).collect(),
        }),
        OpKind::Merge(merge) => pb::op::Op::Merge(pb::MergeOp {
            inputs: merge
                .inputs
                .iter()
                .map(|i| pb::MergeInput { input: number(*i) })
                .collect(),
        }),
        OpKind::Diff(diff) => pb::op::Op::Diff(pb::DiffOp {
            lower: Some(pb::LowerDiffInput {
                input: number(diff.lower),
            }),
            upper: Some(pb::UpperDiffInput {
                input: number(diff.upper),
            }),
        }),
        OpKind::Build(build) => pb::op::Op::Build(pb::BuildOp {
            builder: build.builder,
            inputs: build
                .inputs
                .iter()
                .map(|(name, input)| (name.clone(), pb::BuildInput { input: *input }))
                .collect(),
            def: build.definition.as_ref().map(Definition::to_proto),
            attrs: build.attrs.clone(),
        }),
        OpKind::Passthrough(p) => pb::op::Op::Passthrough(pb::PassthroughOp {
            id: p.id.clone(),
            outputs: p
                .outputs
                .iter()
                .map(|i| pb::PassthroughOutput { input: number(*i) })
                .collect(),
        }),
    }
}

fn kind_from(op: pb::op::Op) -> Result<OpKind> {
    Ok(match op {
        pb::op::Op::Exec(exec) => OpKind::Exec(exec_from(exec)?),
        pb::op::Op::Source(source) => OpKind::Source(Source {
            identifier: source.identifier,
            attrs: source.attrs,
        }),
        pb::op::Op::File(file) => OpKind::File(File {
            actions: file
                .actions
                .into_iter()
                .map(action_from)
                .collect::<Result<_>>()?,
        }),
        pb::op::Op::Merge(merge) => OpKind::Merge(Merge {
            inputs: merge
                .inputs
                .into_iter()
                .map(|i| from_number("merge", i.input))
                .collect::<Result<_>>()?,
        }),
        pb::op::Op::Diff(diff) => OpKind::Diff(Diff {
            lower: from_number("diff", diff.lower.map_or(-1, |l| l.input))?,
            upper: from_number("diff", diff.upper.map_or(-1, |u| u.input))?,
        }),
        pb::op::Op::Build(build) => OpKind::Build(Build {
            builder: build.builder,
            inputs: build
                .inputs
                .into_iter()
                .map(|(n, i)| (n, i.input))
                .collect(),
            definition: build.def.map(Definition::from_proto).transpose()?,
            attrs: build.attrs,
        }),
        pb::op::Op::Passthrough(p) => OpKind::Passthrough(Passthrough {
            id: p.id,
            outputs: p
                .outputs
                .into_iter()
                .map(|o| from_number("passthrough", o.input))
                .collect::<Result<_>>()?,
        }),
    })
}

/// A number of an input on the wire: -1 is none.
fn number(input: Option<u32>) -> i64 {
    input.map_or(-1, i64::from)
}

fn from_number(kind: &'static str, input: i64) -> Result<Option<u32>> {
    match input {
        -1 => Ok(None),
        n => u32::try_from(n)
            .map(Some)
            .map_err(|_| Error::op(kind, format!("input or output number {n}"))),
    }
}
