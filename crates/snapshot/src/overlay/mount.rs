//! Asking the kernel for an overlay that hangs on a file descriptor alone.
//!
//! Linux 6.8 and later take layers one by one (`lowerdir+`), so neither the length of a path nor
//! their number meets a limit before overlayfs's own of 500. Earlier kernels take one option
//! string of a page, which [`Stack::mount_aside`] keeps short by naming layers by descriptor,
//! in a mount namespace that ends with the thread that made it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount,
    mount_change, move_mount, open_tree,
};
use rustix::thread::UnshareFlags;

use crate::folder::Folder;
use crate::{Error, Result, Tree};

/// Layers in one overlay. The kernel's limit is 500 with the upper one.
const IN_ONE: usize = 450;

/// Layers in one overlay where their names must fit in a page: `/proc/self/fd/1234:` each.
const IN_ONE_PAGE: usize = 190;

/// Where changes go.
pub(super) struct Upper {
    pub(super) fs: PathBuf,
    pub(super) work: PathBuf,
}

/// How this kernel wants to be asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stack {
    one_by_one: bool,
    over_detached: bool,
    copies_detached: bool,
    options: Options,
}

/// Options this kernel and our rights allow.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    /// Marks in `user.overlay.*` for those who may not write `trusted.*`.
    userxattr: bool,
    /// No flushing of the upper directory: until committed it dies with its process anyway, and
    /// package managers flush after each file.
    volatile: bool,
}

impl Stack {
    /// Finds out by mounting two empty directories.
    pub(super) fn probe(folder: &Folder) -> Result<Stack> {
        let dir = folder.new_active()?;
        let upper = Upper {
            fs: dir.join("fs"),
            work: dir.join("work"),
        };
        let lower = folder.empty();
        let mut first = None;
        let mut works = None;
        for (one_by_one, userxattr, volatile) in [
            (true, false, true),
            (true, true, true),
            (false, false, true),
            (false, true, true),
            (false, false, false),
            (false, true, false),
        ] {
            let _ = std::fs::remove_dir_all(&upper.work);
            std::fs::create_dir_all(&upper.work).map_err(Error::io("making", &upper.work))?;
            let options = Options {
                userxattr,
                volatile,
            };
            let stack = Stack {
                one_by_one,
                over_detached: one_by_one,
                copies_detached: crate::keeper::copies_detached(),
                options,
            };
            let lowers = [lower.clone(), folder.dir().join("owners")];
            match stack
                .mount(folder, &lowers, Some(&upper))
                .and_then(|tree| can_hide(&tree))
            {
                Ok(()) => {
                    works = Some(stack);
                    break;
                }
                Err(error) => first = first.or(Some(error)),
            }
        }
        folder.discard(&dir);
        works.ok_or_else(|| first.expect("tried at least once"))
    }

    pub(super) fn pretend_old_kernel(&mut self) {
        self.one_by_one = false;
        self.over_detached = false;
        self.copies_detached = false;
    }

    pub(super) fn marks_as_user(&self) -> bool {
        self.options.userxattr
    }

    /// Stacks the directories, bottom first, with `upper` on top if there is one.
    pub(super) fn mount(
        &self,
        folder: &Folder,
        lowers: &[PathBuf],
        upper: Option<&Upper>,
    ) -> Result<Tree> {
        let in_one = if self.one_by_one { IN_ONE } else { IN_ONE_PAGE };
        // The lowest may be an overlay of their own under the rest. Deeper the kernel does not go.
        let limit = 2 * in_one - 1;
        if lowers.len() > limit {
            return Err(Error::TooManyLayers {
                found: lowers.len(),
                limit,
            });
        }
        let (bottom, rest) = lowers.split_at(if lowers.len() > in_one { in_one } else { 0 });
        let mounted = if self.one_by_one && (bottom.is_empty() || self.over_detached) {
            self.mount_detached(bottom, rest, upper)
        } else {
            self.mount_aside(folder, bottom, rest, upper)
        };
        let failed = |(step, source)| Error::Mount {
            layers: lowers.len(),
            step,
            source,
        };
        let fd = mounted.map_err(failed)?;
        let needs_keeper = !self.copies_detached;
        Tree::of_mount(fd, upper.is_none(), needs_keeper)
            .map_err(Error::io("opening", "a new mount"))
    }

    /// The short way: no mount namespace, no mount point.
    fn mount_detached(
        &self,
        bottom: &[PathBuf],
        rest: &[PathBuf],
        upper: Option<&Upper>,
    ) -> Result<OwnedFd, Step> {
        let rest = open_all(rest)?;
        if bottom.is_empty() {
            return self.overlay(rest.iter(), upper);
        }
        let bottom = open_all(bottom)?;
        let below = Dir::of(self.overlay(bottom.iter(), None)?);
        self.overlay(std::iter::once(&below).chain(&rest), upper)
    }

    fn overlay<'d>(
        &self,
        lowers: impl DoubleEndedIterator<Item = &'d Dir>,
        upper: Option<&Upper>,
    ) -> Result<OwnedFd, Step> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(at("fsopen"))?;
        let set = |key: &str, value: &Path| {
            fsconfig_set_string(context.as_fd(), key, value).map_err(|error| {
                let said = what_the_kernel_says(&context);
                (format!("{key}={}{said}", value.display()), error.into())
            })
        };
        // The first one given is the uppermost.
        for lower in lowers.rev() {
            set("lowerdir+", &lower.name)?;
        }
        let upper_dirs = upper.map(|upper| upper.open()).transpose()?;
        if let Some((fs, work)) = &upper_dirs {
            set("upperdir", &fs.name)?;
            set("workdir", &work.name)?;
            if self.options.volatile {
                fsconfig_set_flag(context.as_fd(), "volatile").map_err(at("volatile"))?;
            }
        }
        if self.options.userxattr {
            fsconfig_set_flag(context.as_fd(), "userxattr").map_err(at("userxattr"))?;
        } else {
            // Renaming a lower directory shall fail as on any other boundary: a redirect would
            // make a layer mean something only where it was made.
            set("redirect_dir", Path::new("off"))?;
            set("metacopy", Path::new("off"))?;
        }
        set("index", Path::new("off"))?;
        fsconfig_create(context.as_fd()).map_err(|error| {
            (
                format!("create{}", what_the_kernel_says(&context)),
                error.into(),
            )
        })?;
        fsmount(
            context.as_fd(),
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::empty(),
        )
        .map_err(at("fsmount"))
    }

    /// The long way, for older kernels: a thread with a mount namespace of its own mounts on a
    /// directory of ours, takes a detached copy and ends. Nobody else ever sees the mount.
    fn mount_aside(
        &self,
        folder: &Folder,
        bottom: &[PathBuf],
        rest: &[PathBuf],
        upper: Option<&Upper>,
    ) -> Result<OwnedFd, Step> {
        let point = folder.empty();
        std::thread::scope(|scope| {
            let work = || {
                // SAFETY: a new mount namespace and file-system context of this thread alone;
                // descriptors stay shared, and the thread does nothing else.
                unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }
                    .map_err(at("unshare"))?;
                let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
                mount_change("/", private).map_err(at("making mounts private"))?;
                // Opened only now: the kernel stacks nothing from another mount namespace.
                let upper = upper.map(|upper| upper.open()).transpose()?;
                let rest = open_all(rest)?;
                let mut lowers: Vec<&Path> = rest.iter().map(|dir| dir.name.as_path()).collect();
                let below;
                if !bottom.is_empty() {
                    let bottom = open_all(bottom)?;
                    let names: Vec<&Path> = bottom.iter().map(|dir| dir.name.as_path()).collect();
                    below = Dir::of(self.mount_on(&point, &names, None)?);
                    lowers.insert(0, &below.name);
                    // The copy must be attached, or older kernels will not stack on it.
                    let empty_path = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                    move_mount(&below.fd, "", rustix::fs::CWD, &point, empty_path)
                        .map_err(at("attaching the lower layers"))?;
                }
                self.mount_on(&point, &lowers, upper.as_ref())
            };
            let thread = std::thread::Builder::new().name("mount aside".to_owned());
            let thread = thread
                .spawn_scoped(scope, work)
                .map_err(|error| ("starting a thread".to_owned(), error))?;
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn mount_on(
        &self,
        point: &Path,
        lowers: &[&Path],
        upper: Option<&(Dir, Dir)>,
    ) -> Result<OwnedFd, Step> {
        let names: Vec<String> = lowers
            .iter()
            .rev()
            .map(|path| path.display().to_string())
            .collect();
        let mut options = format!("lowerdir={}", names.join(":"));
        if let Some((fs, work)) = upper {
            options += &format!(
                ",upperdir={},workdir={}",
                fs.name.display(),
                work.name.display()
            );
            if self.options.volatile {
                options += ",volatile";
            }
        }
        options += if self.options.userxattr {
            ",userxattr"
        } else {
            ",redirect_dir=off,metacopy=off"
        };
        options += ",index=off";
        let options = std::ffi::CString::new(options).expect("names of descriptors");
        mount(
            "overlay",
            point,
            "overlay",
            MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .map_err(at("mount"))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        open_tree(rustix::fs::CWD, point, flags).map_err(at("open_tree"))
    }
}

impl Upper {
    fn open(&self) -> Result<(Dir, Dir), Step> {
        Ok((Dir::open(&self.fs)?, Dir::open(&self.work)?))
    }
}

fn open_all(paths: &[PathBuf]) -> Result<Vec<Dir>, Step> {
    paths.iter().map(|path| Dir::open(path)).collect()
}

/// A step that failed, and why.
type Step = (String, io::Error);

fn at(step: &'static str) -> impl Fn(rustix::io::Errno) -> Step {
    move |error| (step.to_owned(), error.into())
}

/// A directory held open and a name for it that is short and has no `:` or `,` in it.
struct Dir {
    fd: OwnedFd,
    name: PathBuf,
}

impl Dir {
    fn open(path: &Path) -> Result<Dir, Step> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty());
        Ok(Dir::of(fd.map_err(|error| {
            (format!("opening {}", path.display()), error.into())
        })?))
    }

    fn of(fd: OwnedFd) -> Dir {
        let name = format!("/proc/self/fd/{}", fd.as_raw_fd()).into();
        Dir { fd, name }
    }
}

/// Since Linux 5.2 a mount context has messages to read, better than an error number.
fn what_the_kernel_says(context: &OwnedFd) -> String {
    let mut buffer = [0_u8; 512];
    match rustix::io::read(context, &mut buffer) {
        Ok(count) => format!(" ({})", String::from_utf8_lossy(&buffer[..count]).trim()),
        Err(_) => String::new(),
    }
}

/// Whether removing a name of a lower layer works: in a user namespace whose files system may not
/// keep the marks it is that what fails.
fn can_hide(tree: &Tree) -> Result<()> {
    let probe = "probe";
    let made = tree
        .root()
        .mkdir(probe, 0o755)
        .and_then(|()| tree.root().rmdir(probe));
    made.map_err(Error::io("writing in", "a new overlay"))
}
