//! `tests/golden`: what BuildKit made of the same ops on the same files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use contenthash::Contents;
use layer::{ApplyOptions, Whiteouts};
use llb::{Action, ActionKind, Chown, Copy, File, Mkfile, Mode, User};
use oci::Digest;
use serde_json::Value;
use snapshot::Tree;

use super::works::{State, state};
use super::*;
use crate::Output;
use crate::file::inputs::{self, Selectors};

const FILES: i64 = 1_699_999_000;
/// Later times were set back to this one.
const EPOCH: i64 = 1_700_000_000;

fn golden(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden")).join(path)
}

fn json(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(golden(path)).unwrap()).unwrap()
}

/// The build's context as the ops saw it.
fn context() -> Place {
    let at = place(&[]);
    fill(&at.root, &golden("ctx"), "");
    at.root.unlink("a.log").unwrap();
    at.root.unlink("web/conf").unwrap();
    at.root.symlink("../cfg/app.conf", "web/conf").unwrap();
    at.root.chmod("start.sh", 0o755).unwrap();
    times(&at.root, "");
    at
}

fn fill(root: &Root, from: &Path, dir: &str) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{dir}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            root.mkdir(&path, 0o755).unwrap();
            fill(root, &entry.path(), &format!("{path}/"));
        } else {
            let bytes = std::fs::read(entry.path()).unwrap();
            root.create_file(&path, 0o644)
                .unwrap()
                .write_all(&bytes)
                .unwrap();
        }
    }
}

fn times(root: &Root, dir: &str) {
    for entry in root
        .read_dir(if dir.is_empty() { "." } else { dir })
        .unwrap()
    {
        let path = format!("{dir}{}", entry.name.to_str().unwrap());
        if root.lstat(&path).unwrap().is_dir() {
            times(root, &format!("{path}/"));
        }
        set_time(root, &path, FILES);
    }
}

/// The tree of the base image.
fn base(root: &Root) {
    let blob = |digest: &Value| {
        golden("base/blobs/sha256").join(
            digest["digest"]
                .as_str()
                .unwrap()
                .strip_prefix("sha256:")
                .unwrap(),
        )
    };
    let read = |digest: &Value| -> Value {
        serde_json::from_slice(&std::fs::read(blob(digest)).unwrap()).unwrap()
    };
    let manifest = read(&json("base/index.json")["manifests"][0]);
    let layer = std::fs::File::open(blob(&manifest["layers"][0])).unwrap();
    let options = ApplyOptions {
        whiteouts: Whiteouts::Literal,
        ..ApplyOptions::default()
    };
    layer::apply(layer, root, &options).unwrap();
}

fn int(value: &Value, key: &str) -> i64 {
    value[key].as_str().map_or_else(
        || value[key].as_i64().unwrap_or(0),
        |text| text.parse().unwrap(),
    )
}

fn number(value: &Value, key: &str) -> Option<u32> {
    u32::try_from(int(value, key)).ok()
}

fn string(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn strings(value: &Value, key: &str) -> Vec<String> {
    value[key]
        .as_array()
        .into_iter()
        .flatten()
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}

fn owner(value: &Value) -> Option<Chown> {
    let user = |value: &Value| match (value.get("byName"), value.get("byID")) {
        (Some(by), _) => Some(User::Name {
            name: string(by, "name"),
            input: int(by, "input"),
        }),
        (_, Some(id)) => Some(User::Id(id.as_u64().unwrap() as u32)),
        _ => None,
    };
    let owner = value.get("owner")?;
    Some(Chown {
        user: user(&owner["user"]),
        group: user(&owner["group"]),
    })
}

fn mode(value: &Value) -> Mode {
    match (value["modeStr"].as_str(), int(value, "mode")) {
        (Some(text), _) => Mode::Symbolic(text.to_owned()),
        (None, -1) => Mode::Keep,
        (None, bits) => Mode::Bits(bits as u32),
    }
}

fn kind(value: &Value) -> Option<ActionKind> {
    let truth = |value: &Value, key: &str| value[key].as_bool().unwrap_or(false);
    if let Some(mkfile) = value.get("mkfile") {
        return Some(ActionKind::Mkfile(Mkfile {
            path: string(mkfile, "path"),
            mode: int(mkfile, "mode") as i32,
            data: base64(&string(mkfile, "data")).into(),
            owner: owner(mkfile),
            timestamp: Some(int(mkfile, "timestamp")).filter(|stamp| *stamp != -1),
        }));
    }
    let copy = value.get("copy")?;
    Some(ActionKind::Copy(Copy {
        src: string(copy, "src"),
        dest: string(copy, "dest"),
        owner: owner(copy),
        mode: mode(copy),
        follow_symlink: truth(copy, "followSymlink"),
        dir_copy_contents: truth(copy, "dirCopyContents"),
        attempt_unpack: truth(copy, "attemptUnpackDockerCompatibility"),
        create_dest_path: truth(copy, "createDestPath"),
        allow_wildcard: truth(copy, "allowWildcard"),
        allow_empty_wildcard: truth(copy, "allowEmptyWildcard"),
        timestamp: Some(int(copy, "timestamp")).filter(|stamp| *stamp != -1),
        include: strings(copy, "includePatterns")
            .into_iter()
            .chain(strings(copy, "include_patterns"))
            .collect(),
        exclude: strings(copy, "excludePatterns")
            .into_iter()
            .chain(strings(copy, "exclude_patterns"))
            .collect(),
        always_replace: truth(copy, "alwaysReplaceExistingDestPaths"),
        required_paths: strings(copy, "requiredPaths")
            .into_iter()
            .chain(strings(copy, "required_paths"))
            .collect(),
    }))
}

fn file(value: &Value) -> Option<File> {
    let action = |value: &Value| {
        Some(Action {
            input: number(value, "input"),
            secondary: number(value, "secondaryInput"),
            output: number(value, "output"),
            kind: kind(value)?,
        })
    };
    let actions = value["file"]["actions"].as_array()?.iter().map(action);
    Some(File {
        actions: actions.collect::<Option<_>>()?,
    })
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = text
        .chars()
        .filter_map(|c| DIGITS.find(c))
        .flat_map(|six| (0..6).rev().map(move |bit| six >> bit & 1));
    let bits: Vec<usize> = bits.collect();
    bits.chunks_exact(8)
        .map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | *bit as u8))
        .collect()
}

/// All builds, by name, with the steps of each.
fn builds() -> Vec<(String, BTreeMap<String, Value>)> {
    let mut names: Vec<String> = std::fs::read_dir(golden(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.retain(|name| {
        golden(name).join("llb.json").exists() && golden(name).join("preimages.json").exists()
    });
    names.sort();
    assert!(names.len() > 15, "the golden vectors are in place");
    let steps = |name: String| {
        let steps = json(&format!("{name}/llb.json"))["def"]
            .as_object()
            .unwrap()
            .clone();
        (name, steps.into_iter().collect())
    };
    names.into_iter().map(steps).collect()
}

/// Rows: L12, C07
#[test]
fn privileged_selectors_and_content_keys_are_buildkits() {
    if !is_root() {
        return;
    }
    let context = context();
    let (mut selectors_seen, mut contents_seen) = (0, 0);
    for (name, steps) in builds() {
        let hashed = std::fs::read(golden(&name).join("preimages.json")).unwrap();
        let hashed = String::from_utf8_lossy(&hashed);
        for step in steps.values() {
            let Some(file) = file(step) else { continue };
            let sources = step["inputs"].as_array().map_or(&[][..], Vec::as_slice);
            let selectors = Selectors::of(&file, sources.len()).unwrap();
            for (number, source) in sources.iter().enumerate() {
                let Some(digest) = selectors.digest(number) else {
                    continue;
                };
                assert!(
                    hashed.contains(&format!("{digest} (string-list)")),
                    "{name}: selector of input {number}"
                );
                selectors_seen += 1;
                let source = &steps[source["digest"].as_str().unwrap()]["source"];
                if source["identifier"] != "local://context" {
                    continue;
                }
                let mut contents = Contents::new();
                let parts = selectors.parts(number).unwrap();
                if parts
                    .iter()
                    .any(|part| part.path == Path::new("/") && part.include.is_empty())
                {
                    // The top of what a client sent is known without its header; here it has one.
                    continue;
                }
                let digests: Vec<Digest> = parts
                    .iter()
                    .map(|part| contents.digest(&context.root, part).unwrap())
                    .collect();
                let key = inputs::join(&digests);
                assert!(
                    hashed.contains(&format!("{key} (digest-list)")),
                    "{name}: content of {parts:?}"
                );
                contents_seen += 1;
            }
        }
    }
    assert!(
        selectors_seen > 15 && contents_seen > 10,
        "{selectors_seen} {contents_seen}"
    );
}

/// Rows: L12
#[test]
fn only_what_is_just_copied_from_counts_by_content() {
    let copy = |input, secondary, copy: Copy| Action {
        input: Some(input),
        secondary: Some(secondary),
        output: Some(0),
        kind: ActionKind::Copy(copy),
    };
    let named = Chown {
        user: Some(User::Name {
            name: "u".into(),
            input: 1,
        }),
        group: Some(User::Name {
            name: "g".into(),
            input: 2,
        }),
    };
    let file = File {
        actions: vec![
            copy(
                0,
                1,
                Copy {
                    owner: Some(named),
                    ..Copy::new("/a/b", "/")
                },
            ),
            copy(3, 1, Copy::new("/a", "/")),
            copy(
                4,
                1,
                Copy {
                    follow_symlink: true,
                    ..Copy::new("/a/b", "/")
                },
            ),
            copy(
                5,
                1,
                Copy {
                    include: vec!["x".into()],
                    ..Copy::new("/a/b", "/")
                },
            ),
        ],
    };
    let selectors = Selectors::of(&file, 3).unwrap();
    assert_eq!(selectors.digest(0), None);
    assert_eq!(
        selectors.digest(1),
        Some(Digest::of("/etc/passwd\0/a/b\0/a/b\0/a/b\0/a"))
    );
    assert_eq!(selectors.digest(2), Some(Digest::of("/etc/group")));
    let parts = selectors.parts(1).unwrap();
    let shown: Vec<_> = parts
        .iter()
        .map(|part| {
            (
                part.path.to_str().unwrap(),
                part.follow_links,
                part.include.len(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("/a", false, 0),
            ("/a/b", true, 0),
            ("/a/b", false, 1),
            ("/etc/passwd", true, 0)
        ]
    );
    assert!(Selectors::of(&file, 2).is_err(), "an owner out of nowhere");
    assert_eq!(
        inputs::of_nothing(&parts).unwrap_err().to_string(),
        "/a: no such file or directory: there are no files in the empty tree"
    );
}

struct Builder {
    state: State,
    steps: BTreeMap<String, Value>,
    made: BTreeMap<(String, u32), Output>,
}

impl Builder {
    fn made(&mut self, step: &str, output: u32) -> Output {
        if let Some(made) = self.made.get(&(step.to_owned(), output)) {
            return made.clone();
        }
        let value = self.steps[step].clone();
        let outputs = match value["source"]["identifier"].as_str() {
            Some("local://context") => vec![self.state.made(|root| run_into(&context(), root))],
            Some(image) => {
                assert!(image.starts_with("docker-image://"));
                vec![self.state.made(base)]
            }
            None => {
                let inputs = value["inputs"].as_array().cloned().unwrap_or_default();
                let inputs = inputs.iter().map(|input| {
                    self.made(
                        input["digest"].as_str().unwrap(),
                        int(input, "index") as u32,
                    )
                });
                let inputs = inputs.collect();
                self.state
                    .work(file(&value).expect("a file op"), inputs)
                    .unwrap()
            }
        };
        for (number, output) in outputs.into_iter().enumerate() {
            self.made.insert((step.to_owned(), number as u32), output);
        }
        self.made[&(step.to_owned(), output)].clone()
    }

    /// The file ops from the base to the result.
    fn chain(&self) -> Vec<String> {
        let used: Vec<&str> = self
            .steps
            .values()
            .flat_map(|step| step["inputs"].as_array().into_iter().flatten())
            .map(|input| input["digest"].as_str().unwrap())
            .collect();
        let (_, last) = self
            .steps
            .iter()
            .find(|(digest, _)| !used.contains(&digest.as_str()))
            .unwrap();
        let mut chain = Vec::new();
        let mut at = last["inputs"][0]["digest"].as_str().unwrap().to_owned();
        while let Some(file) = file(&self.steps[&at]) {
            chain.push(at.clone());
            let Some(input) = file.actions[0].input else {
                break;
            };
            at = self.steps[&at]["inputs"][input as usize]["digest"]
                .as_str()
                .unwrap()
                .to_owned();
        }
        chain.reverse();
        chain
    }
}

/// The context, times and all.
fn run_into(from: &Place, root: &Root) {
    let all = wanted("/", "/");
    copy::copy(&from.root, root, &all, None, None, &Cancelled::default()).unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    set_time(root, ".", now.as_secs() as i64);
}

/// Rows: L09, L10, L11, F24, F26, V12
#[test]
fn privileged_copies_are_buildkits() {
    for name in [
        "b01-copy-file",
        "b02-copy-dirs-wild",
        "b03-copy-owner-mode",
        "b06-copy-parents-exclude",
        "b07-add",
        "b08-heredoc-copy",
    ] {
        let Some(state) = state() else { return };
        let steps = json(&format!("{name}/llb.json"))["def"]
            .as_object()
            .unwrap()
            .clone()
            .into_iter()
            .collect();
        let mut builder = Builder {
            state,
            steps,
            made: BTreeMap::new(),
        };
        let layers = json(&format!("{name}/layers.json"));
        let layers: Vec<&Value> = layers
            .as_array()
            .unwrap()
            .iter()
            .filter(|layer| layer.get("entries").is_some())
            .collect();
        let chain = builder.chain();
        assert_eq!(chain.len(), layers.len(), "{name}");
        for (step, layer) in chain.iter().zip(layers) {
            let made = builder.made(step, 0);
            let tree = builder.state.tree(&made);
            for entry in layer["entries"].as_array().unwrap() {
                check(&tree, entry, name);
            }
            assert_eq!(
                builder.state.changes(&made),
                layer["entries"].as_array().unwrap().len(),
                "{name}: nothing else was made"
            );
        }
    }
}

fn check(tree: &Arc<Tree>, entry: &Value, name: &str) {
    let path = entry[0].as_str().unwrap();
    let stat = tree.root().lstat(path).unwrap();
    let kind = match stat.kind {
        FileKind::Dir => "dir",
        FileKind::Symlink => "symlink",
        _ => "file",
    };
    let link = if kind == "symlink" {
        tree.root().read_link(path).unwrap()
    } else {
        PathBuf::new()
    };
    let size = if kind == "file" { stat.size } else { 0 };
    let mtime = stat.mtime.seconds.min(EPOCH);
    let made = serde_json::json!([
        path,
        kind,
        format!("{:#o}", stat.mode),
        stat.uid,
        stat.gid,
        size,
        mtime,
        link,
        [0, 0],
        {}
    ]);
    assert_eq!(&made, entry, "{name}");
}
