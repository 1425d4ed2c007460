//! From flags to what is asked of the daemon. Pure: the environment comes in as a
//! value, and of files only names are looked at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::build::csv;
use crate::build::flags::BuildFlags;
use crate::build::output::{self, Export};
use crate::build::subrequest::Call;

/// What of the environment a build looks at.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// All variables.
    pub variables: BTreeMap<String, String>,
    /// Standard output is a terminal: no archive goes there.
    pub stdout_is_terminal: bool,
}

/// One build, as it will be asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Options of the Dockerfile frontend.
    pub options: BTreeMap<String, String>,
    /// Directories the daemon may read, by name.
    pub local_dirs: BTreeMap<String, PathBuf>,
    /// OCI layouts the daemon may read, by store name.
    pub layouts: BTreeMap<String, PathBuf>,
    /// What standard input is.
    pub stdin: Stdin,
    /// Secrets by id.
    pub secrets: BTreeMap<String, Secret>,
    /// SSH agents by id.
    pub ssh: BTreeMap<String, Vec<PathBuf>>,
    /// Where the result goes.
    pub exports: Vec<Export>,
    /// Where cached steps come from.
    pub cache_from: Vec<CacheEntry>,
    /// Where cached steps go to.
    pub cache_to: Vec<CacheEntry>,
    /// What the build may use beyond the sandbox.
    pub entitlements: Vec<String>,
    /// A question instead of a build.
    pub call: Option<Call>,
}

/// What is on standard input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stdin {
    /// Nothing for us.
    #[default]
    Unused,
    /// The context: an archive, or a lone Dockerfile.
    Context,
    /// The Dockerfile.
    Dockerfile,
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// In a file.
    File(PathBuf),
    /// In a variable.
    Env(String),
}

/// A remote cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheEntry {
    /// `registry`, `local`, `inline`, …
    pub kind: String,
    /// Its settings.
    pub attrs: BTreeMap<String, String>,
}

impl Plan {
    /// What `flags` ask for.
    pub fn new(flags: &BuildFlags, environment: &Environment) -> Result<Plan, Error> {
        let mut plan = Plan {
            call: Call::from_flags(flags)?,
            ..Plan::default()
        };
        plan.main_context(flags)?;
        plan.named_contexts(flags)?;
        plan.frontend_options(flags, environment)?;
        plan.container_options(flags)?;
        plan.attestations(flags)?;
        plan.secrets = secrets(flags, environment)?;
        plan.ssh = ssh(flags, environment)?;
        plan.cache_from = caches("--cache-from", &flags.cache_from, environment)?;
        plan.cache_to = caches("--cache-to", &flags.cache_to, environment)?;
        for allowed in &flags.allow {
            // What is said of a device has commas of its own.
            match allowed.starts_with("device=") {
                true => plan.entitlements.push(allowed.clone()),
                false => plan
                    .entitlements
                    .extend(allowed.split(',').map(str::to_owned)),
            }
        }
        plan.entitlements.sort();
        plan.entitlements.dedup();
        if let Some(call) = &plan.call {
            plan.options.extend(call.options());
        } else {
            plan.exports = output::exports(flags, environment)?;
        }
        Ok(plan)
    }

    fn option(&mut self, name: &str, value: impl Into<String>) {
        self.options.insert(name.to_owned(), value.into());
    }

    fn main_context(&mut self, flags: &BuildFlags) -> Result<(), Error> {
        let file = flags.file.as_deref();
        if flags.context == "-" {
            if file == Some("-") {
                return Err(Error::Conflict {
                    one: "the context `-`",
                    other: "--file -",
                });
            }
            self.stdin = Stdin::Context;
            if let Some(file) = file {
                self.option("filename", file);
            }
            return Ok(());
        }
        if is_remote(&flags.context) {
            self.option("context", &flags.context);
            match file {
                Some("-") => {
                    self.stdin = Stdin::Dockerfile;
                    self.option("dockerfilekey", "dockerfile");
                }
                Some(file) => self.option("filename", file),
                None => {}
            }
            return Ok(());
        }
        let context = PathBuf::from(&flags.context);
        match file {
            Some("-") => self.stdin = Stdin::Dockerfile,
            Some(file) => {
                let path = Path::new(file);
                let (dir, name) =
                    split(path).ok_or_else(|| bad("--file", file, "it names no file"))?;
                self.local_dirs.insert("dockerfile".to_owned(), dir);
                self.option("filename", name);
            }
            None => {
                self.local_dirs
                    .insert("dockerfile".to_owned(), context.clone());
                self.option("filename", "Dockerfile");
            }
        }
        self.local_dirs.insert("context".to_owned(), context);
        Ok(())
    }

    fn named_contexts(&mut self, flags: &BuildFlags) -> Result<(), Error> {
        const FLAG: &str = "--build-context";
        for given in &flags.build_context {
            let (name, value) = key_value(FLAG, given)?;
            let option = format!("context:{name}");
            if let Some(layout) = value.strip_prefix("oci-layout://") {
                let (path, reference) = split_layout(layout);
                let store = format!("kiln-layout-{}", self.layouts.len());
                self.layouts.insert(store.clone(), path);
                self.option(&option, format!("oci-layout://{store}{reference}"));
            } else if is_remote(value) || value.starts_with("docker-image://") {
                self.option(&option, value);
            } else {
                self.local_dirs
                    .insert(name.to_owned(), PathBuf::from(value));
                self.option(&option, format!("local:{name}"));
            }
        }
        Ok(())
    }

    fn frontend_options(
        &mut self,
        flags: &BuildFlags,
        environment: &Environment,
    ) -> Result<(), Error> {
        for given in &flags.build_arg {
            match given.split_once('=') {
                Some((name, value)) => self.option(&format!("build-arg:{name}"), value),
                None => {
                    if let Some(value) = environment.variables.get(given) {
                        self.option(&format!("build-arg:{given}"), value);
                    }
                }
            }
        }
        if let Some(epoch) = environment.variables.get("SOURCE_DATE_EPOCH") {
            self.options
                .entry("build-arg:SOURCE_DATE_EPOCH".to_owned())
                .or_insert_with(|| epoch.clone());
        }
        for label in &flags.label {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            self.option(&format!("label:{name}"), value);
        }
        if let Some(target) = &flags.target {
            self.option("target", target);
        }
        if !flags.platform.is_empty() {
            self.option("platform", flags.platform.join(","));
        }
        if flags.pull {
            self.option("image-resolve-mode", "pull");
        }
        match (flags.no_cache, flags.no_cache_filter.is_empty()) {
            (true, false) => {
                return Err(Error::Conflict {
                    one: "--no-cache",
                    other: "--no-cache-filter",
                });
            }
            (true, true) => self.option("no-cache", ""),
            (false, false) => self.option("no-cache", flags.no_cache_filter.join(",")),
            (false, true) => {}
        }
        Ok(())
    }

    fn container_options(&mut self, flags: &BuildFlags) -> Result<(), Error> {
        let hosts: Result<Vec<String>, Error> =
            flags.add_host.iter().map(|host| add_host(host)).collect();
        let hosts = hosts?;
        if !hosts.is_empty() {
            self.option("add-hosts", csv::join(hosts.iter().map(String::as_str)));
        }
        match flags.network.as_deref() {
            None | Some("" | "default") => {}
            Some(mode @ ("host" | "none")) => {
                self.option("force-network-mode", mode);
                if mode == "host" {
                    self.entitlements.push("network.host".to_owned());
                }
            }
            Some(other) => {
                return Err(bad(
                    "--network",
                    other,
                    "it is not one of default, none, host",
                ));
            }
        }
        if let Some(size) = &flags.shm_size {
            let bytes = size_bytes(size)
                .ok_or_else(|| bad("--shm-size", size, "it is not a size like 64m or 1g"))?;
            self.option("shm-size", bytes.to_string());
        }
        for limit in &flags.ulimit {
            ulimit(limit)?;
        }
        if !flags.ulimit.is_empty() {
            self.option("ulimit", csv::join(flags.ulimit.iter().map(String::as_str)));
        }
        if let Some(parent) = &flags.cgroup_parent {
            self.option("cgroup-parent", parent);
        }
        Ok(())
    }

    /// Statements that are wanted go to the builder as they were written.
    fn attestations(&mut self, flags: &BuildFlags) -> Result<(), Error> {
        let off = |text: &str| matches!(text, "false" | "0" | "disabled=true");
        match flags.sbom.as_deref() {
            None => {}
            Some(text) if off(text) => {}
            Some("true" | "1") => self.option("attest:sbom", ""),
            Some(settings) => self.option("attest:sbom", settings),
        }
        match flags.provenance.as_deref() {
            None => {}
            Some(text) if off(text) => {}
            Some("" | "true" | "1") => self.option("attest:provenance", "mode=max"),
            Some(settings) => self.option("attest:provenance", settings),
        }
        for given in &flags.attest {
            let mut pairs = csv::pairs("--attest", given)?;
            let kind = pairs.remove("type").unwrap_or_default();
            let disabled = pairs.get("disabled").map(String::as_str) == Some("true");
            match kind.as_str() {
                "provenance" | "sbom" if disabled => {}
                "provenance" | "sbom" => {
                    let settings: Vec<String> = pairs
                        .iter()
                        .map(|(key, value)| format!("{key}={value}"))
                        .collect();
                    let settings = csv::join(settings.iter().map(String::as_str));
                    self.option(&format!("attest:{kind}"), settings);
                }
                _ => return Err(bad("--attest", given, "its type is not provenance or sbom")),
            }
        }
        Ok(())
    }
}

pub(crate) fn bad(flag: &'static str, value: &str, problem: &str) -> Error {
    Error::BadFlag {
        flag,
        value: value.to_owned(),
        problem: problem.to_owned(),
    }
}

fn key_value<'a>(flag: &'static str, text: &'a str) -> Result<(&'a str, &'a str), Error> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key, value)),
        _ => Err(bad(flag, text, "it is not like NAME=VALUE")),
    }
}

/// Whether a context is fetched by the daemon: HTTP, or something Git understands.
pub(crate) fn is_remote(context: &str) -> bool {
    const SCHEMES: [&str; 5] = ["http://", "https://", "git://", "ssh://", "git+"];
    const HOSTS: [&str; 1] = ["github.com/"];
    SCHEMES
        .iter()
        .chain(&HOSTS)
        .any(|start| context.starts_with(start))
        || is_scp_like(context)
}

/// `git@host:path`
fn is_scp_like(context: &str) -> bool {
    let Some((user_host, path)) = context.split_once(':') else {
        return false;
    };
    user_host.split_once('@').is_some_and(|(user, host)| {
        !user.is_empty()
            && !user.contains('/')
            && !host.is_empty()
            && !host.contains('/')
            && !path.is_empty()
    })
}

fn split(path: &Path) -> Option<(PathBuf, String)> {
    let name = path.file_name()?.to_str()?.to_owned();
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    Some((dir.to_owned(), name))
}

/// A layout's directory, and `@digest` or `:tag` behind it.
fn split_layout(text: &str) -> (PathBuf, String) {
    if let Some((path, digest)) = text.split_once('@') {
        let path = path
            .rsplit_once(':')
            .filter(|(_, tag)| !tag.contains('/'))
            .map_or(path, |(path, _)| path);
        return (PathBuf::from(path), format!("@{digest}"));
    }
    match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') && !path.is_empty() => {
            (PathBuf::from(path), format!(":{tag}"))
        }
        _ => (PathBuf::from(text), ":latest".to_owned()),
    }
}

/// `host:ip`, `host=ip` or `host:[ip]`, as the frontend takes it: `host=ip`.
fn add_host(text: &str) -> Result<String, Error> {
    let (host, ip) = match text.split_once('=') {
        Some(pair) => pair,
        None => text
            .split_once(':')
            .ok_or_else(|| bad("--add-host", text, "it is not like HOST=IP"))?,
    };
    let ip = ip
        .strip_prefix('[')
        .and_then(|ip| ip.strip_suffix(']'))
        .unwrap_or(ip);
    let known = ip == "host-gateway" || ip.parse::<std::net::IpAddr>().is_ok();
    if host.is_empty() || !known {
        return Err(bad("--add-host", text, "it is not like HOST=IP"));
    }
    Ok(format!("{host}={ip}"))
}

/// `64m`, `1g`, `1024`: units are powers of 1024.
pub(crate) fn size_bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(lower.len());
    let number: u64 = lower[..digits].parse().ok()?;
    let shift = match lower[digits..].trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

fn ulimit(text: &str) -> Result<(), Error> {
    let wrong = || bad("--ulimit", text, "it is not like nofile=1024:2048");
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number =
        |limit: &str| limit == "-1" || limit == "unlimited" || limit.parse::<u64>().is_ok();
    if name.is_empty() || !number(soft) || !number(hard) {
        Err(wrong())
    } else {
        Ok(())
    }
}

fn secrets(
    flags: &BuildFlags,
    environment: &Environment,
) -> Result<BTreeMap<String, Secret>, Error> {
    const FLAG: &str = "--secret";
    let mut secrets = BTreeMap::new();
    for given in &flags.secret {
        let mut pairs = csv::pairs(FLAG, given)?;
        let kind = pairs.remove("type").unwrap_or_default();
        let id = pairs
            .remove("id")
            .filter(|id| !id.is_empty())
            .ok_or_else(|| bad(FLAG, given, "it has no id"))?;
        let file = pairs.remove("src").or_else(|| pairs.remove("source"));
        let env = pairs.remove("env");
        if let Some(key) = pairs.keys().next() {
            return Err(bad(
                FLAG,
                given,
                &format!("{key:?} is not one of id, src, env, type"),
            ));
        }
        let secret = match (kind.as_str(), file, env) {
            ("" | "file", Some(path), None) => Secret::File(PathBuf::from(path)),
            ("" | "env", None, Some(name)) | ("env", Some(name), None) => Secret::Env(name),
            ("" | "env", None, None) if environment.variables.contains_key(&id) => {
                Secret::Env(id.clone())
            }
            ("" | "file", None, None) => Secret::File(PathBuf::from(&id)),
            ("" | "file" | "env", Some(_), Some(_)) => {
                return Err(bad(FLAG, given, "it has both src and env"));
            }
            ("env", None, None) => return Err(bad(FLAG, given, "no such variable")),
            ("file", _, Some(_)) => return Err(bad(FLAG, given, "a file has no env")),
            (other, ..) => {
                return Err(bad(
                    FLAG,
                    given,
                    &format!("type {other:?} is not file or env"),
                ));
            }
        };
        secrets.insert(id, secret);
    }
    Ok(secrets)
}

fn ssh(
    flags: &BuildFlags,
    environment: &Environment,
) -> Result<BTreeMap<String, Vec<PathBuf>>, Error> {
    let mut agents = BTreeMap::new();
    for given in &flags.ssh {
        let (id, paths) = given.split_once('=').unwrap_or((given, ""));
        let mut paths: Vec<PathBuf> = paths
            .split(',')
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
            .collect();
        if paths.is_empty() {
            match environment
                .variables
                .get("SSH_AUTH_SOCK")
                .filter(|path| !path.is_empty())
            {
                Some(socket) => paths.push(PathBuf::from(socket)),
                None => {
                    return Err(bad(
                        "--ssh",
                        given,
                        "SSH_AUTH_SOCK is not set; start an agent, or name a key",
                    ));
                }
            }
        }
        let id = if id.is_empty() { "default" } else { id };
        agents.insert(id.to_owned(), paths);
    }
    Ok(agents)
}

/// Settings GitHub's runners hand over in variables (row B05).
const GHA: [(&str, &str); 3] = [
    ("token", "ACTIONS_RUNTIME_TOKEN"),
    ("url", "ACTIONS_CACHE_URL"),
    ("url_v2", "ACTIONS_RESULTS_URL"),
];

fn caches(
    flag: &'static str,
    given: &[String],
    environment: &Environment,
) -> Result<Vec<CacheEntry>, Error> {
    let mut entries = Vec::new();
    for text in given {
        if !text.contains('=') {
            // A bare name, or several with commas: images in registries.
            for name in csv::fields(flag, text)? {
                let attrs = BTreeMap::from([("ref".to_owned(), name)]);
                entries.push(CacheEntry {
                    kind: "registry".to_owned(),
                    attrs,
                });
            }
            continue;
        }
        let mut attrs = csv::pairs(flag, text)?;
        let kind = attrs
            .remove("type")
            .ok_or_else(|| bad(flag, text, "it has no type"))?;
        if kind == "gha" {
            for (key, variable) in GHA {
                if let Some(value) = environment.variables.get(variable) {
                    attrs.entry(key.to_owned()).or_insert_with(|| value.clone());
                }
            }
        }
        let needed = match (kind.as_str(), flag) {
            ("local", "--cache-from") => Some("src"),
            ("local", _) => Some("dest"),
            ("registry", _) => Some("ref"),
            _ => None,
        };
        if let Some(key) = needed.filter(|key| !attrs.contains_key(*key)) {
            return Err(bad(flag, text, &format!("type={kind} needs {key}=…")));
        }
        entries.push(CacheEntry { kind, attrs });
    }
    Ok(entries)
}
