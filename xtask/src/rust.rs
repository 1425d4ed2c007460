//! As much of Rust's syntax as chores need: what is code and what is not, where functions
//! and test modules begin and end.

use std::ops::Range;

/// The same text with comments and literals blanked out; lines stay where they are.
pub(crate) fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let Some(end) = literal_end(bytes, at) else {
            at += 1;
            continue;
        };
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(code).expect("only whole literals became blanks")
}

/// If a comment or a literal begins here, where it ends.
fn literal_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let after_word = at > 0 && is_word(bytes[at - 1]);
    if rest.starts_with(b"//") {
        return Some(at + rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        return Some(comment_end(bytes, at));
    }
    match rest[0] {
        b'"' => Some(quoted_end(bytes, at + 1)),
        b'\'' => character_end(bytes, at),
        b'r' | b'b' | b'c' if !after_word => raw_end(bytes, at),
        _ => None,
    }
}

fn comment_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn quoted_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// A character, not a lifetime.
fn character_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at + 1) == Some(&b'\\') {
        let close = bytes[at + 3..].iter().position(|&b| b == b'\'')?;
        return Some(at + 3 + close + 1);
    }
    let first = *bytes.get(at + 1)?;
    let width = match first {
        0..=0x7f => 1,
        0x80..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    };
    (bytes.get(at + 1 + width) == Some(&b'\'')).then_some(at + width + 2)
}

/// `r"…"`, `r#"…"#`, and the same after `b` and `c`.
fn raw_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut open = at;
    while matches!(bytes.get(open), Some(b'r' | b'b' | b'c')) {
        open += 1;
    }
    let hashes = bytes[open..].iter().take_while(|&&b| b == b'#').count();
    if bytes.get(open + hashes) != Some(&b'"') || !bytes[at..open].contains(&b'r') {
        return None;
    }
    let close = [&b"\""[..], &b"#".repeat(hashes)].concat();
    let inside = open + hashes + 1;
    let length = bytes[inside..]
        .windows(close.len())
        .position(|it| it == close);
    Some(length.map_or(bytes.len(), |length| inside + length + close.len()))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// A function: its name and its lines, counted from 0.
#[derive(Debug, PartialEq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) lines: Range<usize>,
}

/// The functions with a body, in code from [`code_only`].
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = code[from..].find("fn ").map(|at| from + at) {
        from = at + 3;
        if at > 0 && is_word(code.as_bytes()[at - 1]) {
            continue;
        }
        let name: String = code[from..]
            .trim_start()
            .chars()
            .take_while(|&c| c.is_alphanumeric() || c == '_')
            .collect();
        let Some(body) = (!name.is_empty()).then(|| body(code, from)).flatten() else {
            continue;
        };
        let line = |at: usize| code[..at].matches('\n').count();
        let lines = line(at)..line(body.end) + 1;
        found.push(Function { name, lines });
    }
    found
}

/// The braces of an item that begins here; none if it ends with a semicolon.
fn body(code: &str, from: usize) -> Option<Range<usize>> {
    let mut round = 0;
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => round += 1,
            b')' | b']' => round -= 1,
            b';' if round == 0 => return None,
            b'{' if round == 0 => return Some(at..block_end(code, at)),
            _ => {}
        }
    }
    None
}

fn block_end(code: &str, from: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// Lines (from 0) of `#[cfg(test)]` modules written in this file.
pub(crate) fn test_modules(code: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = code[from..].find("#[cfg(test)]").map(|at| from + at) {
        from = at + 12;
        let line = |at: usize| code[..at].matches('\n').count();
        if let Some(body) = body(code, from) {
            found.push(line(at)..line(body.end) + 1);
            from = body.end;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blank() {
        let text = "let a = \"x // {\"; // {\nlet b = '{'; let c: &'a str = r#\"{\"{\"#; /* { /* { */ } */ b\"}\"";
        let code = code_only(text);
        assert_eq!(code.lines().count(), 2);
        assert!(!code.contains(['{', '}', '"']), "{code}");
        assert!(code.contains("&'a str"), "{code}");
    }

    #[test]
    fn functions_have_names_and_lines() {
        let code = "fn a(x: [u8; 2]) -> u8 {\n  { 1 }\n}\ntrait T { fn none(&self); }\nlet f: fn (u8) = a;\nfn b<T>()\nwhere T: X,\n{\n}\n";
        let found = functions(code);
        let shown: Vec<_> = found
            .iter()
            .map(|it| (it.name.as_str(), it.lines.clone()))
            .collect();
        assert_eq!(shown, [("a", 0..3), ("b", 5..9)]);
    }

    #[test]
    fn modules_of_tests_are_found() {
        let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\n#[cfg(test)]\nmod more;\nfn c() {}\n";
        let found: Vec<_> = test_modules(code)
            .into_iter()
            .map(|it| (it.start, it.end))
            .collect();
        assert_eq!(found, [(1, 5)]);
    }
}
