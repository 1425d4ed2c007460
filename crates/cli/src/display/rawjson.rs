//! Every batch of events as one line of JSON, field for field as Go writes
//! BuildKit's `client.SolveStatus`.

use std::io::{self, Write};
use std::time::SystemTime;

use base64::Engine as _;
use bytes::Bytes;
use progress::{Event, Log, Position, Range, Status, Step, Warning};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[derive(Default, Serialize)]
struct SolveStatus {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vertexes: Vec<JsonVertex>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    statuses: Vec<JsonStatus>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logs: Vec<JsonLog>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<JsonWarning>,
}

#[derive(Serialize)]
struct JsonVertex {
    digest: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    cached: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
    #[serde(rename = "progressGroup", skip_serializing_if = "Option::is_none")]
    progress_group: Option<JsonGroup>,
}

#[derive(Serialize)]
struct JsonGroup {
    #[serde(skip_serializing_if = "String::is_empty")]
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "is_false")]
    weak: bool,
}

#[derive(Serialize)]
struct JsonStatus {
    id: String,
    vertex: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    current: u64,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
}

#[derive(Serialize)]
struct JsonLog {
    vertex: String,
    stream: i64,
    data: String,
    timestamp: String,
}

#[derive(Serialize)]
struct JsonWarning {
    vertex: String,
    #[serde(skip_serializing_if = "is_zero32")]
    level: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    short: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    detail: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    url: String,
    #[serde(rename = "sourceInfo", skip_serializing_if = "Option::is_none")]
    source_info: Option<JsonSource>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    range: Vec<JsonRange>,
}

#[derive(Serialize)]
struct JsonSource {
    #[serde(skip_serializing_if = "String::is_empty")]
    filename: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    data: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    language: String,
}

#[derive(Serialize)]
struct JsonRange {
    start: JsonPosition,
    end: JsonPosition,
}

#[derive(Serialize)]
struct JsonPosition {
    #[serde(skip_serializing_if = "is_zero32")]
    line: u32,
    #[serde(skip_serializing_if = "is_zero32")]
    character: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero32(value: &u32) -> bool {
    *value == 0
}

/// Writes `events` as one line.
pub fn write(out: &mut dyn Write, events: &[Event]) -> io::Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let mut line = SolveStatus::default();
    for event in events {
        match event {
            Event::Step(step) => line.vertexes.push(vertex(step)),
            Event::Status(status) => line.statuses.push(self::status(status)),
            Event::Log(log) => line.logs.push(self::log(log)),
            Event::Warning(warning) => line.warnings.push(self::warning(warning)),
        }
    }
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")?;
    out.flush()
}

fn vertex(step: &Step) -> JsonVertex {
    JsonVertex {
        digest: step.digest.to_string(),
        inputs: step.inputs.iter().map(ToString::to_string).collect(),
        name: step.name.clone(),
        started: step.started.map(timestamp),
        completed: step.completed.map(timestamp),
        cached: step.cached,
        error: step.error.clone(),
        progress_group: step.group.as_ref().map(|group| JsonGroup {
            id: group.id.clone(),
            name: group.name.clone(),
            weak: group.weak,
        }),
    }
}

fn status(status: &Status) -> JsonStatus {
    JsonStatus {
        id: status.id.clone(),
        vertex: status.step.to_string(),
        name: status.name.clone(),
        total: status.total,
        current: status.current,
        timestamp: timestamp(status.at),
        started: status.started.map(timestamp),
        completed: status.completed.map(timestamp),
    }
}

fn log(log: &Log) -> JsonLog {
    JsonLog {
        vertex: log.step.to_string(),
        stream: log.stream.number(),
        data: base64(&log.data),
        timestamp: timestamp(log.at),
    }
}

fn warning(warning: &Warning) -> JsonWarning {
    JsonWarning {
        vertex: warning.step.to_string(),
        level: warning.level,
        short: base64(warning.short.as_bytes()),
        detail: warning
            .detail
            .iter()
            .map(|line| base64(line.as_bytes()))
            .collect(),
        url: warning.url.clone(),
        source_info: warning.source.as_ref().map(|source| JsonSource {
            filename: source.filename.clone(),
            data: base64(&source.data),
            definition: definition(&source.definition),
            language: source.language.clone(),
        }),
        range: warning.ranges.iter().map(range).collect(),
    }
}

/// The graph that loads a file, as Go writes it.
fn definition(bytes: &Bytes) -> Option<serde_json::Value> {
    let known = Some(bytes).filter(|bytes| !bytes.is_empty())?;
    let definition = llb::Definition::decode(known.clone()).ok()?;
    serde_json::from_str(&llb::go_form::definition(&definition)).ok()
}

fn range(range: &Range) -> JsonRange {
    let position = |at: &Position| JsonPosition {
        line: at.line,
        character: at.character,
    };
    JsonRange {
        start: position(&range.start),
        end: position(&range.end),
    }
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// As Go writes a `time.Time`: RFC 3339 with as many digits as needed.
fn timestamp(at: SystemTime) -> String {
    OffsetDateTime::from(at)
        .format(&Rfc3339)
        .unwrap_or_default()
}
