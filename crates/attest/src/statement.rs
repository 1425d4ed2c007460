//! An in-toto statement: a predicate, and what it speaks of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The type of every statement (W51).
pub const IN_TOTO: &str = "https://in-toto.io/Statement/v1";

/// A predicate, and what it speaks of.
#[derive(Debug, Serialize, Deserialize)]
pub struct Statement {
    /// [`IN_TOTO`].
    #[serde(rename = "_type")]
    pub kind: String,
    /// What kind of predicate.
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What it speaks of.
    #[serde(default)]
    pub subject: Vec<Subject>,
    /// The predicate.
    pub predicate: Box<RawValue>,
}

impl Statement {
    /// A statement of today's type.
    pub fn new(predicate_type: &str, subject: Vec<Subject>, predicate: Box<RawValue>) -> Statement {
        Statement {
            kind: IN_TOTO.to_owned(),
            predicate_type: predicate_type.to_owned(),
            subject,
            predicate,
        }
    }
}

/// Something a statement speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// A package URL, a path, or `_`.
    pub name: String,
    /// Digests by algorithm, in hex.
    pub digest: BTreeMap<String, String>,
}

impl Subject {
    /// Something known by one digest.
    pub fn new(name: impl Into<String>, digest: &oci::Digest) -> Subject {
        Subject {
            name: name.into(),
            digest: crate::digest_set(digest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: W51
    #[test]
    fn a_statement_is_written_and_read() {
        let predicate = RawValue::from_string("{\"a\":1.0}".to_owned()).unwrap();
        let subject = Subject::new("_", &oci::Digest::of(b"x"));
        let statement = Statement::new("https://spdx.dev/Document", vec![subject], predicate);
        let text = serde_json::to_string(&statement).unwrap();
        expect_test::expect![[r#"{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://spdx.dev/Document","subject":[{"name":"_","digest":{"sha256":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}}],"predicate":{"a":1.0}}"#]]
            .assert_eq(&text);
        let read: Statement = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (read.subject, read.predicate.get()),
            (statement.subject, "{\"a\":1.0}")
        );
    }
}
