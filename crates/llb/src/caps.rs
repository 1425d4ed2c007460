//! Capabilities: what a step needs of a builder, and what this builder has
//! (features L18 and §4.1, announced verbatim).

use std::collections::BTreeMap;

use crate::op::exec::{MountKind, Network, Security};
use crate::{Error, Exec, Op, OpKind, Result, Source, attr};

/// Everything a graph may ask for. `soruce.http.uidgid` is spelled so upstream, and
/// clients check for that spelling.
pub const ALL: &[&str] = &[
    "source.image",
    "source.image.resolvemode",
    "source.image.layerlimit",
    "source.image.checksum",
    "source.local",
    "source.local.unique",
    "source.local.sessionid",
    "source.local.includepatterns",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "source.local.sharedkeyhint",
    "source.local.differ",
    "source.local.metadatatransfer",
    "source.git",
    "source.git.keepgitdir",
    "source.git.fullurl",
    "source.git.httpauth",
    "source.git.knownsshhosts",
    "source.git.mountsshsock",
    "source.git.subdir",
    "source.git.checksum",
    "source.git.skipsubmodules",
    "source.git.signatureverify",
    "source.git.mtime",
    "source.git.fetchbycommit",
    "source.git.bundle",
    "source.git.checkoutbundle",
    "source.http",
    "source.http.auth",
    "source.http.checksum",
    "source.http.perm",
    "soruce.http.uidgid",
    "source.http.header",
    "source.http.signatureverify",
    "source.imageblob",
    "source.ocilayout",
    "source.buildop.llbfilename",
    "exec.meta.base",
    "exec.meta.cgroup.parent",
    "exec.meta.network",
    "exec.meta.network.proxy",
    "exec.meta.proxyenv",
    "exec.meta.security",
    "exec.meta.security.devices.v1",
    "exec.meta.setsdefaultpath",
    "exec.meta.ulimit",
    "exec.meta.cdi",
    "exec.meta.removemountstubs.recursive",
    "exec.meta.linux.resources",
    "exec.mount.bind",
    "exec.mount.bind.readwrite-nooutput",
    "exec.mount.cache",
    "exec.mount.cache.sharing",
    "exec.mount.cache.content",
    "exec.mount.selector",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "exec.mount.secret",
    "exec.mount.ssh",
    "exec.cgroup",
    "exec.secretenv",
    "exec.validexitcode",
    "file.base",
    "file.rm.wildcard",
    "file.rm.nofollowsymlink",
    "file.copy.includeexcludepatterns",
    "file.copy.requiredpaths",
    "file.copy.alwaysreplaceexistingdestpaths",
    "file.copy.modestring",
    "file.symlink.create",
    "constraints",
    "platform",
    "meta.ignorecache",
    "meta.description",
    "meta.exportcache",
    "cache.gha",
    "cache.s3",
    "cache.azblob",
    "mergeop",
    "diffop",
    "passthroughop",
    "exporter.image.annotations",
    "exporter.image.attestations",
    "exporter.sourcedateepoch",
    "exporter.multiple",
    "exporter.session",
    "source.policy",
    "source.policy.session",
    "gc.freespacefilter",
    "history.filter",
];

/// What the op that names the result asks for.
pub(crate) const OF_THE_LAST: &[&str] = &["constraints", "meta.description", "platform"];

/// Whether this builder has a capability.
pub fn has(cap: &str) -> bool {
    ALL.contains(&cap)
}

/// Refuses a step that asks for something this builder does not have.
pub(crate) fn check(wanted: &BTreeMap<String, bool>) -> Result<()> {
    match wanted.iter().find(|(cap, wanted)| **wanted && !has(cap)) {
        Some((cap, _)) => Err(Error::UnknownCap(cap.clone())),
        None => Ok(()),
    }
}

/// What a step asks for, as the Go programs put it into metadata.
pub(crate) fn of(op: &Op) -> Vec<&'static str> {
    match &op.kind {
        OpKind::Exec(exec) => of_exec(exec),
        OpKind::Source(source) => of_source(source),
        OpKind::File(_) => vec!["file.base"],
        OpKind::Merge(_) => vec!["mergeop"],
        OpKind::Diff(_) => vec!["diffop"],
        OpKind::Passthrough(_) => vec!["passthroughop"],
        OpKind::Build(build) if build.attrs.contains_key(attr::BUILD_FILENAME) => {
            vec!["source.buildop.llbfilename"]
        }
        OpKind::Build(_) => Vec::new(),
    }
}

fn of_exec(exec: &Exec) -> Vec<&'static str> {
    let mut caps = vec!["exec.meta.base", "exec.meta.setsdefaultpath"];
    let mut need = |yes: bool, cap: &'static str| {
        if yes {
            caps.push(cap);
        }
    };
    need(exec.network != Network::Sandbox, "exec.meta.network");
    need(exec.security != Security::Sandbox, "exec.meta.security");
    need(exec.proxy.is_some(), "exec.meta.proxyenv");
    need(!exec.ulimits.is_empty(), "exec.meta.ulimit");
    need(!exec.cgroup_parent.is_empty(), "exec.meta.cgroup.parent");
    need(!exec.devices.is_empty(), "exec.meta.cdi");
    need(!exec.valid_exit_codes.is_empty(), "exec.validexitcode");
    need(!exec.secret_env.is_empty(), "exec.secretenv");
    need(!exec.secret_env.is_empty(), "exec.mount.secret");
    for mount in &exec.mounts {
        need(!mount.selector.is_empty(), "exec.mount.selector");
        need(
            mount.content_cache != crate::ContentCache::Default,
            "exec.mount.cache.content",
        );
        match &mount.kind {
            MountKind::Bind => need(true, "exec.mount.bind"),
            MountKind::Secret(_) => need(true, "exec.mount.secret"),
            MountKind::Ssh(_) => need(true, "exec.mount.ssh"),
            MountKind::Cache(_) => {
                need(true, "exec.mount.cache");
                need(true, "exec.mount.cache.sharing");
            }
            MountKind::Tmpfs { size } => {
                need(true, "exec.mount.tmpfs");
                need(*size > 0, "exec.mount.tmpfs.size");
            }
        }
    }
    caps
}

fn of_source(source: &Source) -> Vec<&'static str> {
    let scheme = source.identifier.split("://").next().unwrap_or_default();
    let (base, table): (&str, &[(&str, &str)]) = match scheme {
        "docker-image" => ("source.image", IMAGE_ATTRS),
        "oci-layout" => ("source.ocilayout", &[]),
        "docker-image+blob" | "oci-layout+blob" => ("source.imageblob", &[]),
        "local" => ("source.local", LOCAL_ATTRS),
        "git" => ("source.git", GIT_ATTRS),
        "http" | "https" => ("source.http", HTTP_ATTRS),
        _ => return Vec::new(),
    };
    let mut caps = vec![base];
    for name in source.attrs.keys() {
        let cap = table.iter().find(|(attr, _)| match attr.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == attr,
        });
        caps.extend(cap.map(|(_, cap)| *cap));
    }
    caps
}

const IMAGE_ATTRS: &[(&str, &str)] = &[
    (attr::IMAGE_RESOLVE_MODE, "source.image.resolvemode"),
    (attr::IMAGE_LAYER_LIMIT, "source.image.layerlimit"),
    (attr::IMAGE_CHECKSUM, "source.image.checksum"),
];

/// A differ is asked for as a favour, so it is no capability.
const LOCAL_ATTRS: &[(&str, &str)] = &[
    (attr::LOCAL_SESSION, "source.local.sessionid"),
    (attr::LOCAL_UNIQUE, "source.local.unique"),
    (attr::LOCAL_INCLUDE, "source.local.includepatterns"),
    (attr::LOCAL_FOLLOW, "source.local.followpaths"),
    (attr::LOCAL_EXCLUDE, "source.local.excludepatterns"),
    (attr::LOCAL_SHARED_KEY, "source.local.sharedkeyhint"),
    (attr::LOCAL_METADATA_ONLY, "source.local.metadatatransfer"),
];

const GIT_ATTRS: &[(&str, &str)] = &[
    (attr::GIT_KEEP_DIR, "source.git.keepgitdir"),
    (attr::GIT_FULL_URL, "source.git.fullurl"),
    (attr::GIT_AUTH_TOKEN, "source.git.httpauth"),
    (attr::GIT_AUTH_HEADER, "source.git.httpauth"),
    (attr::GIT_KNOWN_HOSTS, "source.git.knownsshhosts"),
    (attr::GIT_SSH_SOCKET, "source.git.mountsshsock"),
    (attr::GIT_CHECKSUM, "source.git.checksum"),
    (attr::GIT_SKIP_SUBMODULES, "source.git.skipsubmodules"),
    (attr::GIT_MTIME, "source.git.mtime"),
    (attr::GIT_FETCH_BY_COMMIT, "source.git.fetchbycommit"),
    (attr::GIT_BUNDLE, "source.git.bundle"),
    (attr::GIT_CHECKOUT_BUNDLE, "source.git.checkoutbundle"),
    ("git.sig.*", "source.git.signatureverify"),
];

const HTTP_ATTRS: &[(&str, &str)] = &[
    (attr::HTTP_CHECKSUM, "source.http.checksum"),
    (attr::HTTP_PERM, "source.http.perm"),
    (attr::HTTP_UID, "soruce.http.uidgid"),
    (attr::HTTP_GID, "soruce.http.uidgid"),
    (attr::HTTP_AUTH_HEADER, "source.http.auth"),
    ("http.header.*", "source.http.header"),
    ("http.sig.*", "source.http.signatureverify"),
];
