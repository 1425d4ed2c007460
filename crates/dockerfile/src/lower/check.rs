//! Build checks that need to know what variables stand for.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;

use super::Lowering;
use crate::instruction::{File, Stage};
use crate::lint::Rule;
use crate::reference::Reference;
use crate::shell::{Env, Expanded};
use crate::suggest::{closest, hint};
use crate::syntax::Lines;

static SECRET: LazyLock<Regex> = LazyLock::new(|| {
    let words = "apikey|auth|credential|credentials|key|password|pword|passwd|secret|token";
    Regex::new(&format!("(?i)(?:_|^)(?:{words})(?:_|$)")).expect("a constant pattern")
});

static NO_SECRET: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new("(?i)(?:_|^)(?:public|file|version)(?:_|$)").expect("a constant pattern")
});

impl Lowering<'_> {
    /// Names that look like secrets end up in the image's history.
    pub(super) fn check_secret(&mut self, instruction: &str, name: &str, lines: Lines) {
        if SECRET.is_match(name) && !NO_SECRET.is_match(name) {
            let message = format!(
                "Do not use ARG or ENV instructions for sensitive data ({instruction} {name:?})"
            );
            self.linter
                .warn(Rule::SecretsUsedInArgOrEnv, lines, message);
        }
    }

    pub(super) fn check_from_args(&mut self, unmatched: &BTreeSet<String>, lines: Lines) {
        let known = self.names_for_from();
        for name in unmatched.iter().filter(|name| !known.contains(*name)) {
            let close = closest(name, known.iter().map(String::as_str));
            let message = format!("FROM argument '{name}' is not declared{}", hint(&close));
            self.linter.warn(Rule::UndefinedArgInFrom, lines, message);
        }
    }

    pub(super) fn check_platform(&mut self, stage: &Stage, expanded: &Expanded) {
        let (matched, unmatched) = (&expanded.matched, &expanded.unmatched);
        if !matched.is_empty() || !unmatched.is_empty() {
            let only_target =
                matched.len() == 1 && unmatched.is_empty() && matched.contains("TARGETPLATFORM");
            if only_target && self.args.get("TARGETPLATFORM") == Some(&expanded.text) {
                let message = format!(
                    "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
                    stage.platform
                );
                self.linter
                    .warn(Rule::RedundantTargetPlatform, stage.lines, message);
            }
            return;
        }
        let Ok(platform) = expanded.text.parse::<oci::Platform>() else {
            return;
        };
        if stage.name.contains(&platform.os) || stage.name.contains(&platform.architecture) {
            return;
        }
        let message = format!(
            "FROM --platform flag should not use constant value {:?}",
            expanded.text
        );
        self.linter
            .warn(Rule::FromPlatformFlagConstDisallowed, stage.lines, message);
    }

    /// A file should build without any build argument.
    pub(super) fn check_default_bases(&mut self, file: &File, args: Option<Env>) {
        let Some(args) = args else { return };
        for stage in &file.stages {
            let Ok(expanded) = self.lexer.expand(&stage.base, &args) else {
                return;
            };
            if Reference::parse(&expanded.text).is_none() {
                let message = format!(
                    "Default value for ARG {} results in empty or invalid base image name",
                    stage.base
                );
                self.linter
                    .warn(Rule::InvalidDefaultArgInFrom, stage.lines, message);
            }
        }
    }
}
