//! From wire messages to our own words. Wire types go no further than this file,
//! [`crate::to_proto`] and the service that received them.

mod policy;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use frontend::{
    Attestation, AttestationKind, CacheImport, FileRange, FrontendResult, ImageLookup, LayoutStore,
    NestedRequest, NewContainer, NewProcess, Position, Range, RefId, Refs, ResolveMode, SourceFile,
    SourceLocation, Subject, Warning,
};
use oci::{Digest, Platform};
use proto::details::{self, Detail};
use proto::moby::buildkit::v1 as control;
use proto::moby::buildkit::v1::frontend as wire;
use proto::{google, pb};
use tonic::Status;

use crate::builder::{ClientFrontend, Compatibility, Request, Spec, What};
use crate::config::gc::GcRule;
pub(crate) use policy::source_policies;

/// A graph; refused if a digest in it is none.
pub(crate) fn definition(message: pb::Definition) -> Result<llb::Definition, Status> {
    llb::Definition::from_proto(message)
        .map_err(|error| Status::invalid_argument(error.to_string()))
}

/// Graphs by name.
pub(crate) fn definitions(
    messages: BTreeMap<String, pb::Definition>,
) -> Result<BTreeMap<String, llb::Definition>, Status> {
    messages
        .into_iter()
        .map(|(name, message)| Ok((name, definition(message)?)))
        .collect()
}

/// A platform in Go's names; empty fields are the host's business.
pub(crate) fn platform(message: pb::Platform) -> Platform {
    Platform {
        architecture: message.architecture,
        os: message.os,
        os_version: message.os_version,
        os_features: message.os_features,
        variant: message.variant,
    }
}

/// A digest, checked.
pub(crate) fn digest(text: &str) -> Result<Digest, Status> {
    text.parse()
        .map_err(|error: oci::InvalidDigest| Status::invalid_argument(error.to_string()))
}

/// `default`, `pull`, `local`, or empty.
pub(crate) fn resolve_mode(text: &str) -> Result<ResolveMode, Status> {
    match text {
        "" | "default" => Ok(ResolveMode::Default),
        "pull" => Ok(ResolveMode::Pull),
        "local" => Ok(ResolveMode::PreferLocal),
        other => Err(Status::invalid_argument(format!(
            "resolve mode {other:?} is not one of default, pull, local"
        ))),
    }
}

/// How an image is to be looked up.
pub(crate) fn image_lookup(
    request: wire::ResolveImageConfigRequest,
) -> Result<ImageLookup, Status> {
    const OCI_LAYOUT: i32 = 1;
    Ok(ImageLookup {
        platform: request.platform.map(platform),
        mode: resolve_mode(&request.resolve_mode)?,
        step_name: request.log_name,
        layout: (request.resolver_type == OCI_LAYOUT).then_some(LayoutStore {
            session: request.session_id,
            store: request.store_id,
        }),
        policies: source_policies(request.source_policies)?,
    })
}

/// Where cached steps may come from.
pub(crate) fn cache_imports(entries: Vec<wire::CacheOptionsEntry>) -> Vec<CacheImport> {
    entries
        .into_iter()
        .map(|entry| CacheImport {
            kind: entry.r#type,
            attrs: entry.attrs,
        })
        .collect()
}

/// A request to build with another frontend.
pub(crate) fn nested(request: wire::SolveRequest) -> Result<NestedRequest, Status> {
    Ok(NestedRequest {
        frontend: request.frontend,
        options: request.frontend_opt,
        inputs: definitions(request.frontend_inputs)?,
        evaluate: request.evaluate,
        cache_imports: cache_imports(request.cache_imports),
        policies: source_policies(request.source_policies)?,
    })
}

/// A part of a file; a negative offset or length is refused.
pub(crate) fn file_range(range: Option<wire::FileRange>) -> Result<Option<FileRange>, Status> {
    let Some(range) = range else { return Ok(None) };
    match (u64::try_from(range.offset), u64::try_from(range.length)) {
        (Ok(offset), Ok(length)) => Ok(Some(FileRange { offset, length })),
        _ => Err(Status::invalid_argument("a file range cannot be negative")),
    }
}

/// A container for a frontend.
pub(crate) fn container(request: wire::NewContainerRequest) -> Result<NewContainer, Status> {
    let refused = |error: llb::Error| Status::invalid_argument(error.to_string());
    if let Some(filter) = request.constraints.filter(|one| !one.filter.is_empty()) {
        return Err(Status::unimplemented(format!(
            "there is one worker, and it cannot be chosen by {:?}",
            filter.filter
        )));
    }
    let mounts = request.mounts.into_iter().map(llb::Mount::from_proto);
    let hosts = request.extra_hosts.into_iter();
    Ok(NewContainer {
        mounts: mounts.collect::<Result<_, _>>().map_err(refused)?,
        network: match request.network {
            0 => llb::Network::Sandbox,
            1 => llb::Network::Host,
            2 => llb::Network::None,
            n => {
                return Err(Status::invalid_argument(format!(
                    "unknown network mode {n}"
                )));
            }
        },
        extra_hosts: hosts
            .map(|one| llb::ExtraHost {
                host: one.host,
                ip: one.ip,
            })
            .collect(),
        hostname: request.hostname,
        platform: request.platform.map(platform),
    })
}

/// A process in one.
pub(crate) fn process(init: wire::InitMessage) -> Result<NewProcess, Status> {
    let meta = init
        .meta
        .ok_or_else(|| Status::invalid_argument("the process has no command (Meta)"))?;
    if let Some(fd) = init.fds.iter().find(|fd| **fd > 2) {
        return Err(Status::invalid_argument(format!(
            "fd {fd} cannot be given to a process: there are 0, 1 and 2"
        )));
    }
    let secrets = init.secretenv.into_iter();
    Ok(NewProcess {
        args: meta.args,
        env: meta.env,
        secret_env: secrets
            .map(|one| llb::SecretEnv {
                id: one.id,
                name: one.name,
                optional: one.optional,
            })
            .collect(),
        cwd: meta.cwd,
        user: meta.user,
        tty: init.tty,
        security: match init.security {
            0 => llb::Security::Sandbox,
            1 => llb::Security::Insecure,
            n => {
                return Err(Status::invalid_argument(format!(
                    "unknown security mode {n}"
                )));
            }
        },
        remove_mount_stubs_recursive: meta.remove_mount_stubs_recursive,
        stdin: init.fds.contains(&0),
        stdout: init.fds.contains(&1),
        stderr: init.fds.contains(&2),
    })
}

/// A warning for the progress display.
pub(crate) fn warning(request: wire::WarnRequest) -> Result<(Option<Digest>, Warning), Status> {
    let step = if request.digest.is_empty() {
        None
    } else {
        Some(digest(&request.digest)?)
    };
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let at = match request.info {
        Some(info) => Some(SourceLocation {
            file: Arc::new(SourceFile {
                name: info.filename,
                language: info.language,
                data: info.data,
                definition: info.definition.map(definition).transpose()?,
            }),
            ranges: request.ranges.iter().map(range).collect(),
        }),
        None => None,
    };
    let warning = Warning {
        level: u8::try_from(request.level).unwrap_or(u8::MAX),
        short: text(&request.short),
        detail: request.detail.iter().map(text).collect(),
        url: request.url,
        at,
    };
    Ok((step, warning))
}

/// The places in files that a failed call's details name.
pub(crate) fn places(status: &google::rpc::Status) -> Vec<SourceLocation> {
    let position = |at: details::Position| Position {
        line: u32::try_from(at.line).unwrap_or(0),
        character: u32::try_from(at.character).unwrap_or(0),
    };
    let place = |detail: &prost_types::Any| {
        let Detail::Source(source) = Detail::from_any(detail) else {
            return None;
        };
        let info = source.info?;
        let ranges = source.ranges.iter();
        Some(SourceLocation {
            file: Arc::new(SourceFile {
                name: info.filename,
                language: info.language,
                data: info.data,
                definition: None,
            }),
            ranges: ranges
                .map(|range| Range {
                    start: position(range.start),
                    end: position(range.end),
                })
                .collect(),
        })
    };
    status.details.iter().filter_map(place).collect()
}

fn range(range: &pb::Range) -> Range {
    let position = |at: Option<pb::Position>| {
        let at = at.unwrap_or_default();
        Position {
            line: u32::try_from(at.line).unwrap_or(0),
            character: u32::try_from(at.character).unwrap_or(0),
        }
    };
    Range {
        start: position(range.start),
        end: position(range.end),
    }
}

fn reference(id: String) -> Option<RefId> {
    if id.is_empty() {
        None
    } else {
        Some(RefId::new(id))
    }
}

/// What a client-side frontend ended with.
pub(crate) fn result(message: wire::Result) -> Result<FrontendResult, Status> {
    use wire::result::Result as Message;
    let refs = match message.result {
        None => Refs::One(None),
        Some(Message::RefDeprecated(id)) => Refs::One(reference(id)),
        Some(Message::Ref(one)) => Refs::One(reference(one.id)),
        Some(Message::RefsDeprecated(all)) => Refs::Many(
            all.refs
                .into_iter()
                .map(|(platform, id)| (platform, reference(id)))
                .collect(),
        ),
        Some(Message::Refs(all)) => Refs::Many(
            all.refs
                .into_iter()
                .map(|(platform, one)| (platform, reference(one.id)))
                .collect(),
        ),
    };
    let mut attestations = BTreeMap::new();
    for (platform, list) in message.attestations {
        let list: Result<Vec<_>, Status> = list.attestation.into_iter().map(attestation).collect();
        attestations.insert(platform, list?);
    }
    Ok(FrontendResult {
        refs,
        metadata: message.metadata,
        attestations,
    })
}

fn attestation(message: wire::Attestation) -> Result<Attestation, Status> {
    let kind = match message.kind() {
        wire::AttestationKind::InToto => AttestationKind::InToto,
        wire::AttestationKind::Bundle => AttestationKind::Bundle,
    };
    let subjects: Result<Vec<Subject>, Status> =
        message.in_toto_subjects.into_iter().map(subject).collect();
    Ok(Attestation {
        kind,
        reference: message.r#ref.and_then(|one| reference(one.id)),
        path: message.path,
        predicate_type: message.in_toto_predicate_type,
        subjects: subjects?,
        metadata: message.metadata,
    })
}

fn subject(message: wire::InTotoSubject) -> Result<Subject, Status> {
    match message.kind() {
        wire::InTotoSubjectKind::Self_ => Ok(Subject::Own { name: message.name }),
        wire::InTotoSubjectKind::Raw => {
            let digests: Result<Vec<Digest>, Status> =
                message.digest.iter().map(|text| digest(text)).collect();
            Ok(Subject::Raw {
                name: message.name,
                digests: digests?,
            })
        }
    }
}

/// A build. For a frontend in the client, `run` is still to be set.
pub(crate) fn solve(request: control::SolveRequest) -> Result<Request, Status> {
    let compatibility = Compatibility::of(request.compatibility_version)
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    let cache = request.cache.unwrap_or_default();
    let inputs = definitions(request.frontend_inputs)?;
    let graph = request
        .definition
        .filter(|definition| !definition.def.is_empty() || request.frontend.is_empty());
    let what = match (request.frontend.is_empty(), graph) {
        (false, Some(_)) => {
            return Err(Status::invalid_argument(
                "a build has either a frontend or a definition",
            ));
        }
        (false, None) => What::Frontend {
            name: request.frontend,
            options: request.frontend_attrs,
            inputs,
        },
        (true, Some(message)) => What::Definition {
            definition: definition(message)?,
            options: request.frontend_attrs,
        },
        (true, None) => {
            let nobody: ClientFrontend = Box::new(|_| {
                Box::pin(async { Err(frontend::Error::UnknownFrontend(String::new())) })
            });
            What::Client {
                options: request.frontend_attrs,
                inputs,
                run: nobody,
            }
        }
    };
    Ok(Request {
        id: request.r#ref,
        session: request.session,
        what,
        exporters: exporters(
            request.exporters,
            request.exporter_deprecated,
            request.exporter_attrs_deprecated,
        ),
        session_exporter: request.enable_session_exporter,
        cache_imports: imports(cache.imports, cache.import_refs_deprecated),
        cache_exports: exports(
            cache.exports,
            cache.export_ref_deprecated,
            cache.export_attrs_deprecated,
        )?,
        entitlements: request.entitlements,
        policy: policy::of_client(request.source_policy, request.source_policy_session)?,
        compatibility,
        remembered: !request.internal,
        proxy_network: request.proxy_network,
    })
}

/// The old single exporter counts only if there is none of the new ones (row A02).
fn exporters(
    list: Vec<control::Exporter>,
    old: String,
    old_attrs: BTreeMap<String, String>,
) -> Vec<Spec> {
    if list.is_empty() && !old.is_empty() {
        return vec![Spec {
            kind: old,
            attrs: old_attrs,
        }];
    }
    list.into_iter()
        .map(|exporter| Spec {
            kind: exporter.r#type,
            attrs: exporter.attrs,
        })
        .collect()
}

fn imports(list: Vec<control::CacheOptionsEntry>, old: Vec<String>) -> Vec<CacheImport> {
    let mut imports: Vec<CacheImport> = list
        .into_iter()
        .map(|entry| CacheImport {
            kind: entry.r#type,
            attrs: entry.attrs,
        })
        .collect();
    for name in old {
        let import = CacheImport {
            kind: "registry".to_owned(),
            attrs: BTreeMap::from([("ref".to_owned(), name)]),
        };
        if !imports.contains(&import) {
            imports.push(import);
        }
    }
    imports
}

/// Duplicates are refused, except that `inline` counts once (row R07).
fn exports(
    list: Vec<control::CacheOptionsEntry>,
    old: String,
    old_attrs: BTreeMap<String, String>,
) -> Result<Vec<Spec>, Status> {
    let mut exports: Vec<Spec> = Vec::new();
    for entry in list {
        let export = Spec {
            kind: entry.r#type,
            attrs: entry.attrs,
        };
        if export.kind == "inline" && exports.iter().any(|known| known.kind == "inline") {
            continue;
        }
        let same_place = |known: &Spec| {
            let place = |spec: &Spec| spec.attrs.get("ref").cloned();
            known == &export
                || (known.kind == "registry"
                    && export.kind == "registry"
                    && place(known) == place(&export))
        };
        if exports.iter().any(same_place) {
            return Err(Status::invalid_argument(format!(
                "duplicate cache exports [{}]",
                export.kind
            )));
        }
        exports.push(export);
    }
    if !old.is_empty() {
        let mut attrs = old_attrs;
        attrs.insert("ref".to_owned(), old);
        exports.push(Spec {
            kind: "registry".to_owned(),
            attrs,
        });
    }
    Ok(exports)
}

/// What the history keeps of a request.
pub(crate) fn history_record(request: &control::SolveRequest) -> control::BuildHistoryRecord {
    control::BuildHistoryRecord {
        r#ref: request.r#ref.clone(),
        frontend: request.frontend.clone(),
        frontend_attrs: request.frontend_attrs.clone(),
        exporters: request.exporters.clone(),
        ..control::BuildHistoryRecord::default()
    }
}

/// Nanoseconds, not negative.
pub(crate) fn duration(nanoseconds: i64) -> Result<Duration, Status> {
    match u64::try_from(nanoseconds) {
        Ok(nanoseconds) => Ok(Duration::from_nanos(nanoseconds)),
        Err(_) => Err(Status::invalid_argument("a duration cannot be negative")),
    }
}

/// What may be removed.
pub(crate) fn gc_rule(request: control::PruneRequest) -> Result<GcRule, Status> {
    let bytes = |bytes: i64| {
        u64::try_from(bytes)
            .map_err(|_| Status::invalid_argument("an amount of disk cannot be negative"))
    };
    Ok(GcRule {
        all: request.all,
        filters: request.filter,
        keep_duration: duration(request.keep_duration)?,
        reserved: bytes(request.reserved_space)?,
        max_used: bytes(request.max_used_space)?,
        min_free: bytes(request.min_free_space)?,
    })
}
