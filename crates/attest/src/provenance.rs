//! How a result was made. One set of facts; [`slsa`](crate::slsa) has the two ways in
//! which they are written.

use std::collections::BTreeMap;

use oci::Descriptor;
use serde::Serialize;
use serde_json::Value;

use crate::{Environment, Mode, Options, Version, slsa};

/// Digests by algorithm, in hex.
pub type DigestSet = BTreeMap<String, String>;

/// One digest as a set.
pub fn digest_set(digest: &oci::Digest) -> DigestSet {
    let text = digest.to_string();
    let (algorithm, hex) = text.split_once(':').unwrap_or(("", &text));
    DigestSet::from([(algorithm.to_owned(), hex.to_owned())])
}

/// An address without its login.
pub fn redacted(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else {
        return address.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        None => address.to_owned(),
        Some((login, host)) => {
            let hidden = if login.contains(':') {
                "xxxxx:xxxxx"
            } else {
                "xxxxx"
            };
            format!("{scheme}://{hidden}@{host}{}", &rest[end..])
        }
    }
}

/// How a result was made.
#[derive(Clone, Debug, Default)]
pub struct Provenance {
    /// Who built, as the client says.
    pub builder_id: String,
    /// The builder's own platform.
    pub builder_platform: String,
    /// Where the builder runs, as its owner says.
    pub environment: Environment,
    /// Names the build.
    pub invocation: String,
    /// When it began, RFC 3339.
    pub started: String,
    /// When it ended, RFC 3339.
    pub finished: String,
    /// What was asked to be built.
    pub config: ConfigSource,
    /// With which settings.
    pub request: Request,
    /// What went in.
    pub materials: Vec<Material>,
    /// The steps.
    pub steps: Option<BuildConfig>,
    /// What else is known.
    pub metadata: Metadata,
    /// Nothing came in that is not a material, and no step had a network.
    pub hermetic: bool,
    /// The request is told completely.
    pub request_complete: bool,
    /// All materials are told.
    pub materials_complete: bool,
    /// The result is the same every time.
    pub reproducible: bool,
}

/// What was asked to be built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigSource {
    /// Its address, if it came from somewhere.
    pub uri: String,
    /// What the address stood for.
    pub digest: DigestSet,
    /// The file in it.
    pub path: String,
}

/// What a frontend was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Request {
    /// The frontend.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub frontend: String,
    /// Its options.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, String>,
    /// As which releases the output was made; 0 is not told.
    #[serde(rename = "compatibilityVersion", skip_serializing_if = "is_zero")]
    pub compatibility: i64,
    /// Secrets that were mounted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Named>,
    /// SSH agents that were mounted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh: Vec<Named>,
    /// Folders of the client.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub locals: Vec<Local>,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A folder of the client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Local {
    /// The client's name of it.
    pub name: String,
}

/// A secret or an SSH agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Named {
    /// Which one.
    pub id: String,
    /// The build would have gone on without it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// Something that went in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Material {
    /// Where it came from.
    pub uri: String,
    /// What it was.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: DigestSet,
}

/// The steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BuildConfig {
    /// Inputs before those who use them.
    #[serde(rename = "llbDefinition", skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// The steps' ids by their digests.
    #[serde(rename = "digestMapping", skip_serializing_if = "BTreeMap::is_empty")]
    pub digests: BTreeMap<String, String>,
}

/// One step.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Step {
    /// `step0`, `step1`, …
    pub id: String,
    /// What it says, see `llb::go_form`.
    pub op: Value,
    /// `step0:0`, …
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
    /// What its process used of the machine.
    #[serde(rename = "resourceUsage", skip_serializing_if = "Option::is_none")]
    pub usage: Option<Value>,
}

/// What BuildKit tells beyond SLSA.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Metadata {
    /// Where the client's folder came from, as the client says.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub vcs: BTreeMap<String, String>,
    /// The files the steps came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceMap>,
    /// The layers of each step's outputs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub layers: BTreeMap<String, Vec<Vec<Descriptor>>>,
    /// What the whole machine did meanwhile.
    #[serde(rename = "sysUsage", skip_serializing_if = "Vec::is_empty")]
    pub system: Vec<Value>,
    /// How steps reached the network, if not by themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkFacts>,
}

/// How steps reached the network.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NetworkFacts {
    /// `proxy`.
    pub mode: &'static str,
    /// What they got there that is no material.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub incomplete: Vec<Uncaptured>,
}

/// A request of a step of which it is not known what it brought in.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Uncaptured {
    /// The step, by its digest.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// Of what.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// How it was asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// Why it is not known.
    pub reason: &'static str,
}

/// The files steps came from.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SourceMap {
    /// By step: the lines.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub locations: BTreeMap<String, Value>,
    /// The files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub infos: Vec<SourceFile>,
}

/// A file steps came from.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SourceFile {
    /// As the user named it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filename: String,
    /// Like `Dockerfile`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub language: String,
    /// Its text in base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub data: String,
    /// How it was read.
    #[serde(flatten)]
    pub read_by: BuildConfig,
}

impl Provenance {
    /// Leaves out what the options do not want told, and adds what they say.
    pub fn shaped(mut self, options: &Options) -> Provenance {
        self.builder_id.clone_from(&options.builder_id);
        self.reproducible = options.reproducible;
        if options.mode == Mode::Min {
            let private = |key: &str| key.starts_with("build-arg:") || key.starts_with("label:");
            let before = self.request.args.len();
            self.request.args.retain(|key, _| !private(key));
            self.request_complete &= self.request.args.len() == before;
            self.request.secrets.clear();
            self.request.ssh.clear();
            self.steps = None;
            self.metadata.source = None;
            self.metadata.layers.clear();
        }
        self
    }

    /// The predicate as JSON, one line.
    pub fn predicate(&self, version: Version) -> String {
        slsa::write(self, version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: P02
    #[test]
    fn logins_are_not_told() {
        for (address, shown) in [
            (
                "https://u:p@h.example/r.git#main",
                "https://xxxxx:xxxxx@h.example/r.git#main",
            ),
            (
                "https://token@h.example/r.git",
                "https://xxxxx@h.example/r.git",
            ),
            ("https://h.example/a@b", "https://h.example/a@b"),
            ("https://u:p@ss@h.example", "https://xxxxx:xxxxx@h.example"),
            ("git@h.example:r.git", "git@h.example:r.git"),
            ("context", "context"),
        ] {
            assert_eq!(redacted(address), shown);
        }
    }
}
