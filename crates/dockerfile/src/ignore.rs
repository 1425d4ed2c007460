//! `.dockerignore`: its patterns, and which of them hides a file.

use regex::Regex;

use crate::Error;

/// The patterns of a `.dockerignore`, in the form the local source takes: cleaned,
/// without comments, `!` in front of exceptions.
pub fn patterns(data: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(data);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(cleaned)
        .collect()
}

fn cleaned(line: &str) -> Option<String> {
    let line = line.trim();
    let (mark, path) = match line.strip_prefix('!') {
        Some(rest) => ("!", rest.trim()),
        None => ("", line),
    };
    if path.is_empty() {
        return (!mark.is_empty()).then(|| "!".to_owned());
    }
    let path = clean(path);
    let path = if path.len() > 1 {
        path.trim_start_matches('/')
    } else {
        &path
    };
    Some(format!("{mark}{path}"))
}

/// Go's `path.Clean`: no `.`, no doubled slashes, `..` taken as far as it goes.
pub(crate) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// Decides which paths of a context are hidden.
#[derive(Debug, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    text: String,
    exception: bool,
    regex: Regex,
}

impl Ignore {
    /// Reads patterns as [`patterns`] gives them.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Ignore, Error> {
        let rule = |text: &S| {
            let text = text.as_ref();
            let (exception, glob) = match text.strip_prefix('!') {
                Some(glob) => (true, glob),
                None => (false, text),
            };
            let regex = Regex::new(&regex_of(glob)).map_err(|_| Error::BadContext {
                name: ".dockerignore".into(),
                value: text.to_owned(),
                reason: "syntax error in pattern".into(),
            })?;
            Ok::<_, Error>(Rule {
                text: text.to_owned(),
                exception,
                regex,
            })
        };
        Ok(Ignore {
            rules: patterns.iter().map(rule).collect::<Result<_, _>>()?,
        })
    }

    /// No pattern at all.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Some pattern starts with `!`.
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.exception)
    }

    /// The pattern that hides `path`, which is relative to the context's root: the last
    /// one that matches it or a directory above it decides. `None` if it is not hidden.
    ///
    /// ```
    /// let ignore = dockerfile::Ignore::new(&["*.log", "!keep.log", "target"]).unwrap();
    /// assert_eq!(ignore.hides("a.log"), Some("*.log"));
    /// assert_eq!(ignore.hides("keep.log"), None);
    /// assert_eq!(ignore.hides("target/debug/app"), Some("target"));
    /// ```
    pub fn hides(&self, path: &str) -> Option<&str> {
        let path = clean(path.trim_start_matches('/'));
        let ends = path
            .char_indices()
            .filter(|(_, c)| *c == '/')
            .map(|(at, _)| at);
        let above: Vec<&str> = ends.map(|at| &path[..at]).chain([path.as_str()]).collect();
        let deciding = self
            .rules
            .iter()
            .rev()
            .find(|rule| above.iter().any(|p| rule.regex.is_match(p)));
        deciding
            .filter(|rule| !rule.exception)
            .map(|rule| rule.text.as_str())
    }

    /// Everything at the root is hidden: `*` or `**`.
    pub(crate) fn hides_everything(&self) -> Option<&str> {
        let all =
            |rule: &&Rule| !rule.exception && ["*", "**", "**/*"].contains(&rule.text.as_str());
        self.rules.iter().find(all).map(|rule| rule.text.as_str())
    }
}

/// A pattern as a regular expression: `**` is any number of directories, `*` and `?`
/// stay within one.
fn regex_of(glob: &str) -> String {
    let mut out = "^".to_owned();
    let mut chars = glob.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                // `**/` also matches nothing at all.
                let slash = chars.next_if_eq(&'/').is_some();
                out.push_str(match (slash, chars.peek()) {
                    (_, None) => ".*",
                    _ => "(.*/)?",
                });
            }
            '*' => out.push_str("[^/]*"),
            '?' => out.push_str("[^/]"),
            '[' => out.push('['),
            ']' => out.push(']'),
            '\\' => out.push_str(&regex::escape(&chars.next().unwrap_or('\\').to_string())),
            c => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    out.push('$');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hides(lines: &str, path: &str) -> Option<String> {
        let ignore = Ignore::new(&patterns(lines.as_bytes())).unwrap();
        ignore.hides(path).map(str::to_owned)
    }

    /// Rows: F05
    #[test]
    fn lines_are_cleaned() {
        let text = "\u{feff}# no\n /a/../b \n!c/\n\n  #x\n!\n./d//e\n";
        assert_eq!(patterns(text.as_bytes()), ["b", "!c", "#x", "!", "d/e"]);
    }

    /// Rows: F05
    #[test]
    fn the_last_match_decides() {
        assert_eq!(hides("*.log\n!keep.log", "keep.log"), None);
        assert_eq!(hides("!keep.log\n*.log", "keep.log").unwrap(), "*.log");
        assert_eq!(
            hides("*.log", "sub/a.log"),
            None,
            "a star stays in its directory"
        );
        assert_eq!(hides("**/*.log", "sub/x/a.log").unwrap(), "**/*.log");
        assert_eq!(hides("**/*.log", "a.log").unwrap(), "**/*.log");
        assert_eq!(
            hides("node_modules", "node_modules/a/b").unwrap(),
            "node_modules"
        );
        assert_eq!(hides("**", "any/thing").unwrap(), "**");
        assert_eq!(hides("a/**/z", "a/z").unwrap(), "a/**/z");
        assert_eq!(hides("a?[bc]", "axc").unwrap(), "a?[bc]");
        assert_eq!(hides("a\\*", "ab"), None);
        assert_eq!(hides("*\n!src", "src/main.rs"), None);
    }
}
