//! One tar entry at a time, onto a directory that nothing in it can leave.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, Timestamps};
use stdx::sys::{FileKind, Root, Time};

use super::settle::is_overlay;
use super::{ApplyOptions, Applying, Devices, ForeignLink, Whiteouts};
use crate::tar::{Entry, Kind, Reader};
use crate::{Error, Result};

pub(super) const WHITEOUT: &[u8] = b".wh.";

impl<'a> Applying<'a> {
    pub(super) fn new(root: &'a Root, options: ApplyOptions) -> Result<Applying<'a>> {
        Ok(Applying {
            root,
            options,
            entries: 0,
            implied: BTreeSet::new(),
            foreign_links: Vec::new(),
            opaque_root: false,
            times: BTreeMap::new(),
            made: HashSet::new(),
            parent: None,
            buffer: vec![0; 256 << 10],
        })
    }

    pub(super) fn entry(&mut self, entry: &Entry, content: &mut Reader<impl Read>) -> Result<()> {
        self.entries += 1;
        let path = inside(&entry.path)?;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return self.root_entry(entry);
        };
        let whiteout =
            self.options.whiteouts != Whiteouts::Literal && name.as_bytes().starts_with(WHITEOUT);
        if whiteout {
            return self.whiteout(&path, &name);
        }
        let skip = match (entry.kind, self.options.devices) {
            (Kind::CharDevice | Kind::BlockDevice, Devices::Refuse) => {
                return Err(Error::Device {
                    path: entry.display(),
                });
            }
            (Kind::CharDevice | Kind::BlockDevice, devices) => devices == Devices::Skip,
            _ => false,
        };
        if skip {
            return Ok(());
        }
        let too_large = [entry.uid, entry.gid, entry.device.0, entry.device.1]
            .into_iter()
            .any(|number| u32::try_from(number).is_err());
        if too_large {
            let reason = "an owner or device number beyond 32 bits";
            return Err(Error::Tar {
                offset: content.offset(),
                reason,
            });
        }
        let parent = self.parent_of(&path)?;
        let made = self.make(&parent, &path, &name, entry, content);
        self.parent = Some((path.parent().unwrap_or(Path::new("")).to_owned(), parent));
        made?;
        if self.options.whiteouts == Whiteouts::Remove {
            self.made.insert(path);
        }
        Ok(())
    }

    /// Sets the times of directories; files in them may have come at any point.
    pub(super) fn finish(&mut self) -> Result<()> {
        for (path, (atime, mtime)) in std::mem::take(&mut self.times) {
            let set = self.root.set_times(&path, atime, mtime);
            set.map_err(Error::file("setting times of", &path))?;
        }
        Ok(())
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Dir || self.options.whiteouts == Whiteouts::Literal {
            return Ok(());
        }
        let here = Path::new("");
        self.describe(self.root, here, entry)
            .map_err(Error::file("describing", here))?;
        self.times.insert(here.to_owned(), times(entry));
        Ok(())
    }

    /// The directory an entry belongs into, made if nothing described it.
    pub(super) fn parent_of(&mut self, path: &Path) -> Result<Root> {
        let dir = path.parent().unwrap_or(Path::new(""));
        if let Some((last, root)) = self.parent.take()
            && last == dir
        {
            return Ok(root);
        }
        match self.root.open_dir(dir) {
            Ok(root) => Ok(root),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                self.imply(dir)
                    .map_err(Error::file("making directory", dir))
            }
            Err(error) => Err(Error::file("opening", dir)(error)),
        }
    }

    fn imply(&mut self, dir: &Path) -> io::Result<Root> {
        let mut here = self.root.try_clone()?;
        let mut so_far = PathBuf::new();
        for step in &self.root.canonical(dir)? {
            so_far.push(step);
            match here.lstat(step) {
                Ok(stat) if stat.is_whiteout() => {
                    here.unlink(step)?;
                    self.imply_one(&here, step, &so_far)?;
                    self.mark_opaque(&here, Path::new(step))?;
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.imply_one(&here, step, &so_far)?;
                }
                Err(error) => return Err(error),
            }
            here = here.open_dir_nofollow(step)?;
        }
        Ok(here)
    }

    fn imply_one(&mut self, here: &Root, step: &OsStr, path: &Path) -> io::Result<()> {
        here.mkdir(step, 0o755)?;
        if let Some((uid, gid)) = self.options.owner {
            here.chown(step, uid, gid)?;
        }
        if let Whiteouts::Overlay(_) = self.options.whiteouts {
            self.implied.insert(path.to_owned());
            // Nothing says when; the same tar gives the same directory.
            self.times
                .insert(path.to_owned(), (Time::default(), Time::default()));
        }
        Ok(())
    }

    fn make(
        &mut self,
        parent: &Root,
        path: &Path,
        name: &OsStr,
        entry: &Entry,
        content: &mut Reader<impl Read>,
    ) -> Result<()> {
        if entry.kind == Kind::Dir {
            return self.dir(parent, path, name, entry);
        }
        if entry.kind == Kind::HardLink {
            return self.hard_link(parent, path, name, entry);
        }
        let made = match self.create(parent, name, entry) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.clear(parent, name, path)?;
                self.create(parent, name, entry)
            }
            other => other,
        };
        let Some(mut file) = made.map_err(Error::file("creating", path))? else {
            let described = self.describe(parent, Path::new(name), entry);
            let (atime, mtime) = times(entry);
            return described
                .and_then(|()| parent.set_times(name, atime, mtime))
                .map_err(Error::file("describing", path));
        };
        self.fill(&mut file, path, entry, content)?;
        self.describe_file(&file, parent, name, entry)
            .map_err(Error::file("describing", path))
    }

    /// Makes the name; gives the open file when there are contents to write.
    fn create(&self, parent: &Root, name: &OsStr, entry: &Entry) -> io::Result<Option<File>> {
        let device = (entry.device.0 as u32, entry.device.1 as u32);
        match entry.kind {
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mode = Mode::RUSR | Mode::WUSR;
                let fd = rustix::fs::openat(parent, name, flags | OFlags::WRONLY, mode)?;
                return Ok(Some(File::from(fd)));
            }
            Kind::Symlink => parent.symlink(OsStr::from_bytes(&entry.link), name)?,
            Kind::CharDevice if device == (0, 0) => parent.whiteout(name)?,
            Kind::CharDevice => parent.mknod(name, FileKind::CharDevice, entry.mode, device)?,
            Kind::BlockDevice => parent.mknod(name, FileKind::BlockDevice, entry.mode, device)?,
            Kind::Fifo => parent.mknod(name, FileKind::Fifo, entry.mode, (0, 0))?,
            Kind::Dir | Kind::HardLink => unreachable!("made elsewhere"),
        }
        Ok(None)
    }

    /// A whiteout or an earlier entry is in the way; the later one wins.
    fn clear(&mut self, parent: &Root, name: &OsStr, path: &Path) -> Result<()> {
        self.parent = None;
        self.times.retain(|known, _| !known.starts_with(path));
        self.implied.retain(|known| !known.starts_with(path));
        parent
            .remove_tree(name)
            .map_err(Error::file("replacing", path))
    }

    fn dir(&mut self, parent: &Root, path: &Path, name: &OsStr, entry: &Entry) -> Result<()> {
        let failed = |doing| Error::file(doing, path);
        match parent.mkdir(name, 0o700) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let there = parent.lstat(name).map_err(failed("looking at"))?;
                if !there.is_dir() {
                    self.clear(parent, name, path)?;
                    parent
                        .mkdir(name, 0o700)
                        .map_err(failed("making directory"))?;
                    // What was here hides all that is below this name.
                    self.mark_opaque(parent, Path::new(name))
                        .map_err(failed("marking"))?;
                }
            }
            Err(error) => return Err(failed("making directory")(error)),
        }
        self.implied.remove(path);
        self.describe(parent, Path::new(name), entry)
            .map_err(failed("describing"))?;
        self.times.insert(path.to_owned(), times(entry));
        Ok(())
    }

    fn hard_link(&mut self, parent: &Root, path: &Path, name: &OsStr, entry: &Entry) -> Result<()> {
        let target = inside(&entry.link)?;
        let link = || -> io::Result<()> {
            let (dir, target_name) = self.root.parent(&target)?;
            let (from, to) = (dir, parent);
            rustix::fs::linkat(&from, &target_name, to, name, rustix::fs::AtFlags::empty())?;
            Ok(())
        };
        let mut linked = link();
        if matches!(&linked, Err(error) if error.kind() == io::ErrorKind::AlreadyExists) {
            if target == path {
                return Ok(());
            }
            self.clear(parent, name, path)?;
            let (dir, target_name) = self
                .root
                .parent(&target)
                .map_err(Error::file("linking", path))?;
            let flags = rustix::fs::AtFlags::empty();
            linked = rustix::fs::linkat(&dir, &target_name, parent, name, flags)
                .map_err(io::Error::from);
        }
        match linked {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                if let Whiteouts::Overlay(_) = self.options.whiteouts {
                    self.foreign_links.push(ForeignLink {
                        path: path.to_owned(),
                        target,
                    });
                    return Ok(());
                }
                let target = String::from_utf8_lossy(&entry.link).into_owned();
                Err(Error::LinkTarget {
                    path: entry.display(),
                    target,
                })
            }
            other => other.map_err(Error::file("linking", path)),
        }
    }

    fn fill(
        &mut self,
        file: &mut File,
        path: &Path,
        entry: &Entry,
        content: &mut Reader<impl Read>,
    ) -> Result<()> {
        let failed = || Error::file("writing", path);
        let Some(extents) = &entry.sparse else {
            return self.copy(file, path, entry.size, content);
        };
        file.set_len(entry.size).map_err(failed())?;
        for extent in extents {
            file.seek(SeekFrom::Start(extent.offset))
                .map_err(failed())?;
            self.copy(file, path, extent.length, content)?;
        }
        Ok(())
    }

    fn copy(
        &mut self,
        file: &mut File,
        path: &Path,
        length: u64,
        content: &mut impl Read,
    ) -> Result<()> {
        let mut left = length;
        while left > 0 {
            let want = self
                .buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = content
                .read(&mut self.buffer[..want])
                .map_err(Error::Read)?;
            if read == 0 {
                return Err(Error::Read(io::ErrorKind::UnexpectedEof.into()));
            }
            file.write_all(&self.buffer[..read])
                .map_err(Error::file("writing", path))?;
            left -= read as u64;
        }
        Ok(())
    }

    fn owner(&self, entry: &Entry) -> Option<(u32, u32)> {
        if self.options.keep_our_owner {
            return None;
        }
        Some(
            self.options
                .owner
                .unwrap_or((entry.uid as u32, entry.gid as u32)),
        )
    }

    /// Owner, attributes and mode, in the order in which one does not undo the other.
    fn describe(&self, parent: &Root, name: &Path, entry: &Entry) -> io::Result<()> {
        if let Some((uid, gid)) = self.owner(entry) {
            parent.chown(name, uid, gid)?;
        }
        for (key, value) in entry.xattrs.iter().filter(|(key, _)| !is_overlay(key)) {
            let set = parent.set_xattr(name, OsStr::from_bytes(key), value);
            self.allow_missing(key, entry.kind, set)?;
        }
        if entry.kind == Kind::Symlink {
            Ok(())
        } else {
            parent.chmod(name, entry.mode)
        }
    }

    fn describe_file(
        &self,
        file: &File,
        parent: &Root,
        name: &OsStr,
        entry: &Entry,
    ) -> io::Result<()> {
        if let Some((uid, gid)) = self.owner(entry) {
            let (uid, gid) = (
                rustix::fs::Uid::from_raw(uid),
                rustix::fs::Gid::from_raw(gid),
            );
            rustix::fs::fchown(file, Some(uid), Some(gid))?;
        }
        for (key, value) in entry.xattrs.iter().filter(|(key, _)| !is_overlay(key)) {
            let set = parent.set_xattr(name, OsStr::from_bytes(key), value);
            self.allow_missing(key, entry.kind, set)?;
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode))?;
        let (atime, mtime) = times(entry);
        let times = Timestamps {
            last_access: spec(atime),
            last_modification: spec(mtime),
        };
        Ok(rustix::fs::futimens(file, &times)?)
    }

    /// Attributes the file system cannot hold, and overlayfs's own, are left out.
    fn allow_missing(&self, key: &[u8], kind: Kind, set: io::Result<()>) -> io::Result<()> {
        let Err(error) = set else { return Ok(()) };
        let unsupported = error.kind() == io::ErrorKind::Unsupported;
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        let odd_place = key.starts_with(b"user.") && !matches!(kind, Kind::File | Kind::Dir);
        let best_effort =
            self.options.whiteouts == Whiteouts::Literal || self.options.keep_our_owner;
        if unsupported || (denied && (odd_place || best_effort)) {
            Ok(())
        } else {
            Err(error)
        }
    }
}

fn times(entry: &Entry) -> (Time, Time) {
    (
        entry.atime.unwrap_or(entry.mtime).max(entry.mtime),
        entry.mtime,
    )
}

fn spec(time: Time) -> rustix::fs::Timespec {
    rustix::fs::Timespec {
        tv_sec: time.seconds,
        tv_nsec: i64::from(time.nanos) as _,
    }
}

/// A tar's name as a path below the root: absolute ones are taken from the root,
/// those that climb out are refused.
fn inside(name: &[u8]) -> Result<PathBuf> {
    let escape = || Error::Escape {
        path: String::from_utf8_lossy(name).into_owned(),
    };
    if name.contains(&0) {
        return Err(escape());
    }
    let mut path = PathBuf::new();
    let mut depth: Vec<OsString> = Vec::new();
    for part in Path::new(OsStr::from_bytes(name)).components() {
        match part {
            Component::Normal(part) => depth.push(part.to_owned()),
            Component::ParentDir => {
                depth.pop().ok_or_else(escape)?;
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    path.extend(depth);
    Ok(path)
}
