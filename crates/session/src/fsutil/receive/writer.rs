//! What the receiver does on its disk, entry by entry.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use contenthash::Contents;
use prost::Message as _;
use proto::fsutil::types::{Packet, Stat, packet::PacketType};
use rustix::fs::OFlags;
use stdx::sys::{FileKind, Root};
use tokio::sync::mpsc;

use super::hashes::{Coming, Hashes};
use super::{Owner, Receive};
use crate::fsutil::{from_go_mode, nanos, time};
use crate::{Error, Result, Summary};

/// More files than this are not sent at the same time by anyone honest.
const MAX_OPEN: usize = 256;

/// So many files are kept open between being named and being filled; others are opened again.
const MAX_MADE: usize = 64;

/// Directories deeper than this are not held open: a process may not open any number of files.
const MAX_HELD: usize = 64;

/// Where the names of a metadata-only sync go.
const METADATA: &str = ".fsutil-metadata";

/// What is being made. Everything happens beneath `root`.
pub(super) struct Writer {
    root: Root,
    options: Receive,
    ask: mpsc::UnboundedSender<u32>,
    next_id: u32,
    last: Option<PathBuf>,
    /// Directories one is in, outermost first.
    dirs: Vec<Dir>,
    /// Files asked for and not here yet.
    waiting: HashMap<u32, Stat>,
    /// Files made and still empty.
    made: HashMap<u32, File>,
    open: HashMap<u32, Open>,
    hashes: Hashes,
    metadata: Option<File>,
    all_told: bool,
    summary: Summary,
}

/// A file that is coming.
struct Open {
    file: File,
    coming: Option<Coming>,
}

struct Dir {
    path: PathBuf,
    /// Held open, so that its path is not walked again for each name in it.
    open: Option<Root>,
    /// Names that were here and have not been named yet.
    before: HashSet<OsString>,
    /// Set when leaving it; making things inside changes the times.
    stat: Option<Stat>,
}

impl Writer {
    pub(super) fn new(
        root: Root,
        mut options: Receive,
        ask: mpsc::UnboundedSender<u32>,
    ) -> Result<Writer> {
        let metadata = match &options.metadata_only {
            None => None,
            Some(_) => {
                let whole = |e| Error::io(format!("writing {METADATA}"), e);
                match root.unlink(METADATA) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(whole(error));
                    }
                    _ => Some(root.create_file(METADATA, 0o600).map_err(whole)?),
                }
            }
        };
        let hashes = Hashes::new(options.known.take(), options.owner);
        let mut writer = Writer {
            root,
            hashes,
            options,
            ask,
            next_id: 0,
            last: None,
            dirs: Vec::new(),
            waiting: HashMap::new(),
            made: HashMap::new(),
            open: HashMap::new(),
            metadata,
            all_told: false,
            summary: Summary::default(),
        };
        writer.enter(PathBuf::new(), None)?;
        Ok(writer)
    }

    pub(super) fn is_done(&self) -> bool {
        self.all_told && self.waiting.is_empty()
    }

    pub(super) fn take(&mut self, packet: Packet) -> Result<()> {
        self.summary.wire_bytes += packet.encoded_len() as u64;
        if let Some(observer) = &self.options.observer {
            observer(self.summary.wire_bytes);
        }
        match packet.r#type() {
            PacketType::PacketStat if self.all_told => {
                Err(Error::Protocol("an entry after the last".into()))
            }
            PacketType::PacketStat => match packet.stat {
                Some(stat) => self.entry(stat),
                None => {
                    self.all_told = true;
                    while !self.dirs.is_empty() {
                        self.leave()?;
                    }
                    Ok(())
                }
            },
            PacketType::PacketData => self.data(packet),
            PacketType::PacketErr => Err(Error::Peer(
                String::from_utf8_lossy(&packet.data).into_owned(),
            )),
            PacketType::PacketFin => {
                Err(Error::Protocol("an end before everything was here".into()))
            }
            PacketType::PacketReq => Err(Error::Protocol("a request from a sender".into())),
        }
    }

    pub(super) fn finish(mut self) -> Result<(Summary, Option<Contents>)> {
        if let Some(metadata) = self.metadata {
            metadata
                .sync_data()
                .map_err(|e| Error::io(format!("writing {METADATA}"), e))?;
            self.hashes.refresh(&self.root, Path::new(METADATA))?;
        }
        Ok((self.summary, self.hashes.finish()))
    }

    fn entry(&mut self, stat: Stat) -> Result<()> {
        let id = self.next_id;
        self.next_id = id
            .checked_add(1)
            .ok_or_else(|| Error::Protocol("too many entries".into()))?;
        self.summary.entries += 1;
        let path = checked(&stat.path)?;
        let (kind, mode) = from_go_mode(stat.mode)?;
        if self.last.as_ref().is_some_and(|last| *last >= path) {
            return Err(Error::Protocol(format!("{path:?} comes out of order")));
        }
        self.last = Some(path.clone());
        let content = match &self.options.metadata_only {
            None => true,
            Some(except) => except.matches(&path.to_string_lossy()),
        };
        if let Some(metadata) = &mut self.metadata {
            write_metadata(metadata, &stat)?;
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        while self
            .dirs
            .last()
            .is_some_and(|dir| !parent.starts_with(&dir.path))
        {
            self.leave()?;
        }
        if !content {
            return Ok(());
        }
        self.reach(parent)?;
        let name = path.file_name().unwrap_or_default();
        // Without the names that were here, anything may be.
        let mut may_exist = true;
        if let Some(dir) = self.dirs.last_mut() {
            may_exist = dir.before.remove(name) || !self.options.delete || self.metadata.is_some();
        }
        let io = |error| Error::io(format!("making {}", path.display()), error);
        match kind {
            FileKind::Dir => self.dir(&path, mode, stat),
            FileKind::File if !stat.linkname.is_empty() => self.hard_link(&path, &stat),
            FileKind::File => self.file(id, &path, mode, stat, may_exist),
            FileKind::Symlink => self.symlink(&path, &stat),
            FileKind::Socket => Ok(()),
            FileKind::CharDevice | FileKind::BlockDevice | FileKind::Fifo => {
                self.clear(&path)?;
                let number = |n: i64| {
                    u32::try_from(n).map_err(|_| Error::Protocol(format!("device number {n}")))
                };
                let device = (number(stat.devmajor)?, number(stat.devminor)?);
                self.root.mknod(&path, kind, mode, device).map_err(io)?;
                self.hashes.put(&path, &stat)?;
                self.dress(&path, mode, &stat)
            }
        }
    }

    /// Makes sure that the innermost open directory is `dir`.
    fn reach(&mut self, dir: &Path) -> Result<()> {
        if self.dirs.last().is_some_and(|open| open.path == dir) {
            return Ok(());
        }
        // Only when directories on the way are not transferred themselves.
        if self.options.metadata_only.is_none() {
            return Err(Error::Protocol(format!(
                "{dir:?} was not told before what is in it"
            )));
        }
        let mut path = self
            .dirs
            .last()
            .map(|open| open.path.clone())
            .unwrap_or_default();
        let rest = dir
            .strip_prefix(&path)
            .map_err(|_| Error::Path(dir.display().to_string()))?;
        for part in rest.components() {
            if let Some(open) = self.dirs.last_mut() {
                open.before.remove(part.as_os_str());
            }
            path.push(part);
            if self.make_dir(&path, 0o755)? {
                self.hashes.refresh(&self.root, &path)?;
            }
            self.enter(path.clone(), None)?;
        }
        Ok(())
    }

    fn enter(&mut self, path: PathBuf, stat: Option<Stat>) -> Result<()> {
        let io = |e| Error::io(format!("reading {}", path.display()), e);
        let open = self.root.open_dir(&path).map_err(io)?;
        let before = match self.options.delete {
            false => HashSet::new(),
            true => {
                let entries = open.read_dir(".").map_err(io)?;
                entries
                    .into_iter()
                    .map(|entry| entry.name)
                    .filter(|name| self.metadata.is_none() || name != METADATA)
                    .collect()
            }
        };
        self.dirs.push(Dir {
            open: Some(open).filter(|_| self.dirs.len() < MAX_HELD),
            path,
            before,
            stat,
        });
        Ok(())
    }

    /// From where a path is reached the quickest, and how from there.
    fn near<'a>(&'a self, path: &'a Path) -> (&'a Root, &'a Path) {
        let dir = self.dirs.last();
        let dir = dir.filter(|dir| path.parent() == Some(dir.path.as_path()));
        match (dir.and_then(|dir| dir.open.as_ref()), path.file_name()) {
            (Some(dir), Some(name)) => (dir, Path::new(name)),
            _ => (&self.root, path),
        }
    }

    /// Closes the innermost directory: what was not named goes.
    fn leave(&mut self) -> Result<()> {
        let Some(dir) = self.dirs.pop() else {
            return Ok(());
        };
        for name in dir.before {
            let path = dir.path.join(name);
            let io = |e| Error::io(format!("removing {}", path.display()), e);
            self.root.remove_tree(&path).map_err(io)?;
            self.hashes.remove(&path);
            self.summary.removed += 1;
        }
        if let Some(stat) = dir.stat {
            self.stamp(&dir.path, &stat)?;
        }
        Ok(())
    }

    fn dir(&mut self, path: &Path, mode: u32, stat: Stat) -> Result<()> {
        let made = self.make_dir(path, mode)?;
        if self.hashes.put(path, &stat)? && !made {
            self.undress(path, &stat)?;
        }
        self.dress(path, mode, &stat)?;
        self.enter(path.to_owned(), Some(stat))
    }

    /// Returns whether there was none.
    fn make_dir(&mut self, path: &Path, mode: u32) -> Result<bool> {
        if self.root.lstat(path).is_ok_and(|here| here.is_dir()) {
            return Ok(false);
        }
        self.clear(path)?;
        self.root
            .mkdir(path, mode)
            .map_err(|e| Error::io(format!("making {}", path.display()), e))?;
        Ok(true)
    }

    fn symlink(&mut self, path: &Path, stat: &Stat) -> Result<()> {
        let target = Path::new(OsStr::from_bytes(&stat.linkname));
        self.hashes.put(path, stat)?;
        if self.root.read_link(path).is_ok_and(|here| here == target) {
            return self.dress(path, 0o777, stat);
        }
        self.clear(path)?;
        self.root
            .symlink(target, path)
            .map_err(|e| Error::io(format!("making {}", path.display()), e))?;
        self.dress(path, 0o777, stat)
    }

    fn hard_link(&mut self, path: &Path, stat: &Stat) -> Result<()> {
        let target = checked(&stat.linkname)?;
        let io = |e| {
            Error::io(
                format!("linking {} to {}", path.display(), target.display()),
                e,
            )
        };
        if target.as_path() >= path {
            return Err(Error::Protocol(format!(
                "{path:?} is linked to {target:?}, which comes later"
            )));
        }
        let there = self.root.lstat(&target).map_err(io)?;
        if !there.is_file() {
            return Err(Error::Protocol(format!(
                "{path:?} is linked to {target:?}, which is no file"
            )));
        }
        if self
            .root
            .lstat(path)
            .is_ok_and(|here| (here.dev, here.ino) == (there.dev, there.ino))
        {
            return Ok(());
        }
        self.clear(path)?;
        self.root.link(&target, path).map_err(io)?;
        self.hashes.link(path, target);
        Ok(())
    }

    /// A file that is here is never written to: one that is not what it should be gives way to a
    /// new one. Results of earlier builds may be linked to it (`refs::Ref::lend`).
    fn file(&mut self, id: u32, path: &Path, mode: u32, stat: Stat, may_exist: bool) -> Result<()> {
        if may_exist {
            if !self.options.all && self.is_unchanged(path, mode, &stat) {
                return Ok(());
            }
            self.clear(path)?;
        }
        // Made now, so that later names can be linked to it. It gets its time last, so
        // a transfer that is cut off leaves nothing that looks finished.
        let (dir, name) = self.near(path);
        let made = dir.create_file(name, 0o600);
        let made = made.map_err(|e| Error::io(format!("making {}", path.display()), e))?;
        if self.made.len() < MAX_MADE {
            self.made.insert(id, made);
        }
        self.waiting.insert(id, stat);
        self.ask
            .send(id)
            .map_err(|_| Error::Lost("the sender left".into()))
    }

    fn is_unchanged(&self, path: &Path, mode: u32, stat: &Stat) -> bool {
        let (dir, name) = self.near(path);
        let Ok(here) = dir.lstat(name) else {
            return false;
        };
        let owner = match self.options.owner {
            Owner::Fixed(uid, gid) => (here.uid, here.gid) == (uid, gid),
            Owner::AsSaid => (here.uid, here.gid) == (stat.uid, stat.gid),
            Owner::Ours => true,
        };
        here.is_file()
            && owner
            && here.mode == mode
            && i64::try_from(here.size).is_ok_and(|size| size == stat.size)
            && nanos(here.mtime) == stat.mod_time
    }

    fn data(&mut self, packet: Packet) -> Result<()> {
        let id = packet.id;
        let stat = self.waiting.get(&id).ok_or_else(|| {
            Error::Protocol(format!("bytes of entry {id}, which was not asked for"))
        })?;
        let path = checked(&stat.path)?;
        let io = |e| Error::io(format!("writing {}", path.display()), e);
        if packet.data.is_empty() {
            let open = match self.open.remove(&id) {
                Some(open) => open,
                None => self.opened(id, &path)?,
            };
            let stat = self.waiting.remove(&id).expect("it was there a moment ago");
            self.summary.files += 1;
            self.dress_open(&open.file, &path, &stat)?;
            return self.hashes.end(&self.root, &path, &stat, open.coming);
        }
        if !self.open.contains_key(&id) {
            if self.open.len() >= MAX_OPEN {
                return Err(Error::Protocol(format!(
                    "{MAX_OPEN} files at the same time"
                )));
            }
            let open = self.opened(id, &path)?;
            self.open.insert(id, open);
        }
        let open = self.open.get_mut(&id).expect("opened above");
        open.file.write_all(&packet.data).map_err(io)?;
        if let Some(coming) = &mut open.coming {
            coming.update(&packet.data);
        }
        self.summary.bytes += packet.data.len() as u64;
        Ok(())
    }

    /// A file that was asked for, to be written.
    fn opened(&mut self, id: u32, path: &Path) -> Result<Open> {
        let file = match self.made.remove(&id) {
            Some(made) => made,
            None => {
                let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let opened = self.root.open_with(path, flags);
                File::from(opened.map_err(|e| Error::io(format!("writing {}", path.display()), e))?)
            }
        };
        let coming = self.hashes.begin(&self.waiting[&id])?;
        Ok(Open { file, coming })
    }

    /// Removes what has the name.
    fn clear(&self, path: &Path) -> Result<()> {
        let (dir, name) = self.near(path);
        match dir.remove_tree(name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("removing {}", path.display()), error))
            }
            _ => Ok(()),
        }
    }

    /// Takes away the attributes a directory has no more.
    fn undress(&self, path: &Path, stat: &Stat) -> Result<()> {
        let io = |e| Error::io(format!("reading attributes of {}", path.display()), e);
        for (name, _) in self.root.xattrs(path).map_err(io)? {
            if !stat.xattrs.iter().any(|kept| kept.key == name.as_bytes()) {
                // Some are the system's own and stay.
                let _ = self.root.remove_xattr(path, &name);
            }
        }
        Ok(())
    }

    /// Owner, mode and attributes.
    fn dress(&self, path: &Path, mode: u32, stat: &Stat) -> Result<()> {
        let io = |e| Error::io(format!("setting the owner of {}", path.display()), e);
        match self.options.owner {
            Owner::Fixed(uid, gid) => self.root.chown(path, uid, gid).map_err(io)?,
            Owner::AsSaid => self.root.chown(path, stat.uid, stat.gid).map_err(io)?,
            Owner::Ours => {}
        }
        let io = |e| Error::io(format!("setting the mode of {}", path.display()), e);
        self.root.chmod(path, mode).map_err(io)?;
        for xattr in &stat.xattrs {
            // Not every file system has them, and not everyone may set all of them.
            let _ = self
                .root
                .set_xattr(path, OsStr::from_bytes(&xattr.key), &xattr.value);
        }
        if stat.mode & (1 << 27) != 0 {
            self.stamp(path, stat)?;
        }
        Ok(())
    }

    /// Owner, mode, attributes and time of a file that is still open: its path need not be
    /// walked again for each. The owner comes first, because a change of it takes away setuid.
    fn dress_open(&self, file: &File, path: &Path, stat: &Stat) -> Result<()> {
        let owner = match self.options.owner {
            Owner::Fixed(uid, gid) => Some((uid, gid)),
            Owner::AsSaid => Some((stat.uid, stat.gid)),
            Owner::Ours => None,
        };
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::fchown(file, Some(uid), Some(gid))
                .map_err(|e| Error::io(format!("setting the owner of {}", path.display()), e))?;
        }
        let (_, mode) = from_go_mode(stat.mode)?;
        rustix::fs::fchmod(file, rustix::fs::Mode::from_raw_mode(mode))
            .map_err(|e| Error::io(format!("setting the mode of {}", path.display()), e.into()))?;
        for xattr in &stat.xattrs {
            // Not every file system has them, and not everyone may set all of them.
            let flags = rustix::fs::XattrFlags::empty();
            let name = OsStr::from_bytes(&xattr.key);
            let _ = rustix::fs::fsetxattr(file, name, &xattr.value, flags);
        }
        let when = time(stat.mod_time);
        let when = rustix::fs::Timespec {
            tv_sec: when.seconds,
            tv_nsec: i64::from(when.nanos) as _,
        };
        let times = rustix::fs::Timestamps {
            last_access: when,
            last_modification: when,
        };
        rustix::fs::futimens(file, &times)
            .map_err(|e| Error::io(format!("setting the time of {}", path.display()), e.into()))
    }

    fn stamp(&self, path: &Path, stat: &Stat) -> Result<()> {
        let when = time(stat.mod_time);
        self.root
            .set_times(path, when, when)
            .map_err(|e| Error::io(format!("setting the time of {}", path.display()), e))
    }
}

fn write_metadata(file: &mut File, stat: &Stat) -> Result<()> {
    let bytes = stat.encode_to_vec();
    let size =
        u32::try_from(bytes.len()).map_err(|_| Error::Protocol("an entry of gigabytes".into()))?;
    let io = |e| Error::io(format!("writing {METADATA}"), e);
    file.write_all(&size.to_le_bytes())
        .and_then(|()| file.write_all(&bytes))
        .map_err(io)
}

/// A path from the other side: relative, in its shortest form, leading nowhere else.
fn checked(bytes: &[u8]) -> Result<PathBuf> {
    // Older clients put a slash in front.
    let bytes = bytes.strip_prefix(b"/").unwrap_or(bytes);
    let bad = bytes.is_empty()
        || bytes.contains(&0)
        || bytes.len() > 4096
        || bytes
            .split(|b| *b == b'/')
            .any(|part| matches!(part, b"" | b"." | b".."));
    match bad {
        true => Err(Error::Path(String::from_utf8_lossy(bytes).into_owned())),
        false => Ok(PathBuf::from(OsStr::from_bytes(bytes))),
    }
}
