//! What travels inside the details of a failed call: JSON as Go writes it, in an
//! `Any` whose `type_url` is `github.com/moby/buildkit/<package>.<Type>+json`.
//!
//! The Rust types are ours; [`Detail::to_any`] and [`Detail::from_any`] hold the
//! names. Details of a type nobody here knows are kept as they are.

use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use prost::Message as _;

/// The start of every type url.
const PREFIX: &str = "github.com/moby/buildkit/";

/// The type url of [`Hints`], which is none of BuildKit's: its clients pass it over.
const HINTS: &str = "kiln/Hints+json";

/// The longest detail worth reading. A Dockerfile fits many times.
const MAX_DETAIL: usize = 8 << 20;

/// One detail of an error.
#[derive(Clone, Debug, PartialEq)]
pub enum Detail {
    /// The step it happened in.
    Vertex(Vertex),
    /// The lines of a file it came from.
    Source(Source),
    /// The frontend it happened in.
    Frontend(Frontend),
    /// A capability the frontend lacks.
    FrontendCap(Name),
    /// A subrequest the frontend does not know.
    Subrequest(Name),
    /// A feature the compatibility version does not have.
    CompatibilityFeature(serde_json::Value),
    /// Provenance that could not list all materials.
    ProvenanceMaterialsIncomplete(serde_json::Value),
    /// What a step was given, and what it had made.
    Solve(Solve),
    /// How a process ended.
    Exit(Exit),
    /// Why a policy said no.
    Decision(serde_json::Value),
    /// Where in the other program it was made.
    Stack(Stack),
    /// What may help; only our own clients know it.
    Hints(Hints),
    /// Something else, as it came.
    Other(prost_types::Any),
}

/// See [`Detail::Vertex`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vertex {
    /// Digest of the step.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
}

/// See [`Detail::Source`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<SourceInfo>,
    /// The places in it.
    #[serde(
        default,
        skip_serializing_if = "is_empty",
        deserialize_with = "or_null"
    )]
    pub ranges: Vec<Range>,
}

/// A file with its text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// As the user named it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub filename: String,
    /// The text.
    #[serde(default, skip_serializing_if = "Bytes::is_empty", with = "go_bytes")]
    pub data: Bytes,
    /// What it is written in: `Dockerfile`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub language: String,
    /// The graph that loads it, in Go's own JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<serde_json::Value>,
}

/// From one place of a file to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// First.
    #[serde(default)]
    pub start: Position,
    /// Last, included.
    #[serde(default)]
    pub end: Position,
}

/// A place in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// From 1.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub line: i32,
    /// From 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub character: i32,
}

/// See [`Detail::Frontend`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frontend {
    /// Such as `dockerfile.v0`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The image it is from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
}

/// A detail that is a name only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// The name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// See [`Detail::Solve`]. The one detail that BuildKit writes with protobuf's JSON instead of
/// Go's, and whose readers refuse names they do not know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Solve {
    /// Ids of the inputs, usable as refs while the build is open.
    #[serde(
        rename = "inputIDs",
        default,
        skip_serializing_if = "is_empty",
        deserialize_with = "or_null"
    )]
    pub input_ids: Vec<String>,
    /// Ids of the mounts as the step left them.
    #[serde(
        rename = "mountIDs",
        default,
        skip_serializing_if = "is_empty",
        deserialize_with = "or_null"
    )]
    pub mount_ids: Vec<String>,
    /// The op, in protobuf's own JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<serde_json::Value>,
    /// The file action that failed: `{"index":n}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<serde_json::Value>,
    /// The input that could not be looked into: `{"index":n}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<serde_json::Value>,
    /// The step's description.
    #[serde(
        default,
        skip_serializing_if = "is_empty",
        deserialize_with = "or_null"
    )]
    pub description: std::collections::BTreeMap<String, String>,
}

/// See [`Detail::Hints`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hints {
    /// Each a full sentence.
    #[serde(default)]
    pub hints: Vec<String>,
}

/// See [`Detail::Exit`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code.
    #[serde(rename = "Code", default, skip_serializing_if = "is_zero_u32")]
    pub code: u32,
}

/// See [`Detail::Stack`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// Innermost first.
    #[serde(
        default,
        skip_serializing_if = "is_empty",
        deserialize_with = "or_null"
    )]
    pub frames: Vec<Frame>,
    /// The command line of that program.
    #[serde(
        default,
        skip_serializing_if = "is_empty",
        deserialize_with = "or_null"
    )]
    pub cmdline: Vec<String>,
    /// Its process id.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pid: i32,
    /// Its version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Its revision.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
}

/// One call in a [`Stack`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The function.
    #[serde(rename = "Name", default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The file.
    #[serde(rename = "File", default, skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// The line.
    #[serde(rename = "Line", default, skip_serializing_if = "is_zero")]
    pub line: i32,
}

impl Detail {
    /// Writes the detail for the wire.
    pub fn to_any(&self) -> prost_types::Any {
        match self {
            Detail::Vertex(v) => any("errdefs.Vertex", v),
            Detail::Source(v) => any("errdefs.Source", v),
            Detail::Frontend(v) => any("errdefs.Frontend", v),
            Detail::FrontendCap(v) => any("errdefs.FrontendCap", v),
            Detail::Subrequest(v) => any("errdefs.Subrequest", v),
            Detail::CompatibilityFeature(v) => any("errdefs.CompatibilityFeature", v),
            Detail::ProvenanceMaterialsIncomplete(v) => {
                any("errdefs.ProvenanceMaterialsIncomplete", v)
            }
            Detail::Solve(v) => any("errdefs.Solve", v),
            Detail::Exit(v) => any("gatewayapi.ExitMessage", v),
            Detail::Decision(v) => any("policysession.DecisionResponse", v),
            Detail::Stack(v) => any("stack.Stack", v),
            Detail::Hints(v) => prost_types::Any {
                type_url: HINTS.to_owned(),
                value: serde_json::to_vec(v).unwrap_or_default(),
            },
            Detail::Other(any) => any.clone(),
        }
    }

    /// Reads a detail. What is not understood comes back as [`Detail::Other`].
    pub fn from_any(any: &prost_types::Any) -> Detail {
        let known = || {
            if any.type_url == HINTS && any.value.len() <= MAX_DETAIL {
                return Some(Detail::Hints(read(&any.value)?));
            }
            let name = any.type_url.strip_prefix(PREFIX)?.strip_suffix("+json")?;
            if any.value.len() > MAX_DETAIL {
                return None;
            }
            let json = &any.value[..];
            Some(match name {
                "errdefs.Vertex" => Detail::Vertex(read(json)?),
                "errdefs.Source" => Detail::Source(read(json)?),
                "errdefs.Frontend" => Detail::Frontend(read(json)?),
                "errdefs.FrontendCap" => Detail::FrontendCap(read(json)?),
                "errdefs.Subrequest" => Detail::Subrequest(read(json)?),
                "errdefs.CompatibilityFeature" => Detail::CompatibilityFeature(read(json)?),
                "errdefs.ProvenanceMaterialsIncomplete" => {
                    Detail::ProvenanceMaterialsIncomplete(read(json)?)
                }
                "errdefs.Solve" => Detail::Solve(read(json)?),
                "gatewayapi.ExitMessage" => Detail::Exit(read(json)?),
                "policysession.DecisionResponse" => Detail::Decision(read(json)?),
                "stack.Stack" => Detail::Stack(read(json)?),
                _ => return None,
            })
        };
        known().unwrap_or_else(|| Detail::Other(any.clone()))
    }
}

/// A failed call with its details.
pub fn status(code: tonic::Code, message: &str, details: &[Detail]) -> tonic::Status {
    let status = crate::google::rpc::Status {
        code: code.into(),
        message: message.to_owned(),
        details: details.iter().map(Detail::to_any).collect(),
    };
    let bytes = Bytes::from(status.encode_to_vec());
    tonic::Status::with_details(code, message, bytes)
}

/// The details of a failed call. A peer that sends none, or nonsense, gives none.
pub fn of(status: &tonic::Status) -> Vec<Detail> {
    match crate::google::rpc::Status::decode(status.details()) {
        Ok(status) => status.details.iter().map(Detail::from_any).collect(),
        Err(_) => Vec::new(),
    }
}

fn any(name: &str, value: &impl Serialize) -> prost_types::Any {
    // Every type here is plain data with text keys, so writing it cannot fail.
    let value = serde_json::to_vec(value).unwrap_or_default();
    prost_types::Any {
        type_url: format!("{PREFIX}{name}+json"),
        value,
    }
}

fn read<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Option<T> {
    serde_json::from_slice(json).ok()
}

/// Go writes `null` for a list that was never made.
fn or_null<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn is_empty<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_zero(value: &i32) -> bool {
    *value == 0
}

fn is_zero_u32(value: &u32) -> bool {
    *value == 0
}

/// Bytes as Go puts them into JSON: standard base64 with padding, or `null`.
mod go_bytes {
    use super::{Bytes, STANDARD};
    use base64::Engine as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Bytes, D::Error> {
        let text = Option::<String>::deserialize(input)?.unwrap_or_default();
        STANDARD
            .decode(text)
            .map(Bytes::from)
            .map_err(serde::de::Error::custom)
    }
}
