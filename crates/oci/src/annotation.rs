//! Annotations that more than one of us reads or writes.

/// On an entry of an index that is no image: what it is (BuildKit's attestation storage).
pub const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// Its value for a manifest of statements about an image.
pub const ATTESTATION_MANIFEST: &str = "attestation-manifest";
/// On the same entry: the image's manifest.
pub const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
/// On a blob: the type of the statement in it.
pub const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
