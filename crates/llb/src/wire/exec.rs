//! The exec op on the wire.

use proto::pb;

use super::{from_number, number};
use crate::op::exec::{
    CacheMount, CdiDevice, ContentCache, Exec, ExtraHost, Mount, MountKind, Network, Owned,
    ProxyEnv, SecretEnv, Security, Sharing, Ulimit,
};
use crate::{Error, Result};

pub(super) fn exec_to(exec: &Exec) -> pb::ExecOp {
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

pub(super) fn exec_from(exec: pb::ExecOp) -> Result<Exec> {
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

impl Mount {
    /// From the wire.
    pub fn from_proto(message: pb::Mount) -> Result<Mount> {
        mount_from(message)
    }
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
