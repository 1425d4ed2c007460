//! Here-docs: `RUN <<EOF` and the lines up to `EOF`.

use std::sync::LazyLock;

use regex::Regex;

use crate::shell::{Env, Lexer};

/// A here-doc.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it; also the name of the file it makes.
    pub name: String,
    /// Its lines with their ends, tabs still there.
    pub content: String,
    /// Variables inside are expanded: the word was not quoted.
    pub expand: bool,
    /// `<<-`: tabs at the start of lines are dropped.
    pub chomp: bool,
    /// The number before `<<`, 0 when absent.
    pub fd: u32,
}

static HEREDOC: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^(\d*)<<(-?)([^<]*)$").expect("a constant pattern"));

/// Reads a word like `<<EOF` or `3<<-"EOF"`; `None` if it is no here-doc.
pub(crate) fn parse_heredoc(word: &str) -> Option<Heredoc> {
    let parts = HEREDOC.captures(word)?;
    let rest = &parts[3];
    if rest.is_empty() {
        return None;
    }
    let plain = Lexer {
        skip_unset: true,
        ..Lexer::new('\\')
    };
    let names = plain.words(rest, &Env::default()).ok()?;
    let [name] = names.as_slice() else {
        return None;
    };
    let raw = Lexer {
        raw_quotes: true,
        raw_escapes: true,
        ..plain
    };
    let expand = raw.words(rest, &Env::default()).ok()?.first() == Some(name);
    Some(Heredoc {
        name: name.clone(),
        content: String::new(),
        expand,
        chomp: &parts[2] == "-",
        fd: parts[1].parse().unwrap_or(0),
    })
}

/// The here-docs a line announces.
pub(super) fn announced(line: &str) -> Vec<Heredoc> {
    if !line.contains("<<") {
        return Vec::new();
    }
    let lexer = Lexer {
        raw_quotes: true,
        raw_escapes: true,
        skip_unset: true,
        ..Lexer::new('\\')
    };
    match lexer.words(line, &Env::default()) {
        Ok(words) => words
            .iter()
            .filter_map(|word| parse_heredoc(word))
            .collect(),
        // What no shell could split has no here-doc either.
        Err(_) => Vec::new(),
    }
}

/// The content without tabs at the start of its lines.
pub(crate) fn chomp(content: &str) -> String {
    content
        .split_inclusive('\n')
        .map(|line| line.trim_start_matches('\t'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: F13
    #[test]
    fn quotes_switch_expansion_off() {
        let h = parse_heredoc("<<EOF").unwrap();
        assert_eq!(
            (h.name.as_str(), h.expand, h.chomp, h.fd),
            ("EOF", true, false, 0)
        );
        let h = parse_heredoc("3<<-\"a b\"").unwrap();
        assert_eq!(
            (h.name.as_str(), h.expand, h.chomp, h.fd),
            ("a b", false, true, 3)
        );
        assert!(!parse_heredoc("<<'E'").unwrap().expand);
        assert!(parse_heredoc("<<<x").is_none());
        assert!(parse_heredoc("<<").is_none());
        assert!(parse_heredoc("a<<b").is_none());
    }

    #[test]
    fn all_heredocs_of_a_line_are_found() {
        let names = |line| {
            announced(line)
                .into_iter()
                .map(|h| h.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names("COPY <<a <<-'b' /x"), ["a", "b"]);
        assert_eq!(names("RUN cat 3<<X <<Y | sh"), ["X", "Y"]);
        assert_eq!(names("RUN echo '<<x'"), Vec::<String>::new());
        assert_eq!(chomp("\t\ta\n\tb\n\n c"), "a\nb\n\n c");
    }
}
