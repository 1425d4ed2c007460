//! Patterns of `${name#pattern}`: `*`, `?` and plain characters.

use regex::{NoExpand, Regex};

use super::{Fault, LONGEST};

enum Token {
    Any,
    One,
    Char(char),
}

/// A pattern. Matching takes time linear in the text.
pub(super) struct Pattern {
    tokens: Vec<Token>,
    text: String,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Pattern, Fault> {
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Any,
                '?' => Token::One,
                // `}` and `/` are escaped for the braces' sake, the others for ours.
                '\\' => match chars.next() {
                    Some(c @ ('}' | '/' | '*' | '?' | '\\')) => Token::Char(c),
                    _ => return Err(Fault::BadPattern(text.to_owned())),
                },
                c => Token::Char(c),
            });
        }
        Ok(Pattern {
            tokens,
            text: text.to_owned(),
        })
    }

    fn regex<'a>(
        &self,
        tokens: impl Iterator<Item = &'a Token>,
        start: &str,
        any: &str,
    ) -> Result<Regex, Fault> {
        let mut source = start.to_owned();
        for token in tokens {
            match token {
                Token::Any => source.push_str(any),
                Token::One => source.push('.'),
                Token::Char(c) => source.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
            }
        }
        // Only a pattern beyond the regex crate's size limit does not compile.
        Regex::new(&source).map_err(|_| Fault::BadPattern(self.text.clone()))
    }

    pub(super) fn without_prefix(&self, value: &str, longest: bool) -> Result<String, Fault> {
        let any = if longest { ".*" } else { ".*?" };
        let regex = self.regex(self.tokens.iter(), "^", any)?;
        Ok(value[regex.find(value).map_or(0, |m| m.end())..].to_owned())
    }

    /// The same from behind: both are read backwards.
    pub(super) fn without_suffix(&self, value: &str, longest: bool) -> Result<String, Fault> {
        let any = if longest { ".*" } else { ".*?" };
        let backwards: String = value.chars().rev().collect();
        let regex = self.regex(self.tokens.iter().rev(), "^", any)?;
        let taken = regex.find(&backwards).map_or(0, |m| m.end());
        Ok(value[..value.len() - taken].to_owned())
    }

    pub(super) fn replace(&self, value: &str, with: &str, all: bool) -> Result<String, Fault> {
        let regex = self.regex(self.tokens.iter(), "", ".*")?;
        let limit = if all { usize::MAX } else { 1 };
        // A replacement may be as long as the value is.
        let mut length = value.len();
        for found in regex.find_iter(value).take(limit) {
            length = length - found.len() + with.len();
            if length > LONGEST {
                return Err(Fault::TooLong);
            }
        }
        let limit = if all { 0 } else { 1 };
        Ok(regex.replacen(value, limit, NoExpand(with)).into_owned())
    }
}
