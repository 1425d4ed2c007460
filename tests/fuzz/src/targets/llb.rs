//! Graphs from clients.

use bytes::Bytes;
use llb::{Builder, Copy, Definition, Exec, FileOps, Graph, Meta, Mkdir, MountSpec, Op};
use oci::{Digest, Platform};
use prost::Message as _;
use proto::pb;

use super::Target;
use crate::mutate::Shape;

pub(super) const TARGET: Target = Target {
    name: "llb",
    run,
    seeds,
    shape: Shape::Message(0),
    words: &[
        "docker-image://docker.io/library/alpine:latest",
        "local://context",
        "git://github.com/a/b.git#main",
        "https://example.com/x",
        "oci-layout://x@sha256:",
        "exec.mount.bind",
        "source.image",
        "llb.customname",
        "/",
        "../..",
        "linux",
    ],
    longest: 16 << 10,
    memory: 32 << 20,
};

fn run(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    if let Ok(definition) = Definition::decode(bytes.clone()) {
        check(&definition);
    }
    // A change to a step changes its name, and nobody finds it any more: names made right
    // again lead further in.
    if let Ok(mut message) = pb::Definition::decode(bytes) {
        relink(&mut message);
        if let Ok(definition) = Definition::from_proto(message) {
            check(&definition);
        }
    }
}

fn relink(message: &mut pb::Definition) {
    let mut names: Vec<String> = Vec::new();
    for bytes in message.def.iter_mut().take(500) {
        let Ok(mut op) = pb::Op::decode(bytes.clone()) else {
            return;
        };
        if names.is_empty() {
            op.inputs.clear();
        }
        for input in &mut op.inputs {
            let sum = input.digest.bytes().map(usize::from).sum::<usize>();
            input.digest.clone_from(&names[sum % names.len()]);
        }
        *bytes = op.encode_to_vec().into();
        names.push(Digest::of(&bytes[..]).to_string());
    }
}

fn check(definition: &Definition) {
    let again = Definition::decode(definition.encode()).expect("what is written can be read");
    assert_eq!(*definition, again, "written and read it is another");
    let Ok(graph) = Graph::load(definition) else {
        return;
    };
    assert!(graph.vertices().len() <= definition.def.len());
    for (at, vertex) in graph.vertices().iter().enumerate() {
        assert_eq!(vertex.digest, Digest::of(&vertex.bytes));
        assert_eq!(vertex.inputs.len(), vertex.op.inputs.len());
        for input in &vertex.inputs {
            assert!(input.vertex < at, "an input after who uses it");
        }
        let op = Op::decode(vertex.op.encode()).expect("what is written can be read");
        assert_eq!(op, vertex.op, "an op written and read is another");
        llb::preimage::of(&vertex.op, &Platform::host());
        llb::go_form::op(&vertex.op);
    }
    let again = Graph::load(&graph.definition()).expect("a graph that was loaded can be");
    assert_eq!(graph.vertices(), again.vertices());
    assert_eq!(graph.root(), again.root());
}

fn seeds() -> Vec<Vec<u8>> {
    let linux = "linux/amd64".parse().expect("a platform");
    let mut graph = Builder::new();
    let base = graph.source(
        "docker-image://docker.io/library/alpine:latest",
        [],
        Some(&linux),
        Meta::named("base"),
    );
    let context = graph.source(
        "local://context",
        [("local.sharedkeyhint".to_owned(), "context".to_owned())],
        None,
        Meta::default(),
    );
    let files = FileOps::on(Some(base))
        .copy(Some(context), Copy::new("/", "/src"))
        .mkdir(Mkdir::default());
    let copied = graph.file(files, Meta::named("COPY . /src"));
    let mounts = vec![MountSpec::root(Some(copied))];
    let run = graph.run(
        Exec::new(["make"]),
        mounts,
        Some(&linux),
        Meta::named("RUN make"),
    );
    let merged = graph.merge(&[run.root, Some(base)], Meta::default());
    let diffed = graph.diff(Some(base), merged, Meta::default());
    [run.root, merged, diffed, Some(copied)]
        .iter()
        .map(|root| graph.definition(root.as_ref()).encode().to_vec())
        .collect()
}

/// A graph as a client sends it.
pub(super) fn a_definition() -> Vec<u8> {
    seeds().swap_remove(0)
}
