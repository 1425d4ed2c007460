//! What a frontend ends with.

use std::collections::BTreeMap;

use bytes::Bytes;
use oci::Digest;

use crate::RefId;

/// Keys of [`FrontendResult::metadata`]. A key about one platform's image has
/// `/<platform id>` behind it when there are several.
pub mod metadata_key {
    /// The image config, JSON.
    pub const IMAGE_CONFIG: &str = "containerimage.config";
    /// The config of the image the build stands on, JSON: the exporter must not touch
    /// the times of its layers.
    pub const BASE_IMAGE_CONFIG: &str = "containerimage.base.config";
    /// Which platforms there are, JSON: `{"Platforms":[{"ID":…,"Platform":{…}}]}`.
    pub const PLATFORMS: &str = "refs.platforms";
    /// Times in the image are not later than this, seconds since 1970.
    pub const SOURCE_DATE_EPOCH: &str = "source.date.epoch";
    /// Answer of a subrequest, JSON.
    pub const RESULT_JSON: &str = "result.json";
    /// Answer of a subrequest, for people.
    pub const RESULT_TEXT: &str = "result.txt";
    /// Version of a subrequest's answer.
    pub const RESULT_VERSION: &str = "version";
    /// Exit status of the lint subrequest.
    pub const RESULT_STATUS: &str = "result.statuscode";
}

/// The results of a build: one, or one for each platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refs {
    /// One result; `None` is scratch, or an answer that is all metadata.
    One(Option<RefId>),
    /// By platform id (`linux/arm64`), as the metadata `refs.platforms` lists them.
    Many(BTreeMap<String, Option<RefId>>),
}

impl Default for Refs {
    fn default() -> Refs {
        Refs::One(None)
    }
}

impl Refs {
    /// All results with their platform ids; a single one has the id "".
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&RefId>)> {
        let (one, many) = match self {
            Refs::One(reference) => (Some(("", reference.as_ref())), None),
            Refs::Many(all) => (None, Some(all)),
        };
        let many = many
            .into_iter()
            .flatten()
            .map(|(id, r)| (id.as_str(), r.as_ref()));
        one.into_iter().chain(many)
    }
}

/// What a frontend gives back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrontendResult {
    /// Filesystems.
    pub refs: Refs,
    /// Facts about them, see [`metadata_key`].
    pub metadata: BTreeMap<String, Bytes>,
    /// Statements about them, by platform id.
    pub attestations: BTreeMap<String, Vec<Attestation>>,
}

/// What an attestation's file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttestationKind {
    /// One predicate.
    InToto,
    /// A folder of complete statements.
    Bundle,
}

/// What a statement speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The image this result becomes.
    Own {
        /// One more name for it; empty if it needs none.
        name: String,
    },
    /// Something named.
    Raw {
        /// Its name.
        name: String,
        /// Its digests.
        digests: Vec<Digest>,
    },
}

/// A statement about a result, kept in a file of another result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestation {
    /// One predicate or several statements.
    pub kind: AttestationKind,
    /// Where the file is.
    pub reference: Option<RefId>,
    /// The file.
    pub path: String,
    /// URI of the predicate's type.
    pub predicate_type: String,
    /// What it is about.
    pub subjects: Vec<Subject>,
    /// Hints for exporters, such as `reason`.
    pub metadata: BTreeMap<String, Bytes>,
}
