//! What can be asked about a source without having its files, and what is answered. A frontend asks
//! so, and a client who decides which sources are used.

use bytes::Bytes;
use oci::{Descriptor, Digest, Platform};

/// What is to be found out beside what is always told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Questions {
    /// Image: the one for this platform, not for the source's own.
    pub platform: Option<Platform>,
    /// Image: how its name is looked up, not as the source says: the value of
    /// [`IMAGE_RESOLVE_MODE`](crate::attr::IMAGE_RESOLVE_MODE).
    pub mode: Option<String>,
    /// Image: its config is of no interest.
    pub no_config: bool,
    /// Image: who says what about it, and who signed that.
    pub attestations: bool,
    /// Image: the statements of these types, too.
    pub statements: Vec<String>,
    /// Git: the bytes of the commit and of its tag.
    pub objects: bool,
    /// Download: a digest of the content and some bytes more, as a signature over it needs.
    pub checksum: Option<ChecksumQuestion>,
}

/// Which digest is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChecksumQuestion {
    /// The hash function.
    pub algorithm: ChecksumAlgorithm,
    /// What comes after the content.
    pub suffix: Bytes,
}

/// A hash function of OpenPGP signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// What is known about a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Facts {
    /// There is nothing to know.
    #[default]
    Nothing,
    /// An image.
    Image(ImageFacts),
    /// A commit.
    Git(GitFacts),
    /// A download.
    Download(DownloadFacts),
}

/// About an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFacts {
    /// What its name stands for.
    pub digest: Digest,
    /// The config; empty when it was not wanted.
    pub config: Bytes,
    /// Who says what about it, when that was asked.
    pub attestations: Option<Attestations>,
}

/// The documents that lead from an image's name to what is said of it and to who signed that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestations {
    /// The index.
    pub root: Digest,
    /// The manifest for the platform. It is not among the blobs: nothing in it is signed.
    pub image_manifest: Digest,
    /// The manifest of statements about that one.
    pub attestation_manifest: Option<Digest>,
    /// The manifests of signatures of those.
    pub signature_manifests: Vec<Digest>,
    /// The bytes of these documents, of signatures, and of statements that were asked for.
    pub blobs: Vec<(Descriptor, Bytes)>,
}

/// About a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitFacts {
    /// The full name of the ref.
    pub reference: String,
    /// What it names: a commit, or an annotated tag.
    pub checksum: String,
    /// The commit of an annotated tag.
    pub commit: Option<String>,
    /// The commit's bytes, when they were asked for.
    pub commit_object: Bytes,
    /// The tag's, if it is one.
    pub tag_object: Bytes,
}

/// About a download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownloadFacts {
    /// The content.
    pub digest: Digest,
    /// The name of the file it becomes.
    pub filename: String,
    /// When it was last changed, in seconds since 1970, if the server says so.
    pub modified: Option<i64>,
    /// The digest that was asked for, and what came after the content.
    pub checksum: Option<(String, Bytes)>,
}
