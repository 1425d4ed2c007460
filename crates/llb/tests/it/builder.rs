//! What the builder numbers and what it leaves out.

use llb::*;

fn image(graph: &mut Builder, name: &str) -> Edge {
    graph.source(format!("docker-image://{name}"), [], None, Meta::default())
}

fn file(definition: &Definition) -> File {
    let graph = Graph::load(definition).unwrap();
    match &graph.vertices().last().unwrap().op.kind {
        OpKind::File(file) => file.clone(),
        other => panic!("{other:?}"),
    }
}

/// Rows: L09
#[test]
fn a_chain_counts_inputs_first_and_then_actions() {
    let mut graph = Builder::new();
    let (base, one, two) = (
        image(&mut graph, "base"),
        image(&mut graph, "one"),
        image(&mut graph, "two"),
    );
    let ops = FileOps::on(Some(base))
        .copy(Some(one), Copy::new("/a", "/"))
        .copy(Some(two), Copy::new("/b", "/"));
    let edge = graph.file(ops, Meta::default());
    let numbers: Vec<_> = file(&graph.definition(Some(&edge)))
        .actions
        .iter()
        .map(|a| (a.input, a.secondary, a.output))
        .collect();
    assert_eq!(
        numbers,
        [(Some(0), Some(1), None), (Some(3), Some(2), Some(0))]
    );
}

/// Rows: L11
#[test]
fn owners_are_looked_up_where_the_chain_began() {
    let mut graph = Builder::new();
    let name = |name: &str| {
        Some(User::Name {
            name: name.into(),
            input: 7,
        })
    };
    let owner = Some(Chown {
        user: name("bob"),
        group: name("bob"),
    });
    let ops = FileOps::on(None).mkdir(Mkdir {
        path: "/a".into(),
        mode: 0o755,
        owner,
        ..Mkdir::default()
    });
    let edge = graph.file(ops, Meta::default());
    let ActionKind::Mkdir(mkdir) = file(&graph.definition(Some(&edge))).actions[0].kind.clone()
    else {
        panic!()
    };
    assert_eq!(
        mkdir.owner.unwrap().user,
        Some(User::Name {
            name: "bob".into(),
            input: -1
        })
    );
}

/// Rows: L03, L05
#[test]
fn mounts_are_sorted_and_numbered() {
    let mut graph = Builder::new();
    let base = image(&mut graph, "base");
    let secret = MountKind::Secret(Owned {
        id: "s".into(),
        ..Owned::default()
    });
    let mounts = vec![
        MountSpec::new("/run/secrets/s", None, secret),
        MountSpec::bind("/z", Some(base), "/etc"),
        MountSpec {
            keep: true,
            ..MountSpec::new("/out", None, MountKind::Bind)
        },
        MountSpec::root(Some(base)),
    ];
    let run = graph.run(Exec::new(["true"]), mounts, None, Meta::default());
    assert_eq!(run.root.unwrap().index, 0);
    assert_eq!(run.outputs["/out"].index, 1);
    let loaded = Graph::load(&graph.definition(run.root.as_ref())).unwrap();
    let vertex = loaded.vertices().last().unwrap();
    assert_eq!(vertex.op.inputs, [base]);
    assert_eq!(vertex.op.outputs(), 2);
    let OpKind::Exec(exec) = &vertex.op.kind else {
        panic!()
    };
    let seen: Vec<_> = exec
        .mounts
        .iter()
        .map(|m| (m.target.as_str(), m.input, m.becomes()))
        .collect();
    assert_eq!(
        seen,
        [
            ("/", Some(0), Some(0)),
            ("/out", None, Some(1)),
            ("/z", Some(0), None),
            ("/run/secrets/s", None, None),
        ]
    );
}

/// Rows: L01, L16, L17
#[test]
fn a_definition_has_what_the_result_needs_and_survives_the_wire() {
    let mut graph = Builder::new();
    let dockerfile = graph.source_file(SourceInfo {
        filename: "Dockerfile".into(),
        ..SourceInfo::default()
    });
    let at = |line| Location {
        source: dockerfile,
        ranges: vec![Range {
            start: Position { line, character: 0 },
            end: Position { line, character: 0 },
        }],
    };
    let unused = image(&mut graph, "unused");
    let base = graph.source(
        "docker-image://base",
        [],
        None,
        Meta::named("one").at(at(1)),
    );
    let again = graph.source(
        "docker-image://base",
        [],
        None,
        Meta::default().ignore_cache(true).at(at(3)),
    );
    assert_eq!(base, again);
    let definition = graph.definition(Some(&base));
    assert_eq!(definition.def.len(), 2);
    assert!(!definition.metadata.contains_key(&unused.digest));
    let metadata = &definition.metadata[&base.digest];
    assert!(metadata.ignore_cache);
    assert_eq!(metadata.description[attr::CUSTOM_NAME], "one");
    let source = definition.source.clone().unwrap();
    assert_eq!(source.locations[&base.digest], [at(1), at(3)]);
    assert_eq!(Definition::decode(definition.encode()).unwrap(), definition);

    let mut other = Builder::new();
    assert_eq!(other.import(&definition).unwrap(), Some(base));
    assert_eq!(other.definition(Some(&base)), definition);
}

/// A graph that was built from a file and is part of another graph from it: there is one file.
///
/// Rows: L17, P02
#[test]
fn a_file_that_was_read_alike_is_one_file() {
    let mut reading = Builder::new();
    let loaded = reading.source("local://dockerfile", [], None, Meta::default());
    let mut reading = reading.definition(Some(&loaded));
    let file = |text: &'static str, definition: Option<&Definition>| SourceInfo {
        filename: "Dockerfile".into(),
        data: text.into(),
        definition: definition.map(|definition| Box::new(definition.clone())),
        language: "Dockerfile".into(),
    };
    let mut graph = Builder::new();
    let first = graph.source_file(file("FROM a", None));
    assert_eq!(graph.source_file(file("FROM a", Some(&reading))), first);
    // Go's client says other things about the same steps.
    reading.metadata.clear();
    assert_eq!(graph.source_file(file("FROM a", Some(&reading))), first);
    assert_ne!(graph.source_file(file("FROM b", Some(&reading))), first);
    let mut elsewhere = Builder::new();
    let loaded = elsewhere.source("local://other", [], None, Meta::default());
    let elsewhere = elsewhere.definition(Some(&loaded));
    assert_ne!(graph.source_file(file("FROM a", Some(&elsewhere))), first);
    let base = image(&mut graph, "base");
    let files = graph.definition(Some(&base)).source.unwrap().infos;
    assert_eq!(files.len(), 3);
    assert!(
        files[0].definition.is_some(),
        "how it was read is known now"
    );
}

/// Rows: L13
#[test]
fn merging_or_diffing_nothing_needs_no_step() {
    let mut graph = Builder::new();
    let (a, b) = (image(&mut graph, "a"), image(&mut graph, "b"));
    assert_eq!(graph.merge(&[None, None], Meta::default()), None);
    assert_eq!(graph.merge(&[None, Some(a)], Meta::default()), Some(a));
    assert_eq!(graph.diff(None, Some(a), Meta::default()), Some(a));
    assert_eq!(graph.diff(Some(a), Some(a), Meta::default()), None);
    let both = graph.merge(&[Some(a), Some(b)], Meta::default()).unwrap();
    let diff = graph.diff(Some(a), Some(both), Meta::default()).unwrap();
    assert_eq!(
        Graph::load(&graph.definition(Some(&diff)))
            .unwrap()
            .vertices()
            .len(),
        4
    );
    assert!(
        Graph::load(&graph.definition(None))
            .unwrap()
            .root()
            .is_none()
    );
}

/// Rows: L01, P05
#[test]
fn a_changed_source_renames_all_that_builds_on_it() {
    let mut graph = Builder::new();
    let base = image(&mut graph, "base");
    let other = image(&mut graph, "other");
    let ops = FileOps::on(Some(base)).copy(Some(other), Copy::new("/", "/"));
    let edge = graph.file(ops, Meta::named("copy"));
    let loaded = Graph::load(&graph.definition(Some(&edge))).unwrap();
    let moved = loaded
        .map(|vertex| -> Result<_> {
            let OpKind::Source(source) = &vertex.op.kind else {
                return Ok(None);
            };
            Ok((source.identifier == "docker-image://base").then(|| {
                OpKind::Source(Source {
                    identifier: "docker-image://mirror".into(),
                    ..source.clone()
                })
            }))
        })
        .unwrap();
    assert_ne!(moved.root(), loaded.root());
    let again = Graph::load(&moved.definition()).unwrap();
    assert_eq!(again, moved);
    assert!(again.get(&other.digest).is_some() && again.get(&base.digest).is_none());
    assert_eq!(again.vertices().last().unwrap().name(), Some("copy"));
}
