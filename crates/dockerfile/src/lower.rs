//! From stages to a graph: what each instruction does to a tree of files and to the
//! image's config.

mod args;
mod budget;
mod check;
mod copy;
mod duration;
mod expose;
mod meta;
mod name;
mod outline;
mod path;
mod resolve;
mod run;
mod scan;
mod stage;

pub(crate) use args::show_all as show_platform;
pub(crate) use outline::{ArgInfo as OutlineArg, Outline};
pub(crate) use scan::Scan;

use std::collections::{BTreeMap, BTreeSet};

use oci::Platform;

use crate::ignore::Ignore;
use crate::image::Image;
use crate::instruction::File;
use crate::lint::{LintConfig, LintWarning, Linter};
use crate::plan::{Plan, Tree, Work};
use crate::shell::{Env, Lexer};
use crate::syntax::{Fault, Lines};
use crate::ui::Ui;
use crate::{BuildOptions, Error, image};
use stage::Stage;

/// What a Dockerfile comes to, for one platform.
#[derive(Debug)]
pub(crate) struct Lowered {
    pub(crate) definition: llb::Definition,
    pub(crate) image: Image,
    pub(crate) base_image: Option<Image>,
    pub(crate) outline: Outline,
    /// What is listed beside the result; filled in when that was asked for.
    pub(crate) scan: Scan,
}

/// How to lower.
#[derive(Clone, Debug, Default)]
pub(crate) struct How {
    /// `None` is the builder's own, and a base image for another one is fine.
    pub(crate) platform: Option<Platform>,
    /// Look at all stages, not only those the target needs.
    pub(crate) all_stages: bool,
    /// Warn of nothing: the same file is lowered for another platform, too, which does.
    pub(crate) quiet: bool,
}

/// A fault or, where the file as a whole is meant, an error without a line.
pub(crate) type Result<T, E = Fault> = std::result::Result<T, E>;

/// Puts an error at its lines.
pub(crate) trait At<T> {
    fn at(self, lines: Lines) -> Result<T>;
}

impl<T, E: Into<Error>> At<T> for std::result::Result<T, E> {
    fn at(self, lines: Lines) -> Result<T> {
        self.map_err(|error| Fault {
            error: error.into(),
            lines,
        })
    }
}

/// Everything known while lowering.
pub(crate) struct Lowering<'a> {
    ui: &'a Ui<'a>,
    options: &'a BuildOptions,
    lexer: Lexer,
    linter: Linter,
    plan: Plan,
    stages: Vec<Stage>,
    /// So many stages stand in the file; the others are images that are copied from.
    written: usize,
    by_name: BTreeMap<String, usize>,
    /// `ARG`s above the first `FROM`, and those about platforms.
    args: Env,
    declared: BTreeMap<String, outline::ArgInfo>,
    target_platform: Platform,
    implicit_target: bool,
    /// The build context; filled in at the end.
    context: Tree,
    context_paths: BTreeSet<String>,
    ignore: Ignore,
    /// Local directories of named contexts, to be filled in at the end.
    locals: Vec<resolve::OpenLocal>,
    /// A mount stands for a stage of its own, which shows in names.
    has_mount_stages: bool,
    budget: budget::Budget,
}

/// Lowers `file`. The warnings come back even when it fails.
pub(crate) async fn lower(
    ui: &Ui<'_>,
    file: &File,
    how: &How,
    check: Option<&str>,
    escape: char,
    empty: &[Lines],
) -> (Vec<LintWarning>, Result<Lowered>) {
    let nowhere = Lines::default();
    let config = match how.quiet {
        true => Ok(LintConfig::nothing()),
        false => lint_config(ui, check),
    };
    let lowering = config
        .and_then(|config| Lowering::new(ui, how, config, escape))
        .at(nowhere);
    let mut lowering = match lowering {
        Ok(lowering) => lowering,
        Err(fault) => return (Vec::new(), Err(fault)),
    };
    let lowered = Box::pin(lowering.all(file, how, empty)).await;
    let warnings = std::mem::take(&mut lowering.linter.warnings);
    (warnings, lowered)
}

/// The warnings about a file that has mistakes, as far as it could be read.
pub(crate) fn warnings_only(
    ui: &Ui<'_>,
    file: &File,
    check: Option<&str>,
    empty: &[Lines],
) -> Vec<LintWarning> {
    // The mistakes are told; that the options are none is told when these are gone.
    let mut linter = Linter::new(lint_config(ui, check).unwrap_or_default());
    linter.check_file(file, empty);
    linter.warnings
}

fn lint_config(ui: &Ui<'_>, check: Option<&str>) -> Result<LintConfig, Error> {
    match (&ui.options.lint, check) {
        (Some(config), _) => Ok(config.clone()),
        (None, Some(text)) => LintConfig::parse(text),
        (None, None) => Ok(LintConfig::default()),
    }
}

impl<'a> Lowering<'a> {
    fn new(ui: &'a Ui<'a>, how: &How, config: LintConfig, escape: char) -> Result<Self, Error> {
        let mut plan = Plan::default();
        let context = plan.add(Work::Open, crate::plan::About::default());
        Ok(Lowering {
            ui,
            options: &ui.options,
            lexer: Lexer::new(escape),
            linter: Linter::new(config),
            plan,
            stages: Vec::new(),
            written: 0,
            by_name: BTreeMap::new(),
            args: Env::default(),
            declared: BTreeMap::new(),
            target_platform: how.platform.clone().unwrap_or_else(|| ui.build_platform()),
            implicit_target: how.platform.is_none(),
            context,
            context_paths: BTreeSet::new(),
            ignore: Ignore::new(&ui.ignored)?,
            locals: Vec::new(),
            has_mount_stages: false,
            budget: budget::Budget::default(),
        })
    }

    /// The story: check, find stages, resolve what they stand on, walk through them.
    async fn all(&mut self, file: &File, how: &How, empty: &[Lines]) -> Result<Lowered> {
        let nowhere = Lines::default();
        let Some(last) = file.stages.last() else {
            return Err(Error::NoStages).at(nowhere);
        };
        self.linter.check_file(file, empty);
        let target_name = match self.options.target.as_str() {
            "" => last.name.clone(),
            name => name.to_owned(),
        };
        self.global_args(file, &target_name)?;
        self.build_stages(file)?;
        let target = self.target().at(nowhere)?;
        self.dependencies()?;
        let reachable = self.resolve_all(target, how.all_stages).await?;
        for index in 0..self.stages.len() {
            let wanted = how.all_stages || reachable.contains(&index);
            if wanted && !self.stages[index].dispatched {
                self.walk(index)?;
            }
        }
        let root = self.paths_owner(target);
        self.stages[root].paths.insert("/".into());
        self.finish(target)
    }

    /// Fills in what is known only now, and writes the graph down.
    fn finish(&mut self, target: usize) -> Result<Lowered> {
        let nowhere = Lines::default();
        self.linter.verdict().at(nowhere)?;
        let labels = self.options.labels.clone();
        self.stages[target].image.config.labels.extend(labels);
        if self.options.sbom.is_some() && self.scans_context(target) {
            self.context_paths.insert("/".into());
        }
        let paths = follow_paths(&self.context_paths);
        self.ui.fill_context(&mut self.plan, self.context, &paths);
        self.fill_locals();
        let mut image = self.stages[target].image.clone();
        if !self.implicit_target {
            set_platform(&mut image, &self.target_platform);
        }
        image.platform = image.platform.normalized();
        let file = self.ui.source_info();
        let definition = self
            .plan
            .definition(self.stages[target].state.tree, Some(&file))
            .at(nowhere)?;
        Ok(Lowered {
            definition,
            image,
            base_image: self.stages[target].base_image.clone(),
            outline: self.outline(target),
            scan: self.scan(target).at(nowhere)?,
        })
    }

    /// When our steps happened, as the image says it.
    fn created(&self) -> Option<String> {
        self.options.epoch.map(image::timestamp)
    }

    /// The stage whose paths are those of `index`: they are counted at the bottom.
    fn paths_owner(&self, mut index: usize) -> usize {
        while let Some(base) = self.stages[index].base {
            index = base;
        }
        index
    }
}

/// The paths without what lies in others' names; none if everything is wanted.
fn follow_paths(paths: &BTreeSet<String>) -> Vec<String> {
    if paths.contains("/") {
        return Vec::new();
    }
    paths
        .iter()
        .map(|path| path.trim_start_matches('/').to_owned())
        .collect()
}

fn set_platform(image: &mut Image, target: &Platform) {
    let same = image.platform.os == target.os && image.platform.architecture == target.architecture;
    image.platform.os.clone_from(&target.os);
    image.platform.architecture.clone_from(&target.architecture);
    if !target.variant.is_empty() || !same {
        image.platform.variant.clone_from(&target.variant);
    }
    if !target.os_version.is_empty() || !same {
        image.platform.os_version.clone_from(&target.os_version);
    }
    if !target.os_features.is_empty() {
        image.platform.os_features.clone_from(&target.os_features);
    }
}
