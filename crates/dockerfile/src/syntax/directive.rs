//! Parser directives: `# syntax=`, `# escape=` and `# check=` above everything else.

use std::sync::LazyLock;

use regex::Regex;

use super::Lines;

/// One directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// In lower case: `syntax`, `escape` or `check`.
    pub name: String,
    /// What follows the `=`.
    pub value: String,
    /// The line it stands on.
    pub line: u32,
}

/// Another frontend the file asks to be built with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syntax {
    /// The image of the frontend.
    pub image: String,
    /// The whole value, image first.
    pub command_line: String,
    /// Where it is asked for.
    pub lines: Lines,
}

static DIRECTIVE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$").expect("a constant pattern")
});

/// Reads one directive line that starts with `comment`.
pub(super) fn directive(line: &str, comment: &str) -> Option<(String, String)> {
    let rest = line.strip_prefix(comment)?.trim_start();
    let parts = DIRECTIVE.captures(rest)?;
    let name = parts[1].to_ascii_lowercase();
    matches!(name.as_str(), "syntax" | "escape" | "check").then(|| (name, parts[2].to_owned()))
}

/// The directives at the top of a text whose comments start with `comment`. A second
/// directive of one name ends the list; the parser reports it.
pub fn directives(text: &str, comment: &str) -> Vec<Directive> {
    let (text, skipped) = without_shebang(text);
    let mut found: Vec<Directive> = Vec::new();
    for (line, number) in text.lines().zip(1 + skipped..) {
        let Some((name, value)) = directive(line, comment) else {
            break;
        };
        if found.iter().any(|d| d.name == name) {
            break;
        }
        found.push(Directive {
            name,
            value,
            line: number,
        });
    }
    found
}

/// The frontend a file asks for: `# syntax=image`, `// syntax=image` or the JSON object
/// `{"syntax": "image"}`, so that files in other languages may ask too.
pub fn detect_syntax(text: &str) -> Option<Syntax> {
    for comment in ["#", "//"] {
        if let Some(d) = directives(text, comment)
            .into_iter()
            .find(|d| d.name == "syntax")
        {
            return Some(syntax(d.value, Lines::one(d.line)));
        }
    }
    let (text, _) = without_shebang(text);
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let object: serde_json::Value = serde_json::from_str(text).ok()?;
    let value = object.get("syntax")?.as_str()?;
    Some(syntax(value.to_owned(), Lines::one(1)))
}

fn syntax(command_line: String, lines: Lines) -> Syntax {
    let image = command_line
        .split(' ')
        .next()
        .unwrap_or_default()
        .to_owned();
    Syntax {
        image,
        command_line,
        lines,
    }
}

/// The text without byte order mark and first `#!` line, and how many lines that took.
fn without_shebang(text: &str) -> (&str, u32) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match text.strip_prefix("#!") {
        Some(rest) => (rest.split_once('\n').map_or("", |(_, rest)| rest), 1),
        None => (text, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(text: &str) -> Option<String> {
        detect_syntax(text).map(|s| s.image)
    }

    /// Rows: F10, F11
    #[test]
    fn syntax_is_found_in_each_of_its_forms() {
        assert_eq!(
            image("# syntax=docker/dockerfile:1\nFROM a").unwrap(),
            "docker/dockerfile:1"
        );
        assert_eq!(image("#!/usr/bin/env x\n# syntax = a b\n").unwrap(), "a");
        assert_eq!(image("\u{feff}# escape=`\n#SyNtAx=a").unwrap(), "a");
        assert_eq!(image("// syntax=a\nanything").unwrap(), "a");
        assert_eq!(image("{\"syntax\": \"a\", \"b\": 1}").unwrap(), "a");
        assert_eq!(image("# a comment\n# syntax=a"), None);
        assert_eq!(image("FROM a\n# syntax=a"), None);
        assert_eq!(
            detect_syntax("#!x\n# syntax=a b c").unwrap().command_line,
            "a b c"
        );
        assert_eq!(
            detect_syntax("#!x\n# syntax=a b c").unwrap().lines,
            Lines::one(2)
        );
    }
}
