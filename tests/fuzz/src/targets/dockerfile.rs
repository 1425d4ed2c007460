//! Dockerfiles, `.dockerignore` files and build options: what the author of a context writes.

use dockerfile::instruction::instructions;
use dockerfile::syntax::{detect_syntax, parse};
use testkit::bridge::FakeBridge;

use super::{Target, to_the_end};
use crate::mutate::Shape;

pub(super) const TARGET: Target = Target {
    name: "dockerfile",
    run,
    seeds,
    shape: Shape::Bytes,
    words: &[
        "FROM base:1\n",
        "FROM base:1 AS a\n",
        "FROM scratch\n",
        "RUN ",
        "COPY ",
        "ADD ",
        "--from=a ",
        "<<E\n",
        "E\n",
        "\\\n",
        "# syntax=",
        "# escape=`\n",
        "# check=",
        "ONBUILD ",
        "[\"",
        "\"]",
        "${",
        "}",
        ":-",
        ":+",
        "%%",
        "##",
        "$",
        "'",
        "\"",
        "--mount=type=cache,target=/c ",
        "--mount=type=bind,from=",
        "--mount=type=secret,id=a,env=B ",
        "--network=none ",
        "--chmod=u=rw,go+X ",
        "--chown=1:2 ",
        "--link ",
        "--parents ",
        "--exclude=*.a ",
        "--checksum=sha256:",
        "https://a/b",
        "git@github.com:a/b.git#c",
        "\u{feff}",
        "\0",
        "ENV ",
        "HEALTHCHECK ",
        "ARG ",
        "LABEL ",
        "!",
        "USER ",
        "WORKDIR ",
        "EXPOSE 80-90/tcp",
        "VOLUME ",
        "SHELL ",
        "STOPSIGNAL ",
        "CMD ",
        "ENTRYPOINT ",
        "MAINTAINER ",
        "build-arg:A=b\n",
        "target=a\n",
        "platform=linux/amd64,linux/arm64\n",
        "no-cache=a\n",
        "context:a=docker-image://b\n",
        "requestid=frontend.outline\n",
        "add-hosts=a=1.2.3.4\n",
        "attest:sbom=\n",
        "label:a=b\n",
        "ulimit=nofile=1:2\n",
    ],
    longest: 4 << 10,
    memory: 64 << 20,
};

/// A Dockerfile; behind a byte that no text has, options, one a line; behind one more a
/// `.dockerignore`.
fn run(input: &[u8]) {
    let mut parts = input.splitn(3, |byte| *byte == 0xff);
    let text = parts.next().unwrap_or_default();
    let (options, ignore) = (parts.next().unwrap_or_default(), parts.next());
    let file = instructions(&parse(text));
    for fault in &file.faults {
        assert!(fault.lines.first <= fault.lines.last, "{fault:?}");
        assert!(!fault.error.to_string().is_empty());
    }
    detect_syntax(&String::from_utf8_lossy(text));
    let options = String::from_utf8_lossy(options);
    let options: Vec<(&str, &str)> = options
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let mut bridge = FakeBridge::new("").options(&options);
    bridge.file("dockerfile", "Dockerfile", text.to_vec());
    bridge.file("context", "Dockerfile", text.to_vec());
    if let Some(ignore) = ignore {
        bridge.file("context", ".dockerignore", ignore.to_vec());
        if let Ok(ignore) = dockerfile::Ignore::new(&dockerfile::ignore::patterns(ignore)) {
            ignore.hides("a/b/c");
        }
    }
    let ended = to_the_end(dockerfile::build(&bridge));
    if let Err(error) = &ended {
        assert!(!error.to_string().is_empty());
    }
    for definition in bridge
        .solved
        .lock()
        .expect("nobody panics holding it")
        .iter()
    {
        // What our own frontend makes has to be what our own engine takes.
        llb::Graph::load(definition).expect("the frontend makes graphs that make sense");
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden");
    let mut seeds = Vec::new();
    for entry in std::fs::read_dir(golden)
        .expect("the golden vectors")
        .flatten()
    {
        if let Ok(text) = std::fs::read(entry.path().join("Dockerfile")) {
            seeds.push(text);
        }
    }
    seeds.sort();
    seeds.push(b"FROM base:1 AS a\nARG A\nRUN echo $A\nFROM a\nCOPY --from=a / /x\n\xffbuild-arg:A=b\ntarget=a\n\xff*.a\n!b.a\n".to_vec());
    seeds
}
