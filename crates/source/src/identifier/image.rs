//! `docker-image://`, `oci-layout://` and single blobs.

use llb::attr;
use oci::{Digest, ImageName};
use refs::RecordType;

use super::attrs::Attrs;
use super::http::FileAttrs;
use crate::error::Result;

/// Where a name is looked up (S04, P27). Our image store is what registries said names
/// stand for; a digest that came from the repository of its name is looked up nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ResolveMode {
    /// The registry, and what is here when that fails.
    #[default]
    Default,
    /// The registry only.
    Pull,
    /// What is here first.
    Local,
}

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageId {
    /// Its name with a tag or digest.
    pub name: ImageName,
    /// Where to look.
    pub mode: ResolveMode,
    /// What kind of record.
    pub record_type: RecordType,
    /// Only so many layers from the bottom.
    pub layer_limit: Option<usize>,
    /// The digest it must have.
    pub checksum: Option<Digest>,
}

impl ImageId {
    /// A plain image.
    pub fn new(name: ImageName) -> ImageId {
        ImageId {
            name,
            mode: ResolveMode::Default,
            record_type: RecordType::Regular,
            layer_limit: None,
            checksum: None,
        }
    }

    pub(super) fn parse(rest: &str, attrs: &mut Attrs<'_>) -> Result<ImageId> {
        let name: ImageName = rest
            .parse()
            .map_err(|error| attrs.wrong(format!("{error}")))?;
        if name.tag().is_none() && name.digest().is_none() {
            return Err(attrs.wrong("object required: it has neither tag nor digest"));
        }
        Ok(ImageId {
            name,
            mode: attrs
                .read(attr::IMAGE_RESOLVE_MODE, |value| match value {
                    "" | "default" => Ok(ResolveMode::Default),
                    "pull" => Ok(ResolveMode::Pull),
                    "local" => Ok(ResolveMode::Local),
                    other => Err(format!("invalid resolvemode: {other}")),
                })?
                .unwrap_or_default(),
            record_type: record_type(attrs)?,
            layer_limit: layer_limit(attrs, attr::IMAGE_LAYER_LIMIT)?,
            checksum: attrs.parsed(attr::IMAGE_CHECKSUM)?,
        })
    }
}

fn record_type(attrs: &mut Attrs<'_>) -> Result<RecordType> {
    let read = attrs.read(attr::IMAGE_RECORD_TYPE, |value| match value {
        "" | "regular" => Ok(RecordType::Regular),
        "internal" => Ok(RecordType::Internal),
        "frontend" => Ok(RecordType::Frontend),
        other => Err(format!("invalid record type {other}")),
    })?;
    Ok(read.unwrap_or_default())
}

fn layer_limit(attrs: &mut Attrs<'_>, name: &str) -> Result<Option<usize>> {
    attrs.read(name, |value| match value.parse::<usize>() {
        Ok(limit) if limit > 0 => Ok(limit),
        _ => Err(format!("invalid layer limit `{value}`")),
    })
}

/// An image in a layout of the client (P34).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutId {
    /// The name, for people.
    pub reference: String,
    /// The manifest or index.
    pub digest: Digest,
    /// The session that has it; any of the build's when empty.
    pub session: String,
    /// The content store of that session.
    pub store: String,
    /// Only so many layers from the bottom.
    pub layer_limit: Option<usize>,
}

impl LayoutId {
    pub(super) fn parse(rest: &str, attrs: &mut Attrs<'_>) -> Result<LayoutId> {
        let (name, digest) = with_digest(rest, attrs)?;
        Ok(LayoutId {
            store: attrs
                .text(attr::OCI_STORE)
                .filter(|store| !store.is_empty())
                .unwrap_or_else(|| store_of(&name)),
            reference: rest.to_owned(),
            digest,
            session: attrs.text_or_empty(attr::OCI_SESSION),
            layer_limit: layer_limit(attrs, attr::OCI_LAYER_LIMIT)?,
        })
    }
}

/// The store a layout's name stands for: the name without a tag.
fn store_of(name: &str) -> String {
    let last = name.rfind('/').map_or(0, |at| at + 1);
    match name[last..].find(':') {
        Some(colon) => name[..last + colon].to_owned(),
        None => name.to_owned(),
    }
}

fn with_digest(rest: &str, attrs: &Attrs<'_>) -> Result<(String, Digest)> {
    let (name, digest) = rest
        .split_once('@')
        .ok_or_else(|| attrs.wrong("a digest is required"))?;
    if name.is_empty() {
        return Err(attrs.wrong("it has no name"));
    }
    let digest = digest
        .parse()
        .map_err(|error| attrs.wrong(format!("{error}")))?;
    Ok((name.to_owned(), digest))
}

/// One blob as a file (S13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobId {
    /// Where it is.
    pub place: BlobPlace,
    /// The blob.
    pub digest: Digest,
    /// Name, mode and owner of the file.
    pub file: FileAttrs,
    /// What kind of record.
    pub record_type: RecordType,
}

/// Where a blob is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobPlace {
    /// In a repository.
    Registry(ImageName),
    /// In a content store of the client.
    Layout {
        /// The session; any of the build's when empty.
        session: String,
        /// The store.
        store: String,
    },
}

impl BlobPlace {
    /// Where the blob is that `rest` names, and which one it is.
    pub(super) fn parse(
        rest: &str,
        layout: bool,
        attrs: &mut Attrs<'_>,
    ) -> Result<(BlobPlace, Digest)> {
        let (name, digest) = with_digest(rest, attrs)?;
        let place = if layout {
            let store = attrs
                .text(attr::OCI_STORE)
                .filter(|store| !store.is_empty());
            BlobPlace::Layout {
                session: attrs.text_or_empty(attr::OCI_SESSION),
                store: store.unwrap_or_else(|| store_of(&name)),
            }
        } else {
            BlobPlace::Registry(
                rest.parse()
                    .map_err(|error| attrs.wrong(format!("{error}")))?,
            )
        };
        Ok((place, digest))
    }
}

impl BlobId {
    pub(super) fn parse(rest: &str, layout: bool, attrs: &mut Attrs<'_>) -> Result<BlobId> {
        let (place, digest) = BlobPlace::parse(rest, layout, attrs)?;
        Ok(BlobId {
            place,
            digest,
            file: FileAttrs::parse(attrs)?,
            record_type: record_type(attrs)?,
        })
    }
}
