//! Ops as people read them in provenance: the JSON that Go's `encoding/json` makes of
//! BuildKit's own types (features P02). Unlike a [preimage](crate::preimage) it leaves
//! nothing out but zero values, and the names of the result are not in it.

mod definition;

use base64::Engine as _;

use crate::json::{Object, object};
use crate::op::exec::{Exec, Mount, MountKind, Network, Security, Sharing};
use crate::op::file::{Action, ActionKind, Chown, Copy, User};
use crate::preimage::{build_body, number, owner};
use crate::{ContentCache, Location, Op, OpKind, Position, Source};

pub(crate) use definition::body as definition_body;
pub use definition::definition;

/// How a choice between several kinds of a thing is written.
#[derive(Clone, Copy, PartialEq)]
enum Choice {
    /// As an object around it: `{"Op":{"exec":…}}`.
    Wrapped,
    /// In its place: `{"exec":…}`.
    Bare,
}

impl Choice {
    fn write(self, o: &mut Object<'_>, name: &str, fill: impl FnOnce(&mut Object<'_>)) {
        match self {
            Choice::Wrapped => o.object(name, fill),
            Choice::Bare => fill(o),
        }
    }
}

/// One op, without its inputs.
pub fn op(op: &Op) -> String {
    object(|o| op_body(o, op, Choice::Wrapped))
}

/// One op with its inputs, as protobuf's JSON has it: in the details of errors.
pub fn protobuf_op(op: &Op) -> String {
    object(|o| {
        o.objects("inputs", &op.inputs, |o, edge| {
            o.text("digest", &edge.digest.to_string());
            o.number("index", edge.index.into());
        });
        op_body(o, op, Choice::Bare);
    })
}

fn op_body(o: &mut Object<'_>, op: &Op, choice: Choice) {
    choice.write(o, "Op", |o| {
        o.object(op.kind.name(), |o| match &op.kind {
            OpKind::Exec(exec) => exec_body(o, exec),
            OpKind::Source(source) => source_body(o, source),
            OpKind::File(file) => o.list("actions", &file.actions, |out, action| {
                out.push_str(&object(|o| action_body(o, action, choice)));
            }),
            OpKind::Merge(merge) => o.objects("inputs", &merge.inputs, |o, input| {
                o.number("input", number(*input));
            }),
            OpKind::Diff(diff) => {
                o.object("lower", |o| o.number("input", number(diff.lower)));
                o.object("upper", |o| o.number("input", number(diff.upper)));
            }
            OpKind::Build(build) => build_body(o, build),
            OpKind::Passthrough(pass) => {
                o.text("id", &pass.id);
                o.objects("outputs", &pass.outputs, |o, input| {
                    o.number("input", number(*input));
                });
            }
        });
    });
    if let Some(platform) = &op.platform {
        o.object("platform", |o| {
            o.always("Architecture", &platform.architecture);
            o.always("OS", &platform.os);
            o.text("Variant", &platform.variant);
            o.text("OSVersion", &platform.os_version);
            o.texts("OSFeatures", &platform.os_features);
        });
    }
    if let Some(filter) = &op.constraints {
        o.object("constraints", |o| o.texts("filter", filter));
    }
}

/// The entry that only names the result.
pub fn result() -> String {
    object(|o| o.object("Op", |_| ()))
}

/// The places one step came from.
pub fn locations(locations: &[Location]) -> String {
    object(|o| locations_body(o, locations))
}

fn locations_body(o: &mut Object<'_>, locations: &[Location]) {
    let position = |o: &mut Object<'_>, key: &str, at: Position| {
        o.object(key, |o| {
            o.number("line", at.line.into());
            o.number("character", at.character.into());
        });
    };
    o.objects("locations", locations, |o, location| {
        o.number("sourceIndex", location.source.into());
        o.objects("ranges", &location.ranges, |o, range| {
            position(o, "start", range.start);
            position(o, "end", range.end);
        });
    });
}

/// Bytes as they stand in all of this.
pub fn bytes(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn source_body(o: &mut Object<'_>, source: &Source) {
    o.text("identifier", &source.identifier);
    if !source.attrs.is_empty() {
        o.object("attrs", |o| {
            for (name, value) in &source.attrs {
                o.always(name, value);
            }
        });
    }
}

fn exec_body(o: &mut Object<'_>, exec: &Exec) {
    o.object("meta", |o| meta_body(o, exec));
    o.objects("mounts", &exec.mounts, mount_body);
    let network = match exec.network {
        Network::Sandbox => 0,
        Network::Host => 1,
        Network::None => 2,
    };
    o.number("network", network);
    o.number("security", i64::from(exec.security == Security::Insecure));
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

fn meta_body(o: &mut Object<'_>, exec: &Exec) {
    o.texts("args", &exec.args);
    o.texts("env", &exec.env);
    o.text("cwd", &exec.cwd);
    o.text("user", &exec.user);
    if let Some(proxy) = &exec.proxy {
        o.object("proxy_env", |o| {
            o.text("http_proxy", &proxy.http);
            o.text("https_proxy", &proxy.https);
            o.text("ftp_proxy", &proxy.ftp);
            o.text("no_proxy", &proxy.no);
            o.text("all_proxy", &proxy.all);
        });
    }
    o.objects("extraHosts", &exec.extra_hosts, |o, host| {
        o.text("Host", &host.host);
        o.text("IP", &host.ip);
    });
    o.text("hostname", &exec.hostname);
    o.objects("ulimit", &exec.ulimits, |o, limit| {
        o.text("Name", &limit.name);
        o.number("Soft", limit.soft);
        o.number("Hard", limit.hard);
    });
    o.text("cgroupParent", &exec.cgroup_parent);
    let recursive = exec.remove_mount_stubs_recursive;
    o.truth("removeMountStubsRecursive", recursive);
    o.list("validExitCodes", &exec.valid_exit_codes, |out, code| {
        out.push_str(&code.to_string());
    });
}

fn mount_body(o: &mut Object<'_>, mount: &Mount) {
    o.number("input", number(mount.input));
    o.text("selector", &mount.selector);
    o.text("dest", &mount.target);
    o.number("output", number(mount.output));
    o.truth("readonly", mount.readonly);
    let kind = match mount.kind {
        MountKind::Bind => 0,
        MountKind::Secret(_) => 1,
        MountKind::Ssh(_) => 2,
        MountKind::Cache(_) => 3,
        MountKind::Tmpfs { .. } => 4,
    };
    o.number("mountType", kind);
    match &mount.kind {
        MountKind::Bind => {}
        MountKind::Tmpfs { size } => o.object("TmpfsOpt", |o| o.number("size", *size)),
        MountKind::Cache(cache) => o.object("cacheOpt", |o| {
            o.text("ID", &cache.id);
            let sharing = match cache.sharing {
                Sharing::Shared => 0,
                Sharing::Private => 1,
                Sharing::Locked => 2,
            };
            o.number("sharing", sharing);
        }),
        MountKind::Secret(owned) | MountKind::Ssh(owned) => {
            let secret = matches!(mount.kind, MountKind::Secret(_));
            o.object(if secret { "secretOpt" } else { "SSHOpt" }, |o| {
                o.text("ID", &owned.id);
                o.number("uid", owned.uid.into());
                o.number("gid", owned.gid.into());
                o.number("mode", owned.mode.into());
                o.truth("optional", owned.optional);
            });
        }
    }
    o.text("resultID", &mount.result_id);
    let content = match mount.content_cache {
        ContentCache::Default => 0,
        ContentCache::On => 1,
        ContentCache::Off => 2,
    };
    o.number("contentCache", content);
}

fn action_body(o: &mut Object<'_>, action: &Action, choice: Choice) {
    o.always_number("input", number(action.input));
    o.always_number("secondaryInput", number(action.secondary));
    o.always_number("output", number(action.output));
    let time = |time: Option<i64>| time.unwrap_or(-1);
    let owner = |o: &mut Object<'_>, chown: Option<&Chown>| match choice {
        Choice::Wrapped => owner(o, chown),
        Choice::Bare => bare_owner(o, chown),
    };
    choice.write(o, "Action", |o| match &action.kind {
        ActionKind::Copy(copy) => o.object("copy", |o| {
            o.text("src", &copy.src);
            o.text("dest", &copy.dest);
            owner(o, copy.owner.as_ref());
            copy_rest(o, copy);
        }),
        ActionKind::Mkfile(mkfile) => o.object("mkfile", |o| {
            o.text("path", &mkfile.path);
            o.number("mode", mkfile.mode.into());
            o.bytes("data", &mkfile.data);
            owner(o, mkfile.owner.as_ref());
            o.number("timestamp", time(mkfile.timestamp));
        }),
        ActionKind::Mkdir(mkdir) => o.object("mkdir", |o| {
            o.text("path", &mkdir.path);
            o.number("mode", mkdir.mode.into());
            o.truth("makeParents", mkdir.make_parents);
            owner(o, mkdir.owner.as_ref());
            o.number("timestamp", time(mkdir.timestamp));
        }),
        ActionKind::Rm(rm) => o.object("rm", |o| {
            o.text("path", &rm.path);
            o.truth("allowNotFound", rm.allow_not_found);
            o.truth("allowWildcard", rm.allow_wildcard);
        }),
        ActionKind::Symlink(link) => o.object("symlink", |o| {
            o.text("oldpath", &link.target);
            o.text("newpath", &link.path);
            owner(o, link.owner.as_ref());
            o.number("timestamp", time(link.timestamp));
        }),
    });
}

fn bare_owner(o: &mut Object<'_>, chown: Option<&Chown>) {
    let Some(chown) = chown else { return };
    let user = |o: &mut Object<'_>, key: &str, user: Option<&User>| {
        let Some(user) = user else { return };
        o.object(key, |o| match user {
            User::Id(id) => o.always_number("byID", (*id).into()),
            User::Name { name, input } => o.object("byName", |o| {
                o.text("name", name);
                o.number("input", *input);
            }),
        });
    };
    o.object("owner", |o| {
        user(o, "user", chown.user.as_ref());
        user(o, "group", chown.group.as_ref());
    });
}

fn copy_rest(o: &mut Object<'_>, copy: &Copy) {
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

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::{Edge, Owned};

    /// Rows: P02
    #[test]
    fn ops_read_as_buildkit_shows_them() {
        let mut exec = Exec::new(["/bin/sh", "-c", "echo $X > /one"]);
        exec.network = Network::None;
        exec.remove_mount_stubs_recursive = true;
        let mount = |input, target: &str, output, kind| Mount {
            input,
            selector: String::new(),
            target: target.to_owned(),
            output,
            readonly: false,
            kind,
            result_id: String::new(),
            content_cache: ContentCache::Default,
        };
        let secret = Owned {
            id: "tok".to_owned(),
            mode: 0o400,
            optional: true,
            ..Owned::default()
        };
        exec.mounts = vec![
            mount(Some(0), "/", Some(0), MountKind::Bind),
            mount(None, "/run/secrets/tok", Some(0), MountKind::Secret(secret)),
        ];
        let digest = oci::Digest::of(b"base");
        let exec = Op {
            inputs: vec![Edge { digest, index: 0 }],
            kind: OpKind::Exec(exec),
            platform: Some("linux/amd64".parse().unwrap()),
            constraints: Some(Vec::new()),
        };
        expect![[r#"{"Op":{"exec":{"meta":{"args":["/bin/sh","-c","echo $X \u003e /one"],"cwd":"/","removeMountStubsRecursive":true},"mounts":[{"dest":"/"},{"input":-1,"dest":"/run/secrets/tok","mountType":1,"secretOpt":{"ID":"tok","mode":256,"optional":true}}],"network":2}},"platform":{"Architecture":"amd64","OS":"linux"},"constraints":{}}"#]]
            .assert_eq(&op(&exec));
        let mut copy = Copy::new("/a.txt", "/a");
        copy.mode = crate::Mode::Keep;
        let file = crate::File {
            actions: vec![Action {
                input: Some(0),
                secondary: Some(1),
                output: Some(0),
                kind: ActionKind::Copy(copy),
            }],
        };
        let file = Op {
            inputs: Vec::new(),
            kind: OpKind::File(file),
            platform: None,
            constraints: None,
        };
        expect![[r#"{"Op":{"file":{"actions":[{"input":0,"secondaryInput":1,"output":0,"Action":{"copy":{"src":"/a.txt","dest":"/a","mode":-1,"timestamp":-1}}}]}}}"#]]
            .assert_eq(&op(&file));
        expect![[r#"{"file":{"actions":[{"input":0,"secondaryInput":1,"output":0,"copy":{"src":"/a.txt","dest":"/a","mode":-1,"timestamp":-1}}]}}"#]]
            .assert_eq(&protobuf_op(&file));
        let inner = protobuf_op(&exec);
        let start = format!(r#"{{"inputs":[{{"digest":"{digest}"}}],"exec":{{"meta":{{"args":["#);
        assert!(inner.starts_with(&start), "{inner}");
        expect![[r#"{"Op":{}}"#]].assert_eq(&result());
    }
}
