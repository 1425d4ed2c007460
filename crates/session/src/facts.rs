//! What is known about a source, as it goes over the wire: in answers to frontends, and in questions
//! to a client who decides about sources.

use std::collections::BTreeMap;

use bytes::Bytes;
use llb::facts::{
    Attestations, ChecksumAlgorithm, ChecksumQuestion, DownloadFacts, Facts, GitFacts, ImageFacts,
    Questions,
};
use oci::{Descriptor, Digest, Platform};
use proto::moby::buildkit::v1::frontend as wire;
use proto::moby::buildkit::v1::frontend::checksum_request::ChecksumAlgo;

use crate::{Error, Result};

/// More bytes after a download are no part of a signature.
const MAX_SUFFIX: usize = 4 << 10;

/// What a request wants to know.
pub fn questions(request: &wire::ResolveSourceMetaRequest) -> Result<Questions> {
    let image = request.image.clone().unwrap_or_default();
    let checksum = request.http.as_ref();
    let checksum = checksum.and_then(|http| http.checksum_request.as_ref());
    let checksum = checksum.map(|checksum| {
        if checksum.suffix.len() > MAX_SUFFIX {
            let why = format!("http checksum request suffix exceeds max size {MAX_SUFFIX}");
            return Err(Error::Protocol(why));
        }
        let algorithm = match ChecksumAlgo::try_from(checksum.algo) {
            Ok(ChecksumAlgo::Sha256) => ChecksumAlgorithm::Sha256,
            Ok(ChecksumAlgo::Sha384) => ChecksumAlgorithm::Sha384,
            Ok(ChecksumAlgo::Sha512) => ChecksumAlgorithm::Sha512,
            Err(_) => {
                let why = format!("unsupported checksum algorithm {}", checksum.algo);
                return Err(Error::Protocol(why));
            }
        };
        let suffix = checksum.suffix.clone();
        Ok(ChecksumQuestion { algorithm, suffix })
    });
    Ok(Questions {
        platform: request.platform.clone().map(platform),
        mode: Some(request.resolve_mode.clone()).filter(|mode| !mode.is_empty()),
        no_config: image.no_config,
        // Who wants a statement wants what it hangs on.
        attestations: image.attestation_chain || !image.resolve_attestations.is_empty(),
        statements: image.resolve_attestations,
        objects: request.git.as_ref().is_some_and(|git| git.return_object),
        checksum: checksum.transpose()?,
    })
}

/// A platform as it is sent.
pub(crate) fn platform(message: proto::pb::Platform) -> Platform {
    Platform {
        architecture: message.architecture,
        os: message.os,
        variant: message.variant,
        os_version: message.os_version,
        os_features: message.os_features,
    }
}

/// A platform to send.
pub(crate) fn to_platform(platform: &Platform) -> proto::pb::Platform {
    let platform = platform.clone();
    proto::pb::Platform {
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
        os_version: platform.os_version,
        os_features: platform.os_features,
    }
}

/// A request for what is wanted to be known.
pub(crate) fn request(
    questions: &Questions,
    identifier: &str,
    attrs: &BTreeMap<String, String>,
) -> wire::ResolveSourceMetaRequest {
    let checksum = questions.checksum.as_ref();
    wire::ResolveSourceMetaRequest {
        platform: questions.platform.as_ref().map(to_platform),
        resolve_mode: questions.mode.clone().unwrap_or_default(),
        source: Some(proto::pb::SourceOp {
            identifier: identifier.to_owned(),
            attrs: attrs.clone(),
        }),
        image: Some(wire::ResolveSourceImageRequest {
            no_config: questions.no_config,
            attestation_chain: questions.attestations,
            resolve_attestations: questions.statements.clone(),
        }),
        git: Some(wire::ResolveSourceGitRequest {
            return_object: questions.objects,
        }),
        http: checksum.map(|checksum| wire::ResolveSourceHttpRequest {
            checksum_request: Some(wire::ChecksumRequest {
                algo: match checksum.algorithm {
                    ChecksumAlgorithm::Sha256 => ChecksumAlgo::Sha256,
                    ChecksumAlgorithm::Sha384 => ChecksumAlgo::Sha384,
                    ChecksumAlgorithm::Sha512 => ChecksumAlgo::Sha512,
                }
                .into(),
                suffix: checksum.suffix.clone(),
            }),
        }),
        ..wire::ResolveSourceMetaRequest::default()
    }
}

/// What is known about a source.
pub fn response(
    identifier: &str,
    attrs: &BTreeMap<String, String>,
    facts: &Facts,
) -> wire::ResolveSourceMetaResponse {
    let mut response = wire::ResolveSourceMetaResponse {
        source: Some(proto::pb::SourceOp {
            identifier: identifier.to_owned(),
            attrs: attrs.clone(),
        }),
        ..wire::ResolveSourceMetaResponse::default()
    };
    match facts {
        Facts::Nothing => {}
        Facts::Image(image) => {
            response.image = Some(wire::ResolveSourceImageResponse {
                digest: image.digest.to_string(),
                config: image.config.clone(),
                attestation_chain: image.attestations.as_ref().map(chain),
            });
        }
        Facts::Git(git) => {
            response.git = Some(wire::ResolveSourceGitResponse {
                checksum: git.checksum.clone(),
                r#ref: git.reference.clone(),
                commit_checksum: git.commit.clone().unwrap_or_default(),
                commit_object: git.commit_object.clone(),
                tag_object: git.tag_object.clone(),
            });
        }
        Facts::Download(download) => {
            response.http = Some(wire::ResolveSourceHttpResponse {
                checksum: download.digest.to_string(),
                filename: download.filename.clone(),
                last_modified: download
                    .modified
                    .map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
                checksum_response: download
                    .checksum
                    .clone()
                    .map(|(digest, suffix)| wire::ChecksumResponse { digest, suffix }),
            });
        }
    }
    response
}

fn chain(attestations: &Attestations) -> wire::AttestationChain {
    let text = |digest: &Digest| digest.to_string();
    let blobs = attestations.blobs.iter().map(|(descriptor, data)| {
        let blob = wire::Blob {
            descriptor: Some(wire::Descriptor {
                media_type: descriptor.media_type.clone(),
                digest: text(&descriptor.digest),
                size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
                annotations: descriptor.annotations.clone().into_iter().collect(),
            }),
            data: data.clone(),
        };
        (text(&descriptor.digest), blob)
    });
    wire::AttestationChain {
        root: text(&attestations.root),
        image_manifest: text(&attestations.image_manifest),
        attestation_manifest: attestations
            .attestation_manifest
            .as_ref()
            .map(text)
            .unwrap_or_default(),
        signature_manifests: attestations.signature_manifests.iter().map(text).collect(),
        blobs: blobs.collect(),
    }
}

/// What a message says about a source.
pub(crate) fn facts(message: &wire::ResolveSourceMetaResponse) -> Result<Facts> {
    if let Some(image) = &message.image {
        return Ok(Facts::Image(ImageFacts {
            digest: digest(&image.digest)?,
            config: image.config.clone(),
            attestations: image
                .attestation_chain
                .as_ref()
                .map(attestations)
                .transpose()?,
        }));
    }
    if let Some(git) = &message.git {
        return Ok(Facts::Git(GitFacts {
            reference: git.r#ref.clone(),
            checksum: git.checksum.clone(),
            commit: Some(git.commit_checksum.clone()).filter(|commit| !commit.is_empty()),
            commit_object: git.commit_object.clone(),
            tag_object: git.tag_object.clone(),
        }));
    }
    let Some(http) = &message.http else {
        return Ok(Facts::Nothing);
    };
    Ok(Facts::Download(DownloadFacts {
        digest: digest(&http.checksum)?,
        filename: http.filename.clone(),
        modified: http.last_modified.as_ref().map(|time| time.seconds),
        checksum: http
            .checksum_response
            .clone()
            .map(|response| (response.digest, response.suffix)),
    }))
}

fn attestations(chain: &wire::AttestationChain) -> Result<Attestations> {
    let blobs = chain.blobs.values().map(|blob| {
        let told = blob.descriptor.clone().unwrap_or_default();
        let digest = digest(&told.digest)?;
        let mut descriptor = Descriptor::new(told.media_type, digest, blob.data.len() as u64);
        descriptor.annotations = told.annotations.into_iter().collect();
        Ok((descriptor, Bytes::clone(&blob.data)))
    });
    Ok(Attestations {
        root: digest(&chain.root)?,
        image_manifest: digest(&chain.image_manifest)?,
        attestation_manifest: match chain.attestation_manifest.as_str() {
            "" => None,
            named => Some(digest(named)?),
        },
        signature_manifests: chain
            .signature_manifests
            .iter()
            .map(|named| digest(named))
            .collect::<Result<_>>()?,
        blobs: blobs.collect::<Result<_>>()?,
    })
}

fn digest(text: &str) -> Result<Digest> {
    text.parse()
        .map_err(|error| Error::Protocol(format!("{error}")))
}
