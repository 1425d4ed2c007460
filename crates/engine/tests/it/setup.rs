//! What these tests have in common: an engine of their own, and plain requests.

use std::collections::BTreeMap;

use engine::{
    Built, ClientFrontend, Compatibility, Config, Engine, Failure, Policy, Request, What,
};
use llb::{Builder, Definition, FileOps, Meta, Mkfile};
use progress::Progress;
use serde_json::Value;

/// An engine with a state of its own; none for who is not root.
pub(crate) async fn engine() -> Option<(Engine, tempfile::TempDir)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(Config::new(dir.path())).await.unwrap();
    Some((engine, dir))
}

/// A build of this and nothing beside it.
pub(crate) fn request(what: What) -> Request {
    Request {
        id: "build".to_owned(),
        session: String::new(),
        what,
        exporters: Vec::new(),
        session_exporter: false,
        cache_imports: Vec::new(),
        cache_exports: Vec::new(),
        entitlements: Vec::new(),
        policy: Policy::default(),
        compatibility: Compatibility::default(),
        remembered: false,
        proxy_network: false,
    }
}

/// A build that a frontend of the client makes.
pub(crate) fn by(run: ClientFrontend) -> Request {
    request(What::Client {
        options: BTreeMap::new(),
        inputs: BTreeMap::new(),
        run,
    })
}

/// A build of a graph with one file.
pub(crate) fn of_one_file(options: BTreeMap<String, String>) -> Request {
    request(What::Definition {
        definition: one_file(),
        options,
    })
}

fn one_file() -> Definition {
    let mut builder = Builder::new();
    let file = Mkfile {
        path: "/a".into(),
        mode: 0o644,
        ..Mkfile::default()
    };
    let tree = builder.file(FileOps::on(None).mkfile(file), Meta::default());
    builder.definition(Some(&tree))
}

/// Builds, and nobody watches.
pub(crate) async fn build(engine: &Engine, request: Request) -> Result<Built, Failure> {
    let progress = Progress::new(progress::Options::default());
    engine.build(request, progress).await
}

/// A blob of the store as JSON.
pub(crate) fn read(engine: &Engine, digest: &Value) -> Value {
    let digest = digest.as_str().unwrap().parse().unwrap();
    let bytes = engine.refs().store().read_all(&digest, 1 << 20).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}
