//! One rule of a policy, its patterns read: which sources it means and what it makes of them.

use std::collections::BTreeMap;

use frontend::policy::{Action, AttrTest, Match, Rule};
use regex::{Regex, RegexBuilder};

use super::Error;

/// Rules that hold at one time: a client's, and those that came with questions.
const MAX_RULES: usize = 10_000;
/// Bytes of one pattern as it is written. What it is read into can be thousands of times as large.
const MAX_PATTERN: usize = 8 << 10;
/// Bytes of all patterns that hold at one time, as they are written.
const MAX_PATTERNS: usize = 256 << 10;
/// Bytes of a pattern made ready: each is tried with little first, so that what a pattern is
/// counted with is at most four times what it takes.
const SIZES: [usize; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// Bytes of all patterns that hold at one time, made ready.
const MAX_READY: usize = 32 << 20;
/// What matching may remember of one pattern, in bytes.
const MEMORY: usize = 64 << 10;

/// Bytes of a name that is converted, and of what it is converted into. One place of the latter
/// can bring in all of the former, so this bounds what is made before it is refused, too.
pub(super) const MAX_NAME: usize = 8 << 10;

/// A source and the one name of what it leads to.
pub(super) struct Named<'s> {
    pub(super) source: &'s llb::Source,
    pub(super) name: String,
}

impl<'s> Named<'s> {
    pub(super) fn of(source: &'s llb::Source) -> Named<'s> {
        Named {
            source,
            name: source::canonical(&source.identifier, &source.attrs),
        }
    }

    /// The same source under a new name. One that kept its name is written as it was: there may be
    /// a login in it.
    pub(super) fn renamed(&self, name: String) -> String {
        match name == self.name {
            true => self.source.identifier.clone(),
            false => name,
        }
    }
}

/// A rule, ready to be tried.
pub(super) struct Pattern {
    pub(super) rule: Rule,
    /// The one name of the source that a rule names in full.
    name: Option<String>,
    identifier: Option<Regex>,
    attrs: Vec<Option<Regex>>,
}

/// What the policies that hold at one time may still take.
#[derive(Clone)]
pub(super) struct Budget {
    rules: usize,
    text: usize,
    ready: usize,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget {
            rules: MAX_RULES,
            text: MAX_PATTERNS,
            ready: MAX_READY,
        }
    }
}

impl Budget {
    fn rule(&mut self) -> Result<(), Error> {
        let left = self.rules.checked_sub(1);
        self.rules = left.ok_or(Error::TooMuch("there may be at most 10000 rules"))?;
        Ok(())
    }

    fn regex(&mut self, pattern: &str) -> Result<Regex, Error> {
        if pattern.len() > MAX_PATTERN {
            return Err(Error::TooMuch("a pattern may have at most 8 KiB"));
        }
        let left = self.text.checked_sub(pattern.len());
        let much = "its patterns may have at most 256 KiB altogether";
        self.text = left.ok_or(Error::TooMuch(much))?;
        for size in SIZES {
            let much = "its patterns are too large to be made ready together";
            let left = self.ready.checked_sub(size).ok_or(Error::TooMuch(much))?;
            let mut builder = RegexBuilder::new(pattern);
            match builder.size_limit(size).dfa_size_limit(MEMORY).build() {
                Ok(regex) => {
                    self.ready = left;
                    return Ok(regex);
                }
                Err(regex::Error::CompiledTooBig(_)) => {}
                Err(error) => {
                    let why = format!("invalid regex {pattern:?}: {error}");
                    return Err(Error::BadRule(why));
                }
            }
        }
        let why = format!("invalid regex {pattern:?}: made ready it is larger than 1 MiB");
        Err(Error::BadRule(why))
    }
}

impl Pattern {
    pub(super) fn new(rule: &Rule, budget: &mut Budget) -> Result<Pattern, Error> {
        budget.rule()?;
        let identifier = match rule.matching {
            Match::Exact => None,
            Match::Regex => Some(budget.regex(&rule.identifier)?),
            Match::Wildcard if rule.identifier.contains("**") => {
                return Err(Error::BadRule(format!(
                    "invalid wildcard {:?}: it has **",
                    rule.identifier
                )));
            }
            Match::Wildcard => {
                let pattern = regex::escape(&rule.identifier).replace("\\*", "(.*)");
                Some(budget.regex(&format!("(?s)^{pattern}$"))?)
            }
        };
        let attrs = rule
            .constraints
            .iter()
            .map(|constraint| match &constraint.test {
                AttrTest::Matches(pattern) => budget.regex(pattern).map(Some),
                _ => Ok(None),
            });
        let is_name = matches!(rule.matching, Match::Exact)
            || matches!(rule.matching, Match::Wildcard) && !rule.identifier.contains('*');
        Ok(Pattern {
            name: is_name.then(|| source::canonical(&rule.identifier, &BTreeMap::new())),
            identifier,
            attrs: attrs.collect::<Result<_, Error>>()?,
            rule: rule.clone(),
        })
    }

    /// Whether the rule is about this source: under its one name, or as it is written. What allows
    /// goes by the name alone, for `git://good/../bad` is not what it looks like.
    pub(super) fn matches(&self, named: &Named<'_>) -> bool {
        let source = named.source;
        let attrs = self
            .rule
            .constraints
            .iter()
            .zip(&self.attrs)
            .all(|(constraint, pattern)| {
                let value = source.attrs.get(&constraint.key).map_or("", String::as_str);
                match &constraint.test {
                    AttrTest::Equal(wanted) => value == wanted,
                    AttrTest::NotEqual(unwanted) => value != unwanted,
                    AttrTest::Matches(_) => pattern
                        .as_ref()
                        .is_some_and(|pattern| pattern.is_match(value)),
                }
            });
        let looks = !matches!(self.rule.action, Action::Allow);
        attrs && (self.fits(&named.name) || looks && self.fits(&source.identifier))
    }

    fn fits(&self, name: &str) -> bool {
        let pattern = self.identifier.as_ref();
        self.rule.identifier == name
            || self.name.as_deref() == Some(name)
            || pattern.is_some_and(|pattern| pattern.is_match(name))
    }

    /// The source to use instead. In its name `$1` is what the first star or group took;
    /// a wildcard's `$0` is the whole name.
    pub(super) fn convert(&self, named: &Named<'_>) -> Result<llb::Source, Error> {
        let Some(update) = &self.rule.update else {
            let problem = format!(
                "missing destination for convert rule of {:?}",
                self.rule.identifier
            );
            return Err(Error::BadRule(problem));
        };
        let mut other = named.source.clone();
        let from = match self.fits(&named.name) {
            true => &named.name,
            false => &named.source.identifier,
        };
        let into = match update.identifier.as_str() {
            "" => &self.rule.identifier,
            into => into,
        };
        other.identifier = named.renamed(match &self.identifier {
            Some(pattern) => self.expand(pattern, from, into)?,
            None => into.to_owned(),
        });
        other.attrs.extend(update.attrs.clone());
        Ok(other)
    }

    /// `name` with `into` where the pattern fits, and in that what the pattern took. What is
    /// brought in is not looked at again.
    fn expand(&self, pattern: &Regex, name: &str, into: &str) -> Result<String, Error> {
        let rule = &self.rule.identifier;
        let bounded = |text: &str| match text.len() {
            length if length <= MAX_NAME => Ok(()),
            _ => Err(Error::BadRule(format!(
                "a name of more than {MAX_NAME} bytes is converted by the rule for {rule:?}"
            ))),
        };
        bounded(name)?;
        bounded(into)?;
        let (mut made, mut rest) = (String::new(), 0);
        for captures in pattern.captures_iter(name) {
            let whole = captures.get_match();
            made.push_str(&name[rest..whole.start()]);
            captures.expand(into, &mut made);
            bounded(&made)?;
            rest = whole.end();
        }
        made.push_str(&name[rest..]);
        bounded(&made)?;
        Ok(made)
    }
}
