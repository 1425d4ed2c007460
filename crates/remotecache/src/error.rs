//! What can go wrong with remote caches.

use std::sync::Arc;

use oci::Digest;
use stdx::Kind;

/// What is wrong with a cache config.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A record leads back to itself.
    #[error("invalid looping record")]
    LoopingRecord,
    /// A record that is not there.
    #[error("invalid record ID: {0}")]
    RecordId(i64),
    /// An input nothing leads to.
    #[error("invalid empty input for record {0}")]
    EmptyInput(usize),
    /// A layer that lies on itself.
    #[error("invalid looping layer")]
    LoopingLayer,
    /// A layer that is not there.
    #[error("invalid layer index {0}")]
    LayerIndex(i64),
    /// More than any cache has.
    #[error("the results have more layers than kiln reads from one cache")]
    TooManyLayers,
    /// Records that turn out to be the same, or to have more ways to them, again and again.
    #[error("the records are too tangled to be read")]
    Tangled,
    /// A digest that is none.
    #[error("failed to add record {record}")]
    Digest {
        /// Which record.
        record: usize,
        /// What is wrong.
        source: oci::InvalidDigest,
    },
    /// A time that is none.
    #[error("record {record} has the creation time `{text}`, which cannot be read")]
    Created {
        /// Which record.
        record: usize,
        /// What stands there.
        text: String,
    },
}

/// What can go wrong with remote caches.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The document is larger than we read into memory.
    #[error("blob {digest} is too large ({size} > {limit})")]
    TooLarge {
        /// The document.
        digest: Digest,
        /// Its size.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
    /// It is a manifest and an index at once.
    #[error("invalid ambiguous manifest and manifest list")]
    Ambiguous,
    /// It says it is one and looks like the other.
    #[error("mediaType in manifest does not match manifest contents")]
    MediaTypeMismatch,
    /// A kind of document no cache is kept in.
    #[error("unsupported cache manifest type {0}")]
    ManifestType(String),
    /// It is not the JSON it should be.
    #[error("reading {what}")]
    Json {
        /// Which document.
        what: String,
        /// Why.
        source: Arc<serde_json::Error>,
    },
    /// The records are not base64.
    #[error("reading the inline cache of {image}")]
    Base64 {
        /// The image config.
        image: Digest,
        /// Why.
        source: base64::DecodeError,
    },
    /// The records make no sense.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// A blob could not be moved; `doing` is what we were at.
    #[error("{doing}")]
    Content {
        /// What we were doing: `error writing layer blob` …
        doing: String,
        /// Why it failed.
        source: content::Error,
    },
    /// The registry refused.
    #[error("{doing}")]
    Registry {
        /// What we were doing.
        doing: String,
        /// Why it failed.
        source: Arc<registry::Error>,
    },
    /// A result could not be made into layers.
    #[error("preparing build cache for export")]
    Prepare(#[source] solver::OpError),
    /// The keys could not be walked.
    #[error("preparing build cache for export")]
    Solver(#[from] solver::Error),
    /// A layer has no bytes anywhere.
    #[error("missing blob {0}")]
    MissingBlob(Digest),
    /// Image manifests have OCI types.
    #[error(
        "invalid configuration for remote cache: image-manifest=true requires oci-mediatypes=true"
    )]
    ImageManifestNeedsOci,
    /// A needed attribute is not there.
    #[error("{0}")]
    MissingAttribute(&'static str),
    /// An attribute that is neither true nor false.
    #[error("failed to parse {name}")]
    Bool {
        /// The attribute.
        name: String,
        /// What it says.
        value: String,
    },
    /// An attribute whose value cannot be read.
    #[error("failed to parse {name}: `{value}`")]
    Attribute {
        /// The attribute.
        name: String,
        /// What it says.
        value: String,
    },
    /// A name of an image that is none.
    #[error("invalid cache reference")]
    ImageName(#[from] oci::InvalidImageName),
    /// A type nobody knows.
    #[error("unknown cache importer: {0}")]
    UnknownImporter(String),
    /// A type nobody knows.
    #[error("unknown cache exporter: {0:?}")]
    UnknownExporter(String),
    /// A type others know.
    #[error("cache type {0} is not supported yet")]
    NotSupportedYet(String),
    /// Two exports to one place.
    #[error("duplicate cache exports [{0}]")]
    Duplicate(String),
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::NotSupportedYet(_) => Kind::Unsupported,
            Error::Content { source, .. } => source.kind(),
            Error::Registry { source, .. } => source.kind(),
            Error::Prepare(_) => Kind::Internal,
            Error::Solver(error) => error.kind(),
            Error::MissingBlob(_) => Kind::NotFound,
            Error::TooLarge { .. }
            | Error::Ambiguous
            | Error::MediaTypeMismatch
            | Error::ManifestType(_)
            | Error::Json { .. }
            | Error::Base64 { .. }
            | Error::Parse(_)
            | Error::ImageManifestNeedsOci
            | Error::MissingAttribute(_)
            | Error::Bool { .. }
            | Error::Attribute { .. }
            | Error::ImageName(_)
            | Error::UnknownImporter(_)
            | Error::UnknownExporter(_)
            | Error::Duplicate(_) => Kind::InvalidInput,
        }
    }

    pub(crate) fn json(what: impl Into<String>) -> impl FnOnce(serde_json::Error) -> Error {
        let what = what.into();
        |source| Error::Json {
            what,
            source: Arc::new(source),
        }
    }

    pub(crate) fn content(doing: impl Into<String>) -> impl FnOnce(content::Error) -> Error {
        let doing = doing.into();
        |source| Error::Content { doing, source }
    }
}
