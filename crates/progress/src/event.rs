//! What can be told of a build. Modelled on BuildKit's Vertex, VertexStatus,
//! VertexLog and VertexWarning, in plain types.

use std::time::SystemTime;

use bytes::Bytes;
use oci::Digest;

/// The end of the error text of a step that was cancelled. Displays show such a
/// step as cancelled, not as failed; BuildKit's clients look for these words too.
pub const CANCELED: &str = "context canceled";

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A step appeared, started or ended: its newest state.
    Step(Step),
    /// Something inside a step moved on.
    Status(Status),
    /// A step printed something.
    Log(Log),
    /// A remark about a step or a line of the file that asked for it.
    Warning(Warning),
}

/// A vertex as the person at the terminal sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The digest of the vertex; later events name the step by it.
    pub digest: Digest,
    /// What is shown: `[build 2/5] RUN make`.
    pub name: String,
    /// The steps it takes its inputs from.
    pub inputs: Vec<Digest>,
    /// Several steps shown as one.
    pub group: Option<Group>,
    /// Its result was there already.
    pub cached: bool,
    /// When the (last) run began.
    pub started: Option<SystemTime>,
    /// When it ended, well or not.
    pub completed: Option<SystemTime>,
    /// Why it failed; empty when it did not. Ends in [`CANCELED`] when it was cancelled.
    pub error: String,
}

impl Step {
    /// Whether the error says that the step was cancelled.
    pub fn is_canceled(&self) -> bool {
        self.error.ends_with(CANCELED)
    }
}

/// Steps with the same group id are shown as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Names the group.
    pub id: String,
    /// What is shown.
    pub name: String,
    /// A weak member alone does not make the group visible.
    pub weak: bool,
}

/// Something inside a step that moves on: a download, an upload, `exporting layers`.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The step it belongs to.
    pub step: Digest,
    /// Names it within the step, and is shown.
    pub id: String,
    /// A second name, mostly empty.
    pub name: String,
    /// Bytes (or items) done.
    pub current: u64,
    /// Of how many; 0 if not known.
    pub total: u64,
    /// When this was so.
    pub at: SystemTime,
    /// When it began.
    pub started: Option<SystemTime>,
    /// When it ended.
    pub completed: Option<SystemTime>,
}

impl Status {
    /// How a status begins that says why a step was not found in the cache. Clients that know
    /// nothing of it show it like any other.
    const NOT_CACHED: &str = "not cached: ";

    /// Why the step was not found in the cache, if that is what this says.
    pub fn why_not_cached(&self) -> Option<&str> {
        self.id.strip_prefix(Status::NOT_CACHED)
    }

    pub(crate) fn not_cached(step: Digest, why: &str) -> Status {
        let now = SystemTime::now();
        Status {
            step,
            id: format!("{}{why}", Status::NOT_CACHED),
            name: String::new(),
            current: 0,
            total: 0,
            at: now,
            started: Some(now),
            completed: Some(now),
        }
    }
}

/// Where a program's output came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output; 1 on the wire.
    Out,
    /// Standard error; 2 on the wire.
    Err,
}

impl Stream {
    /// The file descriptor number, as on the wire.
    pub fn number(self) -> i64 {
        match self {
            Stream::Out => 1,
            Stream::Err => 2,
        }
    }

    /// From the number on the wire; anything that is not 1 counts as standard error.
    pub fn from_number(number: i64) -> Stream {
        if number == 1 {
            Stream::Out
        } else {
            Stream::Err
        }
    }
}

/// A piece of what a step printed; not always whole lines, not always UTF-8.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// The step that printed it.
    pub step: Digest,
    /// Standard output or standard error.
    pub stream: Stream,
    /// The bytes.
    pub data: Bytes,
    /// When they were printed.
    pub at: SystemTime,
}

/// A remark, with the place it is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Warning {
    /// The step it is about.
    pub step: Digest,
    /// 1 for most; higher is less important.
    pub level: u32,
    /// One line.
    pub short: String,
    /// More lines, if there is more to say.
    pub detail: Vec<String>,
    /// A page that explains it; empty if none.
    pub url: String,
    /// The file it is about.
    pub source: Option<Source>,
    /// The lines in that file.
    pub ranges: Vec<Range>,
}

/// A source file an event points into, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name: `Dockerfile`.
    pub filename: String,
    /// Its language: `Dockerfile`.
    pub language: String,
    /// Its text.
    pub data: Bytes,
    /// The graph that loads it, as a definition's bytes; empty if it came through none.
    pub definition: Bytes,
}

/// A part of a source file, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Where it begins.
    pub start: Position,
    /// Where it ends.
    pub end: Position,
}

/// A place in a source file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line, from 1.
    pub line: u32,
    /// The column, from 0.
    pub character: u32,
}
