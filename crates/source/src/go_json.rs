//! JSON as Go's `encoding/json` writes it: keys are hashes of such text.

use serde::Serialize;

/// Compact, declared order, with Go's escapes of what HTML gives a meaning.
pub(crate) fn to_string(value: &impl Serialize) -> String {
    let plain = serde_json::to_string(value).expect("keys are plain values");
    let mut text = String::with_capacity(plain.len());
    // These characters can only be inside strings, so each may be escaped.
    for c in plain.chars() {
        match c {
            '<' => text.push_str("\\u003c"),
            '>' => text.push_str("\\u003e"),
            '&' => text.push_str("\\u0026"),
            '\u{2028}' => text.push_str("\\u2028"),
            '\u{2029}' => text.push_str("\\u2029"),
            c => text.push(c),
        }
    }
    text
}

/// The digest of that text.
pub(crate) fn digest(value: &impl Serialize) -> oci::Digest {
    oci::Digest::of(to_string(value))
}
