//! What a step's cache key is the digest of (core §0.5, features L06, L12).
//!
//! These are the exact texts BuildKit hashes, so that caches made by either are
//! found by the other. They leave out what does not change the result: addresses
//! of extra hosts, proxies, where a mounted tree was cut out (that is in the
//! selector), names of cache directories somebody chose.

use oci::Platform;

use crate::json::{Object, object, string};
use crate::op::exec::{Exec, Mount, MountKind, Network, Security, Sharing};
use crate::op::file::{Action, ActionKind, Chown, Copy, File, User};
use crate::{Build, Diff, Merge, Op, OpKind, Passthrough, go_form};

/// The text behind the cache key of an op that is not a source. `host` is the
/// platform of an exec that names none.
pub fn of(op: &Op, host: &Platform) -> Option<String> {
    Some(match &op.kind {
        OpKind::Exec(e) => exec(e, op.platform.as_ref().unwrap_or(host)),
        OpKind::File(f) => file(f, op.inputs.len()),
        OpKind::Merge(m) => merge(m),
        OpKind::Diff(d) => diff(d),
        OpKind::Build(b) => build(b),
        OpKind::Passthrough(p) => passthrough(p),
        OpKind::Source(_) => return None,
    })
}

/// The text behind the key of a source whose own key is known (an image key, a
/// commit …).
pub fn source(key: &str) -> String {
    format!("buildkit.source.v0:{key}")
}

/// The text behind the record of one output of a step.
pub fn output(key: &str, index: i64) -> String {
    format!("{key}@{index}")
}

/// The text behind the key of an exec.
pub fn exec(exec: &Exec, platform: &Platform) -> String {
    object(|o| {
        o.always("Type", "buildkit.exec.v0");
        o.object("Exec", |o| exec_body(o, exec));
        o.always("OS", &platform.os);
        o.always("Arch", &platform.architecture);
        o.text("Variant", &platform.variant);
        o.text("OSVersion", &platform.os_version);
        o.texts("OSFeatures", &platform.os_features);
    })
}

fn exec_body(o: &mut Object<'_>, exec: &Exec) {
    o.object("meta", |o| {
        o.texts("args", &exec.args);
        o.texts("env", &exec.env);
        o.text("cwd", &exec.cwd);
        o.text("user", &exec.user);
        o.objects("extraHosts", &exec.extra_hosts, |o, host| {
            o.text("Host", &host.host);
        });
        o.text("hostname", &exec.hostname);
        o.objects("ulimit", &exec.ulimits, |o, limit| {
            o.text("Name", &limit.name);
            o.number("Soft", limit.soft);
            o.number("Hard", limit.hard);
        });
        o.text("cgroupParent", &exec.cgroup_parent);
        o.truth(
            "removeMountStubsRecursive",
            exec.remove_mount_stubs_recursive,
        );
        o.list("validExitCodes", &exec.valid_exit_codes, |out, code| {
            out.push_str(&code.to_string());
        });
    });
    // A lone plain root was once left out by mistake, and keys are kept.
    if !matches!(&exec.mounts[..], [mount] if is_plain_root(mount)) {
        o.objects("mounts", &exec.mounts, mount_body);
    }
    o.number(
        "network",
        match exec.network {
            Network::Sandbox => 0,
            Network::Host => 1,
            Network::None => 2,
        },
    );
    o.number(
        "security",
        match exec.security {
            Security::Sandbox => 0,
            Security::Insecure => 1,
        },
    );
    o.objects("secretenv", &exec.secret_env, |o, secret| {
        o.text("ID", &secret.id);
        o.text("name", &secret.name);
        o.truth("optional", secret.optional);
    });
    o.objects("cdiDevices", &exec.devices, |o, device| {
        o.text("name", &device.name);
        o.truth("optional", device.optional);
    });
}

fn is_plain_root(mount: &Mount) -> bool {
    mount.target == "/"
        && !mount.readonly
        && mount.kind == MountKind::Bind
        && mount.result_id.is_empty()
}

fn mount_body(o: &mut Object<'_>, mount: &Mount) {
    o.number("input", number(mount.input));
    o.text("dest", &mount.target);
    o.number("output", number(mount.output));
    o.truth("readonly", mount.readonly);
    o.number(
        "mountType",
        match mount.kind {
            MountKind::Bind => 0,
            MountKind::Secret(_) => 1,
            MountKind::Ssh(_) => 2,
            MountKind::Cache(_) => 3,
            MountKind::Tmpfs { .. } => 4,
        },
    );
    match &mount.kind {
        MountKind::Bind => {}
        MountKind::Tmpfs { size } => o.object("TmpfsOpt", |o| o.number("size", *size)),
        MountKind::Cache(cache) => o.object("cacheOpt", |o| {
            let default = cache.sharing == Sharing::Shared
                && (cache.id == mount.target || cache.id.ends_with(&format!("/{}", mount.target)));
            if default {
                o.text("ID", &cache.id);
            }
        }),
        MountKind::Secret(thing) | MountKind::Ssh(thing) => {
            let secret = matches!(mount.kind, MountKind::Secret(_));
            o.object(if secret { "secretOpt" } else { "SSHOpt" }, |o| {
                o.text("ID", &thing.id);
                o.number("uid", thing.uid.into());
                o.number("gid", thing.gid.into());
                o.number("mode", thing.mode.into());
                o.truth("optional", thing.optional);
            });
        }
    }
    o.text("resultID", &mount.result_id);
    o.number(
        "contentCache",
        match mount.content_cache {
            crate::ContentCache::Default => 0,
            crate::ContentCache::On => 1,
            crate::ContentCache::Off => 2,
        },
    );
}

/// The text behind the key of a file op with so many inputs.
pub fn file(file: &File, inputs: usize) -> String {
    let actions: Vec<String> = file.actions.iter().map(|a| action(a, inputs)).collect();
    let indexes: Vec<[i64; 3]> = file
        .actions
        .iter()
        .map(|a| [number(a.input), number(a.secondary), number(a.output)])
        .collect();
    object(|o| {
        o.always("Type", "buildkit.file.v0");
        o.list("Actions", &actions, |out, action| {
            use base64::Engine as _;
            string(
                out,
                &base64::engine::general_purpose::STANDARD.encode(action),
            );
        });
        if !is_default_chain(&indexes) {
            o.list("indexes", &indexes, |out, [input, secondary, output]| {
                out.push_str(&format!("[{input},{secondary},{output}]"));
            });
        }
    })
}

/// The commonest shape, left out of the key because it once was not in it: each
/// action changes what the one before made, copies come from the second input.
/// (Earlier actions are counted from the number of *actions* here, not of inputs:
/// that is how the shape was written down, and keys are kept.)
fn is_default_chain(indexes: &[[i64; 3]]) -> bool {
    let count = indexes.len();
    !indexes.is_empty()
        && indexes
            .iter()
            .enumerate()
            .all(|(at, [input, secondary, output])| {
                let chained = if at == 0 { 0 } else { (count + at - 1) as i64 };
                let wanted = if at + 1 == count { 0 } else { -1 };
                *input == chained && matches!(secondary, -1 | 1) && *output == wanted
            })
}

fn action(action: &Action, inputs: usize) -> String {
    let stamp = |time: Option<i64>| time.unwrap_or(-1);
    object(|o| match &action.kind {
        ActionKind::Copy(copy) => {
            let from_input = action.secondary.is_some_and(|n| (n as usize) < inputs);
            copy_body(o, copy, from_input);
        }
        ActionKind::Mkfile(m) => {
            o.text("path", &m.path);
            o.number("mode", m.mode.into());
            o.bytes("data", &m.data);
            owner(o, m.owner.as_ref());
            o.number("timestamp", stamp(m.timestamp));
        }
        ActionKind::Mkdir(m) => {
            o.text("path", &m.path);
            o.number("mode", m.mode.into());
            o.truth("makeParents", m.make_parents);
            owner(o, m.owner.as_ref());
            o.number("timestamp", stamp(m.timestamp));
        }
        ActionKind::Rm(r) => {
            o.text("path", &r.path);
            o.truth("allowNotFound", r.allow_not_found);
            o.truth("allowWildcard", r.allow_wildcard);
        }
        ActionKind::Symlink(s) => {
            o.text("oldpath", &s.target);
            o.text("newpath", &s.path);
            owner(o, s.owner.as_ref());
            o.number("timestamp", stamp(s.timestamp));
        }
    })
}

fn copy_body(o: &mut Object<'_>, copy: &Copy, from_input: bool) {
    // Where it lies in an input is in the selector; here only its name counts.
    o.text(
        "src",
        if from_input {
            base_name(&copy.src)
        } else {
            &copy.src
        },
    );
    o.text("dest", &copy.dest);
    owner(o, copy.owner.as_ref());
    o.number("mode", copy.mode.number().into());
    o.truth("followSymlink", copy.follow_symlink);
    o.truth("dirCopyContents", copy.dir_copy_contents);
    o.truth("attemptUnpackDockerCompatibility", copy.attempt_unpack);
    o.truth("createDestPath", copy.create_dest_path);
    o.truth("allowWildcard", copy.allow_wildcard);
    o.truth("allowEmptyWildcard", copy.allow_empty_wildcard);
    o.number("timestamp", copy.timestamp.unwrap_or(-1));
    o.texts("include_patterns", &copy.include);
    o.texts("exclude_patterns", &copy.exclude);
    o.truth("alwaysReplaceExistingDestPaths", copy.always_replace);
    o.text("modeStr", copy.mode.text());
    o.texts("required_paths", &copy.required_paths);
}

/// The last element of a path: `.` of nothing, `/` of only slashes.
fn base_name(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return "/";
    }
    trimmed.rsplit('/').next().unwrap_or(trimmed)
}

pub(crate) fn owner(o: &mut Object<'_>, chown: Option<&Chown>) {
    let Some(chown) = chown else { return };
    let user = |o: &mut Object<'_>, key: &str, user: Option<&User>| {
        let Some(user) = user else { return };
        o.object(key, |o| {
            o.object("User", |o| match user {
                User::Id(id) => o.number("byId", (*id).into()),
                User::Name { name, input } => o.object("byName", |o| {
                    o.text("name", name);
                    o.number("input", *input);
                }),
            });
        });
    };
    o.object("owner", |o| {
        user(o, "user", chown.user.as_ref());
        user(o, "group", chown.group.as_ref());
    });
}

/// The text behind the key of a merge.
pub fn merge(merge: &Merge) -> String {
    object(|o| {
        o.always("Type", "buildkit.merge.v0");
        o.object("Merge", |o| {
            o.objects("inputs", &merge.inputs, |o, input| {
                o.number("input", number(*input));
            });
        });
    })
}

/// The text behind the key of a diff.
pub fn diff(diff: &Diff) -> String {
    object(|o| {
        o.always("Type", "buildkit.diff.v0");
        o.object("Diff", |o| {
            o.object("lower", |o| o.number("input", number(diff.lower)));
            o.object("upper", |o| o.number("input", number(diff.upper)));
        });
    })
}

/// The text behind the key of a passthrough.
pub fn passthrough(passthrough: &Passthrough) -> String {
    object(|o| {
        o.always("Type", "buildkit.passthrough.v0");
        o.object("Passthrough", |o| {
            o.text("id", &passthrough.id);
            o.objects("outputs", &passthrough.outputs, |o, input| {
                o.number("input", number(*input));
            });
        });
    })
}

/// The text behind the key of a nested build.
pub fn build(build: &Build) -> String {
    object(|o| {
        o.always("Type", "buildkit.build.v0");
        o.object("Exec", |o| build_body(o, build));
    })
}

pub(crate) fn build_body(o: &mut Object<'_>, build: &Build) {
    o.number("builder", build.builder);
    if !build.inputs.is_empty() {
        o.object("inputs", |o| {
            for (name, input) in &build.inputs {
                o.object(name, |o| o.number("input", *input));
            }
        });
    }
    if let Some(definition) = &build.definition {
        o.object("def", |o| go_form::definition_body(o, definition));
    }
    if !build.attrs.is_empty() {
        o.object("attrs", |o| {
            for (name, value) in &build.attrs {
                o.always(name, value);
            }
        });
    }
}

/// A number of an input as Go writes it: -1 is the empty tree.
pub(crate) fn number(input: Option<u32>) -> i64 {
    input.map_or(-1, i64::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{Metadata, SourceInfo, SourceMap};
    use crate::{Definition, Location, Position, ProgressGroup, Range};

    /// A nested build with all that a definition given outright may have. The text is what Go makes
    /// of the same op for BuildKit (`json.Marshal` of a `pb.BuildOp` as its build op hashes it).
    ///
    /// Rows: L15, C02
    #[test]
    fn a_definition_given_outright_is_hashed_as_buildkit_does() {
        let digest = oci::Digest::of(b"step");
        let metadata = Metadata {
            ignore_cache: true,
            description: [("llb.customname".to_owned(), "a & b".to_owned())].into(),
            export_cache: Some(false),
            caps: [("file.base".to_owned(), true), ("not".to_owned(), false)].into(),
            progress_group: Some(ProgressGroup {
                id: "g".to_owned(),
                ..ProgressGroup::default()
            }),
            ..Metadata::default()
        };
        let start = Position {
            line: 3,
            character: 1,
        };
        let location = Location {
            source: 1,
            ranges: vec![Range {
                start,
                end: Position::default(),
            }],
        };
        let loaded_by = Definition {
            def: vec!["in".into()],
            ..Definition::default()
        };
        let info = SourceInfo {
            filename: "bar".to_owned(),
            data: "text".into(),
            definition: Some(Box::new(loaded_by)),
            language: "l".to_owned(),
        };
        let op = Build {
            builder: -1,
            inputs: [
                ("buildkit.llb.definition".to_owned(), 0),
                ("b".to_owned(), 2),
            ]
            .into(),
            definition: Some(Definition {
                def: vec!["one".into(), "".into()],
                metadata: [(digest, metadata)].into(),
                source: Some(SourceMap {
                    locations: [(digest, vec![location])].into(),
                    infos: vec![info],
                }),
            }),
            attrs: [("llbbuild.filename".to_owned(), "<f>".to_owned())].into(),
        };
        assert_eq!(
            build(&op),
            r#"{"Type":"buildkit.build.v0","Exec":{"builder":-1,"inputs":{"b":{"input":2},"buildkit.llb.definition":{}},"def":{"def":["b25l",""],"metadata":{"sha256:3e64cc41cf8e07b43936d7bc4eaf8bdb8e2abcec1f44c7b915ac0a0c27ebc41a":{"ignore_cache":true,"description":{"llb.customname":"a \u0026 b"},"export_cache":{},"caps":{"file.base":true,"not":false},"progress_group":{"id":"g"}}},"Source":{"locations":{"sha256:3e64cc41cf8e07b43936d7bc4eaf8bdb8e2abcec1f44c7b915ac0a0c27ebc41a":{"locations":[{"sourceIndex":1,"ranges":[{"start":{"line":3,"character":1},"end":{}}]}]}},"infos":[{"filename":"bar","data":"dGV4dA==","definition":{"def":["aW4="]},"language":"l"}]}},"attrs":{"llbbuild.filename":"\u003cf\u003e"}}}"#
        );
    }
}
