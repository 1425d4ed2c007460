//! From wire messages to our own words. Wire types go no further than this file,
//! [`crate::to_proto`] and the service that received them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use frontend::{
    Attestation, AttestationKind, CacheImport, FileRange, FrontendResult, ImageLookup, LayoutStore,
    NestedRequest, Position, Range, RefId, Refs, ResolveMode, SourceFile, SourceLocation, Subject,
    Warning,
};
use oci::{Digest, Platform};
use proto::moby::buildkit::v1::frontend as wire;
use proto::pb;
use tonic::Status;

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
    request: &wire::ResolveImageConfigRequest,
) -> Result<ImageLookup, Status> {
    const OCI_LAYOUT: i32 = 1;
    Ok(ImageLookup {
        platform: request.platform.clone().map(platform),
        mode: resolve_mode(&request.resolve_mode)?,
        step_name: request.log_name.clone(),
        layout: (request.resolver_type == OCI_LAYOUT).then(|| LayoutStore {
            session: request.session_id.clone(),
            store: request.store_id.clone(),
        }),
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
        wire::InTotoSubjectKind::Self_ => Ok(Subject::Own),
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
