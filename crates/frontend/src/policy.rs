//! Rules about sources: which may be used, and what in place of others (row P05).

use std::collections::BTreeMap;

/// Rules that a frontend sends along with a question. They hold for what answering it
/// resolves, after those of the client and of whoever called the frontend, and each policy
/// decides on its own: what one of them denies no other allows.
#[derive(Clone, Debug, Default)]
pub struct SourcePolicy {
    /// Rules in their order.
    pub rules: Vec<Rule>,
}

/// What becomes of the sources that match.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What becomes of them.
    pub action: Action,
    /// How `identifier` is read.
    pub matching: Match,
    /// Which sources are meant.
    pub identifier: String,
    /// What their attributes must be.
    pub constraints: Vec<Constraint>,
    /// What is used instead.
    pub update: Option<Update>,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The source may be used.
    Allow,
    /// It may not.
    Deny,
    /// Another is used in its place.
    Convert,
}

/// How a rule names sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// `*` is anything.
    Wildcard,
    /// The very name.
    Exact,
    /// A regular expression.
    Regex,
}

/// What an attribute must be; one that is not there is empty.
#[derive(Clone, Debug)]
pub struct Constraint {
    /// Its name.
    pub key: String,
    /// What it must be.
    pub test: AttrTest,
}

/// See [`Constraint`].
#[derive(Clone, Debug)]
pub enum AttrTest {
    /// This.
    Equal(String),
    /// Anything else.
    NotEqual(String),
    /// Something a regular expression matches.
    Matches(String),
}

/// What is used instead of a source.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// Its name; empty keeps the rule's.
    pub identifier: String,
    /// Attributes to set.
    pub attrs: BTreeMap<String, String>,
}
