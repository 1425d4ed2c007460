//! Cache keys: from ops, inputs and selectors; definition keys and content keys.
//!
//! A *key digest* says what an op does ([`KeyDigest`]). With the number of an
//! output it becomes a *record digest*, `sha256("<digest>@<output>")`: this is
//! what exported cache records carry, so the formula is a wire fact. A node of
//! the index is named by a [`KeyId`]; for a node without inputs it *is* the
//! record digest, for any other it is made from the record digest and one way
//! to reach it.

use std::fmt;

use oci::Digest;
use serde::{Deserialize, Serialize};

/// The output number under which the digest of some *content* is a key.
pub const CONTENT: i64 = -1;

/// What an op does, as a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum KeyDigest {
    /// The same for everyone, always: may be stored and exported.
    Stable(Digest),
    /// Means something only inside one session (a local directory that has not
    /// been read yet). Never stored, never exported.
    Random(Digest),
}

impl KeyDigest {
    /// Whether it means something only inside one session.
    pub fn is_random(&self) -> bool {
        matches!(self, KeyDigest::Random(_))
    }

    /// The digest of the record for one output: `sha256("<digest>@<output>")`.
    pub fn record(&self, output: i64) -> Digest {
        Digest::of(format!("{self}@{output}"))
    }
}

impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyDigest::Stable(digest) => digest.fmt(f),
            KeyDigest::Random(digest) => write!(f, "random:{}", digest.hex()),
        }
    }
}

/// The name of a node in an index of keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyId(pub Digest);

impl KeyId {
    /// The node of an op without inputs.
    pub fn root(digest: &KeyDigest, output: u32) -> KeyId {
        KeyId(digest.record(i64::from(output)))
    }

    /// The node of some content.
    pub fn content(content: Digest) -> KeyId {
        KeyId(KeyDigest::Stable(content).record(CONTENT))
    }

    /// The node of an op with inputs, named after one way to reach it. The same
    /// way gives the same name, in every build and every process.
    pub fn reached(record: Digest, inputs: &[(KeyId, Option<Digest>)]) -> KeyId {
        use std::fmt::Write as _;
        let mut text = format!("{record}\n");
        for (index, (parent, selector)) in inputs.iter().enumerate() {
            let selector = selector.map(|s| s.to_string()).unwrap_or_default();
            let _ = writeln!(text, "{index} {} {selector}", parent.0);
        }
        KeyId(Digest::of(text))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key:{}", self.0.short())
    }
}

/// How a node is reached from one of its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Link {
    /// Which input.
    pub input: u32,
    /// The record digest of the node reached.
    pub record: Digest,
    /// Which part of the input counts; none for content keys.
    pub selector: Option<Digest>,
}

/// The name of a result in the place where results are kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ResultId(pub String);

/// When a result was made, in nanoseconds since 1970.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Created(pub i64);

impl Created {
    /// The present moment.
    pub fn now() -> Created {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Created(since.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)))
    }
}

/// What is known about how an op is cached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheMap {
    /// What the op does.
    pub digest: KeyDigest,
    /// How each input counts; as many as the vertex has.
    pub inputs: Vec<InputMap>,
    /// Whether this is all. If not, the op is asked again with the next index
    /// when nothing was found: a source may know a cheap key (the digest of a
    /// manifest) and a dearer one (the digest of what is inside).
    pub last: bool,
}

impl CacheMap {
    /// The one map of an op whose inputs count by their definition.
    pub fn new(digest: KeyDigest, inputs: usize) -> CacheMap {
        CacheMap {
            digest,
            inputs: vec![InputMap::default(); inputs],
            last: true,
        }
    }
}

/// How one input of an op counts for its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputMap {
    /// Which part of the input is used.
    pub selector: Option<Digest>,
    /// Whether the input also counts by the content of that part
    /// ([`Op::content_key`](crate::Op::content_key)).
    pub by_content: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_short_in_traces() {
        let key = KeyId(Digest::of("x"));
        assert_eq!(format!("{key:?}"), format!("key:{}", key.0.short()));
        let random = KeyDigest::Random(key.0);
        assert_eq!(random.to_string(), format!("random:{}", key.0.hex()));
    }

    /// Digests as in `preimages.json` of the golden build a01. Rows: I35
    #[test]
    fn record_digests_are_buildkits() {
        let image: Digest =
            "sha256:bfbba476851a06dbff485e553607ce8426fea1bc517567a85605335a587e8abf"
                .parse()
                .unwrap();
        assert_eq!(
            KeyId::root(&KeyDigest::Stable(image), 0).0.to_string(),
            "sha256:12b6c6f33cd9662309b644fcc8e7bb9d3041a8e6370610ab6b0b6ee9f5315189"
        );
        let random = "493e08b231b470748fb369b427bdde6c4d9254d8590fce78f3926641937c2d10";
        let random = KeyDigest::Random(format!("sha256:{random}").parse().unwrap());
        assert_eq!(
            random.record(0).to_string(),
            "sha256:2ea9a570a90e9d1b938569f4e702908f19f4fe4b3a90ebe5937ea3a63785522b"
        );
    }
}
