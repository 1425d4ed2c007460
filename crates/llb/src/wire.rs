//! Between our words and the bytes of the wire.
//!
//! An op's digest names its bytes, so they are written as the Go programs write
//! them: fields by number, maps sorted, and the member of a oneof after all else.

use bytes::{Bytes, BytesMut};
use oci::Platform;
use prost::Message as _;
use proto::pb;

use crate::op::exec::{
    CacheMount, CdiDevice, ContentCache, Exec, ExtraHost, Mount, MountKind, Network, Owned,
    ProxyEnv, SecretEnv, Security, Sharing, Ulimit,
};
use crate::op::file::{
    Action, ActionKind, Chown, Copy, File, Mkdir, Mkfile, Mode, Rm, Symlink, User,
};
use crate::{Build, Definition, Diff, Edge, Error, Merge, Op, OpKind, Passthrough, Result, Source};

/// An op as it is read: the last one of a definition has no kind.
pub(crate) struct RawOp {
    pub(crate) inputs: Vec<Edge>,
    pub(crate) kind: Option<OpKind>,
    pub(crate) platform: Option<Platform>,
    pub(crate) constraints: Option<Vec<String>>,
}

impl Op {
    /// The bytes whose digest is the name of this op.
    pub fn encode(&self) -> Bytes {
        encode(
            &self.inputs,
            Some(&self.kind),
            self.platform.as_ref(),
            self.constraints.as_deref(),
        )
    }

    /// Reads an op. Bytes that name no kind of op are refused.
    pub fn decode(bytes: Bytes) -> Result<Op> {
        let digest = oci::Digest::of(&bytes);
        let raw = decode(bytes)?;
        Ok(Op {
            inputs: raw.inputs,
            kind: raw.kind.ok_or(Error::NoOperation(digest))?,
            platform: raw.platform,
            constraints: raw.constraints,
        })
    }
}

/// Writes an op, the kind last.
pub(crate) fn encode(
    inputs: &[Edge],
    kind: Option<&OpKind>,
    platform: Option<&Platform>,
    constraints: Option<&[String]>,
) -> Bytes {
    let head = pb::Op {
        inputs: inputs
            .iter()
            .map(|e| pb::Input {
                digest: e.digest.to_string(),
                index: i64::from(e.index),
            })
            .collect(),
        platform: platform.map(platform_to),
        constraints: constraints.map(|c| pb::WorkerConstraints { filter: c.to_vec() }),
        op: None,
    };
    let tail = pb::Op {
        op: kind.map(kind_to),
        ..pb::Op::default()
    };
    let mut bytes = BytesMut::with_capacity(head.encoded_len() + tail.encoded_len());
    // Writing into memory that grows cannot fail.
    head.encode_raw(&mut bytes);
    tail.encode_raw(&mut bytes);
    bytes.freeze()
}

/// Reads an op.
pub(crate) fn decode(bytes: Bytes) -> Result<RawOp> {
    let op = pb::Op::decode(bytes).map_err(|e| Error::Decode(e.to_string()))?;
    let mut inputs = Vec::with_capacity(op.inputs.len());
    for input in op.inputs {
        let index = u32::try_from(input.index)
            .map_err(|_| Error::op("input", format!("output {} of a step", input.index)))?;
        inputs.push(Edge {
            digest: input.digest.parse()?,
            index,
        });
    }
    Ok(RawOp {
        inputs,
        kind: op.op.map(kind_from).transpose()?,
        platform: op.platform.map(platform_from),
        constraints: op.constraints.map(|c| c.filter),
    })
}

pub(crate) fn platform_to(p: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: p.architecture.clone(),
        os: p.os.clone(),
        variant: p.variant.clone(),
        os_version: p.os_version.clone(),
        os_features: p.os_features.clone(),
    }
}

pub(crate) fn platform_from(p: pb::Platform) -> Platform {
    Platform {
        architecture: p.architecture,
        os: p.os,
        variant: p.variant,
        os_version: p.os_version,
        os_features: p.os_features,
    }
}

fn kind_to(kind: &OpKind) -> pb::op::Op {
    match kind {
        OpKind::Exec(exec) => pb::op::Op::Exec(exec_to(exec)),
        OpKind::Source(source) => pb::op::Op::Source(pb::SourceOp {
            identifier: source.identifier.clone(),
            attrs: source.attrs.clone(),
        }),
        OpKind::File(file) => pb::op::Op::File(pb::FileOp {
            actions: file.actions.iter().map(action_to).collect(),
        }),
        OpKind::Merge(merge) => pb::op::Op::Merge(pb::MergeOp {
            inputs: merge
                .inputs
                .iter()
                .map(|i| pb::MergeInput { input: number(*i) })
                .collect(),
        }),
        OpKind::Diff(diff) => pb::op::Op::Diff(pb::DiffOp {
            lower: Some(pb::LowerDiffInput {
                input: number(diff.lower),
            }),
            upper: Some(pb::UpperDiffInput {
                input: number(diff.upper),
            }),
        }),
        OpKind::Build(build) => pb::op::Op::Build(pb::BuildOp {
            builder: build.builder,
            inputs: build
                .inputs
                .iter()
                .map(|(name, input)| (name.clone(), pb::BuildInput { input: *input }))
                .collect(),
            def: build.definition.as_ref().map(Definition::to_proto),
            attrs: build.attrs.clone(),
        }),
        OpKind::Passthrough(p) => pb::op::Op::Passthrough(pb::PassthroughOp {
            id: p.id.clone(),
            outputs: p
                .outputs
                .iter()
                .map(|i| pb::PassthroughOutput { input: number(*i) })
                .collect(),
        }),
    }
}

fn kind_from(op: pb::op::Op) -> Result<OpKind> {
    Ok(match op {
        pb::op::Op::Exec(exec) => OpKind::Exec(exec_from(exec)?),
        pb::op::Op::Source(source) => OpKind::Source(Source {
            identifier: source.identifier,
            attrs: source.attrs,
        }),
        pb::op::Op::File(file) => OpKind::File(File {
            actions: file
                .actions
                .into_iter()
                .map(action_from)
                .collect::<Result<_>>()?,
        }),
        pb::op::Op::Merge(merge) => OpKind::Merge(Merge {
            inputs: merge
                .inputs
                .into_iter()
                .map(|i| from_number("merge", i.input))
                .collect::<Result<_>>()?,
        }),
        pb::op::Op::Diff(diff) => OpKind::Diff(Diff {
            lower: from_number("diff", diff.lower.map_or(-1, |l| l.input))?,
            upper: from_number("diff", diff.upper.map_or(-1, |u| u.input))?,
        }),
        pb::op::Op::Build(build) => OpKind::Build(Build {
            builder: build.builder,
            inputs: build
                .inputs
                .into_iter()
                .map(|(n, i)| (n, i.input))
                .collect(),
            definition: build.def.map(Definition::from_proto).transpose()?,
            attrs: build.attrs,
        }),
        pb::op::Op::Passthrough(p) => OpKind::Passthrough(Passthrough {
            id: p.id,
            outputs: p
                .outputs
                .into_iter()
                .map(|o| from_number("passthrough", o.input))
                .collect::<Result<_>>()?,
        }),
    })
}

/// A number of an input on the wire: -1 is none.
fn number(input: Option<u32>) -> i64 {
    input.map_or(-1, i64::from)
}

fn from_number(kind: &'static str, input: i64) -> Result<Option<u32>> {
    match input {
        -1 => Ok(None),
        n => u32::try_from(n)
            .map(Some)
            .map_err(|_| Error::op(kind, format!("input or output number {n}"))),
    }
}

fn exec_to(exec: &Exec) -> pb::ExecOp {
    pb::ExecOp {
        meta: Some(pb::Meta {
            args: exec.args.clone(),
            env: exec.env.clone(),
            cwd: exec.cwd.clone(),
            user: exec.user.clone(),
            proxy_env: exec.proxy.as_ref().map(|p| pb::ProxyEnv {
                http_proxy: p.http.clone(),
                https_proxy: p.https.clone(),
                ftp_proxy: p.ftp.clone(),
                no_proxy: p.no.clone(),
                all_proxy: p.all.clone(),
            }),
            extra_hosts: exec
                .extra_hosts
                .iter()
                .map(|h| pb::HostIp {
                    host: h.host.clone(),
                    ip: h.ip.clone(),
                })
                .collect(),
            hostname: exec.hostname.clone(),
            ulimit: exec
                .ulimits
                .iter()
                .map(|u| pb::Ulimit {
                    name: u.name.clone(),
                    soft: u.soft,
                    hard: u.hard,
                })
                .collect(),
            cgroup_parent: exec.cgroup_parent.clone(),
            remove_mount_stubs_recursive: exec.remove_mount_stubs_recursive,
            valid_exit_codes: exec.valid_exit_codes.clone(),
        }),
        mounts: exec.mounts.iter().map(mount_to).collect(),
        network: match exec.network {
            Network::Sandbox => 0,
            Network::Host => 1,
            Network::None => 2,
        },
        security: match exec.security {
            Security::Sandbox => 0,
            Security::Insecure => 1,
        },
        secretenv: exec
            .secret_env
            .iter()
            .map(|s| pb::SecretEnv {
                id: s.id.clone(),
                name: s.name.clone(),
                optional: s.optional,
            })
            .collect(),
        cdi_devices: exec
            .devices
            .iter()
            .map(|d| pb::CdiDevice {
                name: d.name.clone(),
                optional: d.optional,
            })
            .collect(),
    }
}

fn exec_from(exec: pb::ExecOp) -> Result<Exec> {
    let meta = exec.meta.ok_or_else(|| Error::op("exec", "no meta"))?;
    Ok(Exec {
        args: meta.args,
        env: meta.env,
        cwd: meta.cwd,
        user: meta.user,
        proxy: meta.proxy_env.map(|p| ProxyEnv {
            http: p.http_proxy,
            https: p.https_proxy,
            ftp: p.ftp_proxy,
            no: p.no_proxy,
            all: p.all_proxy,
        }),
        extra_hosts: meta
            .extra_hosts
            .into_iter()
            .map(|h| ExtraHost {
                host: h.host,
                ip: h.ip,
            })
            .collect(),
        hostname: meta.hostname,
        ulimits: meta
            .ulimit
            .into_iter()
            .map(|u| Ulimit {
                name: u.name,
                soft: u.soft,
                hard: u.hard,
            })
            .collect(),
        cgroup_parent: meta.cgroup_parent,
        remove_mount_stubs_recursive: meta.remove_mount_stubs_recursive,
        valid_exit_codes: meta.valid_exit_codes,
        mounts: exec
            .mounts
            .into_iter()
            .map(mount_from)
            .collect::<Result<_>>()?,
        network: match exec.network {
            0 => Network::Sandbox,
            1 => Network::Host,
            2 => Network::None,
            n => return Err(Error::op("exec", format!("unknown network mode {n}"))),
        },
        security: match exec.security {
            0 => Security::Sandbox,
            1 => Security::Insecure,
            n => return Err(Error::op("exec", format!("unknown security mode {n}"))),
        },
        secret_env: exec
            .secretenv
            .into_iter()
            .map(|s| SecretEnv {
                id: s.id,
                name: s.name,
                optional: s.optional,
            })
            .collect(),
        devices: exec
            .cdi_devices
            .into_iter()
            .map(|d| CdiDevice {
                name: d.name,
                optional: d.optional,
            })
            .collect(),
    })
}

fn mount_to(mount: &Mount) -> pb::Mount {
    let mut out = pb::Mount {
        input: number(mount.input),
        selector: mount.selector.clone(),
        dest: mount.target.clone(),
        output: number(mount.output),
        readonly: mount.readonly,
        result_id: mount.result_id.clone(),
        content_cache: match mount.content_cache {
            ContentCache::Default => 0,
            ContentCache::On => 1,
            ContentCache::Off => 2,
        },
        ..pb::Mount::default()
    };
    match &mount.kind {
        MountKind::Bind => {}
        MountKind::Secret(s) => {
            out.mount_type = 1;
            out.secret_opt = Some(pb::SecretOpt {
                id: s.id.clone(),
                uid: s.uid,
                gid: s.gid,
                mode: s.mode,
                optional: s.optional,
            });
        }
        MountKind::Ssh(s) => {
            out.mount_type = 2;
            out.ssh_opt = Some(pb::SshOpt {
                id: s.id.clone(),
                uid: s.uid,
                gid: s.gid,
                mode: s.mode,
                optional: s.optional,
            });
        }
        MountKind::Cache(cache) => {
            out.mount_type = 3;
            out.cache_opt = Some(pb::CacheOpt {
                id: cache.id.clone(),
                sharing: match cache.sharing {
                    Sharing::Shared => 0,
                    Sharing::Private => 1,
                    Sharing::Locked => 2,
                },
            });
        }
        MountKind::Tmpfs { size } => {
            out.mount_type = 4;
            out.tmpfs_opt = Some(pb::TmpfsOpt { size: *size });
        }
    }
    out
}

fn mount_from(mount: pb::Mount) -> Result<Mount> {
    let kind = match mount.mount_type {
        0 => MountKind::Bind,
        1 => {
            let s = mount
                .secret_opt
                .ok_or_else(|| Error::op("exec", "secret mount without options"))?;
            MountKind::Secret(Owned {
                id: s.id,
                uid: s.uid,
                gid: s.gid,
                mode: s.mode,
                optional: s.optional,
            })
        }
        2 => {
            let s = mount
                .ssh_opt
                .ok_or_else(|| Error::op("exec", "ssh mount without options"))?;
            MountKind::Ssh(Owned {
                id: s.id,
                uid: s.uid,
                gid: s.gid,
                mode: s.mode,
                optional: s.optional,
            })
        }
        3 => {
            let c = mount
                .cache_opt
                .ok_or_else(|| Error::op("exec", "missing cache mount options"))?;
            let sharing = match c.sharing {
                0 => Sharing::Shared,
                1 => Sharing::Private,
                2 => Sharing::Locked,
                n => {
                    return Err(Error::op(
                        "exec",
                        format!("invalid cache mount sharing mode {n}"),
                    ));
                }
            };
            MountKind::Cache(CacheMount { id: c.id, sharing })
        }
        4 => MountKind::Tmpfs {
            size: mount.tmpfs_opt.map_or(0, |t| t.size),
        },
        n => return Err(Error::op("exec", format!("unknown mount type {n}"))),
    };
    Ok(Mount {
        input: from_number("exec", mount.input)?,
        selector: mount.selector,
        target: mount.dest,
        output: from_number("exec", mount.output)?,
        readonly: mount.readonly,
        kind,
        result_id: mount.result_id,
        content_cache: match mount.content_cache {
            0 => ContentCache::Default,
            1 => ContentCache::On,
            2 => ContentCache::Off,
            n => return Err(Error::op("exec", format!("unknown content cache mode {n}"))),
        },
    })
}

fn action_to(action: &Action) -> pb::FileAction {
    use pb::file_action::Action as Wire;
    let change = match &action.kind {
        ActionKind::Copy(c) => Wire::Copy(pb::FileActionCopy {
            src: c.src.clone(),
            dest: c.dest.clone(),
            owner: c.owner.as_ref().map(chown_to),
            mode: c.mode.number(),
            follow_symlink: c.follow_symlink,
            dir_copy_contents: c.dir_copy_contents,
            attempt_unpack_docker_compatibility: c.attempt_unpack,
            create_dest_path: c.create_dest_path,
            allow_wildcard: c.allow_wildcard,
            allow_empty_wildcard: c.allow_empty_wildcard,
            timestamp: c.timestamp.unwrap_or(-1),
            include_patterns: c.include.clone(),
            exclude_patterns: c.exclude.clone(),
            always_replace_existing_dest_paths: c.always_replace,
            mode_str: c.mode.text().to_owned(),
            required_paths: c.required_paths.clone(),
        }),
        ActionKind::Mkfile(m) => Wire::Mkfile(pb::FileActionMkFile {
            path: m.path.clone(),
            mode: m.mode,
            data: m.data.clone(),
            owner: m.owner.as_ref().map(chown_to),
            timestamp: m.timestamp.unwrap_or(-1),
        }),
        ActionKind::Mkdir(m) => Wire::Mkdir(pb::FileActionMkDir {
            path: m.path.clone(),
            mode: m.mode,
            make_parents: m.make_parents,
            owner: m.owner.as_ref().map(chown_to),
            timestamp: m.timestamp.unwrap_or(-1),
        }),
        ActionKind::Rm(r) => Wire::Rm(pb::FileActionRm {
            path: r.path.clone(),
            allow_not_found: r.allow_not_found,
            allow_wildcard: r.allow_wildcard,
        }),
        ActionKind::Symlink(s) => Wire::Symlink(pb::FileActionSymlink {
            oldpath: s.target.clone(),
            newpath: s.path.clone(),
            owner: s.owner.as_ref().map(chown_to),
            timestamp: s.timestamp.unwrap_or(-1),
        }),
    };
    pb::FileAction {
        input: number(action.input),
        secondary_input: number(action.secondary),
        output: number(action.output),
        action: Some(change),
    }
}

fn action_from(action: pb::FileAction) -> Result<Action> {
    use pb::file_action::Action as Wire;
    let kind = match action
        .action
        .ok_or_else(|| Error::op("file", "action without a change"))?
    {
        Wire::Copy(c) => ActionKind::Copy(Copy {
            src: c.src,
            dest: c.dest,
            owner: c.owner.map(chown_from),
            mode: if !c.mode_str.is_empty() {
                Mode::Symbolic(c.mode_str)
            } else {
                u32::try_from(c.mode).map_or(Mode::Keep, Mode::Bits)
            },
            follow_symlink: c.follow_symlink,
            dir_copy_contents: c.dir_copy_contents,
            attempt_unpack: c.attempt_unpack_docker_compatibility,
            create_dest_path: c.create_dest_path,
            allow_wildcard: c.allow_wildcard,
            allow_empty_wildcard: c.allow_empty_wildcard,
            timestamp: timestamp(c.timestamp),
            include: c.include_patterns,
            exclude: c.exclude_patterns,
            always_replace: c.always_replace_existing_dest_paths,
            required_paths: c.required_paths,
        }),
        Wire::Mkfile(m) => ActionKind::Mkfile(Mkfile {
            path: m.path,
            mode: m.mode,
            data: m.data,
            owner: m.owner.map(chown_from),
            timestamp: timestamp(m.timestamp),
        }),
        Wire::Mkdir(m) => ActionKind::Mkdir(Mkdir {
            path: m.path,
            mode: m.mode,
            make_parents: m.make_parents,
            owner: m.owner.map(chown_from),
            timestamp: timestamp(m.timestamp),
        }),
        Wire::Rm(r) => ActionKind::Rm(Rm {
            path: r.path,
            allow_not_found: r.allow_not_found,
            allow_wildcard: r.allow_wildcard,
        }),
        Wire::Symlink(s) => ActionKind::Symlink(Symlink {
            target: s.oldpath,
            path: s.newpath,
            owner: s.owner.map(chown_from),
            timestamp: timestamp(s.timestamp),
        }),
    };
    Ok(Action {
        input: from_number("file", action.input)?,
        secondary: from_number("file", action.secondary_input)?,
        output: from_number("file", action.output)?,
        kind,
    })
}

impl Mode {
    /// The mode as a number on the wire.
    pub(crate) fn number(&self) -> i32 {
        match self {
            Mode::Keep => -1,
            Mode::Bits(bits) => i32::try_from(*bits).unwrap_or(-1),
            Mode::Symbolic(_) => 0,
        }
    }

    /// The mode as text on the wire.
    pub(crate) fn text(&self) -> &str {
        match self {
            Mode::Symbolic(text) => text,
            _ => "",
        }
    }
}

fn timestamp(nanoseconds: i64) -> Option<i64> {
    (nanoseconds != -1).then_some(nanoseconds)
}

fn chown_to(chown: &Chown) -> pb::ChownOpt {
    pb::ChownOpt {
        user: chown.user.as_ref().map(user_to),
        group: chown.group.as_ref().map(user_to),
    }
}

fn user_to(user: &User) -> pb::UserOpt {
    use pb::user_opt::User as Wire;
    pb::UserOpt {
        user: Some(match user {
            User::Id(id) => Wire::ById(*id),
            User::Name { name, input } => Wire::ByName(pb::NamedUserOpt {
                name: name.clone(),
                input: *input,
            }),
        }),
    }
}

fn chown_from(chown: pb::ChownOpt) -> Chown {
    Chown {
        user: chown.user.and_then(user_from),
        group: chown.group.and_then(user_from),
    }
}

fn user_from(user: pb::UserOpt) -> Option<User> {
    use pb::user_opt::User as Wire;
    user.user.map(|user| match user {
        Wire::ById(id) => User::Id(id),
        Wire::ByName(n) => User::Name {
            name: n.name,
            input: n.input,
        },
    })
}
