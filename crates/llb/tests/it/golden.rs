//! `tests/golden`: BuildKit's own ops and the texts it hashed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use llb::*;
use oci::{Digest, Platform};
use serde_json::Value;

fn golden(file: &str) -> Vec<(String, String)> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden"));
    let mut found: Vec<_> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|dir| dir.join(file).exists())
        .map(|dir| {
            let bytes = std::fs::read(dir.join(file)).unwrap();
            let name = dir.file_name().unwrap().to_str().unwrap().to_owned();
            (name, String::from_utf8_lossy(&bytes).into_owned())
        })
        .collect();
    found.sort();
    assert!(found.len() > 20, "the golden vectors are in place");
    found
}

fn text(v: &Value, key: &str) -> String {
    v[key].as_str().unwrap_or_default().to_owned()
}

/// Protobuf's JSON has 64-bit numbers as text.
fn int(v: &Value, key: &str) -> i64 {
    match &v[key] {
        Value::String(s) => s.parse().unwrap(),
        other => other.as_i64().unwrap_or(0),
    }
}

fn number(v: &Value, key: &str) -> Option<u32> {
    u32::try_from(int(v, key)).ok()
}

fn truth(v: &Value, key: &str) -> bool {
    v[key].as_bool().unwrap_or(false)
}

fn texts(v: &Value, key: &str) -> Vec<String> {
    v[key]
        .as_array()
        .into_iter()
        .flatten()
        .map(|s| s.as_str().unwrap().to_owned())
        .collect()
}

fn owner(v: &Value) -> Option<Chown> {
    let user = |v: &Value| -> Option<User> {
        let id = v
            .get("byID")
            .map(|id| User::Id(id.as_u64().unwrap() as u32));
        let name = v.get("byName").map(|n| User::Name {
            name: text(n, "name"),
            input: int(n, "input"),
        });
        id.or(name)
    };
    let owner = v.get("owner")?;
    Some(Chown {
        user: user(&owner["user"]),
        group: user(&owner["group"]),
    })
}

fn stamp(v: &Value) -> Option<i64> {
    Some(int(v, "timestamp")).filter(|t| *t != -1)
}

fn action(v: &Value) -> Action {
    let kind = if let Some(c) = v.get("copy") {
        ActionKind::Copy(Copy {
            src: text(c, "src"),
            dest: text(c, "dest"),
            owner: owner(c),
            mode: match (int(c, "mode"), text(c, "modeStr")) {
                (_, symbols) if !symbols.is_empty() => Mode::Symbolic(symbols),
                (-1, _) => Mode::Keep,
                (bits, _) => Mode::Bits(bits as u32),
            },
            follow_symlink: truth(c, "followSymlink"),
            dir_copy_contents: truth(c, "dirCopyContents"),
            attempt_unpack: truth(c, "attemptUnpackDockerCompatibility"),
            create_dest_path: truth(c, "createDestPath"),
            allow_wildcard: truth(c, "allowWildcard"),
            allow_empty_wildcard: truth(c, "allowEmptyWildcard"),
            timestamp: stamp(c),
            include: texts(c, "includePatterns"),
            exclude: texts(c, "excludePatterns"),
            always_replace: truth(c, "alwaysReplaceExistingDestPaths"),
            required_paths: texts(c, "requiredPaths"),
        })
    } else if let Some(m) = v.get("mkdir") {
        ActionKind::Mkdir(Mkdir {
            path: text(m, "path"),
            mode: int(m, "mode") as i32,
            make_parents: truth(m, "makeParents"),
            owner: owner(m),
            timestamp: stamp(m),
        })
    } else if let Some(m) = v.get("mkfile") {
        use base64::Engine as _;
        ActionKind::Mkfile(Mkfile {
            path: text(m, "path"),
            mode: int(m, "mode") as i32,
            data: base64::engine::general_purpose::STANDARD
                .decode(text(m, "data"))
                .unwrap()
                .into(),
            owner: owner(m),
            timestamp: stamp(m),
        })
    } else {
        panic!("unknown action {v}")
    };
    Action {
        input: number(v, "input"),
        secondary: number(v, "secondaryInput"),
        output: number(v, "output"),
        kind,
    }
}

fn mount(v: &Value) -> Mount {
    let owned = |v: &Value| Owned {
        id: text(v, "ID"),
        uid: int(v, "uid") as u32,
        gid: int(v, "gid") as u32,
        mode: int(v, "mode") as u32,
        optional: truth(v, "optional"),
    };
    Mount {
        input: number(v, "input"),
        selector: text(v, "selector"),
        target: text(v, "dest"),
        output: number(v, "output"),
        readonly: truth(v, "readonly"),
        kind: match text(v, "mountType").as_str() {
            "" => MountKind::Bind,
            "SECRET" => MountKind::Secret(owned(&v["secretOpt"])),
            "SSH" => MountKind::Ssh(owned(&v["SSHOpt"])),
            "TMPFS" => MountKind::Tmpfs {
                size: int(&v["TmpfsOpt"], "size"),
            },
            "CACHE" => MountKind::Cache(CacheMount {
                id: text(&v["cacheOpt"], "ID"),
                sharing: match text(&v["cacheOpt"], "sharing").as_str() {
                    "" => Sharing::Shared,
                    "PRIVATE" => Sharing::Private,
                    "LOCKED" => Sharing::Locked,
                    other => panic!("{other}"),
                },
            }),
            other => panic!("{other}"),
        },
        result_id: String::new(),
        content_cache: ContentCache::Default,
    }
}

fn kind(v: &Value) -> Option<OpKind> {
    if let Some(e) = v.get("exec") {
        let meta = &e["meta"];
        return Some(OpKind::Exec(Exec {
            args: texts(meta, "args"),
            env: texts(meta, "env"),
            cwd: text(meta, "cwd"),
            user: text(meta, "user"),
            hostname: text(meta, "hostname"),
            remove_mount_stubs_recursive: truth(meta, "removeMountStubsRecursive"),
            mounts: e["mounts"].as_array().unwrap().iter().map(mount).collect(),
            network: match text(e, "network").as_str() {
                "" => Network::Sandbox,
                "HOST" => Network::Host,
                "NONE" => Network::None,
                other => panic!("{other}"),
            },
            secret_env: e["secretenv"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|s| SecretEnv {
                    id: text(s, "ID"),
                    name: text(s, "name"),
                    optional: truth(s, "optional"),
                })
                .collect(),
            ..Exec::default()
        }));
    }
    if let Some(s) = v.get("source") {
        let attrs = s["attrs"].as_object().into_iter().flatten();
        return Some(OpKind::Source(Source {
            identifier: text(s, "identifier"),
            attrs: attrs
                .map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned()))
                .collect(),
        }));
    }
    if let Some(f) = v.get("file") {
        return Some(OpKind::File(File {
            actions: f["actions"]
                .as_array()
                .unwrap()
                .iter()
                .map(action)
                .collect(),
        }));
    }
    if let Some(m) = v.get("merge") {
        let inputs = m["inputs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| number(i, "input"))
            .collect();
        return Some(OpKind::Merge(Merge { inputs }));
    }
    None
}

/// All ops of a golden graph by the name BuildKit gave them.
fn ops(json: &Value) -> BTreeMap<Digest, (Vec<Edge>, Option<Op>)> {
    let op = |v: &Value| {
        let inputs: Vec<Edge> = v["inputs"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|i| Edge {
                digest: text(i, "digest").parse().unwrap(),
                index: int(i, "index") as u32,
            })
            .collect();
        let platform = v.get("platform").map(|p| Platform {
            architecture: text(p, "Architecture"),
            os: text(p, "OS"),
            ..Platform::default()
        });
        let constraints = v.get("constraints").map(|_| Vec::new());
        let op = kind(v).map(|kind| Op {
            inputs: inputs.clone(),
            kind,
            platform,
            constraints,
        });
        (inputs, op)
    };
    let def = json["def"].as_object().unwrap();
    def.iter()
        .map(|(digest, v)| (digest.parse().unwrap(), op(v)))
        .collect()
}

/// Rows: L01, L02, L03, L05, L09, L13
#[test]
fn ops_have_the_names_buildkit_gives_them() {
    let mut checked = 0;
    for (name, json) in golden("llb.json") {
        for (digest, (_, op)) in ops(&serde_json::from_str(&json).unwrap()) {
            let Some(op) = op else { continue };
            let bytes = op.encode();
            assert_eq!(Digest::of(&bytes), digest, "{name}: {op:#?}");
            assert_eq!(Op::decode(bytes).unwrap(), op, "{name}");
            checked += 1;
        }
    }
    assert!(checked > 90, "{checked}");
}

/// Rows: L06, L12, L13
#[test]
fn cache_keys_are_made_from_the_text_buildkit_makes_them_from() {
    let texts: BTreeMap<_, _> = golden("preimages.json").into_iter().collect();
    let mut checked = 0;
    for (name, json) in golden("llb.json") {
        for (_, op) in ops(&serde_json::from_str(&json).unwrap()).into_values() {
            let Some(op) = op else { continue };
            let Some(text) = preimage::of(&op, &Platform::host()) else {
                continue;
            };
            let line = format!("{} (json):\n  data: {text}\n", Digest::of(&text));
            let known = texts[&name].contains(&format!("data: {text}\n"));
            assert!(known, "{name}: BuildKit never hashed {line}");
            assert!(
                texts[&name].contains(&Digest::of(&text).to_string()),
                "{name}: {line}"
            );
            checked += 1;
        }
    }
    assert!(checked > 60, "{checked}");
}

/// Rows: L18
#[test]
fn steps_ask_for_the_capabilities_buildkit_says_they_need() {
    for (name, json) in golden("llb.json") {
        let json: Value = serde_json::from_str(&json).unwrap();
        for (digest, (_, op)) in ops(&json) {
            let Some(mut op) = op else { continue };
            op.inputs.clear();
            let mut builder = Builder::new();
            let digest_here = builder.add(&op, Meta::default());
            let definition = builder.definition(Some(&Edge {
                digest: digest_here,
                index: 0,
            }));
            let ours: Vec<_> = definition.metadata[&digest_here]
                .caps
                .keys()
                .cloned()
                .collect();
            let theirs: Vec<_> = json["metadata"][digest.to_string()]["caps"]
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect();
            let theirs: std::collections::BTreeSet<_> = theirs.into_iter().collect();
            assert_eq!(ours, Vec::from_iter(theirs), "{name} {digest}");
        }
    }
}

/// Rows: L01
#[test]
fn a_golden_graph_loads() {
    for (name, json) in golden("llb.json") {
        let ops = ops(&serde_json::from_str(&json).unwrap());
        let last = ops.values().find(|(_, op)| op.is_none()).unwrap().0[0];
        let mut builder = Builder::new();
        let mut waiting: Vec<_> = ops
            .iter()
            .filter_map(|(d, (_, op))| Some((d, op.as_ref()?)))
            .collect();
        let mut added = std::collections::HashSet::new();
        while !waiting.is_empty() {
            waiting.retain(|(digest, op)| {
                let ready = op.inputs.iter().all(|edge| added.contains(&edge.digest));
                if ready {
                    assert_eq!(builder.add(op, Meta::default()), **digest);
                    added.insert(**digest);
                }
                !ready
            });
        }
        let definition = builder.definition(Some(&last));
        let graph = Graph::load(&definition).unwrap();
        assert_eq!(graph.root(), Some(last), "{name}");
        // The name of the last op is stable too.
        let named = Digest::of(definition.def.last().unwrap());
        assert!(ops.contains_key(&named), "{name}");
    }
}
