//! Stages: names, what each is based on, who needs whom.

use std::collections::{BTreeMap, BTreeSet};

use oci::Platform;

use super::outline::Seen;
use super::{At, Lowering, Result};
use crate::Error;
use crate::image::Image;
use crate::instruction::{Arg, Command, File, Instruction, MountKind, Stage as Written};
use crate::plan::Tree;
use crate::shell::Env;
use crate::suggest::closest;
use crate::syntax::{Fault, Lines};
use crate::ui::NamedContext;

/// Files, and how the next process sees them.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) tree: Option<Tree>,
    pub(super) env: Env,
    pub(super) dir: String,
    pub(super) user: String,
    pub(super) platform: Option<Platform>,
}

/// An instruction and the stages it takes files from.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) instruction: Instruction,
    /// `COPY --from`: one. `RUN --mount`: one for each mount; `None` is the context or
    /// nothing.
    pub(super) sources: Vec<Option<usize>>,
    pub(super) on_build: bool,
}

/// One stage, or an image that is copied from.
#[derive(Clone, Debug, Default)]
pub(super) struct Stage {
    /// Shown in step names; empty for the only stage.
    pub(super) shown: String,
    pub(super) name: String,
    pub(super) base_name: String,
    pub(super) text: String,
    pub(super) lines: Lines,
    pub(super) steps: Vec<Step>,
    pub(super) base: Option<usize>,
    pub(super) named: Option<NamedContext>,
    /// Not written as a stage.
    pub(super) unwritten: bool,
    pub(super) platform: Option<Platform>,
    pub(super) image: Image,
    pub(super) base_image: Option<Image>,
    pub(super) state: State,
    pub(super) needs: Vec<(usize, Lines)>,
    /// Paths others take from it.
    pub(super) paths: BTreeSet<String>,
    pub(super) args: Vec<Arg>,
    pub(super) no_cache: bool,
    pub(super) dispatched: bool,
    pub(super) resolved: bool,
    pub(super) triggers_read: bool,
    pub(super) step_total: usize,
    pub(super) step_now: usize,
    pub(super) workdir_set: bool,
    /// Where the last of each was, for those that may stand once.
    pub(super) once: BTreeMap<&'static str, Lines>,
    pub(super) seen: Seen,
}

impl Lowering<'_> {
    /// Makes the stages of the file.
    pub(super) fn build_stages(&mut self, file: &File) -> Result<()> {
        for (index, written) in file.stages.iter().enumerate() {
            let stage = self.build_stage(index, written).at(written.lines)?;
            self.stages.push(stage);
            if !written.name.is_empty() {
                self.by_name.insert(written.name.clone(), index);
            }
        }
        self.written = self.stages.len();
        Ok(())
    }

    fn build_stage(&mut self, index: usize, written: &Written) -> Result<Stage, Error> {
        let expanded = self.expand_global(&written.base)?;
        self.check_from_args(&expanded.unmatched, written.lines);
        if expanded.text.is_empty() {
            let suggestion = self.suggest_arg(&expanded.unmatched);
            return Err(Error::BlankBase {
                name: written.base.clone(),
                suggestion,
            });
        }
        let mut stage = Stage {
            shown: written.name.clone(),
            name: written.name.clone(),
            base_name: expanded.text,
            text: written.text.clone(),
            lines: written.lines,
            ..Stage::default()
        };
        stage.seen.used = expanded.matched;
        if !written.platform.is_empty() {
            stage.platform = Some(self.stage_platform(written, &mut stage.seen)?);
        }
        if !stage.name.is_empty() {
            let platform = stage
                .platform
                .clone()
                .unwrap_or_else(|| self.target_platform.clone());
            stage.named = self.ui.named_context(&stage.name, &platform)?;
        }
        if stage.named.is_some() {
            return Ok(stage);
        }
        if stage.name.is_empty() {
            stage.shown = format!("stage-{index}");
        }
        stage.base = self.by_name.get(&stage.base_name).copied();
        stage.no_cache = self.options.is_no_cache(&stage.name);
        let makes_files = |i: &&Instruction| {
            matches!(
                i.command,
                Command::Copy(_) | Command::Run(_) | Command::Workdir(_)
            )
        };
        let from = usize::from(stage.base_name != "scratch" && stage.base.is_none());
        stage.step_total = from + written.instructions.iter().filter(makes_files).count();
        let step = |instruction: &Instruction| Step {
            instruction: instruction.clone(),
            sources: Vec::new(),
            on_build: false,
        };
        stage.steps = written.instructions.iter().map(step).collect();
        Ok(stage)
    }

    fn stage_platform(&mut self, written: &Written, seen: &mut Seen) -> Result<Platform, Error> {
        let expanded = self.expand_global(&written.platform)?;
        self.check_from_args(&expanded.unmatched, written.lines);
        self.check_platform(written, &expanded);
        if expanded.text.is_empty() {
            return Err(Error::EmptyPlatform {
                expression: written.platform.clone(),
                suggestion: self.suggest_arg(&expanded.unmatched),
            });
        }
        let platform = expanded.text.parse();
        let platform = platform.map_err(|reason| Error::BadPlatform {
            platform: written.platform.clone(),
            reason,
            suggestion: self.suggest_arg(&expanded.unmatched),
        })?;
        seen.used.extend(expanded.matched);
        Ok(platform)
    }

    fn suggest_arg(&self, unmatched: &BTreeSet<String>) -> Option<String> {
        unmatched
            .iter()
            .find_map(|name| closest(name, self.args.names()))
    }

    /// The stage to build.
    pub(super) fn target(&self) -> Result<usize, Error> {
        let target = self.options.target.as_str();
        if target.is_empty() {
            return Ok(self.written - 1);
        }
        if let Some(index) = self.by_name.get(&target.to_lowercase()) {
            return Ok(*index);
        }
        let suggestion = closest(target, self.stages.iter().map(|s| s.shown.as_str()));
        Err(Error::NoTarget {
            target: target.to_owned(),
            suggestion,
        })
    }

    /// Finds who takes files from whom, and refuses to go round in circles.
    pub(super) fn dependencies(&mut self) -> Result<()> {
        for index in 0..self.written {
            let mut steps = std::mem::take(&mut self.stages[index].steps);
            for step in &mut steps {
                let lines = step.instruction.lines;
                step.sources = self.sources(&step.instruction).at(lines)?;
                let needs = step.sources.iter().flatten().map(|source| (*source, lines));
                self.stages[index].needs.extend(needs);
            }
            self.stages[index].steps = steps;
        }
        self.refuse_cycles()?;
        if self.stages.len() == 1 && !self.has_mount_stages {
            self.stages[0].shown.clear();
        }
        Ok(())
    }

    /// The stages an instruction takes files from.
    pub(super) fn sources(
        &mut self,
        instruction: &Instruction,
    ) -> Result<Vec<Option<usize>>, Error> {
        match &instruction.command {
            Command::Copy(copy) if !copy.from.is_empty() => {
                if self
                    .lexer
                    .expand(&copy.from, &Env::default())
                    .ok()
                    .map(|e| e.text)
                    .as_ref()
                    != Some(&copy.from)
                {
                    return Err(Error::NoVariables { place: "--from" });
                }
                let index = match copy.from.parse::<usize>() {
                    Ok(index) if index < self.written => index,
                    Ok(index) => {
                        return Err(Error::NoStageIndex {
                            index,
                            stages: self.written,
                        });
                    }
                    Err(_) => self.stage_or_image(&copy.from, instruction.lines),
                };
                Ok(vec![Some(index)])
            }
            Command::Run(run) => {
                let mut sources = Vec::new();
                for mount in &run.mounts {
                    self.has_mount_stages = true;
                    let own = mount.from.is_empty() || mount.kind == MountKind::Tmpfs;
                    sources
                        .push((!own).then(|| self.stage_or_image(&mount.from, Lines::default())));
                }
                Ok(sources)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// A stage of this name, or an image that becomes one.
    fn stage_or_image(&mut self, name: &str, lines: Lines) -> usize {
        if let Some(index) = self.by_name.get(&name.to_lowercase()) {
            return *index;
        }
        let same =
            |s: &Stage| s.unwritten && s.base_name == name && s.lines == lines && !s.resolved;
        if let Some(index) = self.stages.iter().position(same) {
            return index;
        }
        self.stages.push(Stage {
            base_name: name.to_owned(),
            lines,
            unwritten: true,
            ..Stage::default()
        });
        self.stages.len() - 1
    }

    pub(super) fn refuse_cycles(&self) -> Result<()> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; self.stages.len()];
        for start in 0..self.stages.len() {
            if marks[start] != Mark::New {
                continue;
            }
            let mut path = vec![(start, self.needs(start), Lines::default())];
            marks[start] = Mark::Open;
            while let Some((index, needs, _)) = path.last_mut() {
                let index = *index;
                match needs.pop() {
                    None => {
                        marks[index] = Mark::Done;
                        path.pop();
                    }
                    Some((next, lines)) if marks[next] == Mark::Open => {
                        let from = path.iter().position(|(i, ..)| *i == next).unwrap_or(0);
                        let mut round: Vec<usize> =
                            path[from + 1..].iter().map(|(i, ..)| *i).collect();
                        round.push(next);
                        let name = |i: &usize| self.stages[*i].shown.clone();
                        return Err(Fault {
                            error: Error::Cycle {
                                stage: name(&next),
                                path: round.iter().map(name).collect(),
                            },
                            lines,
                        });
                    }
                    Some((next, lines)) if marks[next] == Mark::New => {
                        marks[next] = Mark::Open;
                        let needs = self.needs(next);
                        path.push((next, needs, lines));
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    fn needs(&self, index: usize) -> Vec<(usize, Lines)> {
        let stage = &self.stages[index];
        let base = stage.base.map(|base| (base, stage.lines));
        stage.needs.iter().copied().chain(base).collect()
    }

    /// The stages `target` needs, itself included.
    pub(super) fn reachable(&self, target: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            if found.insert(index) {
                open.extend(self.needs(index).into_iter().map(|(next, _)| next));
            }
        }
        found
    }
}
