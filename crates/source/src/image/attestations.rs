//! Who says what about an image: the manifest of statements in its index, and who signed that.

use std::sync::Arc;

use bytes::Bytes;
use content::Provider;
use llb::facts::Attestations;
use oci::annotation::{ATTESTATION_MANIFEST, PREDICATE_TYPE, REFERENCE_DIGEST, REFERENCE_TYPE};
use oci::{Descriptor, Digest};

use super::What;
use super::document::Document;
use super::pull::{Place, Reading};
use crate::context::{Context, Sources};
use crate::error::{Error, Result};

/// All of it goes in one message to a frontend or client.
const MAX_TOTAL: u64 = 12 << 20;
/// Artifact types of signatures, the better one first.
const SIGNATURES: [&str; 2] = [
    "application/vnd.dev.sigstore.bundle.v0.3+json",
    "application/vnd.dev.cosign.artifact.sig.v1+json",
];

/// The chain of documents, with the statements of these types.
pub(super) async fn read(
    sources: &Sources,
    what: &What,
    reference: &str,
    statements: &[String],
    cx: &Context,
) -> Result<Attestations> {
    let mut reading = Reading::open(sources, &what.place, cx).await?;
    let root = reading.root(what, reference, cx).await?;
    let (manifest, _, _) = reading.manifest(reference, &root, &what.platform).await?;
    let index = reading.document(&root).await?;
    let mut chain = Gathered {
        found: Attestations {
            root: root.digest,
            image_manifest: manifest.digest,
            attestation_manifest: None,
            signature_manifests: Vec::new(),
            blobs: Vec::new(),
        },
        reference,
        left: MAX_TOTAL,
    };
    chain.add(&root, index.clone())?;
    let Document::Index(entries) = Document::parse(reference, &root.media_type, &index)? else {
        return Ok(chain.found);
    };
    let about = |entry: &&Descriptor| {
        let says =
            |name: &str, value: &str| entry.annotations.get(name).is_some_and(|v| v == value);
        says(REFERENCE_TYPE, ATTESTATION_MANIFEST)
            && says(REFERENCE_DIGEST, &manifest.digest.to_string())
    };
    let Some(said) = entries.iter().find(about) else {
        return Ok(chain.found);
    };
    chain.found.attestation_manifest = Some(said.digest);
    let layers = chain.manifest(said, &mut reading).await?;
    for layer in layers {
        let kind = layer.annotations.get(PREDICATE_TYPE);
        if kind.is_some_and(|kind| statements.contains(kind)) {
            chain.blob(&layer, &reading.place).await?;
        }
    }
    if let Some(signature) = signature(said.digest, &reading.place).await? {
        chain.found.signature_manifests.push(signature.digest);
        for layer in chain.manifest(&signature, &mut reading).await? {
            chain.blob(&layer, &reading.place).await?;
        }
    }
    Ok(chain.found)
}

/// The signature of the manifest of statements, if the registry knows one.
async fn signature(of: Digest, place: &Place) -> Result<Option<Descriptor>> {
    let Place::Registry(repository) = place else {
        // A layout has no list of what refers to what.
        return Ok(None);
    };
    let referrers = repository.referrers(of, None).await?;
    let found = SIGNATURES.iter().find_map(|wanted| {
        let is_one = |one: &&Descriptor| one.artifact_type.as_deref() == Some(*wanted);
        referrers.iter().find(is_one)
    });
    Ok(found.cloned())
}

struct Gathered<'a> {
    found: Attestations,
    reference: &'a str,
    left: u64,
}

impl Gathered<'_> {
    fn add(&mut self, blob: &Descriptor, bytes: Bytes) -> Result<()> {
        if self
            .found
            .blobs
            .iter()
            .any(|(known, _)| known.digest == blob.digest)
        {
            return Ok(());
        }
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| self.too_large())?;
        self.found.blobs.push((blob.clone(), bytes));
        Ok(())
    }

    fn too_large(&self) -> Error {
        Error::Document {
            reference: self.reference.into(),
            reason: format!("its attestations are larger than {} MiB", MAX_TOTAL >> 20),
        }
    }

    /// Adds a manifest and gives its layers.
    async fn manifest(
        &mut self,
        manifest: &Descriptor,
        reading: &mut Reading<'_>,
    ) -> Result<Vec<Descriptor>> {
        let bytes = reading.document(manifest).await?;
        self.add(manifest, bytes.clone())?;
        match Document::parse(self.reference, &manifest.media_type, &bytes)? {
            Document::Manifest { layers, .. } => Ok(layers),
            Document::Index(_) => Err(Error::Document {
                reference: self.reference.into(),
                reason: format!("{} is an index, not a manifest", manifest.digest),
            }),
        }
    }

    /// Adds a blob. It is read for this answer and not kept.
    async fn blob(&mut self, blob: &Descriptor, place: &Place) -> Result<()> {
        if blob.size > self.left {
            return Err(self.too_large());
        }
        let provider = Arc::new(place.provider());
        let bytes = content::collect(provider.read(blob, 0).await?, blob, self.left).await?;
        self.add(blob, bytes)
    }
}
