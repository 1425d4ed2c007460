//! `COPY` and `ADD`.

use std::sync::atomic::{AtomicU64, Ordering};

use oci::Digest;

use super::Lowering;
use super::path::{destination, file_name, has_wildcards, is_url, join_root, mode, owner};
use super::stage::Step;
use crate::Error;
use crate::git::GitAddress;
use crate::ignore::clean;
use crate::instruction::{Content, Copy};
use crate::lint::Rule;
use crate::plan::{About, FileAction, Tree, Work};
use crate::shell::Lexer;
use crate::syntax::Lines;

/// Makes the ids of progress groups different.
static GROUPS: AtomicU64 = AtomicU64::new(0);

impl Lowering<'_> {
    pub(super) fn copy(&mut self, index: usize, copy: &Copy, step: &Step) -> Result<(), Error> {
        let lines = step.instruction.lines;
        let copy = self.expanded(index, copy, lines)?;
        let source = match step.sources.first() {
            Some(Some(source)) => Some(self.dispatched(*source, &copy.from, index)?),
            _ => None,
        };
        self.check_remote(&copy)?;
        let text = step.instruction.text.clone();
        let shown = {
            let env = &self.stages[index].state.env;
            let shown = self.shown(self.lexer, &text, env);
            super::name::upper_first(&shown)
        };
        let name = self.step_name(index, &shown, step);
        let actions = self.actions(index, &copy, source, &name, &text, lines)?;
        self.add_copy(index, &copy, actions, name, &shown, step);
        self.commit(index, format!("{} # buildkit", history(&copy)), true);
        self.note_paths(source, &copy);
        Ok(())
    }

    fn add_copy(
        &mut self,
        index: usize,
        copy: &Copy,
        actions: Vec<FileAction>,
        name: String,
        shown: &str,
        step: &Step,
    ) {
        let about = About {
            ignore_cache: self.stages[index].no_cache,
            at: Some(step.instruction.lines.ranges()),
            ..About::named(name.clone())
        };
        let base = self.stages[index].state.tree;
        let tree = if copy.link && copy.chmod.is_empty() {
            let id = format!("link-{}", GROUPS.fetch_add(1, Ordering::Relaxed));
            let group = |weak| {
                Some(llb::ProgressGroup {
                    id: id.clone(),
                    name: name.clone(),
                    weak,
                })
            };
            let on_nothing = About {
                group: group(true),
                ..about.clone()
            };
            let copied = self.plan.add(
                Work::Files {
                    base: None,
                    actions,
                },
                on_nothing,
            );
            self.stages[index].step_now -= usize::from(self.stages[index].step_total > 0);
            let link_name = self.step_name(index, &format!("LINK {shown}"), step);
            let merged = About {
                group: group(false),
                name: link_name,
                ..about
            };
            self.plan.add(Work::Merge(vec![base, Some(copied)]), merged)
        } else {
            self.plan.add(Work::Files { base, actions }, about)
        };
        self.stages[index].state.tree = Some(tree);
    }

    /// The instruction with its variables expanded, here-docs included.
    fn expanded(&mut self, index: usize, copy: &Copy, lines: Lines) -> Result<Copy, Error> {
        let mut expanded = copy.clone();
        for text in [
            &mut expanded.chown,
            &mut expanded.chmod,
            &mut expanded.checksum,
            &mut expanded.destination,
        ] {
            *text = self.expand(index, text, lines)?;
        }
        for text in expanded.exclude.iter_mut().chain(&mut expanded.sources) {
            *text = self.expand(index, text, lines)?;
        }
        let raw = Lexer {
            skip_quotes: true,
            ..Lexer::new('\\')
        };
        for content in expanded
            .contents
            .iter_mut()
            .filter(|content| content.expand)
        {
            content.data = self.expand_by(raw, index, &content.data, lines)?;
        }
        Ok(expanded)
    }

    /// A stage that others take files from has to be done by then.
    pub(super) fn dispatched(
        &self,
        source: usize,
        from: &str,
        index: usize,
    ) -> Result<usize, Error> {
        if self.stages[source].dispatched {
            return Ok(source);
        }
        let stage = self.stages[index].shown.clone();
        Err(Error::LaterStage {
            from: from.to_owned(),
            stage,
        })
    }

    fn check_remote(&self, copy: &Copy) -> Result<(), Error> {
        let remote = |source: &String| {
            is_url(source)
                || GitAddress::parse(source).is_ok_and(|g| g.is_some_and(|g| !g.looks_local))
        };
        if copy.checksum.is_empty() {
            return Ok(());
        }
        let reason = match copy.sources.as_slice() {
            [one] if remote(one) => return Ok(()),
            [_] => "requires HTTP(S) or Git sources",
            _ => "can't be specified for multiple sources",
        };
        Err(Error::Checksum {
            reason: reason.to_owned(),
        })
    }

    fn actions(
        &mut self,
        index: usize,
        copy: &Copy,
        source: Option<usize>,
        name: &str,
        text: &str,
        lines: Lines,
    ) -> Result<Vec<FileAction>, Error> {
        let dest = destination(&self.stages[index].state.dir, &copy.destination);
        let common = llb::Copy {
            dest,
            mode: mode(&copy.chmod)?,
            owner: owner(&copy.chown),
            exclude: copy.exclude.clone(),
            create_dest_path: true,
            ..llb::Copy::default()
        };
        let tree = match source {
            Some(source) => self.stages[source].state.tree,
            None => Some(self.context),
        };
        let mut actions = Vec::new();
        for path in &copy.sources {
            let git = GitAddress::parse(path)?.filter(|git| !git.looks_local);
            actions.push(if let Some(git) = git {
                if !copy.add {
                    return Err(Error::RemoteCopy { what: "a git ref" });
                }
                let (work, about) = git.work(copy.keep_git_dir, &copy.checksum, name)?;
                let tree = self.plan.add(work, about);
                FileAction::Copy(
                    Some(tree),
                    llb::Copy {
                        src: "/".into(),
                        ..common.clone()
                    },
                )
            } else if is_url(path) {
                if !copy.add {
                    return Err(Error::RemoteCopy { what: "a URL" });
                }
                self.download(copy, path, name, text, &common)?
            } else {
                if source.is_none() {
                    self.check_ignored(copy, path, lines);
                }
                FileAction::Copy(tree, local(copy, path, &common))
            });
        }
        for content in &copy.contents {
            let tree = self.inline(content);
            let src = join_root(&content.name);
            actions.push(FileAction::Copy(
                Some(tree),
                llb::Copy {
                    src,
                    ..common.clone()
                },
            ));
        }
        Ok(actions)
    }

    fn download(
        &mut self,
        copy: &Copy,
        url: &str,
        name: &str,
        text: &str,
        common: &llb::Copy,
    ) -> Result<FileAction, Error> {
        let file = file_name(url);
        let mut attrs = Vec::new();
        if !copy.checksum.is_empty() {
            let digest: Result<Digest, _> = copy.checksum.parse();
            let digest = digest.map_err(|error| Error::Checksum {
                reason: error.to_string(),
            })?;
            attrs.push((llb::attr::HTTP_CHECKSUM.to_owned(), digest.to_string()));
        }
        attrs.push((llb::attr::HTTP_FILENAME.to_owned(), file.clone()));
        let work = Work::Source {
            identifier: url.to_owned(),
            attrs,
            platform: None,
        };
        let about = About {
            command: Some(text.to_owned()),
            ..About::named(name)
        };
        let tree = self.plan.add(work, about);
        Ok(FileAction::Copy(
            Some(tree),
            llb::Copy {
                src: format!("/{file}"),
                attempt_unpack: copy.unpack.unwrap_or(false),
                ..common.clone()
            },
        ))
    }

    /// A here-doc as a tree with one file.
    pub(super) fn inline(&mut self, content: &Content) -> Tree {
        self.inline_file(&content.name, content.data.clone(), 0o644)
    }

    pub(super) fn inline_file(&mut self, name: &str, data: String, mode: i32) -> Tree {
        let mkfile = llb::Mkfile {
            path: join_root(name),
            mode,
            data: data.into(),
            ..llb::Mkfile::default()
        };
        let work = Work::Files {
            base: None,
            actions: vec![FileAction::Mkfile(mkfile)],
        };
        self.plan
            .add(work, About::named("[internal] preparing inline document"))
    }

    /// Has a word when `.dockerignore` hides what is copied.
    fn check_ignored(&mut self, copy: &Copy, path: &str, lines: Lines) {
        // With exceptions, a hidden directory may have files that are not.
        if self.ignore.has_exceptions() {
            return;
        }
        let path = clean(path);
        let hidden = match path.as_str() {
            "." | "/" => self.ignore.hides_everything(),
            path => self.ignore.hides(path),
        };
        if hidden.is_some() {
            let verb = if copy.add { "Add" } else { "Copy" };
            let message =
                format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
            self.linter.warn(Rule::CopyIgnoredFile, lines, message);
        }
    }

    fn note_paths(&mut self, source: Option<usize>, copy: &Copy) {
        let paths = copy
            .sources
            .iter()
            .filter(|path| !is_url(path))
            .map(|path| join_root(path));
        match source {
            None => self.context_paths.extend(paths),
            Some(source) => {
                let owner = self.paths_owner(source);
                self.stages[owner].paths.extend(paths);
            }
        }
    }
}

/// A copy of local files: out of the context, a stage or an image.
fn local(copy: &Copy, path: &str, common: &llb::Copy) -> llb::Copy {
    let (mut root, mut include, mut required_paths) = (path.to_owned(), Vec::new(), Vec::new());
    if copy.parents {
        // What stands before `/./` is not kept.
        let (parent, pattern) = path.split_once("/./").unwrap_or(("/", path));
        let inner = join_root(pattern);
        if !has_wildcards(parent) && !has_wildcards(&inner) {
            required_paths.push(join_root(&format!("{parent}/{pattern}")));
        }
        include.push(inner.trim_start_matches('/').to_owned());
        root = parent.to_owned();
    }
    llb::Copy {
        src: join_root(&root),
        follow_symlink: true,
        dir_copy_contents: true,
        attempt_unpack: copy.unpack.unwrap_or(copy.add),
        allow_wildcard: true,
        allow_empty_wildcard: true,
        include,
        required_paths,
        ..common.clone()
    }
}

fn history(copy: &Copy) -> String {
    let mut text = String::from(if copy.add { "ADD" } else { "COPY" });
    if copy.parents {
        text.push_str(" --parents");
    }
    if !copy.chown.is_empty() {
        text.push_str(&format!(" --chown={}", copy.chown));
    }
    if !copy.chmod.is_empty() {
        text.push_str(&format!(" --chmod={}", copy.chmod));
    }
    for source in &copy.sources {
        text.push_str(&format!(" {source}"));
    }
    for content in &copy.contents {
        text.push_str(&format!(" <<{}", content.name));
    }
    text.push_str(&format!(" {}", copy.destination));
    text
}
