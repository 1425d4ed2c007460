//! Build checks of a file's text: what it says, before anyone asks what variables stand for.

use std::collections::BTreeSet;

use super::{Linter, Rule};
use crate::instruction::{Command, File, Instruction, description};
use crate::syntax::Lines;

impl Linter {
    /// All that can be said of a file by its text alone. It may have mistakes.
    pub(crate) fn check_file(&mut self, file: &File, empty: &[Lines]) {
        for lines in empty {
            self.warn(
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
                self.warn(
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
        let name = if names.len() > 1 { "<arg_key>" } else { name };
        let message =
            format!("Comment for {keyword} should follow the format: `# {name} <description>`");
        self.warn(Rule::InvalidDefinitionDescription, lines, message);
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
                self.warn(Rule::StageNameCasing, lines, message);
            }
            if !is_cased_like(&stage.as_keyword, &stage.keyword) {
                let message = format!(
                    "'{}' and '{}' keywords' casing do not match",
                    stage.as_keyword, stage.keyword
                );
                self.warn(Rule::FromAsCasing, lines, message);
            }
            if ["context", "scratch"].contains(&name.as_str()) {
                let message =
                    format!("Stage name should not use the same name as reserved stage {name:?}");
                self.warn(Rule::ReservedStageName, lines, message);
            }
            if !names.insert(name) {
                let message =
                    format!("Duplicate stage name {name:?}, stage names should be unique");
                self.warn(Rule::DuplicateStageName, lines, message);
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
                self.warn(Rule::ConsistentInstructionCasing, lines, message);
            }
        }
    }
}

/// Whether `AS` is written as `FROM` is. Where that is neither lower nor upper case, another
/// rule has its say.
fn is_cased_like(as_keyword: &str, keyword: &str) -> bool {
    if keyword == keyword.to_lowercase() {
        as_keyword == as_keyword.to_lowercase()
    } else {
        keyword != keyword.to_uppercase() || as_keyword == as_keyword.to_uppercase()
    }
}
