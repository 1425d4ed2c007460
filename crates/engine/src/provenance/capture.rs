//! What went into a result: gathered from every graph behind it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use attest::{
    ConfigSource, DigestSet, Local, Material, Metadata, Named, NetworkFacts, PackageKind,
    Provenance, Request, Uncaptured, digest_set, package_url, redacted,
};
use frontend::RefId;
use llb::{Graph, MountKind, Network, OpKind, Vertex};
use netproxy::Seen;
use oci::{Digest, ImageName, Platform};
use progress::StepProgress;
use source::{BlobPlace, GitBundle, GitId, Identifier, Source};
use stdx::Kind;

use super::{Asked, SeenImages};
use crate::Failure;
use crate::bridge::Shared;

/// What went into a result.
#[derive(Default)]
pub(super) struct Capture {
    /// And what they were.
    images: BTreeMap<Image, Digest>,
    blobs: BTreeMap<String, Digest>,
    git: BTreeMap<String, String>,
    http: BTreeMap<String, Digest>,
    locals: BTreeSet<String>,
    secrets: BTreeMap<String, bool>,
    ssh: BTreeMap<String, bool>,
    network: bool,
    /// What is not known of what steps got through their proxies; none if there are none.
    proxied: Option<BTreeSet<Uncaptured>>,
    /// Something was built of which we know nothing.
    unknown: bool,
    walked: HashSet<Digest>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Image {
    name: ImageName,
    kind: PackageKind,
    platform: Option<Platform>,
}

impl Capture {
    /// Adds a graph.
    pub(super) async fn walk(&mut self, shared: &Shared, reference: &RefId) -> Result<(), Failure> {
        let solved = shared
            .get(reference)
            .map_err(|error| Failure::of_frontend(&error))?;
        let definition = solved.definition.clone();
        let graph = stdx::task::blocking(move || Graph::load(&definition)).await;
        let graph = graph.map_err(|error| Failure::of(error.kind(), &error))?;
        for vertex in graph.vertices() {
            if self.walked.insert(vertex.digest) {
                self.vertex(shared, vertex).await?;
            }
        }
        Ok(())
    }

    async fn vertex(&mut self, shared: &Shared, vertex: &Vertex) -> Result<(), Failure> {
        match &vertex.op.kind {
            OpKind::Source(source) => {
                let platform = vertex.op.platform.as_ref();
                let platform = platform.unwrap_or(&shared.deeds.parts.platform);
                self.source(shared, &vertex.digest, source, platform)
                    .await?;
            }
            OpKind::Exec(exec) => {
                if exec.network != Network::None {
                    self.network = true;
                    self.proxy(shared, &vertex.digest);
                }
                for mount in &exec.mounts {
                    match &mount.kind {
                        MountKind::Secret(secret) => {
                            note(&mut self.secrets, &secret.id, secret.optional);
                        }
                        MountKind::Ssh(agent) => self.agent(&agent.id, agent.optional),
                        _ => {}
                    }
                }
                for secret in &exec.secret_env {
                    note(&mut self.secrets, &secret.id, secret.optional);
                }
            }
            OpKind::Build(_) => self.unknown = true,
            OpKind::File(_) | OpKind::Merge(_) | OpKind::Diff(_) | OpKind::Passthrough(_) => {}
        }
        Ok(())
    }

    /// What went through the proxy of a step. Of one that this build did not run nothing is known.
    fn proxy(&mut self, shared: &Shared, step: &Digest) {
        let Some(proxied) = &shared.deeds.build.proxy else {
            return;
        };
        let missing = self.proxied.get_or_insert_default();
        match proxied.of_step(step) {
            Some(seen) => self.seen(&step.to_string(), &seen),
            None => drop(missing.insert(Uncaptured {
                op: step.to_string(),
                reason: "not_captured",
                ..Uncaptured::default()
            })),
        }
    }

    /// What went through the proxies of containers that are no steps: of frontends' own.
    pub(super) fn proxies_of_others(&mut self, shared: &Shared) {
        let Some(proxied) = &shared.deeds.build.proxy else {
            return;
        };
        for seen in proxied.of_others() {
            self.network = true;
            self.seen("", &seen);
        }
    }

    fn seen(&mut self, op: &str, seen: &Seen) {
        let mut changed = Vec::new();
        for material in seen.all_materials() {
            let told = *self
                .http
                .entry(material.url.clone())
                .or_insert(material.digest);
            if told != material.digest {
                changed.push(material.url);
            }
        }
        let missing = self.proxied.get_or_insert_default();
        // A material has one digest: that there was another thing at its address must not be lost.
        missing.extend(changed.into_iter().map(|uri| Uncaptured {
            op: op.to_owned(),
            method: "GET".to_owned(),
            uri,
            reason: "changed",
        }));
        missing.extend(seen.incomplete.iter().map(|one| Uncaptured {
            op: op.to_owned(),
            method: one.method.clone(),
            uri: one.url.clone(),
            reason: one.reason,
        }));
    }

    fn agent(&mut self, id: &str, optional: bool) {
        note(
            &mut self.ssh,
            if id.is_empty() { "default" } else { id },
            optional,
        );
    }

    async fn source(
        &mut self,
        shared: &Shared,
        vertex: &Digest,
        op: &llb::Source,
        platform: &Platform,
    ) -> Result<(), Failure> {
        let identifier = Identifier::parse(&op.identifier, &op.attrs);
        let identifier = identifier.map_err(|error| Failure::of(error.kind(), &error))?;
        let pin = || pin(shared, vertex, &identifier, platform);
        match &identifier {
            Identifier::Image(id) => {
                let digest = match id.name.digest() {
                    Some(digest) => digest,
                    None => parsed(&pin().await?)?,
                };
                self.image(
                    id.name.clone(),
                    Some(platform.clone()),
                    digest,
                    PackageKind::Docker,
                );
            }
            Identifier::Layout(id) => {
                let platform = Some(platform.clone());
                match id.reference.parse() {
                    Ok(name) => self.image(name, platform, id.digest, PackageKind::Oci),
                    Err(_) => {
                        let name = without_digest(&id.reference);
                        let url = in_layout(name, Some(id.digest), platform.as_ref(), &[]);
                        self.blobs.insert(url, id.digest);
                    }
                }
            }
            Identifier::Blob(id) => {
                let more = [("ref_type", "blob")];
                let url = match &id.place {
                    BlobPlace::Registry(name) => {
                        package_url(PackageKind::Docker, name, None, &more)
                    }
                    BlobPlace::Layout { store, .. } => {
                        in_layout(store, Some(id.digest), None, &more)
                    }
                };
                self.blobs.insert(url, id.digest);
            }
            Identifier::Git(id) => {
                self.git.insert(git_url(id), pin().await?);
                if let Some(bundle) = &id.bundle {
                    self.bundle(bundle, &git_url(id));
                }
                for secret in [&id.auth_token_secret, &id.auth_header_secret] {
                    if !secret.is_empty() {
                        note(&mut self.secrets, secret, true);
                    }
                }
                if !id.ssh.is_empty() {
                    self.agent(&id.ssh, true);
                }
            }
            Identifier::Http(id) => {
                let digest = match id.checksum {
                    Some(digest) => digest,
                    None => parsed(&pin().await?)?,
                };
                let url = redacted(&id.url);
                let before = self.http.insert(url.clone(), digest);
                if before.is_some_and(|before| before != digest)
                    && let Some(missing) = &mut self.proxied
                {
                    missing.insert(Uncaptured {
                        method: "GET".to_owned(),
                        uri: url,
                        reason: "changed",
                        ..Uncaptured::default()
                    });
                }
            }
            Identifier::Local(id) => drop(self.locals.insert(id.name.clone())),
        }
        Ok(())
    }

    /// A bundle that was read in place of the remote `git`.
    fn bundle(&mut self, bundle: &GitBundle, git: &str) {
        let more = [("ref_type", "bundle"), ("vcs_url", git)];
        let (_, name) = bundle.locator.split_once("://").unwrap_or_default();
        let name = without_digest(name);
        let url = match &bundle.place {
            BlobPlace::Registry(whole) => {
                let name = name.parse().unwrap_or_else(|_| whole.clone());
                package_url(PackageKind::Docker, &name, None, &more)
            }
            BlobPlace::Layout { .. } => in_layout(name, None, None, &more),
        };
        self.blobs.insert(url, bundle.digest);
    }

    fn image(
        &mut self,
        name: ImageName,
        platform: Option<Platform>,
        digest: Digest,
        kind: PackageKind,
    ) {
        let image = Image {
            name,
            kind,
            platform,
        };
        self.images.entry(image).or_insert(digest);
    }

    /// Adds images that frontends looked at. Of one that was looked at for every platform
    /// only the one for the result's own platform counts.
    pub(super) fn add_seen(
        &mut self,
        images: &SeenImages,
        platforms: &[(String, Platform)],
        id: &str,
    ) {
        let own = platforms
            .iter()
            .find(|(known, _)| known == id)
            .map(|(_, platform)| platform);
        fn machine(platform: &Platform) -> (&str, &str) {
            (&platform.os, &platform.architecture)
        }
        let looked_at = images.keys().filter_map(|image| {
            let platform = image.platform.as_ref()?;
            Some((image.name.as_str(), machine(platform)))
        });
        let looked_at: HashSet<_> = looked_at.collect();
        for (image, digest) in images {
            let for_all = platforms
                .iter()
                .all(|(_, platform)| looked_at.contains(&(image.name.as_str(), machine(platform))));
            if let (true, Some(own), Some(platform)) = (for_all, own, &image.platform)
                && machine(platform) != machine(own)
            {
                continue;
            }
            // Frontends only look at names that can be read.
            let Ok(name) = image.name.parse::<ImageName>() else {
                continue;
            };
            let kind = if image.layout {
                PackageKind::Oci
            } else {
                PackageKind::Docker
            };
            self.image(name.or_latest(), image.platform.clone(), *digest, kind);
        }
    }

    /// Why materials are not complete.
    pub(super) fn reason(&self) -> String {
        let locals: Vec<&str> = self.locals.iter().map(String::as_str).collect();
        if !locals.is_empty() {
            return format!("folders of the client were used: {}", locals.join(", "));
        }
        let missing = self
            .proxied
            .iter()
            .flatten()
            .map(|one| match one.uri.as_str() {
                "" => format!("{} ({})", one.op, one.reason),
                uri => format!("{} {uri} ({})", one.method, one.reason),
            });
        // Clients show it in a line, and headers of answers are short.
        const MOST: usize = 8;
        let all = self.proxied.iter().flatten().count();
        let missing: Vec<String> = missing
            .take(MOST)
            .map(|one| one.chars().take(256).collect())
            .collect();
        if !missing.is_empty() {
            let more = match all - missing.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            return format!(
                "requests of steps were not captured: {}{more}",
                missing.join(", ")
            );
        }
        "a nested build or a frontend's input is not looked into".to_owned()
    }

    /// The names of images: by tag where both tag and digest are known.
    fn told_images(&self) -> Vec<(&Image, &Digest)> {
        let plain = |name: &ImageName| (name.name(), name.tag().unwrap_or("latest").to_owned());
        let tagged = self.images.keys().filter(|one| one.name.digest().is_none());
        let tagged: HashSet<_> = tagged.map(|one| plain(&one.name)).collect();
        let kept = self
            .images
            .iter()
            .filter(|(one, _)| one.name.digest().is_none() || !tagged.contains(&plain(&one.name)));
        let mut kept: Vec<_> = kept.collect();
        kept.sort_by_cached_key(|(one, _)| one.name.to_string());
        kept
    }

    fn materials(&self) -> Vec<Material> {
        let images = self
            .told_images()
            .into_iter()
            .map(|(one, digest)| Material {
                uri: package_url(one.kind, &one.name, one.platform.as_ref(), &[]),
                digest: digest_set(digest),
            });
        let of = |uri: &String, digest: DigestSet| Material {
            uri: uri.clone(),
            digest,
        };
        let blobs = self
            .blobs
            .iter()
            .map(|(uri, digest)| of(uri, digest_set(digest)));
        let git = self
            .git
            .iter()
            .map(|(uri, commit)| of(uri, commit_set(commit)));
        let http = self
            .http
            .iter()
            .map(|(uri, digest)| of(uri, digest_set(digest)));
        images.chain(blobs).chain(git).chain(http).collect()
    }

    /// The facts for one result.
    pub(super) fn facts(&self, asked: &Asked) -> Provenance {
        let mut args = asked.args.clone();
        let config = self.config(&mut args);
        let mut vcs = BTreeMap::new();
        args.retain(|key, value| match key.strip_prefix("vcs:") {
            None => true,
            Some(fact) => {
                let value = if fact == "source" {
                    redacted(value)
                } else {
                    value.clone()
                };
                if !value.is_empty() {
                    vcs.insert(fact.to_owned(), value);
                }
                false
            }
        });
        let named = |all: &BTreeMap<String, bool>| {
            all.iter()
                .map(|(id, optional)| Named {
                    id: id.clone(),
                    optional: *optional,
                })
                .collect()
        };
        let uncaptured = self.proxied.iter().flatten().next().is_some();
        let known = !self.unknown && !uncaptured;
        let complete = known && !asked.inputs && self.locals.is_empty();
        Provenance {
            config,
            request: Request {
                frontend: asked.frontend.clone(),
                args,
                compatibility: 0,
                secrets: named(&self.secrets),
                ssh: named(&self.ssh),
                locals: self
                    .locals
                    .iter()
                    .map(|name| Local { name: name.clone() })
                    .collect(),
            },
            materials: self.materials(),
            metadata: Metadata {
                vcs,
                network: self.proxied.as_ref().map(|missing| NetworkFacts {
                    mode: "proxy",
                    incomplete: missing.iter().cloned().collect(),
                }),
                ..Metadata::default()
            },
            hermetic: complete && !self.network,
            request_complete: !asked.frontend.is_empty(),
            materials_complete: complete,
            ..Provenance::default()
        }
    }

    /// Takes what was built out of the options.
    fn config(&self, args: &mut BTreeMap<String, String>) -> ConfigSource {
        let text = |key: &str| args.get(key).filter(|value| !value.is_empty());
        let key = match text("contextkey") {
            Some(key) => key.clone(),
            None if text("input:context").is_some() => "input:context".to_owned(),
            None => "context".to_owned(),
        };
        let mut config = ConfigSource::default();
        if let Some(address) = text(&key).cloned() {
            let (whole, without_folder) = fragment(&address);
            if let Some(commit) = self.git.get(&redacted(&without_folder)) {
                (config.uri, config.digest) = (whole, commit_set(commit));
            } else {
                let found = self.http.get(&redacted(&address));
                config.digest = found.map(digest_set).unwrap_or_default();
                config.uri = address;
            }
            config.uri = redacted(&config.uri);
            args.remove(&key);
        }
        if args.get("filename").is_some_and(|name| !name.is_empty()) {
            config.path = args.remove("filename").unwrap_or_default();
        }
        config
    }
}

/// Needed by one step is needed.
fn note(known: &mut BTreeMap<String, bool>, id: &str, optional: bool) {
    let all_optional = known.entry(id.to_owned()).or_insert(optional);
    *all_optional &= optional;
}

/// What exactly a source was. The build's own answers are asked first, so that this is
/// what its steps were made of.
async fn pin(
    shared: &Shared,
    vertex: &Digest,
    identifier: &Identifier,
    platform: &Platform,
) -> Result<String, Failure> {
    // Another build may have read it for us, and be told something else by now.
    if let Some(pin) = shared.deeds.parts.sources.pins().get(vertex) {
        return Ok(pin.to_string());
    }
    let source = Source::new(&shared.deeds.parts.sources, identifier.clone(), platform);
    let cx = shared.deeds.build.source_context(&StepProgress::none());
    let key = source.cache_key(&cx, 0).await;
    Ok(key.map_err(|error| Failure::of(error.kind(), &error))?.pin)
}

fn parsed(pin: &str) -> Result<Digest, Failure> {
    pin.parse()
        .map_err(|_| Failure::new(Kind::Internal, format!("{pin} is no digest")))
}

fn without_digest(name: &str) -> &str {
    name.rsplit_once('@').map_or(name, |(name, _)| name)
}

/// Something in a layout of the client, whose names need not be those of images.
fn in_layout(
    name: &str,
    digest: Option<Digest>,
    platform: Option<&Platform>,
    more: &[(&str, &str)],
) -> String {
    match name.parse::<ImageName>() {
        Ok(image) => {
            let image = match digest {
                Some(digest) => image.with_digest(digest),
                None => image,
            };
            package_url(PackageKind::Oci, &image, platform, more)
        }
        Err(_) => attest::package_url_in_layout(name, digest, platform, more),
    }
}

fn git_url(id: &GitId) -> String {
    let remote = redacted(&id.remote);
    match id.reference.as_str() {
        "" => remote,
        reference => format!("{remote}#{reference}"),
    }
}

/// A commit as a digest.
fn commit_set(commit: &str) -> DigestSet {
    let algorithm = if commit.len() == 64 { "sha256" } else { "sha1" };
    DigestSet::from([(algorithm.to_owned(), commit.to_owned())])
}

/// A git address as `remote#ref:folder`, and without the folder.
fn fragment(address: &str) -> (String, String) {
    if let Some((remote, query)) = address.split_once('?')
        && !query.contains('#')
    {
        let (mut reference, mut folder) = (String::new(), "");
        for pair in query.split('&') {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("ref", value) => reference = value.to_owned(),
                ("branch", value) => reference = format!("refs/heads/{value}"),
                ("tag", value) => reference = format!("refs/tags/{value}"),
                ("subdir", value) => folder = value,
                _ => return (address.to_owned(), address.to_owned()),
            }
        }
        let plain = if reference.is_empty() {
            remote.to_owned()
        } else {
            format!("{remote}#{reference}")
        };
        let whole = match (reference.is_empty(), folder) {
            (_, "") => plain.clone(),
            (true, folder) => format!("{remote}#:{folder}"),
            (false, folder) => format!("{plain}:{folder}"),
        };
        return (whole, plain);
    }
    let plain = match address.split_once('#') {
        Some((remote, fragment)) => match fragment.split_once(':') {
            Some(("", _)) => remote.to_owned(),
            Some((reference, _)) => format!("{remote}#{reference}"),
            None => address.to_owned(),
        },
        None => address.to_owned(),
    };
    (address.to_owned(), plain)
}

#[cfg(test)]
mod tests {
    use super::super::SeenImage;
    use super::*;

    fn seen(name: &str, platform: Option<&str>) -> (SeenImage, Digest) {
        let image = SeenImage {
            name: name.to_owned(),
            platform: platform.map(|platform| platform.parse().unwrap()),
            layout: false,
        };
        (image, Digest::of(b"index"))
    }

    fn uris(capture: &Capture) -> Vec<String> {
        capture
            .materials()
            .into_iter()
            .map(|material| material.uri)
            .collect()
    }

    /// Rows: P02
    #[test]
    fn an_image_is_told_once_and_by_its_tag() {
        let mut capture = Capture::default();
        let amd64: Platform = "linux/amd64".parse().unwrap();
        let digest = Digest::of(b"index");
        let pinned: ImageName = format!("alpine:3@{digest}").parse().unwrap();
        capture.image(
            pinned.clone(),
            Some(amd64.clone()),
            digest,
            PackageKind::Docker,
        );
        capture.image(pinned, Some(amd64.clone()), digest, PackageKind::Docker);
        assert_eq!(uris(&capture).len(), 1);
        let seen = [seen("docker.io/library/alpine:3", Some("linux/amd64"))];
        capture.add_seen(&seen.into(), &[], "");
        assert_eq!(
            uris(&capture),
            ["pkg:docker/alpine@3?platform=linux%2Famd64"]
        );
    }

    /// Rows: P02
    #[test]
    fn an_image_for_every_platform_counts_for_its_own() {
        let platforms =
            ["linux/amd64", "linux/arm64"].map(|name| (name.to_owned(), name.parse().unwrap()));
        let images = [
            seen("all", Some("linux/amd64")),
            seen("all", Some("linux/arm64")),
            seen("builder", Some("linux/amd64")),
            seen("any", None),
        ];
        let mut capture = Capture::default();
        capture.add_seen(&images.into(), &platforms, "linux/arm64");
        assert_eq!(
            uris(&capture),
            [
                "pkg:docker/all@latest?platform=linux%2Farm64",
                "pkg:docker/any@latest",
                "pkg:docker/builder@latest?platform=linux%2Famd64",
            ]
        );
    }

    /// Rows: X08
    #[test]
    fn what_steps_got_through_their_proxy_is_told() {
        let mut capture = Capture::default();
        capture.seen("sha256:step", &Seen::default());
        let facts = capture.facts(&Asked::default());
        assert!(facts.materials_complete, "nothing is missing yet");
        assert_eq!(facts.metadata.network.unwrap().incomplete, []);
        let digest = Digest::of(b"file");
        let seen = Seen {
            materials: vec![netproxy::Material {
                url: "https://h.example/file".into(),
                digest,
            }],
            incomplete: vec![netproxy::Incomplete {
                method: "POST".into(),
                url: "https://h.example/form".into(),
                reason: "method_not_materializable",
            }],
            ..Seen::default()
        };
        capture.seen("sha256:step", &seen);
        capture.seen("sha256:step", &seen);
        let facts = capture.facts(&Asked::default());
        assert_eq!(uris(&capture), ["https://h.example/file"]);
        let network = serde_json::to_value(&facts.metadata).unwrap();
        assert_eq!(
            network["network"],
            serde_json::json!({"mode": "proxy", "incomplete": [{
                "op": "sha256:step",
                "uri": "https://h.example/form",
                "method": "POST",
                "reason": "method_not_materializable",
            }]})
        );
        assert!(!facts.materials_complete && !facts.hermetic);
        let why = "POST https://h.example/form (method_not_materializable)";
        assert!(capture.reason().ends_with(why), "{}", capture.reason());
    }

    /// Rows: P02
    #[test]
    fn the_context_becomes_the_config_source() {
        let commit = "4b220de5058abfd01ff619c9d2ff6b09a049bea0".to_owned();
        let mut capture = Capture::default();
        capture.git.insert(
            "https://xxxxx:xxxxx@h.example/r.git#refs/heads/main".to_owned(),
            commit.clone(),
        );
        let args = [
            (
                "context",
                "https://u:p@h.example/r.git?branch=main&subdir=src",
            ),
            ("filename", "a.Dockerfile"),
            ("vcs:revision", "abc"),
            ("vcs:source", "https://t@h.example/r"),
            ("target", "t"),
        ];
        let options = args
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let asked = Asked::default().nested("dockerfile.v0", &options, false);
        let facts = capture.facts(&asked);
        assert_eq!(
            facts.config.uri,
            "https://xxxxx:xxxxx@h.example/r.git#refs/heads/main:src"
        );
        assert_eq!(facts.config.digest, commit_set(&commit));
        assert_eq!(facts.config.path, "a.Dockerfile");
        assert_eq!(facts.request.args.keys().collect::<Vec<_>>(), ["target"]);
        assert_eq!(facts.metadata.vcs["source"], "https://xxxxx@h.example/r");
        assert!(facts.materials_complete && facts.hermetic && facts.request_complete);
        capture.locals.insert("context".to_owned());
        capture.network = true;
        let facts = capture.facts(&asked);
        assert!(!facts.materials_complete && !facts.hermetic);
        assert!(capture.reason().contains("context"));
    }

    /// A layout's names are the client's own affair; a build that went well does not fail by one.
    ///
    /// Rows: P02, S16
    #[test]
    fn what_is_in_a_layout_may_have_any_name() {
        let (digest, checksum) = (Digest::of("blob"), "1".repeat(40));
        let mut capture = Capture::default();
        for name in ["My_Store", "store"] {
            let attrs = [
                (
                    "git.bundle".to_owned(),
                    format!("oci-layout+blob://{name}@{digest}"),
                ),
                ("git.checksum".to_owned(), checksum.clone()),
            ];
            let Ok(Identifier::Git(id)) = Identifier::parse("git://h/r", &attrs.into()) else {
                panic!("{name}")
            };
            capture.bundle(&id.bundle.unwrap(), "https://h/r");
        }
        let url = in_layout("My_Store", Some(digest), None, &[("ref_type", "blob")]);
        assert_eq!(
            url,
            format!("pkg:oci/My_Store?digest={digest}&ref_type=blob")
        );
        let bundle = "ref_type=bundle&vcs_url=https:%2F%2Fh%2Fr";
        let wanted = [
            format!("pkg:oci/My_Store?{bundle}"),
            format!("pkg:oci/store@latest?{bundle}"),
        ];
        assert_eq!(uris(&capture), wanted);
    }

    /// Rows: P02
    #[test]
    fn a_secret_somebody_needs_is_needed() {
        let mut known = BTreeMap::new();
        note(&mut known, "a", true);
        note(&mut known, "a", false);
        note(&mut known, "a", true);
        note(&mut known, "b", true);
        assert_eq!(
            known,
            BTreeMap::from([("a".to_owned(), false), ("b".to_owned(), true)])
        );
    }
}
