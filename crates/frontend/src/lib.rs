//! What a frontend is and what it may ask.
//!
//! A frontend turns what a person wrote (a Dockerfile, say) into results: it asks a
//! [`Bridge`] to solve definitions, to look up images and to read files of what was
//! solved, and ends with a [`FrontendResult`]. It knows no worker, no store and no wire;
//! the engine answers the bridge in process, and the gateway answers it over gRPC for
//! frontends that live in containers.
//!
//! The words to know: [`Bridge`] (what may be asked), [`RefId`] (a solved result, by
//! name), [`FrontendResult`] (what a build gives), [`Options`] (what the client asked
//! for), [`policy`] (which sources may be used), [`Error`] (what went wrong, and where in
//! which file).
#![forbid(unsafe_code)]

mod bridge;
mod container;
mod error;
mod options;
pub mod policy;
mod result;
mod scan;
mod source_range;
mod warning;

pub use bridge::{
    Bridge, CacheImport, EntryKind, FileRange, FileStat, ImageLookup, LayoutStore, NestedRequest,
    RefId, ResolveMode, ResolvedImage, SolveRequest, SourceMetadata,
};
pub use container::{
    Container, FailedPart, FailedStep, NewContainer, NewProcess, ProcessControl, ProcessExit,
    StartedProcess, TerminalSize,
};
pub use error::{Error, Result};
pub use options::Options;
pub use result::{Attestation, AttestationKind, FrontendResult, Refs, Subject, metadata_key};
pub use scan::{Scanner, set_env};
pub use source_range::{Position, Range, SourceFile, SourceLocation};
pub use warning::Warning;
