//! A directory tree held open.

use std::any::Any;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};

use rustix::fs::{Mode, OFlags};
use rustix::mount::OpenTreeFlags;
use stdx::sys::Root;

use crate::{Error, Result};

/// A directory tree held open, to read or to write: a detached mount or a plain directory.
/// It can be used from any thread and from any mount namespace, and stays until it is dropped,
/// even when the layers under it are removed.
pub struct Tree {
    root: Root,
    mount: Option<OwnedFd>,
    readonly: bool,
    /// What must not go away before the tree does.
    _holds: Option<Arc<dyn Any + Send + Sync>>,
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
            _holds: None,
        }
    }

    /// The root of a detached mount.
    pub(crate) fn of_mount(mount: OwnedFd, readonly: bool) -> io::Result<Tree> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(&mount, ".", flags, Mode::empty())?;
        Ok(Tree {
            root: Root::from_fd(root),
            mount: Some(mount),
            readonly,
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
    /// it is a promise of whoever uses them ([`Tree::clone_mount`] makes the kernel enforce it).
    pub fn is_readonly(&self) -> bool {
        self.readonly
    }

    /// A new detached mount that shows this tree, for one container: attach it with `move_mount`
    /// and an empty path. Needs the right to mount, not a mount namespace.
    ///
    /// Kernels before 6.15 cannot copy a detached mount. There the mount itself is given, which
    /// can be attached once.
    pub fn clone_mount(&self, readonly: bool) -> Result<OwnedFd> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        let what: BorrowedFd<'_> = match &self.mount {
            Some(mount) => mount.as_fd(),
            None => self.root.as_fd(),
        };
        let clone = match (rustix::mount::open_tree(what, "", flags), &self.mount) {
            (Ok(clone), _) => clone,
            (Err(rustix::io::Errno::INVAL), Some(mount)) => mount
                .try_clone()
                .map_err(Error::io("copying the handle of", "a mount"))?,
            (Err(error), _) => {
                return Err(Error::io("cloning the mount of", "a tree")(error.into()));
            }
        };
        if readonly || self.readonly {
            make_readonly(clone.as_fd()).map_err(Error::io("making read-only", "a mount"))?;
        }
        Ok(clone)
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
            let _ = closer.send([mount, root.into()]);
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

/// Sets the read-only flag of one mount (`mount_setattr`, Linux 5.12).
fn make_readonly(mount: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let attr = MountAttr {
        set: libc::MOUNT_ATTR_RDONLY,
        clear: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the descriptor is open for the call, the path is an empty C string, and `attr` has
    // the layout and size the kernel is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
