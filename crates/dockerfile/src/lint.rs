//! Build checks: what is allowed and still worth a word.

mod config;
mod file;
mod rules;

pub use config::LintConfig;
pub use rules::Rule;

use std::collections::{BTreeSet, HashSet};

use crate::Error;
use crate::syntax::Lines;

/// Nobody reads more of them.
const MOST: usize = 10_000;

/// One warning.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LintWarning {
    /// The rule that was broken.
    pub rule: Rule,
    /// How.
    pub message: String,
    /// Where.
    pub lines: Lines,
}

impl LintWarning {
    /// The warning in one line, as clients show it.
    pub fn short(&self) -> String {
        let name = self.rule.name();
        match self.lines.first {
            0 => format!("{name}: {}", self.message),
            line => format!("{name}: {} (line {line})", self.message),
        }
    }
}

/// Collects warnings that were not switched off.
#[derive(Debug, Default)]
pub(crate) struct Linter {
    config: LintConfig,
    pub(crate) warnings: Vec<LintWarning>,
    said: HashSet<LintWarning>,
}

impl Linter {
    pub(crate) fn new(config: LintConfig) -> Linter {
        Linter {
            config,
            ..Linter::default()
        }
    }

    /// Notes that `rule` is broken at `lines`.
    pub(crate) fn warn(&mut self, rule: Rule, lines: Lines, message: String) {
        let warning = LintWarning {
            rule,
            message,
            lines,
        };
        let wanted = self.config.wants(rule) && self.warnings.len() < MOST;
        if wanted && self.said.insert(warning.clone()) {
            self.warnings.push(warning);
        }
    }

    /// Warnings are errors when the file says so.
    pub(crate) fn verdict(&self) -> Result<(), Error> {
        if !self.config.error || self.warnings.is_empty() {
            return Ok(());
        }
        let rules: BTreeSet<&str> = self.warnings.iter().map(|w| w.rule.name()).collect();
        Err(Error::Lint {
            rules: rules.into_iter().map(str::to_owned).collect(),
        })
    }
}
