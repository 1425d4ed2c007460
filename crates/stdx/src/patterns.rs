//! The patterns of .dockerignore, file sync and `COPY --exclude`, with the meaning
//! Docker gives them. Pure: nothing here looks at a disk.
//!
//! `*` and `?` stop at a slash, `**` does not, `**/` may be nothing, `[a-z]` and
//! `[^a-z]` are classes, `\` takes the next character as it is. A pattern that
//! matches a directory matches all in it. A pattern that begins with `!` takes back
//! what those before it matched.

mod filter;

pub use filter::{Above, Filter, Judged};

/// A pattern nobody can match by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid pattern `{pattern}`: {reason}")]
pub struct InvalidPattern {
    /// As it was written.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl InvalidPattern {
    /// What a caller can do about it.
    pub fn kind(&self) -> crate::Kind {
        crate::Kind::InvalidInput
    }
}

type Result<T> = std::result::Result<T, InvalidPattern>;

/// A list of patterns; later ones weigh more.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    list: Vec<Pattern>,
    negations: bool,
}

/// Which patterns matched a directory: needed to judge what is in it.
#[derive(Clone, Debug, Default)]
pub struct Matched(Vec<bool>);

/// One pattern.
#[derive(Clone, Debug)]
struct Pattern {
    negated: bool,
    text: String,
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// Exactly this.
    Char(char),
    /// Any but a slash.
    One,
    /// Any number of any but a slash.
    Star,
    /// Any number of anything.
    Deep,
    /// Nothing, or anything that ends in a slash.
    DeepDirs,
    /// One of these, or none of these.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Patterns {
    /// Reads patterns. Empty ones mean nothing; `!` alone is refused.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Patterns> {
        let mut list = Vec::new();
        for pattern in patterns {
            let text = pattern.as_ref().trim();
            if text.is_empty() {
                continue;
            }
            list.push(Pattern::new(text)?);
        }
        let negations = list.iter().any(|p| p.negated);
        Ok(Patterns { list, negations })
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether some pattern takes back what others matched.
    pub fn has_negations(&self) -> bool {
        self.negations
    }

    /// Whether the path, or a directory it is in, is matched. Paths are relative with
    /// slashes: `a/b`.
    pub fn matches(&self, path: &str) -> bool {
        let path = clean(path);
        let mut above = Matched::default();
        let mut answer = false;
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            (answer, above) = self.matches_in(&path[..at], &above);
        }
        answer
    }

    /// Like [`Patterns::matches`] for a walk: `above` is what this gave for the
    /// directory the path is in, and the default for the top.
    pub fn matches_in(&self, path: &str, above: &Matched) -> (bool, Matched) {
        let mut answer = false;
        let mut matched = Vec::with_capacity(self.list.len());
        for (at, pattern) in self.list.iter().enumerate() {
            let hit = above.0.get(at).copied().unwrap_or(false) || pattern.matches(path);
            if hit {
                answer = !pattern.negated;
            }
            matched.push(hit);
        }
        (answer, Matched(matched))
    }

    /// Whether a negated pattern could match something in this directory, so that a
    /// walk has to look although the directory itself is matched.
    pub fn may_take_back_in(&self, dir: &str) -> bool {
        self.list.iter().any(|p| p.negated && p.may_match_in(dir))
    }

    /// Whether something in this directory could match.
    pub fn may_match_in(&self, dir: &str) -> bool {
        self.list.iter().any(|p| !p.negated && p.may_match_in(dir))
    }

    /// The patterns as they were understood, negated ones with `!`.
    pub fn texts(&self) -> impl Iterator<Item = String> + '_ {
        self.list
            .iter()
            .map(|p| format!("{}{}", if p.negated { "!" } else { "" }, p.text))
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Pattern> {
        let (negated, rest) = match text.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, text),
        };
        if rest.is_empty() {
            return Err(InvalidPattern {
                pattern: text.to_owned(),
                reason: "a lone ! excludes nothing",
            });
        }
        let cleaned = clean(rest);
        let cleaned = cleaned.strip_prefix('/').unwrap_or(&cleaned);
        let tokens = tokens(cleaned).map_err(|reason| InvalidPattern {
            pattern: text.to_owned(),
            reason,
        })?;
        Ok(Pattern {
            negated,
            text: cleaned.to_owned(),
            tokens,
        })
    }

    fn matches(&self, path: &str) -> bool {
        self.run(path).contains(&self.tokens.len())
    }

    /// The places in the pattern one may be at after `path`. Each place is looked at
    /// once per character, whatever the pattern: there is no backtracking to blow up.
    fn run(&self, path: &str) -> Vec<usize> {
        let mut places = Vec::new();
        let mut seen = vec![false; self.tokens.len() + 1];
        self.enter(0, &mut places, &mut seen);
        let mut next = Vec::new();
        for c in path.chars() {
            next.clear();
            seen.fill(false);
            for &at in &places {
                match self.tokens.get(at) {
                    None => {}
                    Some(Token::Char(wanted)) if *wanted == c => {
                        self.enter(at + 1, &mut next, &mut seen);
                    }
                    Some(Token::One) if c != '/' => self.enter(at + 1, &mut next, &mut seen),
                    Some(Token::Class { negated, ranges }) if c != '/' => {
                        let inside = ranges.iter().any(|(from, to)| (*from..=*to).contains(&c));
                        if inside != *negated {
                            self.enter(at + 1, &mut next, &mut seen);
                        }
                    }
                    Some(Token::Star) if c != '/' => self.enter(at, &mut next, &mut seen),
                    Some(Token::Deep) => self.enter(at, &mut next, &mut seen),
                    Some(Token::DeepDirs) => {
                        if !std::mem::replace(&mut seen[at], true) {
                            next.push(at);
                        }
                        if c == '/' {
                            self.enter(at + 1, &mut next, &mut seen);
                        }
                    }
                    Some(_) => {}
                }
            }
            std::mem::swap(&mut places, &mut next);
            if places.is_empty() {
                break;
            }
        }
        places
    }

    /// Adds a place and those one may be at without reading anything more.
    fn enter(&self, mut at: usize, places: &mut Vec<usize>, seen: &mut [bool]) {
        loop {
            if std::mem::replace(&mut seen[at], true) {
                return;
            }
            places.push(at);
            match self.tokens.get(at) {
                Some(Token::Star | Token::Deep | Token::DeepDirs) => at += 1,
                _ => return,
            }
        }
    }

    fn may_match_in(&self, dir: &str) -> bool {
        let inside = format!("{dir}/");
        self.run(&inside).iter().any(|at| *at < self.tokens.len())
            || self.run(dir).contains(&self.tokens.len())
    }
}

fn tokens(pattern: &str) -> std::result::Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::new();
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        tokens.push(match c {
            '*' if rest.peek() == Some(&'*') => {
                rest.next();
                if rest.peek() == Some(&'/') {
                    rest.next();
                    Token::DeepDirs
                } else {
                    Token::Deep
                }
            }
            '*' => Token::Star,
            '?' => Token::One,
            '\\' => Token::Char(rest.next().ok_or("a backslash at the end")?),
            '[' => class(&mut rest)?,
            c => Token::Char(c),
        });
    }
    Ok(tokens)
}

fn class(
    rest: &mut std::iter::Peekable<std::str::Chars<'_>>,
) -> std::result::Result<Token, &'static str> {
    const OPEN: &str = "a class without its end";
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let mut from = rest.next().ok_or(OPEN)?;
        match from {
            ']' if !ranges.is_empty() => return Ok(Token::Class { negated, ranges }),
            ']' => return Err("an empty class"),
            '\\' => from = rest.next().ok_or(OPEN)?,
            _ => {}
        }
        let mut to = from;
        if rest.next_if_eq(&'-').is_some() {
            to = match rest.next().ok_or(OPEN)? {
                '\\' => rest.next().ok_or(OPEN)?,
                ']' => return Err("a range without its end"),
                to => to,
            };
            if to < from {
                return Err("a range that runs backwards");
            }
        }
        ranges.push((from, to));
    }
}

/// A path in its shortest form, as Go's `path.Clean` gives it: no empty or `.` parts, and
/// `..` taken where it can be.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests;
