//! From our own words to wire messages.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use executor::cdi::DeviceInfo;
use frontend::{
    EntryKind, FailedPart, FailedStep, FileStat, FrontendResult, RefId, Refs, SourceLocation,
};
use oci::Platform;
use progress::Event;
use prost::Message as _;
use proto::details::{self, Detail};
use proto::moby::buildkit::v1 as control;
use proto::moby::buildkit::v1::frontend as wire;
use proto::{fsutil, google, pb};
use stdx::Kind;
use tonic::{Code, Status};

use crate::builder::{Compatibility, Failure, Lack, Usage, Worker};
use crate::config::gc::GcRule;

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

pub(crate) use stdx::text::sentence;

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

/// What a frontend's question ended with, and what is left of the step that failed.
pub(crate) fn frontend_error(error: &frontend::Error, step: Option<FailedStep>) -> Status {
    let mut failure = Failure::of_frontend(error);
    failure.step = step.map(Box::new);
    self::failure(&failure)
}

/// What a frontend's wish for a result ended with. BuildKit says of each that it was one, also
/// when no step failed.
pub(crate) fn solve_error(error: &frontend::Error, step: Option<FailedStep>) -> Status {
    let mut failure = Failure::of_frontend(error);
    failure.step = step.map(Box::new);
    let (code, mut details) = parts(&failure);
    if !details.iter().any(|one| matches!(one, Detail::Solve(_))) {
        details.push(Detail::Solve(details::Solve::default()));
    }
    status(code, failure.message, &details)
}

fn failed_step(step: &FailedStep) -> details::Solve {
    let ids = |refs: &[Option<RefId>]| {
        let ids = refs.iter();
        ids.map(|one| one.as_ref().map(ToString::to_string).unwrap_or_default())
            .collect()
    };
    let at = |index: usize| Some(serde_json::json!({ "index": index }));
    let (file, cache) = match step.part {
        FailedPart::Process | FailedPart::Whole => (None, None),
        FailedPart::Action(place) => (at(place), None),
        FailedPart::Input(number) => (None, at(number)),
    };
    details::Solve {
        input_ids: ids(&step.inputs),
        mount_ids: ids(&step.mounts),
        op: serde_json::from_str(&llb::go_form::protobuf_op(&step.op)).ok(),
        file,
        cache,
        description: step.description.clone(),
    }
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
            definition: at.file.definition.as_ref().and_then(|definition| {
                serde_json::from_str(&llb::go_form::definition(definition)).ok()
            }),
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
                    .map_or(0, |source| source.data.len() + source.definition.len());
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
            definition: some_definition(source.definition),
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

/// The graph that loads a file. We wrote it, so that it can be read.
fn some_definition(bytes: Bytes) -> Option<pb::Definition> {
    let known = Some(bytes).filter(|bytes| !bytes.is_empty());
    known.and_then(|bytes| pb::Definition::decode(bytes).ok())
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
                frontend::Subject::Own { name } => wire::InTotoSubject {
                    kind: wire::InTotoSubjectKind::Self_.into(),
                    name: name.clone(),
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

/// A failed build, with what clients show of it.
pub(crate) fn failure(failure: &Failure) -> Status {
    let (code, details) = parts(failure);
    status(code, failure.message.clone(), &details)
}

fn parts(failure: &Failure) -> (Code, Vec<Detail>) {
    let said = failure.said.as_ref();
    let said = said.and_then(|said| google::rpc::Status::decode(said.clone()).ok());
    let mut details = Vec::new();
    if let Some(vertex) = &failure.vertex {
        details.push(Detail::Vertex(details::Vertex {
            digest: vertex.to_string(),
        }));
    }
    let mut code = failure.kind.map_or(Code::Unknown, code);
    // Clients show the first: the place named last, which is the closest to what a person wrote.
    let places = failure.places.iter().rev();
    let places = places.map(|at| Detail::Source(source(at)));
    match said {
        None => details.extend(places),
        // It names its places itself, as they are; only what we add is new.
        Some(said) => {
            code = Code::from(said.code);
            let own: Vec<Detail> = said.details.iter().map(Detail::from_any).collect();
            let known = own.iter().any(|one| matches!(one, Detail::Source(_)));
            details.extend(own);
            details.extend(places.filter(|_| !known));
        }
    }
    if let Some(code) = failure.exit_code {
        details.push(Detail::Exit(details::Exit { code }));
    }
    details.extend(failure.lacks.clone().map(|lack| match lack {
        Lack::Capability(name) => Detail::FrontendCap(details::Name { name }),
        Lack::Subrequest(name) => Detail::Subrequest(details::Name { name }),
        Lack::Feature(version, feature) => {
            let lacking = serde_json::json!({ "version": version.number(), "feature": feature });
            Detail::CompatibilityFeature(lacking)
        }
    }));
    if !failure.denied.is_empty() {
        let messages = failure.denied.iter();
        let messages: Vec<_> = messages
            .map(|message| serde_json::json!({ "message": message }))
            .collect();
        details.push(Detail::Decision(serde_json::json!({
            "action": "DENY",
            "denyMessages": messages,
        })));
    }
    if let Some(step) = &failure.step {
        details.push(Detail::Solve(failed_step(step)));
    }
    if !failure.hints.is_empty() {
        let hints = failure.hints.clone();
        details.push(Detail::Hints(details::Hints { hints }));
    }
    let code = match code {
        // Clients in Go write any other code before the sentence, which says it better.
        Code::NotFound | Code::InvalidArgument | Code::Unavailable if failure.of_a_build => {
            Code::Unknown
        }
        code => code,
    };
    (code, details)
}

/// An error that a frontend outside of this process returned, for the engine's ears.
pub(crate) fn returned_error(status: &google::rpc::Status) -> frontend::Error {
    let kind = match Code::from(status.code) {
        Code::Cancelled => Kind::Canceled,
        Code::NotFound => Kind::NotFound,
        Code::InvalidArgument => Kind::InvalidInput,
        Code::PermissionDenied | Code::Unauthenticated => Kind::Denied,
        Code::Unavailable => Kind::Unavailable,
        Code::Unimplemented => Kind::Unsupported,
        _ => Kind::Internal,
    };
    frontend::Error::Said {
        message: status.message.clone(),
        kind,
        at: crate::from_proto::places(status),
        wire: Bytes::from(status.encode_to_vec()),
    }
}

/// A status as the history keeps it.
pub(crate) fn rpc_from_status(status: &Status) -> google::rpc::Status {
    let whole = google::rpc::Status::decode(status.details())
        .ok()
        .filter(|_| !status.details().is_empty());
    whole.unwrap_or_else(|| google::rpc::Status {
        code: status.code() as i32,
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}

/// Who we are.
pub(crate) fn version() -> control::types::BuildkitVersion {
    control::types::BuildkitVersion {
        package: "kiln".to_owned(),
        version: format!("v{}", env!("CARGO_PKG_VERSION")),
        compatibility_version: Compatibility::default().number(),
        ..control::types::BuildkitVersion::default()
    }
}

/// The worker.
pub(crate) fn worker(worker: &Worker, gc: &[GcRule]) -> control::types::WorkerRecord {
    control::types::WorkerRecord {
        id: worker.id.clone(),
        labels: worker.labels.clone(),
        platforms: worker.platforms.iter().map(platform).collect(),
        gc_policy: gc.iter().map(gc_policy).collect(),
        buildkit_version: Some(version()),
        cdi_devices: Vec::new(),
    }
}

/// The same worker with what it can run now, as a build sees it.
pub(crate) fn worker_now(
    worker: &control::types::WorkerRecord,
    bridge: &dyn frontend::Bridge,
) -> control::types::WorkerRecord {
    control::types::WorkerRecord {
        platforms: bridge.platforms().iter().map(platform).collect(),
        ..worker.clone()
    }
}

/// A device that builds can ask for.
pub(crate) fn device(device: DeviceInfo) -> control::types::CdiDevice {
    control::types::CdiDevice {
        name: device.name,
        auto_allow: device.auto_allow,
        annotations: device.annotations,
        on_demand: false,
    }
}

/// Workers as a frontend's environment has them: JSON as Go writes `[]client.WorkerInfo`.
pub(crate) fn workers_json(workers: &[control::types::WorkerRecord]) -> String {
    use serde_json::json;
    let platform = |one: &pb::Platform| {
        let mut platform = json!({"architecture": one.architecture, "os": one.os});
        if !one.variant.is_empty() {
            platform["variant"] = json!(one.variant);
        }
        if !one.os_version.is_empty() {
            platform["os.version"] = json!(one.os_version);
        }
        if !one.os_features.is_empty() {
            platform["os.features"] = json!(one.os_features);
        }
        platform
    };
    let worker = |one: &control::types::WorkerRecord| {
        let version = version();
        json!({
            "id": one.id,
            "labels": one.labels,
            "platforms": one.platforms.iter().map(platform).collect::<Vec<_>>(),
            "gcPolicy": null,
            "buildkitVersion": {
                "package": version.package,
                "version": version.version,
                "revision": version.revision,
            },
            "cdiDevices": null,
        })
    };
    json!(workers.iter().map(worker).collect::<Vec<_>>()).to_string()
}

fn gc_policy(rule: &GcRule) -> control::types::GcPolicy {
    control::types::GcPolicy {
        all: rule.all,
        keep_duration: i64::try_from(rule.keep_duration.as_nanos()).unwrap_or(i64::MAX),
        filters: rule.filters.clone(),
        reserved_space: amount(rule.reserved),
        max_used_space: amount(rule.max_used),
        min_free_space: amount(rule.min_free),
    }
}

fn amount(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A record of the cache.
#[expect(deprecated, reason = "older clients read the single parent")]
pub(crate) fn usage(record: Usage) -> control::UsageRecord {
    control::UsageRecord {
        id: record.id,
        mutable: record.mutable,
        in_use: record.in_use,
        size: amount(record.size),
        parent: record.parents.first().cloned().unwrap_or_default(),
        created_at: record.created.map(timestamp),
        last_used_at: record.last_used.map(timestamp),
        usage_count: amount(record.uses),
        description: record.description,
        record_type: record.record_type,
        shared: record.shared,
        parents: record.parents,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: A16
    #[test]
    fn a_place_says_how_its_file_was_loaded() {
        let file = frontend::SourceFile {
            name: "bar".into(),
            definition: Some(llb::Definition {
                def: vec!["x".into()],
                ..llb::Definition::default()
            }),
            ..frontend::SourceFile::default()
        };
        let at = SourceLocation {
            file: std::sync::Arc::new(file),
            ranges: Vec::new(),
        };
        let detail = Detail::Source(source(&at));
        let any = detail.to_any();
        let json: serde_json::Value = serde_json::from_slice(&any.value).unwrap();
        let wanted = serde_json::json!({"def": ["eA=="]});
        assert_eq!(json["info"]["definition"], wanted);
        assert_eq!(Detail::from_any(&any), detail, "it goes on as it came");
    }

    /// Rows: A16, F07
    #[test]
    fn a_question_without_an_answer_is_a_detail() {
        let told = failure(&Failure {
            lacks: Some(Lack::Subrequest("frontend.dream".into())),
            ..Failure::default()
        });
        let status = google::rpc::Status::decode(told.details()).unwrap();
        let told: Vec<Detail> = status.details.iter().map(Detail::from_any).collect();
        let name = "frontend.dream".to_owned();
        assert_eq!(told, [Detail::Subrequest(details::Name { name })]);
    }

    /// Rows: A16, P06
    #[test]
    fn what_a_policy_says_is_a_detail() {
        let told = |denied: &[&str]| {
            let told = failure(&Failure {
                denied: denied.iter().map(|why| (*why).to_owned()).collect(),
                ..Failure::default()
            });
            let status = google::rpc::Status::decode(told.details()).unwrap();
            status.details
        };
        assert!(told(&[]).is_empty(), "rules of a request have no words");
        let [detail] = &told(&["too old", "not signed"])[..] else {
            panic!("one detail")
        };
        let name = "github.com/moby/buildkit/policysession.DecisionResponse+json";
        assert_eq!(detail.type_url, name);
        let json: serde_json::Value = serde_json::from_slice(&detail.value).unwrap();
        let messages = serde_json::json!([{"message": "too old"}, {"message": "not signed"}]);
        let wanted = serde_json::json!({"action": "DENY", "denyMessages": messages});
        assert_eq!(json, wanted);
    }

    /// Rows: A16
    #[test]
    fn a_failed_step_says_what_of_it_failed() {
        let read = |part| {
            let step = FailedStep {
                op: llb::Op {
                    inputs: Vec::new(),
                    kind: llb::OpKind::File(llb::File::default()),
                    platform: None,
                    constraints: None,
                },
                description: BTreeMap::new(),
                part,
                inputs: vec![Some(RefId::new("in"))],
                mounts: vec![None, Some(RefId::new("out"))],
            };
            let detail = Detail::Solve(failed_step(&step)).to_any();
            serde_json::from_slice::<serde_json::Value>(&detail.value).unwrap()
        };
        let action = read(FailedPart::Action(0));
        assert_eq!(action["file"], serde_json::json!({"index": 0}));
        assert_eq!(action["cache"], serde_json::Value::Null);
        assert_eq!(action["inputIDs"], serde_json::json!(["in"]));
        assert_eq!(action["mountIDs"], serde_json::json!(["", "out"]));
        assert!(action["op"]["file"].is_object(), "{action}");
        let input = read(FailedPart::Input(2));
        assert_eq!(input["cache"], serde_json::json!({"index": 2}));
        assert_eq!(input["file"], serde_json::Value::Null);
        let process = read(FailedPart::Process);
        assert!(process["file"].is_null() && process["cache"].is_null());
        let whole = read(FailedPart::Whole);
        assert!(whole["file"].is_null() && whole["cache"].is_null());
    }

    /// Also when no step failed, a result that was asked for and did not come is one for clients.
    ///
    /// Rows: A16
    #[test]
    fn a_wish_for_a_result_is_told_as_one() {
        let error = frontend::Error::UnknownFrontend("dream".into());
        let told = |status: Status| -> Vec<Detail> {
            let status = google::rpc::Status::decode(status.details()).unwrap();
            status.details.iter().map(Detail::from_any).collect()
        };
        let solve = told(solve_error(&error, None));
        assert!(solve.contains(&Detail::Solve(details::Solve::default())));
        let nothing = Detail::Solve(details::Solve::default()).to_any();
        assert_eq!(nothing.value, b"{}");
        // What a frontend that was asked said itself has it already.
        let said = solve_error(&error, None).details().to_vec();
        let error = frontend::Error::Said {
            message: "no".into(),
            kind: stdx::Kind::NotFound,
            at: Vec::new(),
            wire: said.into(),
        };
        let solves = told(solve_error(&error, None)).into_iter();
        assert_eq!(
            solves.filter(|one| matches!(one, Detail::Solve(_))).count(),
            1
        );
    }
}
