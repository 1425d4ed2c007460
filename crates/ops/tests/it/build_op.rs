//! Builds of graphs in files of other steps.

use llb::{Build, Definition, OpKind, attr, preimage};
use oci::Digest;
use ops::{NestedError, Output};
use solver::{JobId, KeyDigest, OpContext};
use stdx::Kind;

use crate::setup::{Client, Done, World};

/// A build op whose definition is in a file of input 1.
fn second() -> Build {
    Build {
        builder: -1,
        inputs: [
            ("other".to_owned(), 0),
            (attr::BUILD_DEFINITION_INPUT.to_owned(), 1),
        ]
        .into(),
        ..Build::default()
    }
}

/// It on these inputs.
async fn run(client: &Client, build: &Build, inputs: &[&Output]) -> Done {
    let op = client.op_of(
        OpKind::Build(build.clone()),
        inputs.len(),
        None,
        llb::Meta::default(),
    );
    client.run_op(&*op.unwrap(), inputs).await
}

/// Rows: L15
#[tokio::test]
async fn privileged_the_definition_is_the_named_file_of_the_named_input() {
    let Some(world) = World::new().await else {
        return;
    };
    let definition = |bytes: &'static [u8]| Definition {
        def: vec![bytes.into()],
        ..Definition::default()
    };
    let text = |bytes| String::from_utf8(definition(bytes).encode().to_vec()).unwrap();
    let tree = world.tree(&[
        (attr::BUILD_DEFINITION_INPUT, &text(b"usual")),
        ("dir/graph", &text(b"named")),
    ]);
    let client = world.plain();
    let mut named = second();
    let attrs = &mut named.attrs;
    attrs.insert(attr::BUILD_FILENAME.to_owned(), "/dir/graph".to_owned());
    for build in [&second(), &named] {
        let done = run(&client, build, &[&Output(None), &tree]).await;
        assert_eq!(done.output(), Output(None));
    }
    let found = std::mem::take(&mut *client.found.0.lock().unwrap());
    assert_eq!(found, [definition(b"usual"), definition(b"named")]);

    // The key is made of the op and the keys of all inputs.
    let op = client.op_of(OpKind::Build(named.clone()), 2, None, llb::Meta::default());
    let cx = OpContext {
        step: progress::StepProgress::none(),
        job: JobId(1),
        vertex: None,
        missed: None,
    };
    let map = op.unwrap().cache_map(&cx, 0).await.unwrap();
    let digest = Digest::of(preimage::build(&named));
    assert_eq!(map, solver::CacheMap::new(KeyDigest::Stable(digest), 2));
    let written = r#"{"Type":"buildkit.build.v0","Exec":{"builder":-1,"inputs":{"buildkit.llb.definition":{"input":1},"other":{}},"attrs":{"llbbuild.filename":"/dir/graph"}}}"#;
    assert_eq!(preimage::build(&named), written);
}

/// Rows: L15
#[tokio::test]
async fn privileged_what_says_nowhere_to_read_is_refused_at_once() {
    let Some(world) = World::new().await else {
        return;
    };
    let client = world.plain();
    let mut other = second();
    other.builder = 0;
    let mut unnamed = second();
    unnamed.inputs.remove(attr::BUILD_DEFINITION_INPUT);
    let mut empty = second();
    empty.inputs.insert(attr::BUILD_DEFINITION_INPUT.into(), -1);
    for build in [other, unnamed, empty] {
        let op = client.op_of(OpKind::Build(build.clone()), 2, None, llb::Meta::default());
        let error = op.err().expect("it cannot be done");
        assert_eq!(error.kind(), Kind::InvalidInput, "{error}");
        let ops::Error::Vertex { cause, .. } = error else {
            panic!("{error:?}")
        };
        let told = match &*cause {
            ops::Error::Nested(NestedError::Builder(0)) => 0,
            ops::Error::Nested(NestedError::NoInput) => -1,
            other => panic!("{other:?}"),
        };
        assert_eq!(told, build.builder);
    }
}

/// Rows: L15
#[tokio::test]
async fn privileged_a_file_that_is_no_definition_is_told() {
    let Some(world) = World::new().await else {
        return;
    };
    let client = world.plain();
    let name = attr::BUILD_DEFINITION_INPUT;
    let told = async |tree: &Output| {
        let done = run(&client, &second(), &[&Output(None), tree]).await;
        let ops::Error::Nested(error) = done.error() else {
            panic!("{:?}", done.error())
        };
        (error.kind(), done.why())
    };
    let missing = "the definition of a nested build cannot be read: \
                   buildkit.llb.definition: no such file or directory";
    for tree in [Output(None), world.tree(&[("other", "")])] {
        let expected = (Kind::NotFound, missing.to_owned());
        assert_eq!(told(&tree).await, expected);
    }
    let (_, why) = told(&world.tree(&[(format!("{name}/").as_str(), "")])).await;
    assert!(why.ends_with("not a regular file"), "{why}");
    let (kind, why) = told(&world.tree(&[(name, "something else")])).await;
    assert_eq!(kind, Kind::InvalidInput);
    let says = format!("{name} is no definition of a nested build: failed to parse");
    assert!(why.starts_with(&says), "{why}");
    assert!(client.found.0.lock().unwrap().is_empty());
}
