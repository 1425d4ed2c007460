//! Why a result could not be taken out.

use oci::Digest;
use stdx::Kind;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong while exporting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Several results and nothing that says for which machines.
    #[error("unable to export multiple refs, missing platforms mapping")]
    NoPlatforms,
    /// The list of platforms names a result that is not there.
    #[error("failed to find ref for ID {0}")]
    NoRef(String),
    /// The list of platforms cannot be read.
    #[error("failed to parse platforms passed to exporter")]
    Platforms(#[source] serde_json::Error),
    /// The list of platforms has none in it.
    #[error("invalid empty platforms index for exporter")]
    EmptyPlatforms,
    /// A platform of the list does not say which result it is about.
    #[error("invalid empty platform key for exporter")]
    EmptyPlatformId,
    /// A platform's name is to be a directory's, and cannot.
    #[error("platform {0:?} cannot have a directory of this name")]
    PlatformDir(String),
    /// A platform of the list is none.
    #[error("invalid platform value {os:?}/{architecture:?} for exporter")]
    PlatformValue {
        /// Its operating system.
        os: String,
        /// Its processor.
        architecture: String,
    },
    /// Half of what makes a platform, in the image config.
    #[error("invalid image config: os and architecture must be specified together")]
    HalfPlatform,
    /// Several platforms but one result.
    #[error("cannot export multiple platforms without multi-platform enabled")]
    NotMultiPlatform,
    /// An option that wants true or false.
    #[error("non-bool value specified for {0}")]
    NotBool(String),
    /// An option that wants a number.
    #[error("non-integer value {value:?} specified for {key}")]
    NotInteger {
        /// The option.
        key: String,
        /// What was given.
        value: String,
    },
    /// Options that exclude each other.
    #[error("exporter option {first:?} conflicts with {second:?}")]
    Conflict {
        /// One, with its value where that matters.
        first: String,
        /// The other.
        second: String,
    },
    /// An annotation option that cannot be read.
    #[error("invalid annotation key {0:?}")]
    AnnotationKey(String),
    /// An annotation for a platform that is not built.
    #[error("invalid annotation: no platform {0} found in source")]
    AnnotationPlatform(String),
    /// Docker's documents have no place for this.
    #[error("cannot export {0} with \"oci-mediatypes=false\"")]
    NeedsOci(&'static str),
    /// Annotations of an index that will not be written.
    #[error("index annotations not supported for single platform export")]
    NoIndex,
    /// The image config is not one.
    #[error("invalid image config for export{0}")]
    Config(&'static str),
    /// The image config is `null`.
    #[error("invalid null image config for export")]
    NullConfig,
    /// The image config is no JSON object.
    #[error("failed to parse image config for patch")]
    ConfigJson(#[source] serde_json::Error),
    /// A statement that is no JSON.
    #[error("failed to read attestation")]
    Statement(#[source] serde_json::Error),
    /// A statement that is too large to be kept.
    #[error(
        "attestation {name} has {size} bytes, more than {} are not exported",
        attest::MAX_STATEMENT_SIZE
    )]
    StatementSize {
        /// Its file name.
        name: String,
        /// Its size.
        size: u64,
    },
    /// Two statements that would be one file.
    #[error("duplicate attestation path name {0}")]
    StatementName(String),
    /// An image name.
    #[error(transparent)]
    Name(#[from] oci::InvalidImageName),
    /// Two platforms that have the same file, and one directory for both.
    #[error("cannot overwrite {path} from {first} with {second} when split option is disabled")]
    Overwrite {
        /// The file.
        path: String,
        /// Whose it is.
        first: String,
        /// Who brings another.
        second: String,
    },
    /// Understood, but not done.
    #[error("{0} is not supported yet")]
    Unsupported(&'static str),
    /// `docker load` takes one platform.
    #[error("docker exporter does not currently support exporting manifest lists")]
    DockerList,
    /// By digest there is no place for a tag.
    #[error("can't push tagged ref {0} by digest")]
    TagByDigest(String),
    /// Pushing failed.
    #[error("failed to push {name}")]
    Push {
        /// Where to.
        name: String,
        /// Why not.
        source: Box<Error>,
    },
    /// Writing a document of the image failed.
    #[error("error writing {what} {digest}")]
    Write {
        /// Which document.
        what: &'static str,
        /// Its name.
        digest: Digest,
        /// Why not.
        source: content::Error,
    },
    /// Reading or keeping blobs failed.
    #[error(transparent)]
    Content(#[from] content::Error),
    /// Making layers failed.
    #[error(transparent)]
    Refs(#[from] refs::Error),
    /// Reading a layer failed.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// Holding what was written failed.
    #[error(transparent)]
    Lease(#[from] lease::Error),
    /// The registry said no.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// The client did not take it.
    #[error(transparent)]
    Session(#[from] session::Error),
    /// The disk said no.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Push { source, .. } => source.kind(),
            Error::Write { source, .. } | Error::Content(source) => source.kind(),
            Error::Refs(source) => source.kind(),
            Error::Layer(source) => source.kind(),
            Error::Lease(source) => source.kind(),
            Error::Registry(source) => source.kind(),
            Error::Session(source) => source.kind(),
            Error::Unsupported(_) | Error::DockerList => Kind::Unsupported,
            Error::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull => Kind::Unavailable,
                std::io::ErrorKind::PermissionDenied => Kind::Denied,
                _ => Kind::Internal,
            },
            _ => Kind::InvalidInput,
        }
    }
}
