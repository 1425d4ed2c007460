//! A directory tree held open.

use std::any::Any;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::fs::{Mode, OFlags};
use stdx::sys::Root;

use crate::keeper::Place;

/// A directory tree held open, to read or to write: a detached mount or a plain directory.
/// It can be used from any thread and from any mount namespace, and stays until it is dropped,
/// even when the layers under it are removed.
pub struct Tree {
    root: Root,
    mount: Option<Mount>,
    readonly: bool,
    /// Files that were replaced for a while and put back.
    restored: Mutex<Vec<PathBuf>>,
    /// What must not go away before the tree does.
    _holds: Option<Arc<dyn Any + Send + Sync>>,
}

struct Mount {
    fd: OwnedFd,
    /// Whether it can be copied only while it is attached.
    needs_keeper: bool,
    /// Where that is, once a copy was wanted.
    place: Mutex<Option<Place>>,
}

impl Tree {
    /// A plain directory of the host.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Tree> {
        Ok(Tree::plain(Root::open(path)?, false))
    }

    /// A plain directory that is open already.
    pub fn plain(root: Root, readonly: bool) -> Tree {
        Tree {
            root,
            mount: None,
            readonly,
            restored: Mutex::default(),
            _holds: None,
        }
    }

    /// The root of a detached mount.
    pub(crate) fn of_mount(mount: OwnedFd, readonly: bool, needs_keeper: bool) -> io::Result<Tree> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(&mount, ".", flags, Mode::empty())?;
        Ok(Tree {
            root: Root::from_fd(root),
            mount: Some(Mount {
                fd: mount,
                needs_keeper,
                place: Mutex::new(None),
            }),
            readonly,
            restored: Mutex::default(),
            _holds: None,
        })
    }

    /// The same tree, keeping `thing` until it is dropped.
    pub fn holding(mut self, thing: impl Any + Send + Sync) -> Tree {
        self._holds = Some(match self._holds.take() {
            Some(before) => Arc::new((before, thing)),
            None => Arc::new(thing),
        });
        self
    }

    /// The directory. It is `AsFd`, and paths opened beneath it cannot leave it.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Whether this is a mount of its own; otherwise [`Tree::root`] is a plain directory.
    pub fn is_mount(&self) -> bool {
        self.mount.is_some()
    }

    /// Whether it is only to be read. The kernel enforces it for mounts; for plain directories
    /// it is a promise of whoever uses them.
    pub fn is_readonly(&self) -> bool {
        self.readonly
    }

    /// Says that a file of it was replaced for a while and is as it was again: if that is true,
    /// the commit knows nothing of it. No component of `path` is a symlink.
    pub fn was_restored(&self, path: &Path) {
        let mut restored = self.restored.lock();
        let restored = restored.as_mut().unwrap_or_else(|broken| broken.get_mut());
        restored.push(path.to_owned());
    }

    pub(crate) fn restored(&self) -> Vec<PathBuf> {
        let restored = self.restored.lock();
        restored.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A copy of this mount with `dir`, a file or directory of it, as its root, to be attached
    /// once: for kernels before 6.15, which copy no detached mount. `None` where whoever attaches
    /// it can copy it; so can everybody a plain directory. Blocks for a moment.
    pub fn copy_of_mount(&self, dir: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
        let Some(mount) = self.mount.as_ref().filter(|mount| mount.needs_keeper) else {
            return Ok(None);
        };
        let mut place = mount.place.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_none() {
            *place = Some(Place::attach(mount.fd.as_fd())?);
        }
        let place = place.as_ref().expect("just attached");
        place.copy(dir).map(Some)
    }
}

/// Mounts on their way out; more than these wait for each other.
const CLOSING_AT_ONCE: usize = 64;

/// Closing the last handle of a mount waits for the whole kernel to have seen it go, which takes
/// milliseconds. Nobody needs to wait for that: a thread closes them.
impl Drop for Tree {
    fn drop(&mut self) {
        static CLOSER: OnceLock<Option<SyncSender<[OwnedFd; 2]>>> = OnceLock::new();
        let Some(mount) = self.mount.take() else {
            return;
        };
        let closer = CLOSER.get_or_init(|| {
            let (to_close, closing) = sync_channel(CLOSING_AT_ONCE);
            let thread = std::thread::Builder::new().name("close mounts".to_owned());
            thread
                .spawn(move || closing.into_iter().for_each(drop::<[OwnedFd; 2]>))
                .ok()?;
            Some(to_close)
        });
        // Our own handle of its root closes first, so that the last one is closed over there.
        if let (Some(closer), Ok(root)) = (closer, self.root.try_clone()) {
            let _ = closer.send([mount.fd, root.into()]);
        }
    }
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tree")
            .field("root", &self.root)
            .field("is_mount", &self.is_mount())
            .field("readonly", &self.readonly)
            .finish()
    }
}
