//! Words as a shell would read them: quotes, escapes, `$variable` and `${variable…}`.

mod env;
mod pattern;

use std::collections::BTreeSet;

pub use env::Env;

use pattern::Pattern;

/// `${a:-${b:-…}}` may not go deeper than this.
const DEEPEST: usize = 100;

/// No word becomes longer than this, in bytes: a dozen lines, each of which has the one before
/// ten times, would fill any memory.
const LONGEST: usize = 16 << 20;

/// Why a word could not be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A quote that is never closed.
    #[error("unexpected end of statement while looking for matching {0}-quote")]
    OpenQuote(&'static str),
    /// `${` without `}`.
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    /// `${a/b` without the second slash.
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    /// `${}`, `${:x}` or `${{x}`.
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// `${a!b}`: no such thing.
    #[error("unsupported modifier ({0}) in substitution")]
    BadModifier(String),
    /// `${a:?message}` with `a` unset or empty.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What to tell.
        message: String,
    },
    /// A pattern of `${a#pattern}` that makes no sense.
    #[error("invalid pattern ({0}) in substitution")]
    BadPattern(String),
    /// Braces in braces in braces, too many.
    #[error("substitutions are nested more than {DEEPEST} deep")]
    TooDeep,
    /// Variables in variables in variables.
    #[error("it becomes longer than {} MiB", LONGEST >> 20)]
    TooLong,
}

/// How to read words.
#[derive(Clone, Copy, Debug)]
pub struct Lexer {
    /// What takes the next character's meaning away: `\` or a backtick.
    pub escape: char,
    /// Quotes stay in the result.
    pub raw_quotes: bool,
    /// Escapes stay in the result.
    pub raw_escapes: bool,
    /// Quotes mean nothing.
    pub skip_quotes: bool,
    /// `$unset` stays as it is instead of becoming empty.
    pub skip_unset: bool,
}

/// What a word became.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// The text split at white space outside of quotes.
    pub words: Vec<String>,
    /// Variables that were used and set.
    pub matched: BTreeSet<String>,
    /// Variables that were used and not set.
    pub unmatched: BTreeSet<String>,
}

impl Lexer {
    /// Reads words with this escape character, otherwise as a shell does.
    pub fn new(escape: char) -> Lexer {
        Lexer {
            escape,
            raw_quotes: false,
            raw_escapes: false,
            skip_quotes: false,
            skip_unset: false,
        }
    }

    /// Expands the variables of `word`.
    pub fn expand(&self, word: &str, env: &Env) -> Result<Expanded, Fault> {
        let chars: Vec<char> = word.chars().collect();
        let mut reader = Reader {
            lexer: *self,
            env,
            chars: &chars,
            at: 0,
            depth: 0,
            made: 0,
            matched: BTreeSet::new(),
            unmatched: BTreeSet::new(),
        };
        let (text, words) = reader.until(None, self.raw_escapes)?;
        let (matched, unmatched) = (reader.matched, reader.unmatched);
        Ok(Expanded {
            text,
            words,
            matched,
            unmatched,
        })
    }

    /// Expands and splits.
    pub fn words(&self, text: &str, env: &Env) -> Result<Vec<String>, Fault> {
        Ok(self.expand(text, env)?.words)
    }
}

/// Collects words while text goes by.
#[derive(Default)]
struct Words {
    word: String,
    words: Vec<String>,
    inside: bool,
}

impl Words {
    fn raw(&mut self, text: &str) {
        self.word.push_str(text);
        self.inside = true;
    }

    fn char(&mut self, c: char) {
        if !c.is_whitespace() {
            self.word.push(c);
            self.inside = true;
        } else if self.inside && !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
            self.inside = false;
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

struct Reader<'a> {
    lexer: Lexer,
    env: &'a Env,
    chars: &'a [char],
    at: usize,
    depth: usize,
    /// Bytes of values so far.
    made: usize,
    matched: BTreeSet<String>,
    unmatched: BTreeSet<String>,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    /// Reads to `stop`, which is eaten, or to the end when there is none to look for.
    fn until(
        &mut self,
        stop: Option<char>,
        raw_escapes: bool,
    ) -> Result<(String, Vec<String>), Fault> {
        let outer = std::mem::replace(&mut self.lexer.raw_escapes, raw_escapes);
        let (mut text, mut words) = (String::new(), Words::default());
        loop {
            let Some(c) = self.peek() else {
                self.lexer.raw_escapes = outer;
                return match stop {
                    None => Ok((text, words.finish())),
                    Some(_) => Err(Fault::MissingBrace),
                };
            };
            if stop == Some(c) {
                self.at += 1;
                self.lexer.raw_escapes = outer;
                return Ok((text, words.finish()));
            }
            match c {
                '\'' if !self.lexer.skip_quotes => {
                    let part = self.single_quoted()?;
                    text.push_str(&part);
                    words.raw(&part);
                }
                '"' if !self.lexer.skip_quotes => {
                    let part = self.double_quoted()?;
                    text.push_str(&part);
                    words.raw(&part);
                }
                '$' => {
                    let part = self.dollar()?;
                    text.push_str(&part);
                    part.chars().for_each(|c| words.char(c));
                }
                c => {
                    self.at += 1;
                    self.plain(c, &mut text, &mut words);
                }
            }
        }
    }

    fn plain(&mut self, c: char, text: &mut String, words: &mut Words) {
        if c != self.lexer.escape {
            text.push(c);
            return words.char(c);
        }
        if self.lexer.raw_escapes {
            text.push(c);
            words.raw(c.encode_utf8(&mut [0; 4]));
        }
        // An escape at the end escapes nothing.
        if let Some(escaped) = self.next() {
            text.push(escaped);
            words.raw(escaped.encode_utf8(&mut [0; 4]));
        }
    }

    fn single_quoted(&mut self) -> Result<String, Fault> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.next() {
                None => return Err(Fault::OpenQuote("single")),
                Some('\'') => break,
                Some(_) => {}
            }
        }
        let keep = usize::from(!self.lexer.raw_quotes);
        Ok(self.chars[start + keep..self.at - keep].iter().collect())
    }

    fn double_quoted(&mut self) -> Result<String, Fault> {
        let mut text = String::new();
        self.at += 1;
        if self.lexer.raw_quotes {
            text.push('"');
        }
        loop {
            match self.peek() {
                None => return Err(Fault::OpenQuote("double")),
                Some('"') => {
                    self.at += 1;
                    if self.lexer.raw_quotes {
                        text.push('"');
                    }
                    return Ok(text);
                }
                Some('$') => text.push_str(&self.dollar()?),
                Some(c) => {
                    self.at += 1;
                    self.double_quoted_char(c, &mut text);
                }
            }
        }
    }

    /// Inside double quotes an escape works on `"`, `$` and itself only.
    fn double_quoted_char(&mut self, c: char, text: &mut String) {
        let escape = self.lexer.escape;
        if c != escape {
            return text.push(c);
        }
        if self.lexer.raw_escapes {
            text.push(c);
        }
        match self.peek() {
            None => {}
            Some(escaped) if escaped == '"' || escaped == '$' || escaped == escape => {
                self.at += 1;
                text.push(escaped);
            }
            Some(_) => text.push(c),
        }
    }

    fn dollar(&mut self) -> Result<String, Fault> {
        self.at += 1;
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".into());
            }
            return Ok(match self.value(&name)? {
                None if self.lexer.skip_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.at += 1;
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Fault::TooDeep);
        }
        let text = self.braces()?;
        self.depth -= 1;
        Ok(text)
    }

    /// What stands after `${`.
    fn braces(&mut self) -> Result<String, Fault> {
        match self.peek() {
            None => return Err(Fault::MissingBrace),
            Some('{' | '}' | ':') => return Err(Fault::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            None => Err(Fault::MissingBrace),
            Some('}') => Ok(match self.value(&name)? {
                None if self.lexer.skip_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some(':') => {
                let modifier = self.next().ok_or(Fault::MissingBrace)?;
                self.modified(&name, modifier, true)
            }
            Some('/') => self.replaced(&name),
            Some(modifier) => self.modified(&name, modifier, false),
        }
    }

    /// `${name-word}`, `+`, `?`, `#`, `%`; with a colon an empty value counts as unset.
    fn modified(&mut self, name: &str, modifier: char, colon: bool) -> Result<String, Fault> {
        let shown = if colon {
            format!(":{modifier}")
        } else {
            modifier.to_string()
        };
        let trims = matches!(modifier, '#' | '%');
        if !trims && !matches!(modifier, '-' | '+' | '?') {
            return Err(Fault::BadModifier(shown));
        }
        let (word, _) = self.until(Some('}'), trims)?;
        let value = self.value(name)?;
        if value.is_none() && self.lexer.skip_unset {
            return Ok(format!("${{{name}{shown}{word}}}"));
        }
        let unset = value.as_ref().is_none_or(|v| colon && v.is_empty());
        let is_empty = value.is_some();
        let value = value.unwrap_or_default();
        match modifier {
            '-' => Ok(if unset { word } else { value }),
            '+' => Ok(if unset { String::new() } else { word }),
            '?' if unset => {
                let message = match (word.is_empty(), is_empty) {
                    (false, _) => word,
                    (true, true) => "is not allowed to be empty".into(),
                    (true, false) => "is not allowed to be unset".into(),
                };
                Err(Fault::Required {
                    name: name.to_owned(),
                    message,
                })
            }
            '?' => Ok(value),
            _ => trimmed(&value, &word, modifier),
        }
    }

    /// `${name/pattern/replacement}` and `${name//pattern/replacement}`.
    fn replaced(&mut self, name: &str) -> Result<String, Fault> {
        let all = self.peek() == Some('/');
        self.at += usize::from(all);
        let at_slash = |fault| match fault {
            Fault::MissingBrace => Fault::MissingSlash,
            fault => fault,
        };
        let (pattern, _) = self.until(Some('/'), true).map_err(at_slash)?;
        let (replacement, _) = self.until(Some('}'), true)?;
        let Some(value) = self.value(name)? else {
            let slash = if all { "//" } else { "/" };
            return Ok(match self.lexer.skip_unset {
                true => format!("${{{name}{slash}{pattern}/{replacement}}}"),
                false => String::new(),
            });
        };
        let value = Pattern::parse(&pattern)?.replace(&value, &replacement, all)?;
        self.make(value.len())?;
        Ok(value)
    }

    fn name(&mut self) -> String {
        let start = self.at;
        match self.peek() {
            Some(c) if c.is_numeric() => {
                while self.peek().is_some_and(char::is_numeric) {
                    self.at += 1;
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => self.at += 1,
            _ => {
                while self.peek().is_some_and(|c| c.is_alphanumeric() || c == '_') {
                    self.at += 1;
                }
            }
        }
        self.chars[start..self.at].iter().collect()
    }

    /// Counts what has been made.
    fn make(&mut self, bytes: usize) -> Result<(), Fault> {
        self.made += bytes;
        match self.made > LONGEST {
            true => Err(Fault::TooLong),
            false => Ok(()),
        }
    }

    fn value(&mut self, name: &str) -> Result<Option<String>, Fault> {
        let value = self.env.get(name);
        self.make(value.map_or(0, str::len))?;
        let value = value.map(str::to_owned);
        let list = if value.is_some() {
            &mut self.matched
        } else {
            &mut self.unmatched
        };
        list.insert(name.to_owned());
        Ok(value)
    }
}

/// `${value#word}` and its kin; a doubled modifier takes as much as it can.
fn trimmed(value: &str, word: &str, modifier: char) -> Result<String, Fault> {
    let (word, longest) = match word.strip_prefix(modifier) {
        Some(rest) => (rest, true),
        None => (word, false),
    };
    let pattern = Pattern::parse(word)?;
    match modifier {
        '#' => pattern.without_prefix(value, longest),
        _ => pattern.without_suffix(value, longest),
    }
}

#[cfg(test)]
mod tests;
