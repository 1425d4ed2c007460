//! Lists of what is in the result: what the scanner is given.

use frontend::AttestationKind;
use llb::{MountKind, OpKind};
use stdx::Kind;

use testkit::bridge::FakeBridge;

const CONFIG: &str = r#"{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/scan"],"Cmd":["-v"],"Env":["A=b"],"WorkingDir":"work"}}"#;

fn bridge(dockerfile: &str, options: &[(&str, &str)]) -> FakeBridge {
    let mut bridge = FakeBridge::new(dockerfile).options(options);
    let scanner = (oci::Digest::of(b"scanner"), CONFIG.to_owned());
    bridge
        .images
        .insert("localhost:5000/scanner:latest".into(), scanner);
    bridge
}

const ASKED: (&str, &str) = (
    "attest:sbom",
    "type=sbom,generator=localhost:5000/scanner,DEPTH=2",
);

/// Rows: P01
#[tokio::test]
async fn a_scanner_is_run_as_the_protocol_says() {
    let text = "ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\n\
        FROM base:1 AS build\nARG BUILDKIT_SBOM_SCAN_STAGE=1\nRUN make\n\
        FROM base:1 AS unscanned\nRUN unscanned\n\
        FROM base:1\nARG BUILDKIT_SBOM_SCAN_CONTEXT\n\
        COPY --from=build /x /x\nCOPY --from=unscanned /x /y\nCOPY a /a\n";
    let bridge = bridge(text, &[ASKED]);
    let result = dockerfile::build(&bridge).await.unwrap();
    let made = &result.attestations["linux/amd64"];
    assert_eq!(made.len(), 1);
    assert_eq!(made[0].kind, AttestationKind::Bundle);
    assert_eq!(made[0].metadata["reason"], "sbom");
    assert_eq!(made[0].metadata["sbom-core"], "sbom");
    assert_eq!(
        made[0].reference.as_ref().unwrap().as_str(),
        (bridge.solved.lock().unwrap().len() - 1).to_string()
    );
    let execs: Vec<llb::Exec> = bridge
        .ops()
        .into_iter()
        .filter_map(|op| match op.kind {
            OpKind::Exec(exec) if exec.args == ["/scan", "-v"] => Some(exec),
            _ => None,
        })
        .collect();
    let [exec] = &execs[..] else {
        panic!("one scan, not {execs:?}")
    };
    assert_eq!(
        exec.env,
        [
            "A=b",
            "BUILDKIT_SCAN_DESTINATION=/run/out/",
            "BUILDKIT_SCAN_SOURCE=/run/src/core/sbom",
            "BUILDKIT_SCAN_DEPTH=2",
            "BUILDKIT_SCAN_SOURCE_EXTRAS=/run/src/extras",
        ]
    );
    assert_eq!((exec.cwd.as_str(), exec.user.as_str()), ("/work", ""));
    let mounts: Vec<(&str, bool, bool)> = exec
        .mounts
        .iter()
        .map(|mount| {
            (
                mount.target.as_str(),
                mount.readonly,
                mount.output.is_some(),
            )
        })
        .collect();
    assert_eq!(
        mounts,
        [
            ("/", false, true),
            ("/run/out/", false, true),
            ("/run/src/core/sbom", true, false),
            ("/run/src/extras/sbom-build", true, false),
            ("/run/src/extras/sbom-context", true, false),
            ("/tmp", false, false),
        ]
    );
    assert!(matches!(exec.mounts[5].kind, MountKind::Tmpfs { .. }));
    let name = "[linux/amd64] generating sbom using localhost:5000/scanner:latest";
    assert!(bridge.names().contains(&name.to_owned()));
    // The whole context is looked at, not only what is copied.
    let context = bridge.ops().into_iter().find_map(|op| match op.kind {
        OpKind::Source(source) if source.identifier == "local://context" => Some(source),
        _ => None,
    });
    assert!(!context.unwrap().attrs.contains_key(llb::attr::LOCAL_FOLLOW));
}

/// Rows: P01
#[tokio::test]
async fn a_scan_takes_nothing_from_the_cache_where_its_stage_does_not() {
    for (options, ignored) in [
        (&[ASKED][..], false),
        (&[ASKED, ("no-cache", "")], true),
        (&[ASKED, ("no-cache", "other")], false),
        (&[ASKED, ("no-cache", "last")], true),
    ] {
        let bridge = bridge("FROM base:1 AS last\nRUN x\n", options);
        dockerfile::build(&bridge).await.unwrap();
        let last = bridge.last();
        let graph = llb::Graph::load(&last).unwrap();
        let root = graph.root().unwrap().digest;
        let scan = graph.vertices().iter().find(|v| v.digest == root).unwrap();
        assert_eq!(scan.metadata.ignore_cache, ignored, "{options:?}");
    }
}

/// Rows: P01
#[tokio::test]
async fn a_scanner_that_cannot_be_run_or_named_is_refused() {
    let mut nothing = bridge("FROM base:1", &[ASKED]);
    let empty = (oci::Digest::of(b"empty"), "{}".to_owned());
    nothing
        .images
        .insert("localhost:5000/scanner:latest".into(), empty);
    let error = dockerfile::build(&nothing).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidInput);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(
        cause,
        "scanner localhost:5000/scanner:latest does not have cmd"
    );
    let unnamed = bridge("FROM base:1", &[("attest:sbom", "generator=")]);
    let error = dockerfile::build(&unnamed).await.unwrap_err();
    assert!(error.to_string().contains("cannot be empty"), "{error}");
}
