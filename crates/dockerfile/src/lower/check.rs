//! Build checks that need the whole file.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;

use super::Lowering;
use crate::instruction::{Command, File, Instruction, Stage, description};
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
    pub(super) fn check_file(&mut self, file: &File, empty: &[Lines]) {
        for lines in empty {
            self.linter.warn(
                Rule::NoEmptyContinuation,
                *lines,
                "Empty continuation line".into(),
            );
        }
        self.check_stage_names(file);
        self.check_casing(file);
        for stage in &file.stages {
            self.check_descriptions(&stage.comments, "FROM", &[stage.name.as_str()], stage.lines);
            for instruction in &stage.instructions {
                self.check_instruction(instruction);
            }
        }
        for instruction in &file.args {
            self.check_instruction(instruction);
        }
    }

    fn check_instruction(&mut self, instruction: &Instruction) {
        match &instruction.command {
            Command::Maintainer(_) => {
                let message = "Maintainer instruction is deprecated in favor of using label";
                self.linter.warn(
                    Rule::MaintainerDeprecated,
                    instruction.lines,
                    message.into(),
                );
            }
            Command::Arg(args) => {
                let names: Vec<&str> = args.iter().map(|arg| arg.name.as_str()).collect();
                self.check_descriptions(&instruction.comments, "ARG", &names, instruction.lines);
            }
            _ => {}
        }
    }

    fn check_descriptions(
        &mut self,
        comments: &[String],
        keyword: &str,
        names: &[&str],
        lines: Lines,
    ) {
        let Some(name) = names.first().filter(|name| !name.is_empty()) else {
            return;
        };
        if comments.is_empty()
            || names
                .iter()
                .any(|name| description(comments, name).is_some())
        {
            return;
        }
        let message =
            format!("Comment for {keyword} should follow the format: `# {name} <description>`");
        self.linter
            .warn(Rule::InvalidDefinitionDescription, lines, message);
    }

    fn check_stage_names(&mut self, file: &File) {
        let mut names = BTreeSet::new();
        for stage in &file.stages {
            let (name, lines) = (&stage.name, stage.lines);
            if name.is_empty() {
                continue;
            }
            if stage.written_name != *name {
                let message = format!("Stage name '{}' should be lowercase", stage.written_name);
                self.linter.warn(Rule::StageNameCasing, lines, message);
            }
            let is_lower = |text: &str| text.to_lowercase() == text;
            if is_lower(&stage.keyword) != is_lower(&stage.as_keyword) {
                let message = format!(
                    "'{}' and '{}' keywords' casing do not match",
                    stage.as_keyword, stage.keyword
                );
                self.linter.warn(Rule::FromAsCasing, lines, message);
            }
            if ["context", "scratch"].contains(&name.as_str()) {
                let message =
                    format!("Stage name should not use the same name as reserved stage {name:?}");
                self.linter.warn(Rule::ReservedStageName, lines, message);
            }
            if !names.insert(name) {
                let message =
                    format!("Duplicate stage name {name:?}, stage names should be unique");
                self.linter.warn(Rule::DuplicateStageName, lines, message);
            }
        }
    }

    fn check_casing(&mut self, file: &File) {
        let mut keywords: Vec<(&str, Lines)> = Vec::new();
        for stage in &file.stages {
            keywords.push((&stage.keyword, stage.lines));
            keywords.extend(
                stage
                    .instructions
                    .iter()
                    .map(|i| (i.keyword.as_str(), i.lines)),
            );
        }
        let lower = keywords
            .iter()
            .filter(|(k, _)| k.to_lowercase() == *k)
            .count();
        let upper = keywords
            .iter()
            .filter(|(k, _)| k.to_uppercase() == *k)
            .count();
        let (word, right): (&str, fn(&str) -> String) = match lower > upper {
            true => ("lowercase", str::to_lowercase),
            false => ("uppercase", str::to_uppercase),
        };
        for (keyword, lines) in keywords {
            if right(keyword) != keyword {
                let message = format!(
                    "Command '{keyword}' should match the case of the command majority ({word})"
                );
                self.linter
                    .warn(Rule::ConsistentInstructionCasing, lines, message);
            }
        }
    }

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
