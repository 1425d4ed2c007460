//! Graphs in files of other steps, which are built, too.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use engine::{Built, Engine, Failure, Policy, Request};
use frontend::policy::{Action, Match, Rule};
use frontend::{FrontendResult, Refs, SolveRequest};
use llb::{
    Build, Builder, Definition, Edge, Exec, FileOps, Location, Meta, Mkfile, MountSpec, Op, OpKind,
    Position, Range, SourceInfo, attr,
};
use session::{Attachables, Registration, Session};
use stdx::Kind;
use testkit::web::{Page, Web};
use tokio::sync::Barrier;

use crate::setup;

/// A graph with one file.
fn file(path: &str, data: impl Into<Bytes>) -> Definition {
    let mut builder = Builder::new();
    let root = builder.file(mkfile(path, data), Meta::default());
    builder.definition(Some(&root))
}

fn mkfile(path: &str, data: impl Into<Bytes>) -> FileOps {
    FileOps::on(None).mkfile(Mkfile {
        path: path.to_owned(),
        mode: 0o644,
        data: data.into(),
        ..Mkfile::default()
    })
}

/// The op that builds what is in a file of its input, which has the usual name if none is given.
fn nested(builder: &mut Builder, input: Edge, name: Option<&str>, meta: Meta) -> Edge {
    let attrs = name.map(|name| (attr::BUILD_FILENAME.to_owned(), name.to_owned()));
    let op = Op {
        inputs: vec![input],
        kind: OpKind::Build(Build {
            builder: -1,
            inputs: [(attr::BUILD_DEFINITION_INPUT.to_owned(), 0)].into(),
            definition: None,
            attrs: attrs.into_iter().collect(),
        }),
        platform: None,
        constraints: None,
    };
    let digest = builder.add(&op, meta);
    Edge { digest, index: 0 }
}

/// A graph that builds these bytes as a graph.
fn building(data: impl Into<Bytes>) -> Definition {
    let mut builder = Builder::new();
    let root = builder.file(mkfile(attr::BUILD_DEFINITION_INPUT, data), Meta::default());
    let root = nested(&mut builder, root, None, Meta::default());
    builder.definition(Some(&root))
}

fn deny(identifier: &str) -> Rule {
    Rule {
        action: Action::Deny,
        matching: Match::Wildcard,
        identifier: identifier.to_owned(),
        constraints: Vec::new(),
        update: None,
    }
}

struct World {
    engine: Engine,
    /// Its client, who is asked for logins and has none.
    _session: Registration,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Option<World> {
        let (engine, dir) = setup::engine().await?;
        let session = Session::direct("nested", "test", Attachables::new());
        Some(World {
            _session: engine.sessions().register(session),
            engine,
            _dir: dir,
        })
    }

    /// What is in `/hello` of the result of a graph.
    async fn hello(&self, definition: Definition) -> Result<(Built, Bytes), Failure> {
        self.hello_as(definition, &[], Vec::new(), None).await
    }

    async fn hello_as(
        &self,
        definition: Definition,
        entitlements: &[&str],
        rules: Vec<Rule>,
        // Where builds wait for each other once their graphs are known and nothing is done.
        meet: Option<Arc<Barrier>>,
    ) -> Result<(Built, Bytes), Failure> {
        let read = Arc::new(Mutex::new(Bytes::new()));
        let told = read.clone();
        let run: engine::ClientFrontend = Box::new(move |bridge| {
            Box::pin(async move {
                let solve = SolveRequest {
                    definition,
                    ..SolveRequest::default()
                };
                let found = bridge.solve(solve).await?;
                if let Some(meet) = meet {
                    meet.wait().await;
                }
                if let Some(found) = &found {
                    let bytes = bridge.read_file(found, "/hello", None).await?;
                    *told.lock().unwrap() = bytes;
                }
                Ok(FrontendResult {
                    refs: Refs::One(found),
                    ..FrontendResult::default()
                })
            })
        });
        let request = Request {
            session: "nested".to_owned(),
            entitlements: entitlements.iter().map(|name| (*name).to_owned()).collect(),
            policy: Policy {
                rules,
                session: String::new(),
            },
            remembered: true,
            ..setup::by(run)
        };
        let built = setup::build(&self.engine, request).await?;
        let bytes = std::mem::take(&mut *read.lock().unwrap());
        Ok((built, bytes))
    }

    async fn fails(&self, definition: Definition) -> Failure {
        self.hello(definition)
            .await
            .expect_err("it cannot be built")
    }
}

/// Rows: L15
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_graph_in_a_file_is_built() {
    let Some(world) = World::new().await else {
        return;
    };
    let inner = file("/hello", "from the inner one");
    let (built, hello) = world.hello(building(inner.encode())).await.unwrap();
    assert_eq!(hello, "from the inner one");
    // What is known of the graph that was found does not make it all that there is to know.
    let provenance = String::from_utf8_lossy(&built.provenance[""].bytes).into_owned();
    let complete = "\"resolvedDependencies\":false";
    assert!(provenance.contains(complete), "{provenance}");

    // In a file of another name, beside others.
    let mut builder = Builder::new();
    let files = mkfile("/graph", inner.encode());
    let root = builder.file(files, Meta::default());
    let root = nested(&mut builder, root, Some("/graph"), Meta::default());
    let (_, hello) = world.hello(builder.definition(Some(&root))).await.unwrap();
    assert_eq!(hello, "from the inner one");

    // The empty tree is a result, too.
    let nothing = Definition::default().encode();
    let failure = world.fails(building(nothing)).await;
    assert_eq!(failure.message, "no file /hello");
    world.engine.close().await;
}

/// Rows: L15
#[tokio::test(flavor = "multi_thread")]
async fn privileged_graphs_are_found_in_each_other_up_to_a_depth() {
    let Some(world) = World::new().await else {
        return;
    };
    let mut graph = file("/hello", "at last");
    for _ in 0..10 {
        graph = building(graph.encode());
    }
    assert_eq!(world.hello(graph.clone()).await.unwrap().1, "at last");
    // Not by what is known already: that is the same eleven deep.
    let mut graph = file("/hello", "never");
    for _ in 0..11 {
        graph = building(graph.encode());
    }
    let failure = world.fails(graph).await;
    let says = "nested builds may be 10 deep, and this one is deeper";
    assert!(failure.message.ends_with(says), "{failure:?}");
    assert_eq!(failure.kind, Some(Kind::InvalidInput));
    world.engine.close().await;
}

/// What lies in a file may not do more than what the client sent.
///
/// Rows: L15, P05, P11
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_graph_in_a_file_is_allowed_no_more() {
    let Some(world) = World::new().await else {
        return;
    };
    for (entitlement, network, security) in [
        ("network.host", llb::Network::Host, llb::Security::Sandbox),
        (
            "security.insecure",
            llb::Network::Sandbox,
            llb::Security::Insecure,
        ),
    ] {
        let mut builder = Builder::new();
        let mut exec = Exec::new(["/absent"]);
        (exec.network, exec.security) = (network, security);
        let mounts = vec![MountSpec::root(None)];
        let run = builder.run(exec, mounts, None, Meta::default());
        let inner = builder.definition(run.outputs.get("/")).encode();
        let failure = world.fails(building(inner.clone())).await;
        assert_eq!(failure.kind, Some(Kind::Denied), "{failure:?}");
        let says = format!("{entitlement} is not allowed");
        assert!(failure.message.contains(&says), "{failure:?}");
        // Allowed, it fails for another reason.
        let entitlements = [entitlement];
        let allowed = world.hello_as(building(inner), &entitlements, Vec::new(), None);
        let failure = allowed.await.expect_err("no such program");
        assert_eq!(failure.exit_code, Some(127), "{failure:?}");
    }

    let mut builder = Builder::new();
    let name = "https://a.invalid/file";
    let source = builder.source(name, [], None, Meta::default());
    let inner = builder.definition(Some(&source)).encode();
    let deny = deny("https://a.*");
    let denied = world.hello_as(building(inner), &[], vec![deny], None).await;
    let failure = denied.expect_err("it is denied");
    assert_eq!(failure.kind, Some(Kind::Denied), "{failure:?}");
    assert!(failure.message.contains("denied by policy"), "{failure:?}");
    world.engine.close().await;
}

/// What one build was allowed is no other's: neither what is kept of it, nor what is done for both.
///
/// Rows: L15, P05, P11
#[tokio::test(flavor = "multi_thread")]
async fn privileged_what_one_build_may_find_is_not_given_to_another() {
    let Some(world) = World::new().await else {
        return;
    };
    let web = Web::start().await;
    let page = Page {
        bytes: "from far".into(),
        ..Page::default()
    };
    web.put("/hello", page);
    let graph = || {
        let mut builder = Builder::new();
        let source = builder.source(web.url("/hello"), [], None, Meta::default());
        building(builder.definition(Some(&source)).encode())
    };
    let denied = |failure: Failure| {
        assert_eq!(failure.kind, Some(Kind::Denied), "{failure:?}");
        assert!(failure.message.contains("denied by policy"), "{failure:?}");
    };
    let rules = || vec![deny(&web.url("/*"))];
    // At once, and the result is known to none yet.
    let meet = Arc::new(Barrier::new(2));
    let (refused, allowed) = tokio::join!(
        world.hello_as(graph(), &[], rules(), Some(meet.clone())),
        world.hello_as(graph(), &[], Vec::new(), Some(meet)),
    );
    assert_eq!(allowed.unwrap().1, "from far");
    denied(refused.expect_err("it is denied at the same time"));
    // And now that it is.
    denied(
        world
            .hello_as(graph(), &[], rules(), None)
            .await
            .expect_err("it is denied later"),
    );

    let mut builder = Builder::new();
    let program = std::fs::read("/bin/busybox").expect("/bin/busybox: apt-get busybox-static");
    let files = mkfile("/hello", "on the host's network").mkfile(Mkfile {
        path: "/busybox".to_owned(),
        mode: 0o755,
        data: program.into(),
        ..Mkfile::default()
    });
    let root = builder.file(files, Meta::default());
    let mut exec = Exec::new(["/busybox", "true"]);
    exec.network = llb::Network::Host;
    let run = builder.run(
        exec,
        vec![MountSpec::root(Some(root))],
        None,
        Meta::default(),
    );
    let inner = builder.definition(run.outputs.get("/")).encode();
    let may = ["network.host"];
    let allowed = world.hello_as(building(inner.clone()), &may, Vec::new(), None);
    assert_eq!(allowed.await.unwrap().1, "on the host's network");
    let failure = world.fails(building(inner)).await;
    assert_eq!(failure.kind, Some(Kind::Denied), "{failure:?}");
    let says = "network.host is not allowed";
    assert!(failure.message.contains(says), "{failure:?}");
    world.engine.close().await;
}

/// A graph that is found in itself ends at once, not only where it is too deep.
///
/// Rows: L15
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_graph_that_finds_itself_is_refused() {
    let Some(world) = World::new().await else {
        return;
    };
    let web = Web::start().await;
    let mut builder = Builder::new();
    let file = builder.source(web.url("/graph"), [], None, Meta::default());
    let root = nested(&mut builder, file, Some("/graph"), Meta::default());
    let graph = builder.definition(Some(&root));
    let page = Page {
        bytes: graph.encode(),
        ..Page::default()
    };
    web.put("/graph", page);
    let failure = world.fails(graph).await;
    let says = "the graph of a nested build depends on itself";
    assert!(failure.message.ends_with(says), "{failure:?}");
    assert_eq!(failure.kind, Some(Kind::InvalidInput));
    world.engine.close().await;
}

/// Rows: L15
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_file_that_is_no_graph_is_refused() {
    let Some(world) = World::new().await else {
        return;
    };
    let name = attr::BUILD_DEFINITION_INPUT;
    // Bytes that are no message; a message that is no definition; a graph without its root.
    let mut headless = file("/hello", "x");
    headless.def.pop();
    let junk = Bytes::from_static(&[0xff; 40]);
    for bytes in [junk, Bytes::from_static(b"\x0a\x02hi"), headless.encode()] {
        let failure = world.fails(building(bytes)).await;
        assert_eq!(failure.kind, Some(Kind::InvalidInput), "{failure:?}");
        assert!(!failure.message.is_empty());
    }
    let large = vec![b'x'; (16 << 20) + 1];
    let failure = world.fails(building(large)).await;
    let says = format!("{name} is no definition of a nested build: it is larger than 16 MiB");
    assert!(failure.message.ends_with(&says), "{}", failure.message);
    assert_eq!(failure.kind, Some(Kind::InvalidInput));

    let mut builder = Builder::new();
    let root = builder.file(mkfile("/other", "x"), Meta::default());
    let root = nested(&mut builder, root, None, Meta::default());
    let failure = world.fails(builder.definition(Some(&root))).await;
    assert_eq!(failure.kind, Some(Kind::NotFound), "{failure:?}");
    let says = format!(
        "the definition of a nested build cannot be read: {name}: no such file or directory"
    );
    assert!(failure.message.ends_with(&says), "{}", failure.message);
    world.engine.close().await;
}

/// Lines of the graph that was found come first: there the trouble is.
///
/// Rows: A16, L15
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_failure_is_shown_where_it_was_written() {
    let Some(world) = World::new().await else {
        return;
    };
    let at = |builder: &mut Builder, name: &str, line: i32| {
        let source = builder.source_file(SourceInfo {
            filename: name.to_owned(),
            data: Bytes::from_static(b"one\ntwo\n"),
            ..SourceInfo::default()
        });
        let position = Position { line, character: 0 };
        let range = Range {
            start: position,
            end: position,
        };
        Meta::default().at(Location {
            source,
            ranges: vec![range],
        })
    };
    let mut builder = Builder::new();
    let meta = at(&mut builder, "inner", 2);
    let run = builder.run(
        Exec::new(["/absent"]),
        vec![MountSpec::root(None)],
        None,
        meta,
    );
    let inner = builder.definition(run.outputs.get("/")).encode();
    let mut builder = Builder::new();
    let files = mkfile(attr::BUILD_DEFINITION_INPUT, inner);
    let root = builder.file(files, Meta::default());
    let meta = at(&mut builder, "outer", 1);
    let root = nested(&mut builder, root, None, meta);
    let failure = world.fails(builder.definition(Some(&root))).await;
    let places: Vec<_> = failure
        .places
        .iter()
        .map(|place| (place.file.name.as_str(), place.ranges[0].start.line))
        .collect();
    assert_eq!(places, [("inner", 2), ("outer", 1)], "{failure:?}");
    let ran = "process \"/absent\" did not complete successfully";
    assert!(failure.message.starts_with(ran), "{}", failure.message);
    world.engine.close().await;
}
