//! What can be asked for.

use oci::Digest;
use serde::Serialize;

use crate::event::{JobId, RequestId, StoreId, TaskId, VertexId};
use crate::index::{Node, Record};
use crate::key::{Created, KeyId, Link};

/// One way to look for a node: from this node, by this link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// In which store; in every one when none is given.
    pub store: Option<StoreId>,
    /// From which node.
    pub from: KeyId,
    /// By which link.
    pub link: Link,
}

/// What the state asks its driver to do. `O` is an output, `E` an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Action<O, E> {
    /// Ask the op how it is cached.
    AskMap {
        /// Answer under this number.
        task: TaskId,
        /// Whose op.
        vertex: VertexId,
        /// The op of this job.
        job: JobId,
        /// Which of its maps.
        index: usize,
    },
    /// Follow links.
    Probe {
        /// Answer under this number.
        task: TaskId,
        /// The ways to try.
        probes: Vec<Probe>,
        /// The stores meant by a probe without one.
        stores: Vec<StoreId>,
    },
    /// List the records of nodes.
    FindRecords {
        /// Answer under this number.
        task: TaskId,
        /// The nodes; in every store when none is given.
        keys: Vec<(Option<StoreId>, KeyId)>,
        /// The stores meant by a key without one.
        stores: Vec<StoreId>,
    },
    /// Load a record.
    Load {
        /// Answer under this number.
        task: TaskId,
        /// For this vertex.
        vertex: VertexId,
        /// On behalf of this job.
        job: JobId,
        /// The record.
        record: Record,
    },
    /// Digest the content of an input.
    FindContent {
        /// Answer under this number.
        task: TaskId,
        /// Whose op.
        vertex: VertexId,
        /// The op of this job.
        job: JobId,
        /// Which input.
        input: usize,
        /// Its output.
        output: O,
    },
    /// Run the op.
    Run {
        /// Answer under this number.
        task: TaskId,
        /// Whose op.
        vertex: VertexId,
        /// The op of this job.
        job: JobId,
        /// The outputs of its inputs.
        inputs: Vec<O>,
    },
    /// Write a result into the local store.
    Save {
        /// Nodes and how they are reached, as far as that is not written yet.
        nodes: Vec<Node>,
        /// The result.
        output: O,
        /// The nodes it belongs to.
        keys: Vec<KeyId>,
        /// When it was made; now when not given.
        created: Option<Created>,
    },
    /// Stop this work: nobody wants it any more.
    Cancel {
        /// The piece of work.
        task: TaskId,
    },
    /// Answer a question.
    Reply {
        /// The question.
        request: RequestId,
        /// The answer.
        result: Result<O, E>,
    },
    /// Show a vertex as cached: a result that rests on it was found.
    ShowCached {
        /// The vertex.
        vertex: VertexId,
    },
    /// Nothing fits an edge: say why.
    Explain {
        /// The vertex.
        vertex: VertexId,
        /// The reason.
        miss: Miss,
    },
    /// A vertex is held by no job any more.
    Forget {
        /// The vertex.
        vertex: VertexId,
    },
}

/// Why nothing was found for a vertex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Miss {
    /// It was told not to look.
    Ignored,
    /// A key without inputs that has no record.
    NoRecord {
        /// The keys looked for.
        keys: Vec<KeyId>,
    },
    /// No known result has the same op on these inputs.
    Inputs {
        /// Record digest of the op.
        record: Digest,
        /// Inputs from which nothing is known: the op or that input changed.
        unknown: Vec<MissedInput>,
        /// How many inputs do fit.
        known: usize,
    },
    /// Each input fits some result, but no result fits all of them.
    NoCommonResult {
        /// Record digest of the op.
        record: Digest,
    },
    /// Results were known but could not be loaded any more.
    Gone {
        /// Record digest of the op.
        record: Digest,
    },
}

/// An input from which no known result follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MissedInput {
    /// Which input.
    pub input: usize,
    /// Its selector.
    pub selector: Option<Digest>,
    /// The digest of its content, when that counts and was computed.
    pub content: Option<Digest>,
    /// The nodes that were tried.
    pub tried: Vec<KeyId>,
}
