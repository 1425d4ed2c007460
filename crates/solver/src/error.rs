//! What can go wrong, and at which vertex.

use std::fmt;

use oci::Digest;
use stdx::Kind;

use crate::op::OpError;

/// A vertex failed: which one, in doing what, and why.
#[derive(Clone)]
pub struct VertexError {
    /// The vertex.
    pub vertex: Digest,
    /// How people know it.
    pub name: String,
    /// What it was doing.
    pub doing: Doing,
    /// Why it failed.
    pub cause: OpError,
}

/// What a vertex was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Finding out how it is cached.
    CacheMap,
    /// Digesting the content of an input.
    ContentKey {
        /// Which input.
        input: usize,
    },
    /// Running.
    Run,
}

impl fmt::Debug for VertexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VertexError")
            .field("vertex", &self.vertex)
            .field("name", &self.name)
            .field("doing", &self.doing)
            .field("cause", &self.cause)
            .finish()
    }
}

impl fmt::Display for VertexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.doing {
            Doing::CacheMap | Doing::ContentKey { .. } => {
                write!(f, "failed to compute cache key of `{}`", self.name)
            }
            Doing::Run => write!(f, "failed to solve `{}`", self.name),
        }
    }
}

impl std::error::Error for VertexError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.cause)
    }
}

/// Why a graph could not be taken or solved.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A vertex failed.
    #[error(transparent)]
    Vertex(#[from] VertexError),
    /// A vertex works on one that nobody described.
    #[error("vertex `{name}` has input {missing}, which is not in the graph")]
    MissingInput {
        /// The vertex.
        name: String,
        /// The digest nobody described.
        missing: Digest,
    },
    /// Vertices that wait for each other.
    #[error("vertex `{name}` depends on itself")]
    Cycle {
        /// One of them.
        name: String,
    },
    /// The wanted vertex is not in the job's graph.
    #[error("vertex {0} is not in the graph")]
    UnknownVertex(Digest),
    /// The op gave fewer outputs than someone wanted.
    #[error("`{name}` has no output {output}")]
    NoSuchOutput {
        /// The vertex.
        name: String,
        /// The output wanted.
        output: u32,
    },
    /// The op's answer about its inputs does not fit the vertex.
    #[error("`{name}` has {expected} inputs but described {found} in its cache map")]
    BadCacheMap {
        /// The vertex.
        name: String,
        /// How many inputs it has.
        expected: usize,
        /// How many it described.
        found: usize,
    },
    /// Found by the state, which knows no names; callers never see it.
    #[doc(hidden)]
    #[error("{0:?}")]
    Fault(crate::state::Fault),
    /// The job has left; nobody waits for this any more.
    #[error("the build was canceled")]
    Canceled,
    /// The index of keys could not be read or written.
    #[error("the index of cache keys")]
    Index(#[from] crate::index::IndexError),
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::MissingInput { .. } | Error::Cycle { .. } | Error::UnknownVertex(_) => {
                Kind::InvalidInput
            }
            Error::Canceled => Kind::Canceled,
            Error::Vertex(_)
            | Error::NoSuchOutput { .. }
            | Error::BadCacheMap { .. }
            | Error::Fault(_)
            | Error::Index(_) => Kind::Internal,
        }
    }

    /// The vertex that failed, when it was one.
    pub fn vertex(&self) -> Option<&VertexError> {
        match self {
            Error::Vertex(error) => Some(error),
            _ => None,
        }
    }
}

impl From<crate::state::Fault> for Error {
    fn from(fault: crate::state::Fault) -> Error {
        use crate::state::Fault;
        match fault {
            Fault::Canceled => Error::Canceled,
            Fault::UnknownVertex(digest) => Error::UnknownVertex(digest),
            Fault::NoSuchOutput { .. } | Fault::BadCacheMap { .. } | Fault::Cycle(_) => {
                Error::Fault(fault)
            }
        }
    }
}
