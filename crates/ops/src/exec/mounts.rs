//! From the mounts a step asks for to the trees a container sees, and from those to
//! the step's outputs (rows X02 to X06).

use std::collections::BTreeMap;
use std::sync::Arc;

use executor::MountSource;
use futures::FutureExt;
use futures::future::try_join_all;
use llb::{CacheMount, MountKind};
use progress::StepProgress;
use refs::{MutableRef, RecordMeta, RecordType, Ref};
use snapshot::Tree;
use stdx::task::blocking;

use super::agent::{self, Forwarding};
use super::key::clean;
use super::secrets;
use crate::remains::{Becomes, Left};
use crate::{Deeds, Error, Output, Result};

/// Where memory shared between processes is.
const SHM: &str = "/dev/shm";

/// The name cache mounts of one id are kept under.
pub(crate) fn cache_mount_key(id: &str) -> String {
    format!("cache-mount:{id}")
}

/// The mounts of a container that is to be.
pub(super) struct Wanted<'a> {
    /// Where trees come from, and secrets.
    pub(super) deeds: &'a Deeds,
    /// Where fetching and unpacking is shown.
    pub(super) step: &'a StepProgress,
    /// For whom, as people know it.
    pub(super) name: &'a str,
    /// What relative targets are relative to.
    pub(super) cwd: &'a str,
    /// As they are asked for.
    pub(super) mounts: &'a [llb::Mount],
    /// What their numbers mean.
    pub(super) inputs: &'a [Output],
}

/// Mounts made ready.
pub(super) struct Prepared {
    /// For the container.
    pub(super) view: View,
    /// For what comes after it.
    pub(super) kept: Kept,
    /// The tree behind each mount, in the order they were asked for. Like the view, it
    /// must be gone before a commit.
    pub(super) trees: Vec<Option<Arc<Tree>>>,
}

/// What a container sees. It must be gone before [`Kept::commit`].
#[derive(Clone)]
pub(super) struct View {
    /// Its root.
    pub(super) root: Arc<Tree>,
    /// Whether it may not write there.
    pub(super) readonly_root: bool,
    /// All other mounts, outer ones first.
    pub(super) mounts: Vec<executor::Mount>,
    /// Bytes of shared memory, if asked for.
    pub(super) shm_size: Option<u64>,
}

/// What must stay as long as the container runs. Dropped, nothing of it remains but
/// what is kept between builds.
#[derive(Default)]
pub(super) struct Kept {
    /// Each with the place of its mount and its number.
    outputs: Vec<(usize, u32, Becomes)>,
    /// Written and not an output, with the place of its mount.
    others: Vec<(usize, MutableRef)>,
    caches: Vec<MutableRef>,
    agents: Vec<Forwarding>,
}

/// One mount made ready; without a source there is none.
#[derive(Default)]
struct Placed {
    source: Option<MountSource>,
    becomes: Option<Becomes>,
    other: Option<MutableRef>,
    agent: Option<Forwarding>,
}

impl Wanted<'_> {
    /// Makes all mounts ready, the slow ones at the same time. Directories others may
    /// be holding come last and in the order of their names: two containers that want
    /// the same two never wait for each other.
    pub(super) async fn prepare(&self) -> Result<Prepared> {
        let placing = self.mounts.iter().map(|mount| self.place(mount).boxed());
        let mut placed = try_join_all(placing).await?;
        let mut kept = Kept::default();
        self.place_caches(&mut placed, &mut kept).await?;
        let mut root = None;
        let mut mounts = Vec::new();
        let mut trees = Vec::new();
        let mut shm_size = None;
        for (place, (mount, placed)) in self.mounts.iter().zip(placed).enumerate() {
            if let (Some(number), Some(becomes)) = (mount.becomes(), placed.becomes) {
                kept.outputs.push((place, number, becomes));
            }
            kept.others.extend(placed.other.map(|other| (place, other)));
            trees.push(match &placed.source {
                Some(MountSource::Tree { tree, .. }) => Some(tree.clone()),
                _ => None,
            });
            kept.agents.extend(placed.agent);
            let target = self.target(mount);
            match placed.source {
                None => {}
                Some(MountSource::Tree { tree, .. }) if mount.target == "/" => {
                    root = Some((tree, mount.readonly));
                }
                Some(_) if mount.target == "/" => {
                    return Err(Error::Invalid("the root must be a tree".into()));
                }
                Some(MountSource::Tmpfs { size: Some(size) }) if target == SHM => {
                    shm_size = Some(size);
                }
                Some(source) => mounts.push(executor::Mount {
                    target,
                    source,
                    readonly: mount.readonly,
                }),
            }
        }
        mounts.sort_by(|a, b| a.target.cmp(&b.target));
        let (root, readonly_root) =
            root.ok_or_else(|| Error::Invalid("no mount is the root".into()))?;
        let view = View {
            root,
            readonly_root,
            mounts,
            shm_size,
        };
        Ok(Prepared { view, kept, trees })
    }

    fn target(&self, mount: &llb::Mount) -> String {
        match mount.target.starts_with('/') {
            true => clean(&mount.target),
            false => clean(&format!("{}/{}", self.cwd, mount.target)),
        }
    }

    fn input(&self, mount: &llb::Mount) -> Result<Option<&Ref>> {
        let Some(number) = mount.input else {
            return Ok(None);
        };
        let missing = || Error::Invalid(format!("mount {} has no input {number}", mount.target));
        let input = self.inputs.get(number as usize).ok_or_else(missing)?;
        Ok(input.0.as_ref())
    }

    async fn place(&self, mount: &llb::Mount) -> Result<Placed> {
        let build = &self.deeds.build;
        let mut placed = Placed::default();
        match &mount.kind {
            MountKind::Bind => return self.bind(mount).await,
            MountKind::Cache(_) => self.unpack(self.input(mount)?).await?,
            MountKind::Tmpfs { size } => {
                let size = u64::try_from(*size).ok().filter(|size| *size > 0);
                placed.source = Some(MountSource::Tmpfs { size });
            }
            MountKind::Secret(wanted) => {
                let secret = secrets::get(build, &wanted.id, wanted.optional).await?;
                placed.source = secret.map(|bytes| MountSource::File {
                    bytes,
                    mode: wanted.mode & 0o777,
                    uid: wanted.uid,
                    gid: wanted.gid,
                });
            }
            MountKind::Ssh(wanted) => {
                let scratch = &self.deeds.parts.scratch;
                if let Some((socket, forwarding)) = agent::forward(build, scratch, wanted).await? {
                    placed.source = Some(socket);
                    placed.agent = Some(forwarding);
                }
            }
        }
        Ok(placed)
    }

    /// A tree. The root is always one that can be written: mount points are made in it.
    async fn bind(&self, mount: &llb::Mount) -> Result<Placed> {
        let input = self.input(mount)?;
        let mut placed = Placed::default();
        if let Some(input) = input.filter(|_| mount.readonly && mount.target != "/") {
            let tree = input.tree(&*self.deeds.build.provider, self.step).await?;
            placed.source = Some(part_of(tree, mount));
            placed.becomes = Some(Becomes::Same(Output(Some(input.clone()))));
            return Ok(placed);
        }
        self.unpack(input).await?;
        let (refs, parent) = (self.deeds.parts.refs.clone(), input.cloned());
        let meta = RecordMeta::new(format!("mount {} from {}", mount.target, self.name));
        let begun = blocking(move || refs.begin(parent.as_ref(), meta)).await?;
        placed.source = Some(part_of(begun.tree(), mount));
        match mount.becomes() {
            Some(_) => placed.becomes = Some(Becomes::New(begun)),
            None => placed.other = Some(begun),
        }
        Ok(placed)
    }

    async fn unpack(&self, input: Option<&Ref>) -> Result<()> {
        match input {
            None => Ok(()),
            Some(input) => Ok(input.unpack(&*self.deeds.build.provider, self.step).await?),
        }
    }

    /// Cache mounts. Two of one container with the same name are the same directory,
    /// also a locked one.
    async fn place_caches(&self, placed: &mut [Placed], kept: &mut Kept) -> Result<()> {
        let mut wanted: BTreeMap<(&str, Option<&str>), Vec<usize>> = BTreeMap::new();
        for (at, mount) in self.mounts.iter().enumerate() {
            if let MountKind::Cache(cache) = &mount.kind {
                let parent = self.input(mount)?.map(Ref::id);
                wanted.entry((&cache.id, parent)).or_default().push(at);
            }
        }
        for places in wanted.into_values() {
            let mount = &self.mounts[places[0]];
            let MountKind::Cache(cache) = &mount.kind else {
                continue;
            };
            let opened = self.open_cache(mount, cache).await?;
            for at in places {
                placed[at].source = Some(part_of(opened.tree(), &self.mounts[at]));
            }
            kept.caches.push(opened);
        }
        Ok(())
    }

    async fn open_cache(&self, mount: &llb::Mount, cache: &CacheMount) -> Result<MutableRef> {
        let mut description = format!("cached mount {} from {}", mount.target, self.name);
        if cache.id != mount.target {
            description.push_str(&format!(" with id {:?}", cache.id));
        }
        let meta = RecordMeta {
            description,
            record_type: RecordType::CacheMount,
        };
        let sharing = match cache.sharing {
            llb::Sharing::Shared => refs::Sharing::Shared,
            llb::Sharing::Private => refs::Sharing::Private,
            llb::Sharing::Locked => refs::Sharing::Locked,
        };
        let key = cache_mount_key(&cache.id);
        let parent = self.input(mount)?;
        Ok(self
            .deeds
            .parts
            .refs
            .named(&key, parent, sharing, meta)
            .await?)
    }
}

fn part_of(tree: Arc<Tree>, mount: &llb::Mount) -> MountSource {
    MountSource::Tree {
        tree,
        subpath: mount.selector.clone(),
    }
}

impl Kept {
    /// Makes the outputs of what was written, in the order of their numbers.
    pub(super) async fn commit(mut self) -> Result<Vec<Output>> {
        self.agents.clear();
        let mut outputs = std::mem::take(&mut self.outputs);
        outputs.sort_by_key(|(_, number, _)| *number);
        let making = outputs.into_iter().map(|(_, _, becomes)| becomes.output());
        let made = try_join_all(making).await;
        blocking(move || drop(self)).await;
        made
    }

    /// Lets go of everything but the trees the step wrote.
    pub(super) async fn leave(self) -> Left {
        let outputs = self.outputs.into_iter();
        let outputs = outputs.map(|(place, _, becomes)| (place, becomes));
        let others = self.others.into_iter();
        let others = others.map(|(place, other)| (place, Becomes::New(other)));
        let written = outputs.chain(others).collect();
        let (caches, agents) = (self.caches, self.agents);
        blocking(move || drop((caches, agents))).await;
        Left(written)
    }
}
