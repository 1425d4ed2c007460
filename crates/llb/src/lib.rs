//! Words of a build graph: a [`Definition`] (exact bytes), the [`Op`] each of its
//! steps is, a [`Builder`] to make definitions and a [`Graph`] to read them.
//!
//! A step is named by the digest of its bytes, and the bytes are written as
//! BuildKit writes them, so that the same step has the same name everywhere.
//!
//! ```
//! use llb::{Builder, Copy, Exec, FileOps, Meta, MountSpec};
//!
//! let mut graph = Builder::new();
//! let linux = "linux/amd64".parse().unwrap();
//! let base = graph.source("docker-image://docker.io/library/alpine:latest", [], Some(&linux), Meta::named("base"));
//! let context = graph.source("local://context", [], None, Meta::default());
//! let files = FileOps::on(Some(base)).copy(Some(context), Copy::new("/", "/src"));
//! let copied = graph.file(files, Meta::named("COPY . /src"));
//! let run = graph.run(Exec::new(["make"]), vec![MountSpec::root(Some(copied))], Some(&linux), Meta::named("RUN make"));
//! let definition = graph.definition(run.root.as_ref());
//! assert_eq!(llb::Graph::load(&definition).unwrap().vertices().len(), 4);
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod attr;
mod builder;
pub mod caps;
mod definition;
mod error;
pub mod facts;
pub mod go_form;
mod graph;
mod json;
mod op;
pub mod preimage;
mod validate;
mod wire;

pub use builder::{Builder, FileOps, Meta, MountSpec, Run};
pub use definition::{
    Definition, Location, Metadata, Position, ProgressGroup, Range, Resources, SourceInfo,
    SourceMap,
};
pub use error::Error;
pub use graph::{Graph, Vertex, VertexInput};
pub use op::exec::{
    CacheMount, CdiDevice, ContentCache, Exec, ExtraHost, Mount, MountKind, Network, Owned,
    ProxyEnv, Secret, SecretEnv, Security, Sharing, Ulimit,
};
pub use op::file::{Action, ActionKind, Chown, Copy, File, Mkdir, Mkfile, Mode, Rm, Symlink, User};
pub use op::{Build, Diff, Edge, Merge, Op, OpKind, Passthrough, Source};

/// The result of anything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;
