//! JSON text as Go's `encoding/json` writes it: compact or indented by two, with
//! `<`, `>`, `&` and two line separators escaped. Digests depend on it.

use serde::Serialize;

use crate::Digest;

/// One line.
pub fn compact(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).expect("our own values can be written");
    escape(&text)
}

/// Two spaces a level, no newline at the end.
pub fn indented(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value).expect("our own values can be written");
    escape(&text)
}

/// The digest of that one line.
pub fn digest(value: &impl Serialize) -> Digest {
    Digest::of(compact(value))
}

/// Someone else's JSON without the space between its parts, otherwise as it was.
pub fn squeezed(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let (mut in_text, mut escaped) = (false, false);
    for c in raw.chars() {
        if in_text {
            in_text = escaped || c != '"';
            escaped = c == '\\' && !escaped;
        } else if c.is_ascii_whitespace() {
            continue;
        } else {
            in_text = c == '"';
        }
        out.push(c);
    }
    escape(&out)
}

/// These characters only occur inside texts, so they can be replaced anywhere.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_goes_and_texts_stay() {
        let raw = "{ \"a b\" : [ 1.0 , \"x \\\" y\\\\\" ] ,\n\t\"<\": null }";
        assert_eq!(squeezed(raw), r#"{"a b":[1.0,"x \" y\\"],"\u003c":null}"#);
    }
    #[test]
    fn what_html_would_misread_is_escaped() {
        let text = ["a<b>&\u{2028}"];
        assert_eq!(compact(&text), r#"["a\u003cb\u003e\u0026\u2028"]"#);
        assert_eq!(indented(&text).lines().count(), 3);
        assert_eq!(digest(&text), Digest::of(compact(&text)));
    }
}
