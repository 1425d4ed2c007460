//! What stages stand on: images and named contexts, looked up all at once, and the
//! `ONBUILD` triggers they bring.

use std::collections::BTreeSet;

use frontend::ResolvedImage;
use futures::future::try_join_all;
use oci::Platform;

use super::args::show_all;
use super::stage::{State, Step};
use super::{At, Lowering, Result, follow_paths};
use crate::Error;
use crate::image::Image;
use crate::instruction::{Command, trigger};
use crate::lint::Rule;
use crate::plan::{About, Tree, Work};
use crate::reference::Reference;
use crate::suggest::closest;
use crate::ui::{Loaded, LocalContext};

/// A local directory whose wanted paths are known at the end.
pub(super) struct OpenLocal {
    tree: Tree,
    stage: usize,
    local: LocalContext,
}

/// What was found under a stage.
enum Found {
    /// A named context in place of the whole stage.
    Stage(Loaded),
    /// A named context in place of the image.
    Base(Loaded),
    /// An image.
    Image(Reference, ResolvedImage),
}

impl Lowering<'_> {
    /// Resolves what `target` needs. Triggers may need more, so this goes on until
    /// there are none. Gives the stages that are needed.
    pub(super) async fn resolve_all(
        &mut self,
        target: usize,
        all: bool,
    ) -> Result<BTreeSet<usize>> {
        loop {
            let reachable = self.reachable(target);
            let wanted = |index: &usize| all || reachable.contains(index);
            let indexes: Vec<usize> = (0..self.stages.len()).filter(wanted).collect();
            self.resolve(&indexes).await?;
            let mut more = false;
            for index in indexes {
                more |= self.take_triggers(index)?;
            }
            if !more {
                return Ok(self.reachable(target));
            }
            self.refuse_cycles()?;
        }
    }

    async fn resolve(&mut self, indexes: &[usize]) -> Result<()> {
        let mut open = Vec::new();
        for &index in indexes {
            let stage = &mut self.stages[index];
            if stage.base.is_some() || stage.resolved {
                continue;
            }
            stage.resolved = true;
            if stage.base_name == "scratch" && stage.named.is_none() {
                stage.image = Image::scratch(&self.target_platform);
                stage.platform = Some(self.target_platform.clone());
                stage.dispatched = stage.unwritten;
            } else {
                open.push(index);
            }
        }
        let found = try_join_all(open.iter().map(|&index| self.find(index))).await?;
        for (index, found) in open.into_iter().zip(found) {
            let lines = self.stages[index].lines;
            self.apply(index, found).at(lines)?;
        }
        Ok(())
    }

    fn stage_platform_or_target(&self, index: usize) -> Platform {
        self.stages[index]
            .platform
            .clone()
            .unwrap_or_else(|| self.target_platform.clone())
    }

    /// Asks, and changes nothing.
    async fn find(&self, index: usize) -> Result<Found> {
        let lines = self.stages[index].lines;
        self.find_inner(index).await.at(lines)
    }

    async fn find_inner(&self, index: usize) -> Result<Found, Error> {
        let stage = &self.stages[index];
        if let Some(named) = &stage.named {
            return Ok(Found::Stage(self.ui.load(named, 0).await?));
        }
        let platform = self.stage_platform_or_target(index);
        let bad = || Error::BadImageName {
            name: stage.base_name.clone(),
        };
        let reference = Reference::parse(&stage.base_name).ok_or_else(bad)?.tagged();
        if let Some(named) = self.ui.named_context(&reference.to_string(), &platform)? {
            return Ok(Found::Base(self.ui.load(&named, 0).await?));
        }
        let prefix = match self.options.multi_platform {
            true => format!("{} ", show_all(&platform)),
            false => String::new(),
        };
        let name = format!("[{prefix}internal] load metadata for {reference}");
        let resolved = self
            .ui
            .resolve_image(&reference.to_string(), &platform, name, None)
            .await;
        let resolved = resolved.map_err(|cause| {
            let names = self
                .stages
                .iter()
                .filter(|s| !s.unwritten)
                .map(|s| s.shown.as_str());
            let common = [
                "alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora",
            ];
            Error::Base {
                image: stage.base_name.clone(),
                suggestion: closest(&stage.base_name, names.chain(common)),
                cause: Box::new(cause),
            }
        })?;
        Ok(Found::Image(reference, resolved))
    }

    fn apply(&mut self, index: usize, found: Found) -> Result<(), Error> {
        if self.stages[index].unwritten {
            self.stages[index].dispatched = true;
        }
        match found {
            Found::Stage(loaded) => {
                let (tree, image) = self.open(index, loaded);
                let stage = &mut self.stages[index];
                stage.dispatched = true;
                stage.state.tree = tree;
                stage
                    .platform
                    .get_or_insert_with(|| self.target_platform.clone());
                match image {
                    Some(image) if !image.platform.os.is_empty() => {
                        stage.platform = Some(image.platform.clone());
                        stage.state.platform = Some(image.platform.clone());
                        stage.image = image;
                    }
                    _ => stage.image = Image::scratch(&self.target_platform),
                }
            }
            Found::Base(loaded) => {
                let platform = self.stage_platform_or_target(index);
                let (tree, image) = self.open(index, loaded);
                let stage = &mut self.stages[index];
                stage.image = image.unwrap_or_else(|| Image::scratch(&platform));
                stage.base_image = Some(stage.image.clone());
                stage.image.created = None;
                stage.state = State {
                    tree,
                    platform: Some(platform.clone()),
                    ..State::default()
                };
                stage.platform = Some(platform);
            }
            Found::Image(reference, resolved) => self.apply_image(index, reference, resolved)?,
        }
        Ok(())
    }

    fn apply_image(
        &mut self,
        index: usize,
        asked: Reference,
        resolved: ResolvedImage,
    ) -> Result<(), Error> {
        let mut platform = self.stage_platform_or_target(index);
        let image: Image =
            serde_json::from_slice(&resolved.config).map_err(|error| Error::BadImageConfig {
                image: asked.to_string(),
                reason: error.to_string(),
            })?;
        if self.stages[index].platform.is_none() && self.implicit_target {
            platform = self.detected(&image, platform);
        }
        let mut name = Reference::parse(&resolved.name).unwrap_or(asked);
        name.digest = Some(resolved.digest.to_string());
        let no_layers = image.rootfs.diff_ids.as_ref().is_none_or(Vec::is_empty)
            && image.history.iter().all(|entry| entry.empty_layer);
        let mut tree = None;
        if !no_layers {
            let with_platform = self.options.multi_platform;
            let stage = &mut self.stages[index];
            let shown = format!("FROM {name}");
            let shown =
                stage.step_name(&shown, with_platform, &platform, &Default::default(), false);
            let about = About {
                command: Some(stage.text.clone()),
                at: Some(stage.lines.ranges()),
                ..About::named(shown)
            };
            let work = Work::Source {
                identifier: format!("docker-image://{name}"),
                attrs: self.ui.image_attrs(),
                platform: Some(platform.clone()),
            };
            tree = Some(self.plan.add(work, about));
            self.check_image_platform(index, &platform, &image);
        }
        let stage = &mut self.stages[index];
        stage.state = State {
            tree,
            platform: tree.map(|_| platform.clone()),
            ..State::default()
        };
        stage.base_name = name.to_string();
        stage.base_image = Some(image.clone());
        stage.image = Image {
            created: None,
            ..image
        };
        stage.platform = Some(platform);
        Ok(())
    }

    /// An image for another machine decides what is built, when nobody else did.
    fn detected(&self, image: &Image, target: Platform) -> Platform {
        let fits = |p: &Platform| {
            p.os == image.platform.os && p.architecture == image.platform.architecture
        };
        if fits(&target) {
            return target;
        }
        self.ui
            .bridge
            .platforms()
            .into_iter()
            .find(fits)
            .unwrap_or(target)
    }

    fn check_image_platform(&mut self, index: usize, expected: &Platform, image: &Image) {
        let actual = &image.platform;
        if expected.os == actual.os && expected.architecture == actual.architecture {
            return;
        }
        let stage = &self.stages[index];
        let show = |p: &Platform| format!("{:?}", show_all(&p.clone().normalized()));
        let message = format!(
            "Base image {} was pulled with platform {}, expected {} for current build",
            stage.base_name,
            show(actual),
            show(expected)
        );
        self.linter
            .warn(Rule::InvalidBaseImagePlatform, stage.lines, message);
    }

    /// A loaded context's tree and config.
    fn open(&mut self, index: usize, loaded: Loaded) -> (Option<Tree>, Option<Image>) {
        match loaded {
            Loaded::Scratch => (None, None),
            Loaded::Tree { work, about, image } => {
                let image = image.map(|image| Image {
                    created: None,
                    ..*image
                });
                (Some(self.plan.add(*work, about)), image)
            }
            Loaded::Local(local) => {
                let tree = self.plan.add(Work::Open, About::default());
                self.locals.push(OpenLocal {
                    tree,
                    stage: index,
                    local,
                });
                (Some(tree), None)
            }
        }
    }

    /// Says which files of named local directories are wanted.
    pub(super) fn fill_locals(&mut self) {
        for OpenLocal { tree, stage, local } in std::mem::take(&mut self.locals) {
            let paths = follow_paths(&self.stages[stage].paths);
            let (work, about) = local.work(&paths);
            self.plan.fill(tree, work, about);
        }
    }

    /// Puts the triggers of what a stage stands on in front of its own steps. True if
    /// they need stages nobody needed before.
    fn take_triggers(&mut self, index: usize) -> Result<bool> {
        let stage = &mut self.stages[index];
        if stage.triggers_read || stage.dispatched {
            return Ok(false);
        }
        stage.triggers_read = true;
        let lines = stage.lines;
        let triggers = match stage.base {
            None => std::mem::take(&mut stage.image.config.on_build),
            Some(base) => self.written_triggers(base),
        };
        let mut steps = Vec::with_capacity(triggers.len());
        let mut more = false;
        for text in triggers {
            let instruction = trigger(&text, lines).at(lines)?;
            let sources = self.sources(&instruction).at(lines)?;
            more |= sources.iter().any(Option::is_some);
            let needs = sources.iter().flatten().map(|source| (*source, lines));
            self.stages[index].needs.extend(needs);
            steps.push(Step {
                instruction,
                sources,
                on_build: true,
            });
        }
        let stage = &mut self.stages[index];
        stage.step_total += steps.len();
        steps.append(&mut stage.steps);
        stage.steps = steps;
        Ok(more)
    }

    fn written_triggers(&self, base: usize) -> Vec<String> {
        let steps = self.stages[base].steps.iter();
        let trigger = |step: &Step| match &step.instruction.command {
            Command::Onbuild(text) => Some(text.clone()),
            _ => None,
        };
        steps.filter_map(trigger).collect()
    }
}
