//! The exec op as JSON.

use serde_json::{Value, json};

use super::object;

pub(super) fn exec(exec: &llb::Exec) -> Value {
    let proxy = exec.proxy.as_ref().map(|p| {
        object()
            .text("httpProxy", &p.http)
            .text("httpsProxy", &p.https)
            .text("ftpProxy", &p.ftp)
            .text("noProxy", &p.no)
            .text("allProxy", &p.all)
            .done()
    });
    let host = |h: &llb::ExtraHost| object().text("Host", &h.host).text("IP", &h.ip).done();
    let limit = |u: &llb::Ulimit| {
        object()
            .text("Name", &u.name)
            .big("Soft", u.soft)
            .big("Hard", u.hard)
            .done()
    };
    let meta = object()
        .list("args", &exec.args)
        .list("env", &exec.env)
        .text("cwd", &exec.cwd)
        .text("user", &exec.user)
        .value("proxyEnv", proxy)
        .values("extraHosts", exec.extra_hosts.iter().map(host))
        .text("hostname", &exec.hostname)
        .values("ulimit", exec.ulimits.iter().map(limit))
        .text("cgroupParent", &exec.cgroup_parent)
        .flag(
            "removeMountStubsRecursive",
            exec.remove_mount_stubs_recursive,
        )
        .values(
            "validExitCodes",
            exec.valid_exit_codes.iter().map(|code| json!(code)),
        )
        .done();
    let network = match exec.network {
        llb::Network::Sandbox => "",
        llb::Network::Host => "HOST",
        llb::Network::None => "NONE",
    };
    let security = match exec.security {
        llb::Security::Sandbox => "",
        llb::Security::Insecure => "INSECURE",
    };
    let secret = |s: &llb::SecretEnv| {
        object()
            .text("ID", &s.id)
            .text("name", &s.name)
            .flag("optional", s.optional)
            .done()
    };
    let device = |d: &llb::CdiDevice| {
        object()
            .text("name", &d.name)
            .flag("optional", d.optional)
            .done()
    };
    object()
        .value("meta", Some(meta))
        .values("mounts", exec.mounts.iter().map(mount))
        .text("network", network)
        .text("security", security)
        .values("secretenv", exec.secret_env.iter().map(secret))
        .values("cdiDevices", exec.devices.iter().map(device))
        .done()
}

fn mount(mount: &llb::Mount) -> Value {
    let owned = |o: &llb::Owned| {
        object()
            .text("ID", &o.id)
            .small("uid", o.uid.into())
            .small("gid", o.gid.into())
            .small("mode", o.mode.into())
            .flag("optional", o.optional)
            .done()
    };
    let (kind, name, option) = match &mount.kind {
        llb::MountKind::Bind => ("", "", None),
        llb::MountKind::Secret(s) => ("SECRET", "secretOpt", Some(owned(s))),
        llb::MountKind::Ssh(s) => ("SSH", "SSHOpt", Some(owned(s))),
        llb::MountKind::Cache(c) => ("CACHE", "cacheOpt", Some(cache(c))),
        llb::MountKind::Tmpfs { size } => (
            "TMPFS",
            "TmpfsOpt",
            Some(object().big("size", *size).done()),
        ),
    };
    let content = match mount.content_cache {
        llb::ContentCache::Default => "",
        llb::ContentCache::On => "ON",
        llb::ContentCache::Off => "OFF",
    };
    object()
        .number("input", mount.input)
        .text("selector", &mount.selector)
        .text("dest", &mount.target)
        .number("output", mount.output)
        .flag("readonly", mount.readonly)
        .text("mountType", kind)
        .value(name, option)
        .text("resultID", &mount.result_id)
        .text("contentCache", content)
        .done()
}

fn cache(cache: &llb::CacheMount) -> Value {
    let sharing = match cache.sharing {
        llb::Sharing::Shared => "",
        llb::Sharing::Private => "PRIVATE",
        llb::Sharing::Locked => "LOCKED",
    };
    object()
        .text("ID", &cache.id)
        .text("sharing", sharing)
        .done()
}
