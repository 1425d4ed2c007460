//! Walking through a stage, and the instructions that change its config only.

use super::duration::go_duration;
use super::name::upper_first;
use super::outline::ArgInfo;
use super::stage::Step;
use super::{At, Lowering, Result};
use crate::Error;
use crate::ignore::clean;
use crate::image::{DEFAULT_PATH, Empty, Healthcheck};
use crate::instruction::{Arg, Command, CommandLine, Health, Instruction};
use crate::json::quoted_list;
use crate::lint::Rule;
use crate::plan::{About, FileAction, Work};
use crate::shell::Lexer;
use crate::suggest::{closest, hint};
use crate::syntax::{Lines, Pair};

/// Whether the context is scanned for lists of contents.
pub(super) const SCAN_CONTEXT: &str = "BUILDKIT_SBOM_SCAN_CONTEXT";
/// Whether a stage is.
pub(super) const SCAN_STAGE: &str = "BUILDKIT_SBOM_SCAN_STAGE";

/// Arguments that never become variables.
const NOT_VARIABLES: [&str; 2] = [SCAN_CONTEXT, SCAN_STAGE];

impl Lowering<'_> {
    /// Does all instructions of a stage.
    pub(super) fn walk(&mut self, index: usize) -> Result<()> {
        self.inherit(index).at(self.stages[index].lines)?;
        self.refuse_windows(index)?;
        let stage = &mut self.stages[index];
        stage.dispatched = true;
        stage
            .platform
            .get_or_insert_with(|| self.target_platform.clone());
        let has_path = stage
            .image
            .config
            .env
            .iter()
            .any(|e| e.split('=').next() == Some("PATH"));
        if !has_path {
            stage.image.config.env.push(format!("PATH={DEFAULT_PATH}"));
        }
        for entry in &stage.image.config.env {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            stage.state.env.set(name, value);
        }
        if !stage.image.config.working_dir.is_empty() {
            let dir = join("", &stage.image.config.working_dir);
            stage.image.config.working_dir.clone_from(&dir);
            stage.state.dir = dir;
        }
        stage.state.user.clone_from(&stage.image.config.user);
        for step in std::mem::take(&mut self.stages[index].steps) {
            self.step(index, &step).at(step.instruction.lines)?;
            // Stages on top look for triggers here.
            self.stages[index].steps.push(step);
        }
        Ok(())
    }

    /// Paths and shells are other ones there; half right would be wrong.
    fn refuse_windows(&self, index: usize) -> Result<()> {
        let stage = &self.stages[index];
        let platform = stage.platform.as_ref().unwrap_or(&self.target_platform);
        match platform.os.as_str() {
            "windows" => Err(Error::NotYet {
                what: "building for Windows".into(),
            })
            .at(stage.lines),
            _ => Ok(()),
        }
    }

    /// Begins with what the stage below ended with.
    fn inherit(&mut self, index: usize) -> Result<(), Error> {
        let Some(base) = self.stages[index].base else {
            return Ok(());
        };
        let below = &self.stages[base];
        let history = below.image.history.iter();
        let history: usize = history.map(|entry| entry.created_by.len() + 64).sum();
        self.budget.spend(history + below.state.env.size())?;
        let [base, stage] = self
            .stages
            .get_disjoint_mut([base, index])
            .expect("a stage stands on an earlier one");
        stage.state.clone_from(&base.state);
        stage.platform.clone_from(&base.platform);
        stage.image.clone_from(&base.image);
        stage.image.config.on_build.clear();
        stage.base_image.clone_from(&base.base_image);
        stage.workdir_set = base.workdir_set;
        stage.args.extend(base.args.iter().cloned());
        Ok(())
    }

    fn step(&mut self, index: usize, step: &Step) -> Result<(), Error> {
        let Instruction {
            lines,
            command,
            keyword,
            ..
        } = &step.instruction;
        let lines = *lines;
        // Each looks through the variables, and a `RUN` gets them all.
        self.budget.spend(self.stages[index].state.env.size())?;
        match command {
            Command::Arg(args) => self.arg(index, args, lines)?,
            Command::Env(pairs) => self.env(index, pairs, lines)?,
            Command::Label(pairs) => self.label(index, pairs, lines)?,
            Command::Cmd(line) => {
                let words = self.line(index, "CMD", keyword, line, lines);
                self.commit(index, format!("CMD {}", quoted_list(&words)), false);
                let config = &mut self.stages[index].image.config;
                (config.cmd, config.args_escaped) = (words, true);
            }
            Command::Entrypoint(line) => {
                let words = self.line(index, "ENTRYPOINT", keyword, line, lines);
                self.commit(index, format!("ENTRYPOINT {}", quoted_list(&words)), false);
                let stage = &mut self.stages[index];
                stage.image.config.entrypoint = words;
                if !stage.once.contains_key("CMD") {
                    stage.image.config.cmd.clear();
                }
            }
            Command::Shell(words) => {
                self.commit(index, format!("SHELL [{}]", words.join(" ")), false);
                self.stages[index].image.config.shell.clone_from(words);
            }
            Command::Healthcheck(health) => self.healthcheck(index, keyword, health, lines),
            Command::Expose(ports) => self.expose(index, ports, lines)?,
            Command::Volume(volumes) => self.volume(index, volumes, lines)?,
            Command::User(user) => {
                let user = self.expand(index, user, lines)?;
                self.commit(index, format!("USER {user}"), false);
                let stage = &mut self.stages[index];
                stage.image.config.user.clone_from(&user);
                stage.state.user = user;
            }
            Command::StopSignal(signal) => {
                let signal = self.expand(index, signal, lines)?;
                if !is_signal(&signal) {
                    return Err(Error::BadSignal { signal });
                }
                self.commit(index, format!("STOPSIGNAL {signal}"), false);
                self.stages[index].image.config.stop_signal = signal;
            }
            Command::Maintainer(name) => {
                self.commit(index, format!("MAINTAINER {name}"), false);
                self.stages[index].image.author.clone_from(name);
            }
            Command::Onbuild(text) => {
                self.stages[index].image.config.on_build.push(text.clone());
            }
            Command::Workdir(dir) => self.workdir(index, dir, step)?,
            Command::Run(run) => self.run(index, run, step)?,
            Command::Copy(copy) => self.copy(index, copy, step)?,
        }
        Ok(())
    }

    /// Expands a word with the stage's variables, and has a word about unset ones.
    pub(super) fn expand(
        &mut self,
        index: usize,
        word: &str,
        lines: Lines,
    ) -> Result<String, Error> {
        let lexer = self.lexer;
        self.expand_by(lexer, index, word, lines)
    }

    pub(super) fn expand_by(
        &mut self,
        lexer: Lexer,
        index: usize,
        word: &str,
        lines: Lines,
    ) -> Result<String, Error> {
        let stage = &self.stages[index];
        let expanded = self.lex(lexer, word, &stage.state.env)?;
        for name in &expanded.unmatched {
            let declared = stage.args.iter().any(|arg| arg.name == *name);
            if declared || NOT_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            let close = closest(name, stage.state.env.names()).map(|name| format!("${name}"));
            let message = format!("Usage of undefined variable '${name}'{}", hint(&close));
            self.linter.warn(Rule::UndefinedVar, lines, message);
        }
        Ok(expanded.text)
    }

    pub(super) fn commit(&mut self, index: usize, what: String, layer: bool) {
        let created = self.created();
        self.stages[index]
            .image
            .commit(what, layer, created.as_deref());
    }

    fn arg(&mut self, index: usize, args: &[Arg], lines: Lines) -> Result<(), Error> {
        let mut shown = Vec::new();
        for arg in args {
            self.check_secret("ARG", &arg.name, lines);
            let given = self.options.build_args.get(&arg.name).cloned();
            let mut inherited = false;
            let value = match (given, &arg.value) {
                (Some(value), _) => Some(value),
                (None, Some(default)) => Some(self.expand(index, default, lines)?),
                (None, None) => {
                    let global = self.args.get(&arg.name).map(str::to_owned);
                    inherited = global.is_some();
                    global
                }
            };
            let stage = &mut self.stages[index];
            if let Some(value) = &value
                && !NOT_VARIABLES.contains(&arg.name.as_str())
            {
                stage.state.env.set(&arg.name, value);
            }
            if !inherited {
                let value = value.clone().unwrap_or_default();
                let info = ArgInfo {
                    value,
                    ..ArgInfo::new(arg, lines)
                };
                stage.seen.args.insert(arg.name.clone(), info);
            }
            stage.seen.used.insert(arg.name.clone());
            shown.push(match &value {
                Some(value) => format!("{}={value}", arg.name),
                None => arg.name.clone(),
            });
            stage.args.push(Arg {
                value,
                ..arg.clone()
            });
        }
        self.commit(index, format!("ARG {}", shown.join(" ")), false);
        Ok(())
    }

    fn expand_pairs(
        &mut self,
        index: usize,
        keyword: &str,
        pairs: &[Pair],
        lines: Lines,
    ) -> Result<Vec<(String, String)>, Error> {
        let mut expanded = Vec::with_capacity(pairs.len());
        for pair in pairs {
            if pair.legacy {
                let message = format!(
                    "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
                );
                self.linter.warn(Rule::LegacyKeyValueFormat, lines, message);
            }
            let key = self.expand(index, &pair.key, lines)?;
            expanded.push((key, self.expand(index, &pair.value, lines)?));
        }
        Ok(expanded)
    }

    fn env(&mut self, index: usize, pairs: &[Pair], lines: Lines) -> Result<(), Error> {
        let mut shown = String::from("ENV");
        for (name, value) in self.expand_pairs(index, "ENV", pairs, lines)? {
            self.check_secret("ENV", &name, lines);
            shown.push_str(&format!(" {name}={value}"));
            let stage = &mut self.stages[index];
            stage.image.set_env(&name, &value);
            stage.state.env.set(name, value);
        }
        self.commit(index, shown, false);
        Ok(())
    }

    fn label(&mut self, index: usize, pairs: &[Pair], lines: Lines) -> Result<(), Error> {
        let mut shown = String::from("LABEL");
        for (name, value) in self.expand_pairs(index, "LABEL", pairs, lines)? {
            shown.push_str(&format!(" {name}={value}"));
            self.stages[index].image.config.labels.insert(name, value);
        }
        self.commit(index, shown, false);
        Ok(())
    }

    /// The words of `CMD` and `ENTRYPOINT`.
    fn line(
        &mut self,
        index: usize,
        once: &'static str,
        keyword: &str,
        line: &CommandLine,
        lines: Lines,
    ) -> Vec<String> {
        self.once(index, once, keyword, lines);
        if !line.shell {
            return line.words.clone();
        }
        let image = &self.stages[index].image;
        let no_shell = image.config.shell.is_empty();
        let mut words = image.shell();
        words.push(line.words.join(" "));
        if no_shell {
            let message = format!(
                "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
            );
            self.linter.warn(Rule::JsonArgsRecommended, lines, message);
        }
        words
    }

    /// Has a word when an instruction hides an earlier one.
    fn once(&mut self, index: usize, once: &'static str, keyword: &str, lines: Lines) {
        if let Some(earlier) = self.stages[index].once.insert(once, lines) {
            let message = format!(
                "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
            );
            self.linter
                .warn(Rule::MultipleInstructionsDisallowed, earlier, message);
        }
    }

    fn healthcheck(&mut self, index: usize, keyword: &str, health: &Health, lines: Lines) {
        self.once(index, "HEALTHCHECK", keyword, lines);
        let shown = format!(
            "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
            health.test.join(" "),
            go_duration(health.interval_ns),
            go_duration(health.timeout_ns),
            go_duration(health.start_period_ns),
            go_duration(health.start_interval_ns),
            health.retries
        );
        self.commit(index, shown, false);
        self.stages[index].image.config.healthcheck = Some(Healthcheck {
            test: health.test.clone(),
            interval: health.interval_ns,
            timeout: health.timeout_ns,
            start_period: health.start_period_ns,
            start_interval: health.start_interval_ns,
            retries: health.retries,
        });
    }

    fn volume(&mut self, index: usize, volumes: &[String], lines: Lines) -> Result<(), Error> {
        let mut shown = Vec::new();
        for volume in volumes {
            let volume = self.expand(index, volume, lines)?;
            if volume.is_empty() {
                return Err(Error::EmptyVolume);
            }
            self.stages[index]
                .image
                .config
                .volumes
                .insert(volume.clone(), Empty {});
            shown.push(volume);
        }
        self.commit(index, format!("VOLUME [{}]", shown.join(" ")), false);
        Ok(())
    }

    fn workdir(&mut self, index: usize, dir: &str, step: &Step) -> Result<(), Error> {
        let lines = step.instruction.lines;
        let dir = self.expand(index, dir, lines)?;
        let stage = &mut self.stages[index];
        if !stage.workdir_set && !dir.starts_with('/') {
            let message = format!(
                "Relative workdir {dir:?} can have unexpected results if the base image changes"
            );
            self.linter.warn(Rule::WorkdirRelativePath, lines, message);
        }
        stage.workdir_set = true;
        let dir = join(&stage.image.config.working_dir, &dir);
        stage.image.config.working_dir.clone_from(&dir);
        stage.state.dir.clone_from(&dir);
        if dir != "/" {
            let name = self.named_step(index, &step.instruction.text, step);
            let stage = &mut self.stages[index];
            let mkdir = llb::Mkdir {
                path: dir.clone(),
                mode: 0o755,
                make_parents: true,
                owner: super::path::owner(&stage.image.config.user),
                timestamp: self
                    .options
                    .epoch
                    .map(|seconds| seconds.saturating_mul(1_000_000_000)),
            };
            let work = Work::Files {
                base: stage.state.tree,
                actions: vec![FileAction::Mkdir(mkdir)],
            };
            let about = About {
                at: Some(lines.ranges()),
                ..About::named(name)
            };
            stage.state.tree = Some(self.plan.add(work, about));
        }
        let layer = dir != "/";
        self.commit(index, format!("WORKDIR {dir}"), layer);
        Ok(())
    }

    /// A step's name, its variables expanded; one that cannot be stays as it is.
    pub(super) fn named_step(&mut self, index: usize, text: &str, step: &Step) -> String {
        let stage = &self.stages[index];
        let shown = self.shown(self.lexer, text, &stage.state.env);
        self.step_name(index, &upper_first(&shown), step)
    }

    pub(super) fn step_name(&mut self, index: usize, shown: &str, step: &Step) -> String {
        let with_platform = self.options.multi_platform;
        let stage = &mut self.stages[index];
        let platform = stage
            .platform
            .clone()
            .unwrap_or_else(|| self.target_platform.clone());
        let env = stage.state.env.clone();
        stage.step_name(shown, with_platform, &platform, &env, step.on_build)
    }
}

/// `dir` seen from `from`, cleaned.
pub(super) fn join(from: &str, dir: &str) -> String {
    match dir.starts_with('/') {
        true => clean(dir),
        false => clean(&format!("/{from}/{dir}")),
    }
}

fn is_signal(text: &str) -> bool {
    let numbered = text
        .parse::<u8>()
        .is_ok_and(|number| (1..=64).contains(&number));
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = name.strip_prefix("RTMIN").or(name.strip_prefix("RTMAX"));
    let names = "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ";
    let real_time = real_time.is_some_and(|rest| {
        rest.is_empty()
            || rest[1..].parse::<u8>().is_ok_and(|n| n <= 15) && rest.starts_with(['+', '-'])
    });
    numbered || real_time || names.split(' ').any(|known| known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: F27
    #[test]
    fn signals_are_known() {
        for signal in ["SIGTERM", "term", "9", "SIGRTMIN+3", "RTMAX-2"] {
            assert!(is_signal(signal), "{signal}");
        }
        for nonsense in ["", "SIG", "0", "65", "SIGFOO", "RTMIN3"] {
            assert!(!is_signal(nonsense), "{nonsense}");
        }
    }

    /// Rows: F27
    #[test]
    fn directories_are_joined() {
        assert_eq!(join("", "a"), "/a");
        assert_eq!(join("/a", "b/../c/"), "/a/c");
        assert_eq!(join("/a", "/"), "/");
        assert_eq!(join("/a", "../../.."), "/");
    }
}
