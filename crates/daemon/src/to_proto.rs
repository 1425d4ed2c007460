//! From our own words to wire messages.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use frontend::{EntryKind, FileStat, FrontendResult, RefId, Refs, SourceLocation};
use oci::Platform;
use progress::Event;
use prost::Message as _;
use proto::details::{self, Detail};
use proto::moby::buildkit::v1 as control;
use proto::moby::buildkit::v1::frontend as wire;
use proto::{fsutil, google, pb};
use stdx::Kind;
use tonic::{Code, Status};

/// Events per message of a progress stream: BuildKit's clients are used to batches.
pub(crate) const EVENTS: usize = 512;
/// Bytes of output per message of a progress stream.
const OUTPUT: usize = 1 << 20;

/// The gRPC code for a kind of error.
pub(crate) fn code(kind: Kind) -> Code {
    match kind {
        Kind::NotFound => Code::NotFound,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::InvalidInput => Code::InvalidArgument,
        Kind::Denied => Code::PermissionDenied,
        Kind::Unavailable => Code::Unavailable,
        Kind::Canceled => Code::Cancelled,
        Kind::Unsupported => Code::Unimplemented,
        Kind::Internal => Code::Unknown,
    }
}

/// An error and all its causes as one line.
pub(crate) fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // A transparent wrapper says what its cause says.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// A status with typed details (row A16).
pub(crate) fn status(code: Code, message: String, details: &[Detail]) -> Status {
    if details.is_empty() {
        return Status::new(code, message);
    }
    let status = google::rpc::Status {
        code: code as i32,
        message: message.clone(),
        details: details.iter().map(Detail::to_any).collect(),
    };
    Status::with_details(code, message, Bytes::from(status.encode_to_vec()))
}

/// A status another program made, passed on whole.
pub(crate) fn status_from_rpc(status: &google::rpc::Status) -> Status {
    let code = Code::from(status.code);
    Status::with_details(
        code,
        status.message.clone(),
        Bytes::from(status.encode_to_vec()),
    )
}

/// What a frontend's question ended with.
pub(crate) fn frontend_error(error: &frontend::Error) -> Status {
    let details: Vec<Detail> = error
        .locations()
        .iter()
        .map(|at| Detail::Source(source(at)))
        .collect();
    status(code(error.kind()), sentence(error), &details)
}

/// The lines of a file an error is about.
pub(crate) fn source(at: &SourceLocation) -> details::Source {
    let position = |at: frontend::Position| details::Position {
        line: i32::try_from(at.line).unwrap_or(i32::MAX),
        character: i32::try_from(at.character).unwrap_or(i32::MAX),
    };
    details::Source {
        info: Some(details::SourceInfo {
            filename: at.file.name.clone(),
            data: at.file.data.clone(),
            language: at.file.language.clone(),
        }),
        ranges: at
            .ranges
            .iter()
            .map(|range| details::Range {
                start: position(range.start),
                end: position(range.end),
            })
            .collect(),
    }
}

/// A moment; before 1970 is 1970.
pub(crate) fn timestamp(at: SystemTime) -> prost_types::Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    prost_types::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
    }
}

/// A platform in Go's names.
pub(crate) fn platform(platform: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    }
}

/// Events as messages, none larger than a client takes.
pub(crate) fn progress(events: Vec<Event>) -> Vec<control::StatusResponse> {
    let mut messages = vec![control::StatusResponse::default()];
    let mut output = 0;
    for event in events {
        if output > OUTPUT {
            messages.push(control::StatusResponse::default());
            output = 0;
        }
        let last = messages.len() - 1;
        let message = &mut messages[last];
        match event {
            Event::Step(step) => message.vertexes.push(vertex(step)),
            Event::Status(status) => message.statuses.push(vertex_status(status)),
            Event::Log(log) => {
                output += log.data.len();
                message.logs.push(control::VertexLog {
                    vertex: log.step.to_string(),
                    timestamp: Some(timestamp(log.at)),
                    stream: log.stream.number(),
                    msg: log.data,
                });
            }
            Event::Warning(warning) => {
                output += warning
                    .source
                    .as_ref()
                    .map_or(0, |source| source.data.len());
                message.warnings.push(vertex_warning(warning));
            }
        }
    }
    messages
}

fn vertex(step: progress::Step) -> control::Vertex {
    control::Vertex {
        digest: step.digest.to_string(),
        inputs: step.inputs.iter().map(ToString::to_string).collect(),
        name: step.name,
        cached: step.cached,
        started: step.started.map(timestamp),
        completed: step.completed.map(timestamp),
        error: step.error,
        progress_group: step.group.map(|group| pb::ProgressGroup {
            id: group.id,
            name: group.name,
            weak: group.weak,
        }),
    }
}

fn vertex_status(status: progress::Status) -> control::VertexStatus {
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    control::VertexStatus {
        id: status.id,
        vertex: status.step.to_string(),
        name: status.name,
        current: number(status.current),
        total: number(status.total),
        timestamp: Some(timestamp(status.at)),
        started: status.started.map(timestamp),
        completed: status.completed.map(timestamp),
    }
}

fn vertex_warning(warning: progress::Warning) -> control::VertexWarning {
    let position = |at: progress::Position| pb::Position {
        line: i32::try_from(at.line).unwrap_or(i32::MAX),
        character: i32::try_from(at.character).unwrap_or(i32::MAX),
    };
    control::VertexWarning {
        vertex: warning.step.to_string(),
        level: i64::from(warning.level),
        short: Bytes::from(warning.short),
        detail: warning.detail.into_iter().map(Bytes::from).collect(),
        url: warning.url,
        info: warning.source.map(|source| pb::SourceInfo {
            filename: source.filename,
            data: source.data,
            definition: None,
            language: source.language,
        }),
        ranges: warning
            .ranges
            .iter()
            .map(|range| pb::Range {
                start: Some(position(range.start)),
                end: Some(position(range.end)),
            })
            .collect(),
    }
}

/// A file's facts, with Go's mode bits.
pub(crate) fn stat(stat: FileStat) -> fsutil::types::Stat {
    const DIR: u32 = 1 << 31;
    const SYMLINK: u32 = 1 << 27;
    const DEVICE: u32 = 1 << 26;
    const SETUID: u32 = 1 << 23;
    const SETGID: u32 = 1 << 22;
    const STICKY: u32 = 1 << 20;
    let kind = match stat.kind {
        EntryKind::File => 0,
        EntryKind::Directory => DIR,
        EntryKind::Symlink => SYMLINK,
        EntryKind::Special => DEVICE,
    };
    let bit = |ours: u32, go: u32| if stat.mode & ours != 0 { go } else { 0 };
    let special = bit(0o4000, SETUID) | bit(0o2000, SETGID) | bit(0o1000, STICKY);
    fsutil::types::Stat {
        path: Bytes::from(stat.path),
        mode: kind | special | (stat.mode & 0o777),
        uid: stat.uid,
        gid: stat.gid,
        size: i64::try_from(stat.size).unwrap_or(i64::MAX),
        mod_time: stat.modified_ns,
        linkname: Bytes::from(stat.link),
        ..fsutil::types::Stat::default()
    }
}

/// A frontend's result. `definitions` holds the graph of each ref, as clients that can
/// take more than a name want it.
pub(crate) fn result(
    result: &FrontendResult,
    arrays: bool,
    definitions: &BTreeMap<RefId, llb::Definition>,
) -> wire::Result {
    use wire::result::Result as Message;
    let id = |one: Option<&RefId>| one.map(|one| one.as_str().to_owned()).unwrap_or_default();
    let reference = |one: Option<&RefId>| wire::Ref {
        id: id(one),
        def: one
            .and_then(|one| definitions.get(one))
            .map(llb::Definition::to_proto),
    };
    let message = match (&result.refs, arrays) {
        (Refs::One(one), true) => Message::Ref(reference(one.as_ref())),
        (Refs::One(one), false) => Message::RefDeprecated(id(one.as_ref())),
        (Refs::Many(all), true) => Message::Refs(wire::RefMap {
            refs: all
                .iter()
                .map(|(platform, one)| (platform.clone(), reference(one.as_ref())))
                .collect(),
        }),
        (Refs::Many(all), false) => Message::RefsDeprecated(wire::RefMapDeprecated {
            refs: all
                .iter()
                .map(|(platform, one)| (platform.clone(), id(one.as_ref())))
                .collect(),
        }),
    };
    wire::Result {
        result: Some(message),
        metadata: result.metadata.clone(),
        attestations: result
            .attestations
            .iter()
            .map(|(platform, list)| {
                let attestation = list
                    .iter()
                    .map(|one| attestation(one, reference(one.reference.as_ref())))
                    .collect();
                (platform.clone(), wire::Attestations { attestation })
            })
            .collect(),
    }
}

fn attestation(one: &frontend::Attestation, reference: wire::Ref) -> wire::Attestation {
    let kind = match one.kind {
        frontend::AttestationKind::InToto => wire::AttestationKind::InToto,
        frontend::AttestationKind::Bundle => wire::AttestationKind::Bundle,
    };
    wire::Attestation {
        kind: kind.into(),
        metadata: one.metadata.clone(),
        r#ref: one.reference.is_some().then_some(reference),
        path: one.path.clone(),
        in_toto_predicate_type: one.predicate_type.clone(),
        in_toto_subjects: one
            .subjects
            .iter()
            .map(|subject| match subject {
                frontend::Subject::Own => wire::InTotoSubject {
                    kind: wire::InTotoSubjectKind::Self_.into(),
                    ..wire::InTotoSubject::default()
                },
                frontend::Subject::Raw { name, digests } => wire::InTotoSubject {
                    kind: wire::InTotoSubjectKind::Raw.into(),
                    digest: digests.iter().map(ToString::to_string).collect(),
                    name: name.clone(),
                },
            })
            .collect(),
    }
}
