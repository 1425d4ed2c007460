//! Provenance as SLSA writes it, v1 and v0.2, in BuildKit's dialect: which of its own
//! fields there are, and in which order.

use serde::Serialize;
use serde_json::Value;

use crate::{BuildConfig, DigestSet, Material, Metadata, Provenance, Request, Version};

const BUILD_TYPE_V1: &str =
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
const BUILD_TYPE_V02: &str = "https://mobyproject.org/buildkit@v1";

pub(crate) fn write(facts: &Provenance, version: Version) -> String {
    let written = match version {
        Version::V1 => serde_json::to_string(&v1(facts)),
        Version::V02 => serde_json::to_string(&v02(facts)),
    };
    written.expect("our own values can be written")
}

#[derive(Serialize)]
struct Builder<'a> {
    id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct V1<'a> {
    build_definition: Definition<'a>,
    run_details: Details<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Definition<'a> {
    build_type: &'static str,
    #[serde(skip_serializing_if = "<[Material]>::is_empty")]
    resolved_dependencies: &'a [Material],
    external_parameters: External<'a>,
    internal_parameters: Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct External<'a> {
    config_source: Config<'a>,
    request: &'a Request,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    uri: &'a str,
    #[serde(skip_serializing_if = "DigestSet::is_empty")]
    digest: &'a DigestSet,
    #[serde(skip_serializing_if = "str::is_empty")]
    path: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    entry_point: &'a str,
}

#[derive(Serialize)]
struct Details<'a> {
    builder: Builder<'a>,
    metadata: MetadataV1<'a>,
}

#[derive(Serialize)]
struct MetadataV1<'a> {
    #[serde(rename = "invocationId", skip_serializing_if = "str::is_empty")]
    invocation: &'a str,
    #[serde(rename = "startedOn", skip_serializing_if = "str::is_empty")]
    started: &'a str,
    #[serde(rename = "finishedOn", skip_serializing_if = "str::is_empty")]
    finished: &'a str,
    buildkit_metadata: &'a Metadata,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    buildkit_hermetic: bool,
    buildkit_completeness: CompleteV1,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    buildkit_reproducible: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CompleteV1 {
    request: bool,
    resolved_dependencies: bool,
}

fn v1(facts: &Provenance) -> V1<'_> {
    V1 {
        build_definition: Definition {
            build_type: BUILD_TYPE_V1,
            resolved_dependencies: &facts.materials,
            external_parameters: External {
                config_source: Config {
                    uri: &facts.config.uri,
                    digest: &facts.config.digest,
                    path: &facts.config.path,
                    entry_point: "",
                },
                request: &facts.request,
            },
            internal_parameters: internal(facts),
        },
        run_details: Details {
            builder: Builder {
                id: &facts.builder_id,
            },
            metadata: MetadataV1 {
                invocation: &facts.invocation,
                started: &facts.started,
                finished: &facts.finished,
                buildkit_metadata: &facts.metadata,
                buildkit_hermetic: facts.hermetic,
                buildkit_completeness: CompleteV1 {
                    request: facts.request_complete,
                    resolved_dependencies: facts.materials_complete,
                },
                buildkit_reproducible: facts.reproducible,
            },
        },
    }
}

fn internal(facts: &Provenance) -> Value {
    let steps = facts.steps.as_ref().map(|steps| {
        let steps = serde_json::to_value(steps).expect("our own values can be written");
        ("buildConfig", steps)
    });
    let platform = ("builderPlatform", facts.builder_platform.as_str().into());
    facts.environment.with(steps.into_iter().chain([platform]))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct V02<'a> {
    builder: Builder<'a>,
    build_type: &'static str,
    #[serde(skip_serializing_if = "<[Material]>::is_empty")]
    materials: &'a [Material],
    invocation: Invocation<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_config: Option<&'a BuildConfig>,
    metadata: MetadataV02<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Invocation<'a> {
    config_source: Config<'a>,
    parameters: &'a Request,
    environment: Value,
}

#[derive(Serialize)]
struct MetadataV02<'a> {
    #[serde(rename = "buildInvocationID", skip_serializing_if = "str::is_empty")]
    invocation: &'a str,
    #[serde(rename = "buildStartedOn", skip_serializing_if = "str::is_empty")]
    started: &'a str,
    #[serde(rename = "buildFinishedOn", skip_serializing_if = "str::is_empty")]
    finished: &'a str,
    completeness: CompleteV02,
    reproducible: bool,
    #[serde(rename = "https://mobyproject.org/buildkit@v1#metadata")]
    buildkit: &'a Metadata,
    #[serde(
        rename = "https://mobyproject.org/buildkit@v1#hermetic",
        skip_serializing_if = "std::ops::Not::not"
    )]
    hermetic: bool,
}

#[derive(Serialize)]
struct CompleteV02 {
    parameters: bool,
    environment: bool,
    materials: bool,
}

fn v02(facts: &Provenance) -> V02<'_> {
    V02 {
        builder: Builder {
            id: &facts.builder_id,
        },
        build_type: BUILD_TYPE_V02,
        materials: &facts.materials,
        invocation: Invocation {
            config_source: Config {
                uri: &facts.config.uri,
                digest: &facts.config.digest,
                path: "",
                entry_point: &facts.config.path,
            },
            parameters: &facts.request,
            environment: facts
                .environment
                .with([("platform", facts.builder_platform.as_str().into())]),
        },
        build_config: facts.steps.as_ref(),
        metadata: MetadataV02 {
            invocation: &facts.invocation,
            started: &facts.started,
            finished: &facts.finished,
            completeness: CompleteV02 {
                parameters: facts.request_complete,
                environment: true,
                materials: facts.materials_complete,
            },
            reproducible: facts.reproducible,
            buildkit: &facts.metadata,
            hermetic: facts.hermetic,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::{
        ConfigSource, Environment, Local, Mode, Named, Options, SourceFile, SourceMap, Step,
        digest_set,
    };

    fn facts() -> Provenance {
        let digest = oci::Digest::of(b"base");
        let step = Step {
            id: "step0".to_owned(),
            op: json!({"Op": {"source": {"identifier": "local://context", "attrs": {"b": "1"}}}}),
            inputs: vec!["step1:0".to_owned()],
            usage: None,
        };
        let steps = BuildConfig {
            steps: vec![step],
            digests: BTreeMap::from([(digest.to_string(), "step0".to_owned())]),
        };
        let file = SourceFile {
            filename: "Dockerfile".to_owned(),
            language: "Dockerfile".to_owned(),
            data: "RlJPTQ==".to_owned(),
            read_by: steps.clone(),
        };
        let location =
            json!({"locations": [{"ranges": [{"start": {"line": 1}, "end": {"line": 1}}]}]});
        let named = |id: &str| {
            vec![Named {
                id: id.to_owned(),
                optional: true,
            }]
        };
        let args = [("build-arg:X", "2"), ("target", "t")];
        Provenance {
            builder_platform: "linux/amd64".to_owned(),
            invocation: "qkojt1ck".to_owned(),
            started: "2026-11-21T02:56:55.94Z".to_owned(),
            finished: "2026-11-21T02:56:56Z".to_owned(),
            config: ConfigSource {
                path: "Dockerfile".to_owned(),
                ..ConfigSource::default()
            },
            request: Request {
                frontend: "dockerfile.v0".to_owned(),
                args: args.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
                compatibility: 20,
                secrets: named("tok"),
                ssh: named("default"),
                locals: vec![Local {
                    name: "context".to_owned(),
                }],
            },
            materials: vec![Material {
                uri: "pkg:docker/base@1?platform=linux%2Famd64".to_owned(),
                digest: digest_set(&digest),
            }],
            steps: Some(steps),
            metadata: Metadata {
                vcs: BTreeMap::from([("revision".to_owned(), "abc".to_owned())]),
                source: Some(SourceMap {
                    locations: BTreeMap::from([("step0".to_owned(), location)]),
                    infos: vec![file],
                }),
                layers: BTreeMap::from([(
                    "step0:0".to_owned(),
                    vec![vec![oci::Descriptor::new("application/x", digest, 4)]],
                )]),
                system: Vec::new(),
                network: None,
            },
            request_complete: true,
            ..Provenance::default()
        }
    }

    fn shaped(mode: Mode) -> Provenance {
        let builder_id = "https://b.example/1".to_owned();
        facts().shaped(&Options {
            mode,
            builder_id,
            reproducible: true,
            ..Options::default()
        })
    }

    /// Rows: P02
    #[test]
    fn v1_as_buildkit_writes_it() {
        expect![[r#"{"buildDefinition":{"buildType":"https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md","resolvedDependencies":[{"uri":"pkg:docker/base@1?platform=linux%2Famd64","digest":{"sha256":"cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2"}}],"externalParameters":{"configSource":{"path":"Dockerfile"},"request":{"frontend":"dockerfile.v0","args":{"build-arg:X":"2","target":"t"},"compatibilityVersion":20,"secrets":[{"id":"tok","optional":true}],"ssh":[{"id":"default","optional":true}],"locals":[{"name":"context"}]}},"internalParameters":{"buildConfig":{"digestMapping":{"sha256:cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2":"step0"},"llbDefinition":[{"id":"step0","inputs":["step1:0"],"op":{"Op":{"source":{"attrs":{"b":"1"},"identifier":"local://context"}}}}]},"builderPlatform":"linux/amd64"}},"runDetails":{"builder":{"id":"https://b.example/1"},"metadata":{"invocationId":"qkojt1ck","startedOn":"2026-11-21T02:56:55.94Z","finishedOn":"2026-11-21T02:56:56Z","buildkit_metadata":{"vcs":{"revision":"abc"},"source":{"locations":{"step0":{"locations":[{"ranges":[{"start":{"line":1},"end":{"line":1}}]}]}},"infos":[{"filename":"Dockerfile","language":"Dockerfile","data":"RlJPTQ==","llbDefinition":[{"id":"step0","op":{"Op":{"source":{"identifier":"local://context","attrs":{"b":"1"}}}},"inputs":["step1:0"]}],"digestMapping":{"sha256:cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2":"step0"}}]},"layers":{"step0:0":[[{"mediaType":"application/x","digest":"sha256:cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2","size":4}]]}},"buildkit_completeness":{"request":true,"resolvedDependencies":false},"buildkit_reproducible":true}}}"#]].assert_eq(&shaped(Mode::Max).predicate(Version::V1));
        expect![[r#"{"buildDefinition":{"buildType":"https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md","resolvedDependencies":[{"uri":"pkg:docker/base@1?platform=linux%2Famd64","digest":{"sha256":"cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2"}}],"externalParameters":{"configSource":{"path":"Dockerfile"},"request":{"frontend":"dockerfile.v0","args":{"target":"t"},"compatibilityVersion":20,"locals":[{"name":"context"}]}},"internalParameters":{"builderPlatform":"linux/amd64"}},"runDetails":{"builder":{"id":"https://b.example/1"},"metadata":{"invocationId":"qkojt1ck","startedOn":"2026-11-21T02:56:55.94Z","finishedOn":"2026-11-21T02:56:56Z","buildkit_metadata":{"vcs":{"revision":"abc"}},"buildkit_completeness":{"request":false,"resolvedDependencies":false},"buildkit_reproducible":true}}}"#]].assert_eq(&shaped(Mode::Min).predicate(Version::V1));
    }

    /// Rows: P02
    #[test]
    fn v02_as_buildkit_writes_it() {
        expect![[r#"{"builder":{"id":"https://b.example/1"},"buildType":"https://mobyproject.org/buildkit@v1","materials":[{"uri":"pkg:docker/base@1?platform=linux%2Famd64","digest":{"sha256":"cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2"}}],"invocation":{"configSource":{"entryPoint":"Dockerfile"},"parameters":{"frontend":"dockerfile.v0","args":{"build-arg:X":"2","target":"t"},"compatibilityVersion":20,"secrets":[{"id":"tok","optional":true}],"ssh":[{"id":"default","optional":true}],"locals":[{"name":"context"}]},"environment":{"platform":"linux/amd64"}},"buildConfig":{"llbDefinition":[{"id":"step0","op":{"Op":{"source":{"identifier":"local://context","attrs":{"b":"1"}}}},"inputs":["step1:0"]}],"digestMapping":{"sha256:cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2":"step0"}},"metadata":{"buildInvocationID":"qkojt1ck","buildStartedOn":"2026-11-21T02:56:55.94Z","buildFinishedOn":"2026-11-21T02:56:56Z","completeness":{"parameters":true,"environment":true,"materials":false},"reproducible":true,"https://mobyproject.org/buildkit@v1#metadata":{"vcs":{"revision":"abc"},"source":{"locations":{"step0":{"locations":[{"ranges":[{"start":{"line":1},"end":{"line":1}}]}]}},"infos":[{"filename":"Dockerfile","language":"Dockerfile","data":"RlJPTQ==","llbDefinition":[{"id":"step0","op":{"Op":{"source":{"identifier":"local://context","attrs":{"b":"1"}}}},"inputs":["step1:0"]}],"digestMapping":{"sha256:cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2":"step0"}}]},"layers":{"step0:0":[[{"mediaType":"application/x","digest":"sha256:cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2","size":4}]]}}}}"#]].assert_eq(&shaped(Mode::Max).predicate(Version::V02));
        let hermetic = Provenance {
            hermetic: true,
            ..shaped(Mode::Min)
        };
        expect![[r#"{"builder":{"id":"https://b.example/1"},"buildType":"https://mobyproject.org/buildkit@v1","materials":[{"uri":"pkg:docker/base@1?platform=linux%2Famd64","digest":{"sha256":"cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2"}}],"invocation":{"configSource":{"entryPoint":"Dockerfile"},"parameters":{"frontend":"dockerfile.v0","args":{"target":"t"},"compatibilityVersion":20,"locals":[{"name":"context"}]},"environment":{"platform":"linux/amd64"}},"metadata":{"buildInvocationID":"qkojt1ck","buildStartedOn":"2026-11-21T02:56:55.94Z","buildFinishedOn":"2026-11-21T02:56:56Z","completeness":{"parameters":false,"environment":true,"materials":false},"reproducible":true,"https://mobyproject.org/buildkit@v1#metadata":{"vcs":{"revision":"abc"}},"https://mobyproject.org/buildkit@v1#hermetic":true}}"#]].assert_eq(&hermetic.predicate(Version::V02));
    }
    /// Beside each step, and beside all.
    /// Rows: P02, X16
    #[test]
    fn what_was_used_stands_where_buildkit_writes_it() {
        let mut facts = shaped(Mode::Max);
        let steps = facts.steps.as_mut().unwrap();
        steps.steps[0].usage = Some(json!({"samples": [{"timestamp": "t"}]}));
        facts.metadata = Metadata {
            system: vec![json!({"timestamp": "t"})],
            ..Metadata::default()
        };
        let v1: Value = serde_json::from_str(&facts.predicate(Version::V1)).unwrap();
        let v02: Value = serde_json::from_str(&facts.predicate(Version::V02)).unwrap();
        let step = "/llbDefinition/0/resourceUsage/samples/0/timestamp";
        let first = format!("/buildDefinition/internalParameters/buildConfig{step}");
        let metadata = "/runDetails/metadata/buildkit_metadata/sysUsage/0/timestamp";
        for at in [first.as_str(), metadata] {
            assert_eq!(v1.pointer(at), Some(&json!("t")), "{at}");
        }
        assert_eq!(
            v02.pointer(&format!("/buildConfig{step}")),
            Some(&json!("t"))
        );
        let metadata = &v02["metadata"]["https://mobyproject.org/buildkit@v1#metadata"];
        assert_eq!(metadata["sysUsage"][0]["timestamp"], "t");
    }

    /// What the builder's owner says is told in both versions and modes, each beside the
    /// builder's platform.
    ///
    /// Rows: D04, P02
    #[test]
    fn the_environment_is_beside_the_platform() {
        let mut environment = Environment::default();
        let said = br#"{"runner":{"os":"linux","id":7},"build":"b<1>"}"#;
        environment.add(said).unwrap();
        for mode in [Mode::Min, Mode::Max] {
            let told = Provenance {
                environment: environment.clone(),
                ..shaped(mode)
            };
            let read = |version| -> Value {
                serde_json::from_str(&told.predicate(version)).expect("it is JSON")
            };
            let (v1, v02) = (read(Version::V1), read(Version::V02));
            let internal = &v1["buildDefinition"]["internalParameters"];
            assert_eq!(internal["runner"], json!({"os": "linux", "id": 7}));
            assert_eq!(internal["builderPlatform"], "linux/amd64");
            assert_eq!(internal.get("buildConfig").is_some(), mode == Mode::Max);
            expect![[
                r#"{"build":"b<1>","platform":"linux/amd64","runner":{"id":7,"os":"linux"}}"#
            ]]
            .assert_eq(&v02["invocation"]["environment"].to_string());
        }
    }
}
