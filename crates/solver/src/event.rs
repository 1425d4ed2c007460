//! What can happen.

use oci::Digest;
use serde::{Deserialize, Serialize};

use crate::index::Record;
use crate::key::{CacheMap, KeyId};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub u64);
    };
}

number! {
    /// One build's part in the solver.
    JobId
}
number! {
    /// One question of a job: "the output of this edge, please".
    RequestId
}
number! {
    /// One piece of work the state asked for.
    TaskId
}
number! {
    /// One vertex of the shared graph, for as long as a job holds it.
    VertexId
}
number! {
    /// One place with records. 0 is ours.
    StoreId
}

/// The store on this machine, known to every job.
pub const LOCAL: StoreId = StoreId(0);

/// A vertex as the state sees it: no op, no name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// Its digest.
    pub digest: Digest,
    /// Its inputs: digest and output. All are declared before it.
    pub inputs: Vec<(Digest, u32)>,
    /// Do not look for earlier results.
    pub ignore_cache: bool,
    /// Counts against the limit on work at one time.
    pub limited: bool,
}

/// What can happen. `O` is an output, `E` an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event<O, E> {
    /// A job has come.
    JobCame {
        /// The job.
        job: JobId,
    },
    /// A job knows one more store of records.
    StoreCame {
        /// The job.
        job: JobId,
        /// The store.
        store: StoreId,
    },
    /// A job describes vertices, inputs first.
    Declared {
        /// The job.
        job: JobId,
        /// The vertices.
        vertices: Vec<Declared>,
    },
    /// A job wants an output.
    Wanted {
        /// The job.
        job: JobId,
        /// Under this number the answer is given.
        request: RequestId,
        /// Digest of the vertex; the job has declared it.
        vertex: Digest,
        /// Which output.
        output: u32,
        /// The vertex whose run asks, and waits for the answer.
        #[serde(default)]
        within: Option<VertexId>,
    },
    /// Nobody waits for the answer any more.
    Withdrawn {
        /// The question.
        request: RequestId,
    },
    /// A job has left.
    JobLeft {
        /// The job.
        job: JobId,
    },
    /// An op said how it is cached.
    MapFound {
        /// The piece of work.
        task: TaskId,
        /// What it said.
        result: Result<CacheMap, E>,
    },
    /// The nodes that links lead to.
    Probed {
        /// The piece of work.
        task: TaskId,
        /// The nodes, by store.
        found: Vec<(StoreId, KeyId)>,
    },
    /// The records of nodes.
    RecordsFound {
        /// The piece of work.
        task: TaskId,
        /// The records, in any order.
        records: Vec<Record>,
    },
    /// A record was loaded, or could not be.
    Loaded {
        /// The piece of work.
        task: TaskId,
        /// Its output; nothing when it is gone.
        output: Option<O>,
    },
    /// The content of an input was digested.
    ContentFound {
        /// The piece of work.
        task: TaskId,
        /// The digest, if this input can be seen that way.
        result: Result<Option<Digest>, E>,
    },
    /// An op has run.
    Ran {
        /// The piece of work.
        task: TaskId,
        /// Its outputs.
        result: Result<Vec<O>, E>,
    },
}
