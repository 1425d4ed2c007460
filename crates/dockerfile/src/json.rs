//! JSON as Go writes it, for bytes that get a digest.

use serde::Serialize;

/// Serialises with `<`, `>`, `&` and the two odd line ends escaped.
pub(crate) fn to_string(value: &impl Serialize) -> String {
    let plain = serde_json::to_string(value).expect("our types have no maps with odd keys");
    escaped(&plain)
}

/// The same with two spaces of indent.
pub(crate) fn to_pretty(value: &impl Serialize) -> String {
    let plain = serde_json::to_string_pretty(value).expect("our types have no maps with odd keys");
    escaped(&plain)
}

/// These characters stand only inside of strings, so replacing them everywhere is right.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
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

/// Go's `%q`: a string as one would write it in a program.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                out.push_str(&format!("\\x{:02x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Go's `%q` of a list: `["a" "b"]`.
pub(crate) fn quoted_list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("[{}]", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_writes_it() {
        assert_eq!(
            to_string(&["a<b>&\u{2028}"]),
            r#"["a\u003cb\u003e\u0026\u2028"]"#
        );
        assert_eq!(
            quoted_list(&["a\"b".into(), "\u{1}\n".into()]),
            r#"["a\"b" "\x01\n"]"#
        );
    }
}
