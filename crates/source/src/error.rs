//! What can go wrong while files are brought here.

use std::io;
use std::sync::Arc;

use stdx::Kind;

/// Short for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A source could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The identifier of a source op names nothing.
    #[error("invalid source `{identifier}`: {reason}")]
    Identifier {
        /// What was given.
        identifier: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An attribute is not known, or has a value that makes no sense.
    #[error("source `{identifier}`: attribute {name}: {reason}")]
    Attribute {
        /// The source.
        identifier: String,
        /// The attribute.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A git source has the address of another repository than its identifier says, by which
    /// policies know it.
    #[error("source `{identifier}`: git.fullurl does not match source identifier: `{address}`")]
    GitAddress {
        /// The source.
        identifier: String,
        /// The address, without secrets.
        address: String,
    },
    /// A registry said no.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// A blob could not be read or kept.
    #[error(transparent)]
    Content(#[from] content::Error),
    /// The client said no, or is gone.
    #[error(transparent)]
    Session(Arc<session::Error>),
    /// The refs said no.
    #[error(transparent)]
    Refs(Arc<refs::Error>),
    /// Our own table said no.
    #[error("the table of downloads")]
    Db(#[source] Arc<db::Error>),
    /// The disk said no.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        source: Arc<io::Error>,
    },
    /// A document of an image cannot be read.
    #[error("{reference}: {reason}")]
    Document {
        /// The image.
        reference: String,
        /// What is wrong.
        reason: String,
    },
    /// An image of Docker's first format.
    #[error(
        "{reference}: Docker image format v1 and schema 1 manifests are not supported, \
         see https://docs.docker.com/go/deprecated-image-specs/"
    )]
    Schema1 {
        /// The image.
        reference: String,
    },
    /// No image for the wanted platform.
    #[error(
        "{reference}: no match for platform {wanted} in manifest: not found (it has {offered})"
    )]
    NoPlatform {
        /// The image.
        reference: String,
        /// The platform asked for.
        wanted: String,
        /// The platforms there are.
        offered: String,
    },
    /// Layers and diff ids do not go together (P15).
    #[error("mismatched image rootfs and manifest layers {diff_ids} {layers}")]
    Mismatch {
        /// Diff ids of the config.
        diff_ids: usize,
        /// Layers of the manifest.
        layers: usize,
    },
    /// More layers are wanted than there are (P17).
    #[error("layer limit {limit} is greater than the number of layers in the image {layers}")]
    LayerLimit {
        /// What was wanted.
        limit: usize,
        /// What there is.
        layers: usize,
    },
    /// The image is another one than was said (P16).
    #[error("image digest {found} for {reference} does not match expected checksum {expected}")]
    ImageChecksum {
        /// The image.
        reference: String,
        /// What it must be.
        expected: oci::Digest,
        /// What it is.
        found: oci::Digest,
    },
    /// A download is another one than was said.
    #[error("digest mismatch for {url}: {found} (expected: {expected})")]
    HttpChecksum {
        /// The address, without secrets.
        url: String,
        /// What it must be.
        expected: oci::Digest,
        /// What it is.
        found: oci::Digest,
    },
    /// A web server said no.
    #[error("{url}: {reason}")]
    Http {
        /// The address, without secrets.
        url: String,
        /// Why not.
        reason: String,
        /// The status, if there was one.
        status: Option<u16>,
    },
    /// Git said no.
    #[error("{what} {remote}: {reason}")]
    Git {
        /// What was tried.
        what: String,
        /// The repository, without secrets.
        remote: String,
        /// What git printed.
        reason: String,
    },
    /// A commit is another one than was said.
    #[error("expected checksum to match {expected}, got {found}")]
    GitChecksum {
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A bundle cannot be read, or lacks what it must have.
    #[error("git bundle {locator}: {reason}")]
    GitBundle {
        /// Where it is.
        locator: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A commit or tag has no signature that counts.
    #[error("failed to verify signature of {object}: {source}")]
    GitSignature {
        /// The commit or tag.
        object: String,
        /// Why not.
        source: verify::Error,
    },
    /// A tag was signed, by another name than the ref has.
    #[error("tag {called} was signed as tag {signed}")]
    GitTagName {
        /// The ref's name.
        called: String,
        /// The tag's own.
        signed: String,
    },
    /// A tag must be signed, and it is a commit that was found.
    #[error("signed tag required but no signed tag found")]
    NoSignedTag,
    /// A download has another signature than it must have.
    #[error("failed to verify pgp signature of {url}: {source}")]
    HttpSignature {
        /// The address, without secrets.
        url: String,
        /// Why not.
        source: verify::Error,
    },
    /// Understood, but not done.
    #[error("not supported yet: {0}")]
    NotYet(String),
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Identifier { .. }
            | Error::Attribute { .. }
            | Error::GitAddress { .. }
            | Error::Document { .. }
            | Error::Mismatch { .. }
            | Error::LayerLimit { .. }
            | Error::ImageChecksum { .. }
            | Error::HttpChecksum { .. }
            | Error::GitChecksum { .. }
            | Error::GitBundle { .. }
            | Error::GitTagName { .. }
            | Error::NoSignedTag => Kind::InvalidInput,
            Error::GitSignature { source, .. } | Error::HttpSignature { source, .. } => {
                source.kind()
            }
            Error::Registry(error) => error.kind(),
            Error::Content(error) => error.kind(),
            Error::Session(error) => error.kind(),
            Error::Refs(error) => error.kind(),
            Error::Db(error) => error.kind(),
            Error::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => Kind::NotFound,
                io::ErrorKind::PermissionDenied => Kind::Denied,
                io::ErrorKind::StorageFull => Kind::Unavailable,
                _ => Kind::Internal,
            },
            Error::Schema1 { .. } | Error::NotYet(_) => Kind::Unsupported,
            Error::NoPlatform { .. } => Kind::NotFound,
            Error::Http { status, .. } => match status {
                Some(401 | 403) => Kind::Denied,
                Some(404 | 410) => Kind::NotFound,
                Some(408 | 429 | 500..) | None => Kind::Unavailable,
                Some(_) => Kind::InvalidInput,
            },
            Error::Git { reason, .. } => git_kind(reason),
        }
    }

    /// A sentence that helps whoever reads the error, when we know one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Registry(error) => error.hint(),
            Error::Git { .. } if self.kind() == Kind::Denied => Some(
                "Private repositories need a secret GIT_AUTH_TOKEN or GIT_AUTH_HEADER, or an SSH agent (--ssh default).".into(),
            ),
            Error::Http { status: Some(401 | 403), .. } => {
                Some("Give the login as secret HTTP_AUTH_TOKEN_<host> or HTTP_AUTH_HEADER_<host>.".into())
            }
            Error::NoPlatform { .. } => Some("Choose one of these with --platform, or another image.".into()),
            _ => None,
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io {
            what,
            source: Arc::new(source),
        }
    }
}

/// Git says what happened in words only.
fn git_kind(reason: &str) -> Kind {
    let has = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if has(&[
        "Authentication failed",
        "Permission denied",
        "could not read Username",
        "terminal prompts disabled",
    ]) {
        Kind::Denied
    } else if has(&[
        "Could not resolve host",
        "Connection",
        "timed out",
        "early EOF",
        "unable to access",
    ]) {
        Kind::Unavailable
    } else if has(&[
        "not found",
        "does not contain ref",
        "couldn't find remote ref",
        "does not exist",
    ]) {
        Kind::NotFound
    } else {
        Kind::InvalidInput
    }
}

impl From<session::Error> for Error {
    fn from(error: session::Error) -> Error {
        Error::Session(Arc::new(error))
    }
}

impl From<refs::Error> for Error {
    fn from(error: refs::Error) -> Error {
        Error::Refs(Arc::new(error))
    }
}

impl From<db::Error> for Error {
    fn from(error: db::Error) -> Error {
        Error::Db(Arc::new(error))
    }
}
