//! What changed in a directory tree, as a layer tar.
//!
//! [`diff`] reads the upper directory of an overlayfs snapshot beside a view of
//! what lies below it; [`compare`] walks two whole trees. Both give the same
//! bytes for the same change, and the bytes BuildKit would give: names sorted,
//! times cut to the second, `security.capability` the only attribute, whiteouts
//! dated 1970, parents of a changed entry written before it.

mod idle;
mod same;
mod walk;

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use stdx::sys::{FileKind, Root, Stat, Time};

use crate::tar::{Entry, Kind, Writer};
use crate::{Error, Result};
use walk::Visit;

/// Writes what `upper` (in overlayfs form) changes on `below` as a tar. Without
/// `below` everything is new.
pub fn diff<W: Write>(upper: &Root, below: Option<&Root>, out: W) -> Result<W> {
    let mut emitter = Emitter::new(upper, out);
    walk::overlay(&mut emitter, upper, below)?;
    emitter.tar.finish()
}

/// Whether `upper` (in overlayfs form) holds more than changes on `below`: files as they were,
/// which [`diff`] leaves out. A file that was moved away and back is one.
pub fn holds_more(upper: &Root, below: &Root) -> Result<bool> {
    let mut idle = idle::Idle::default();
    walk::overlay(&mut idle, upper, Some(below))?;
    Ok(idle.found())
}

/// Writes how `new` differs from `old` as a tar; both are whole trees.
pub fn compare<W: Write>(new: &Root, old: Option<&Root>, out: W) -> Result<W> {
    let mut emitter = Emitter::new(new, out);
    walk::trees(&mut emitter, new, old)?;
    emitter.tar.finish()
}

/// Whole trees in one tar that extracts to the same trees: owners and modes kept, no
/// whiteouts.
pub struct Archive<W> {
    tar: Option<Writer<W>>,
    dirs: HashSet<Vec<u8>>,
    date: Option<Time>,
}

impl<W: Write> Archive<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Archive<W> {
        Archive {
            tar: Some(Writer::new(out)),
            dirs: HashSet::new(),
            date: None,
        }
    }

    /// From now on everything was changed at this second.
    pub fn date(&mut self, seconds: Option<i64>) {
        self.date = seconds.map(Time::from_seconds);
    }

    /// Adds a tree below `prefix` (empty for the top).
    pub fn tree(&mut self, prefix: &Path, tree: &Root) -> Result<()> {
        self.above(prefix)?;
        let tar = self.tar.take().expect("it is put back below");
        let mut emitter = Emitter::of(tree, tar);
        emitter.prefix = prefix.as_os_str().as_bytes().to_vec();
        emitter.date = self.date;
        let walked = walk::trees(&mut emitter, tree, None);
        self.tar = Some(emitter.tar);
        walked
    }

    /// Adds a file of root's, mode 0600.
    pub fn file(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.above(path.parent().unwrap_or(Path::new("")))?;
        let mut entry = Entry::new(path.as_os_str().as_bytes(), Kind::File);
        entry.mode = 0o600;
        entry.mtime = self.date.unwrap_or(entry.mtime);
        entry.size = bytes.len() as u64;
        let tar = self.tar.as_mut().expect("only gone while a tree is added");
        tar.entry(&entry)?;
        tar.write_all(bytes).map_err(Error::Write)
    }

    /// Ends the tar.
    pub fn finish(self) -> Result<W> {
        self.tar.expect("only gone while a tree is added").finish()
    }

    /// Writes the directories of a prefix.
    fn above(&mut self, path: &Path) -> Result<()> {
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        self.above(path.parent().unwrap_or(Path::new("")))?;
        let mut name = path.as_os_str().as_bytes().to_vec();
        name.push(b'/');
        if !self.dirs.insert(name.clone()) {
            return Ok(());
        }
        let mut entry = Entry::new(name, Kind::Dir);
        entry.mode = 0o755;
        entry.mtime = self.date.unwrap_or(entry.mtime);
        self.tar
            .as_mut()
            .expect("only gone while a tree is added")
            .entry(&entry)
    }
}

/// Turns changes into tar entries.
struct Emitter<'a, W> {
    tar: Writer<W>,
    root: &'a Root,
    /// Goes before all names.
    prefix: Vec<u8>,
    /// When everything was changed, if not when it was.
    date: Option<Time>,
    /// Directories already in the tar.
    dirs: HashSet<Vec<u8>>,
    /// Where the contents of a file with several names were written.
    inodes: HashMap<(u64, u64), Vec<u8>>,
    /// Unchanged names of files that may turn up as changed later.
    unchanged: HashMap<(u64, u64), Vec<Vec<u8>>>,
    buffer: Vec<u8>,
}

/// One name that is there, with what is needed to read it.
struct Found<'a> {
    path: &'a [u8],
    dir: &'a Root,
    name: &'a OsStr,
    stat: Stat,
}

impl<'a, W: Write> Emitter<'a, W> {
    fn new(root: &'a Root, out: W) -> Emitter<'a, W> {
        Emitter::of(root, Writer::new(out))
    }

    fn of(root: &'a Root, tar: Writer<W>) -> Emitter<'a, W> {
        Emitter {
            tar,
            root,
            prefix: Vec::new(),
            date: None,
            dirs: HashSet::new(),
            inodes: HashMap::new(),
            unchanged: HashMap::new(),
            buffer: vec![0; 256 << 10],
        }
    }

    /// The same file as below, under a name that other, changed names may link to.
    fn unchanged_link(&mut self, found: &Found<'_>) -> Result<()> {
        if self.inodes.contains_key(&(found.stat.dev, found.stat.ino)) {
            return self.add(found);
        }
        let names = self
            .unchanged
            .entry((found.stat.dev, found.stat.ino))
            .or_default();
        names.push(found.path.to_vec());
        Ok(())
    }

    /// Writes a file, and the other names it had before.
    fn add(&mut self, found: &Found<'_>) -> Result<()> {
        let Some(mut entry) = self.describe(found)? else {
            return Ok(());
        };
        let inode = (found.stat.dev, found.stat.ino);
        let linked = found.stat.nlink > 1 && !found.stat.is_dir();
        let mut also = Vec::new();
        if linked {
            if let Some(first) = self.inodes.get(&inode) {
                entry.kind = Kind::HardLink;
                entry.link.clone_from(first);
                entry.size = 0;
            } else {
                self.inodes.insert(inode, entry.path.clone());
                also = self.unchanged.remove(&inode).unwrap_or_default();
            }
        }
        self.parents(found.path)?;
        if found.stat.is_dir() {
            self.dirs.insert(found.path.to_vec());
        }
        self.tar.entry(&entry)?;
        if entry.kind == Kind::File && entry.size > 0 {
            self.contents(found)?;
        }
        let first = entry.path.clone();
        for name in also {
            self.parents(&name)?;
            entry.path = self.named(&name);
            entry.kind = Kind::HardLink;
            entry.link.clone_from(&first);
            entry.size = 0;
            self.tar.entry(&entry)?;
        }
        Ok(())
    }

    fn describe(&self, found: &Found<'_>) -> Result<Option<Entry>> {
        let shown = || Path::new(OsStr::from_bytes(found.path));
        let kind = match found.stat.kind {
            FileKind::File => Kind::File,
            FileKind::Dir => Kind::Dir,
            FileKind::Symlink => Kind::Symlink,
            FileKind::CharDevice => Kind::CharDevice,
            FileKind::BlockDevice => Kind::BlockDevice,
            FileKind::Fifo => Kind::Fifo,
            FileKind::Socket => return Ok(None),
        };
        let mut entry = Entry::new(self.named(found.path), kind);
        if kind == Kind::Dir {
            entry.path.push(b'/');
        }
        entry.mode = found.stat.mode;
        entry.uid = u64::from(found.stat.uid);
        entry.gid = u64::from(found.stat.gid);
        let own = Time::from_seconds(found.stat.mtime.seconds);
        entry.mtime = self.date.unwrap_or(own);
        match kind {
            Kind::File => entry.size = found.stat.size,
            Kind::Symlink => {
                let target = found.dir.read_link(found.name);
                let target = target.map_err(Error::file("reading link", shown()))?;
                entry.link = target.into_os_string().as_bytes().to_vec();
            }
            Kind::CharDevice | Kind::BlockDevice => {
                let (major, minor) = found.stat.device();
                entry.device = (u64::from(major), u64::from(minor));
            }
            Kind::Dir | Kind::Fifo | Kind::HardLink => {}
        }
        let capability = same::capability(found.dir, found.name);
        let capability = capability.map_err(Error::file("reading attributes of", shown()))?;
        if let Some(value) = capability {
            entry.xattrs.insert(same::CAPABILITY.to_vec(), value);
        }
        Ok(Some(entry))
    }

    /// A path as the tar has it.
    fn named(&self, path: &[u8]) -> Vec<u8> {
        if self.prefix.is_empty() {
            return path.to_vec();
        }
        [&self.prefix, &b"/"[..], path].concat()
    }

    fn contents(&mut self, found: &Found<'_>) -> Result<()> {
        let path = Path::new(OsStr::from_bytes(found.path));
        let failed = || Error::file("reading", path);
        let mut file = found.dir.open_file(found.name).map_err(failed())?;
        let mut left = found.stat.size;
        while left > 0 {
            let want = self
                .buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = match file.read(&mut self.buffer[..want]) {
                Ok(0) => {
                    return Err(Error::Changed {
                        path: path.to_owned(),
                    });
                }
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed()(error)),
            };
            self.tar
                .write_all(&self.buffer[..read])
                .map_err(Error::Write)?;
            left -= read as u64;
        }
        Ok(())
    }

    /// Writes the directories above `path` that are not in the tar yet.
    fn parents(&mut self, path: &[u8]) -> Result<()> {
        let parent = split(path).0.strip_suffix(b"/").unwrap_or(b"");
        if parent.is_empty() || self.dirs.contains(parent) {
            return Ok(());
        }
        let shown = Path::new(OsStr::from_bytes(parent));
        let looked = || Error::file("looking at", shown);
        let (dir, name) = self.root.parent(shown).map_err(looked())?;
        let stat = dir.lstat(&name).map_err(looked())?;
        self.add(&Found {
            path: parent,
            dir: &dir,
            name: &name,
            stat,
        })
    }
}

impl<W: Write> Visit for Emitter<'_, W> {
    fn deleted(&mut self, path: &[u8]) -> Result<()> {
        let (dir, name) = split(path);
        self.parents(path)?;
        let mut whiteout = dir.to_vec();
        whiteout.extend_from_slice(b".wh.");
        whiteout.extend_from_slice(name);
        let whiteout = self.named(&whiteout);
        self.tar.entry(&Entry::new(whiteout, Kind::File))
    }

    fn changed(&mut self, found: &Found<'_>) -> Result<()> {
        self.add(found)
    }

    fn unchanged(&mut self, found: &Found<'_>, whole: bool) -> Result<()> {
        match whole && found.stat.nlink > 1 && !found.stat.is_dir() {
            true => self.unchanged_link(found),
            false => Ok(()),
        }
    }
}

/// The directory with its slash, and the name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    path.split_at(path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1))
}
