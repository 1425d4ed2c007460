//! What a build was asked to do: the frontend's options, understood.

use std::collections::BTreeMap;

use frontend::{CacheImport, Options, ResolveMode};
use oci::Platform;

use crate::Error;
use crate::lint::LintConfig;

/// The options of a Dockerfile build.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// The stage to build; the last one when empty.
    pub target: String,
    /// `build-arg:…`
    pub build_args: BTreeMap<String, String>,
    /// `label:…`
    pub labels: BTreeMap<String, String>,
    /// What to build for; the builder's own when empty.
    pub platforms: Vec<Platform>,
    /// The result is a list even with one platform.
    pub multi_platform: bool,
    /// Stages that take nothing from the cache; an empty list means all.
    pub no_cache: Option<Vec<String>>,
    /// When registries are asked.
    pub resolve_mode: ResolveMode,
    /// Lines for `/etc/hosts`.
    pub extra_hosts: Vec<llb::ExtraHost>,
    /// Name of the machine steps see.
    pub hostname: String,
    /// Network of steps that do not choose.
    pub network: llb::Network,
    /// Size of `/dev/shm` in bytes; 0 is the default.
    pub shm_size: i64,
    /// Limits of steps.
    pub ulimits: Vec<llb::Ulimit>,
    /// Devices of all steps.
    pub devices: Vec<llb::CdiDevice>,
    /// Control group of steps.
    pub cgroup_parent: String,
    /// How much a step may use.
    pub resources: Option<llb::Resources>,
    /// In front of the ids of cache mounts.
    pub cache_namespace: String,
    /// `SOURCE_DATE_EPOCH`, seconds since 1970.
    pub epoch: Option<i64>,
    /// Where cached steps may come from.
    pub cache_imports: Vec<CacheImport>,
    /// Instead of what the file says about checks.
    pub lint: Option<LintConfig>,
    /// The Dockerfile's name.
    pub filename: String,
    /// A question instead of a build.
    pub request: Option<String>,
    /// Keep `.git` of a git context.
    pub keep_git_dir: Option<bool>,
    /// Sessions of single directories.
    pub local_sessions: BTreeMap<String, String>,
    /// What is in the results is to be listed.
    pub sbom: Option<attest::Sbom>,
}

impl BuildOptions {
    /// Reads the options of a request.
    pub fn parse(options: &Options) -> Result<BuildOptions, Error> {
        refuse(options)?;
        let mut parsed = BuildOptions {
            target: options.get("target").unwrap_or_default().to_owned(),
            build_args: options.with_prefix("build-arg:"),
            labels: options.with_prefix("label:"),
            platforms: platforms(options)?,
            no_cache: options.get("no-cache").map(names),
            resolve_mode: resolve_mode(options)?,
            extra_hosts: extra_hosts(options)?,
            hostname: options
                .text("build-arg:BUILDKIT_SANDBOX_HOSTNAME")
                .or(options.get("hostname"))
                .unwrap_or_default()
                .to_owned(),
            network: network(options)?,
            shm_size: options.number("shm-size")?.unwrap_or(0),
            ulimits: ulimits(options)?,
            devices: devices(options),
            cgroup_parent: options.get("cgroup-parent").unwrap_or_default().to_owned(),
            resources: resources(options)?,
            cache_namespace: options
                .get("build-arg:BUILDKIT_CACHE_MOUNT_NS")
                .unwrap_or_default()
                .to_owned(),
            epoch: epoch(options)?,
            cache_imports: cache_imports(options)?,
            lint: options
                .get("build-arg:BUILDKIT_DOCKERFILE_CHECK")
                .map(LintConfig::parse)
                .transpose()?,
            filename: options.text("filename").unwrap_or("Dockerfile").to_owned(),
            request: options.text("requestid").map(str::to_owned),
            keep_git_dir: options
                .flag("build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR")
                .unwrap_or(None),
            local_sessions: options.with_prefix("local-sessionid:"),
            sbom: sbom(options)?,
            multi_platform: false,
        };
        parsed.multi_platform = multi_platform(options, parsed.platforms.len() > 1)?;
        Ok(parsed)
    }

    /// Whether a stage takes nothing from the cache.
    pub fn is_no_cache(&self, stage: &str) -> bool {
        match &self.no_cache {
            None => false,
            Some(stages) => {
                stages.is_empty() || stages.iter().any(|s| s.eq_ignore_ascii_case(stage))
            }
        }
    }
}

/// What nobody may believe to be honoured.
fn refuse(options: &Options) -> Result<(), Error> {
    let not_yet = |what: &str| {
        Err(Error::NotYet {
            what: what.to_owned(),
        })
    };
    if options.text("override-copy-image").is_some() {
        return not_yet("the option override-copy-image");
    }
    if options
        .with_prefix("automount:")
        .values()
        .any(|v| !v.is_empty())
    {
        return not_yet("automount");
    }
    for capability in options.text("frontend.caps").unwrap_or_default().split(',') {
        let known = [
            "",
            "moby.buildkit.frontend.inputs",
            "moby.buildkit.frontend.subrequests",
            "moby.buildkit.frontend.contexts",
            "moby.buildkit.frontend.contexts+forward",
            "moby.buildkit.frontend.gitquerystring",
            "moby.buildkit.frontend.inputs+forward",
            "moby.buildkit.frontend.subrequests+forward",
            "moby.buildkit.frontend.gitquerystring+forward",
        ];
        let optional = capability.ends_with("+forward");
        if !known.contains(&capability) && !optional {
            let name = capability.to_owned();
            return Err(Error::Bridge(frontend::Error::NoCapability(name)));
        }
    }
    Ok(())
}

fn sbom(options: &Options) -> Result<Option<attest::Sbom>, Error> {
    let all = options.as_map();
    let asked = attest::requests(|visit| all.iter().for_each(|(key, value)| visit(key, value)));
    let asked = asked?.get("sbom").map(attest::Sbom::parse);
    Ok(asked.transpose()?)
}

fn bad(name: &str, value: &str, expected: &str) -> Error {
    Error::Bridge(frontend::Error::bad_option(name, value, expected))
}

fn names(text: &str) -> Vec<String> {
    text.split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn platforms(options: &Options) -> Result<Vec<Platform>, Error> {
    let text = options.text("platform").unwrap_or_default();
    let parse = |name: &String| {
        name.trim()
            .parse()
            .map_err(|_| bad("platform", name, "a list like linux/amd64,linux/arm64"))
    };
    let mut platforms: Vec<Platform> = Vec::new();
    for name in names(text) {
        let platform = parse(&name)?;
        // Asked for twice it is built once, as with BuildKit.
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}

fn multi_platform(options: &Options, several: bool) -> Result<bool, Error> {
    let wanted = match options.flag("build-arg:BUILDKIT_MULTI_PLATFORM")? {
        None => options.flag("multi-platform")?,
        given => given,
    };
    match wanted {
        Some(false) if several => Err(bad(
            "multi-platform",
            "false",
            "true: several platforms were asked for",
        )),
        wanted => Ok(wanted.unwrap_or(several)),
    }
}

fn resolve_mode(options: &Options) -> Result<ResolveMode, Error> {
    match options.get("image-resolve-mode").unwrap_or_default() {
        "" | "default" => Ok(ResolveMode::Default),
        "pull" => Ok(ResolveMode::Pull),
        "local" => Ok(ResolveMode::PreferLocal),
        other => Err(bad("image-resolve-mode", other, "default, pull or local")),
    }
}

fn network(options: &Options) -> Result<llb::Network, Error> {
    match options.get("force-network-mode").unwrap_or_default() {
        "" | "sandbox" => Ok(llb::Network::Sandbox),
        "none" => Ok(llb::Network::None),
        "host" => Ok(llb::Network::Host),
        other => Err(bad("force-network-mode", other, "none, host or sandbox")),
    }
}

fn extra_hosts(options: &Options) -> Result<Vec<llb::ExtraHost>, Error> {
    let text = options.text("add-hosts").unwrap_or_default();
    let parse = |pair: &String| {
        let lower = pair.to_lowercase();
        let (host, ip) = lower
            .split_once('=')
            .ok_or_else(|| bad("add-hosts", pair, "name=address"))?;
        let ip = match ip {
            // Whoever runs the step knows what that is in its network.
            "host-gateway" => ip.to_owned(),
            ip => ip
                .parse::<std::net::IpAddr>()
                .map_err(|_| bad("add-hosts", pair, "name=address"))?
                .to_string(),
        };
        Ok(llb::ExtraHost {
            host: host.to_owned(),
            ip,
        })
    };
    names(text).iter().map(parse).collect()
}

fn ulimits(options: &Options) -> Result<Vec<llb::Ulimit>, Error> {
    let text = options.text("ulimit").unwrap_or_default();
    let parse = |one: &String| {
        let wrong = || bad("ulimit", one, "name=soft[:hard]");
        let (name, limits) = one.split_once('=').ok_or_else(wrong)?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let number = |text: &str| text.parse::<i64>().map_err(|_| wrong());
        let (soft, hard) = (number(soft)?, number(hard)?);
        if hard != -1 && (soft > hard || soft == -1) {
            return Err(wrong());
        }
        Ok(llb::Ulimit {
            name: name.to_owned(),
            soft,
            hard,
        })
    };
    names(text).iter().map(parse).collect()
}

fn devices(options: &Options) -> Vec<llb::CdiDevice> {
    let device = |name: String| llb::CdiDevice {
        name,
        optional: false,
    };
    names(options.text("device").unwrap_or_default())
        .into_iter()
        .map(device)
        .collect()
}

fn resources(options: &Options) -> Result<Option<llb::Resources>, Error> {
    let number = |name: &str| Ok::<_, Error>(options.number(name)?.unwrap_or(0));
    let text = |name: &str| options.get(name).unwrap_or_default().to_owned();
    let resources = llb::Resources {
        memory: number("memory")?,
        memory_swap: number("memswap")?,
        cpu_shares: number("cpushares")?,
        cpu_period: number("cpuperiod")?,
        cpu_quota: number("cpuquota")?,
        cpuset_cpus: text("cpusetcpus"),
        cpuset_mems: text("cpusetmems"),
    };
    Ok((resources != llb::Resources::default()).then_some(resources))
}

fn epoch(options: &Options) -> Result<Option<i64>, Error> {
    match options.text("build-arg:SOURCE_DATE_EPOCH") {
        None => Ok(None),
        Some(value) => match value.parse() {
            Ok(seconds) => Ok(Some(seconds)),
            Err(_) => Err(Error::BadEpoch {
                value: value.to_owned(),
            }),
        },
    }
}

fn cache_imports(options: &Options) -> Result<Vec<CacheImport>, Error> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        #[serde(default, alias = "type")]
        r#type: String,
        #[serde(default, alias = "attrs")]
        attrs: Option<BTreeMap<String, String>>,
    }
    let mut imports = Vec::new();
    if let Some(json) = options.text("cache-imports") {
        let entries: Vec<Entry> = serde_json::from_str(json).map_err(|_| {
            bad(
                "cache-imports",
                json,
                "a JSON list of objects with Type and Attrs",
            )
        })?;
        imports.extend(entries.into_iter().map(|entry| CacheImport {
            kind: entry.r#type,
            attrs: entry.attrs.unwrap_or_default(),
        }));
    }
    for name in names(options.text("cache-from").unwrap_or_default()) {
        let attrs = BTreeMap::from([("ref".to_owned(), name)]);
        imports.push(CacheImport {
            kind: "registry".into(),
            attrs,
        });
    }
    Ok(imports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<BuildOptions, Error> {
        BuildOptions::parse(&pairs.iter().copied().collect())
    }

    /// Rows: F01, I47, I48
    #[test]
    fn options_are_understood() {
        let options = parse(&[
            ("platform", "linux/amd64,linux/arm64/v8,linux/amd64"),
            ("add-hosts", "A=1.2.3.4,b=::1,c=host-gateway"),
            ("ulimit", "nofile=1:2,core=-1"),
            ("no-cache", "a,B"),
            ("cache-from", "x,y"),
            (
                "cache-imports",
                r#"[{"Type":"local","Attrs":{"src":"/a"}}]"#,
            ),
            ("memory", "1024"),
        ])
        .unwrap();
        assert!(options.multi_platform);
        assert_eq!(options.platforms[1].to_string(), "linux/arm64");
        assert_eq!(options.extra_hosts[0].host, "a");
        assert_eq!(options.extra_hosts[2].ip, "host-gateway");
        assert_eq!(options.ulimits[0].hard, 2);
        assert!(options.is_no_cache("b") && !options.is_no_cache("c"));
        let imports = options.cache_imports.iter();
        let imports: Vec<_> = imports
            .map(|one| {
                (
                    one.kind.as_str(),
                    one.attrs.values().next().unwrap().as_str(),
                )
            })
            .collect();
        assert_eq!(
            imports,
            [("local", "/a"), ("registry", "x"), ("registry", "y")]
        );
        assert_eq!(options.resources.unwrap().memory, 1024);
        assert!(parse(&[("no-cache", "")]).unwrap().is_no_cache("any"));
    }

    /// Rows: F01, F02
    #[test]
    fn what_makes_no_sense_is_refused() {
        for (name, value) in [
            ("platform", "no/such/plat/form"),
            ("add-hosts", "a"),
            ("ulimit", "nofile=2:1"),
            ("force-network-mode", "maybe"),
            ("image-resolve-mode", "x"),
            ("cache-imports", "{"),
            ("build-arg:SOURCE_DATE_EPOCH", "soon"),
            ("attest:sbom", "generator="),
            ("frontend.caps", "moby.buildkit.frontend.teleport"),
        ] {
            assert!(parse(&[(name, value)]).is_err(), "{name}={value}");
        }
        assert!(
            parse(&[
                ("platform", "linux/amd64,linux/arm64"),
                ("multi-platform", "0")
            ])
            .is_err()
        );
        assert!(parse(&[("frontend.caps", "moby.buildkit.frontend.subrequests")]).is_ok());
    }
}
