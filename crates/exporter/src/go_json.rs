//! JSON text as Go's `encoding/json` writes it: compact or indented by two, with
//! `<`, `>`, `&` and two line separators escaped. Digests depend on it.

use serde::Serialize;

/// One line.
pub(crate) fn compact(value: &impl Serialize) -> Vec<u8> {
    let text = serde_json::to_string(value).expect("our own values can be written");
    escape(&text).into_bytes()
}

/// Two spaces a level, no newline at the end.
pub(crate) fn indented(value: &impl Serialize) -> Vec<u8> {
    let text = serde_json::to_string_pretty(value).expect("our own values can be written");
    escape(&text).into_bytes()
}

/// Someone else's JSON without the space between its parts, otherwise as it was.
pub(crate) fn squeezed(raw: &str) -> String {
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
}
