//! A directory tree in path order, filtered.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use stdx::sys::{FileKind, Root, Stat};

use crate::patterns::{self, Above, Patterns};
use crate::{Error, Result};

/// Directories deeper than this are opened again for each name after a directory in them, so that
/// a deep tree does not hold more files open than a process may.
const HELD: usize = 64;

/// What of a tree is wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    wanted: patterns::Filter,
    follow: Vec<String>,
}

/// One entry of a tree.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Relative, without `.` or `..`.
    pub path: PathBuf,
    /// What it is.
    pub stat: Stat,
    /// Where a symlink leads; for a file seen before under another name, that name.
    pub link: Option<PathBuf>,
    /// Extended attributes.
    pub xattrs: Vec<(OsString, Vec<u8>)>,
}

impl Filter {
    /// Reads the patterns.
    pub fn new<S: AsRef<str>>(include: &[S], exclude: &[S], follow: &[S]) -> Result<Filter> {
        Ok(Filter {
            wanted: patterns::Filter::new(include, exclude)?,
            follow: follow.iter().map(|s| s.as_ref().to_owned()).collect(),
        })
    }
}

/// Calls `each` for everything in `root` that `filter` wants: directories before what
/// is in them, names in byte order, directories on the way to something wanted too.
/// What disappears while walking is left out.
pub fn walk(root: &Root, filter: &Filter, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
    let mut filter = filter.clone();
    if !filter.follow.is_empty()
        && let Some(followed) = super::follow(root, &filter.follow)?
    {
        let texts: Vec<String> = filter.wanted.include().texts().chain(followed).collect();
        filter.wanted = filter.wanted.including(Patterns::new(texts)?);
    }
    let mut walk = Walk {
        root,
        filter,
        each,
        links: HashMap::new(),
        pending: Vec::new(),
    };
    let mut top = Here::new(PathBuf::new());
    walk.dir(&mut top, &Above::default(), 0)
}

/// A directory one is in. Its names are looked at through it held open, which saves walking the
/// same path again for each.
struct Here {
    path: PathBuf,
    open: Option<Root>,
}

impl Here {
    fn new(path: PathBuf) -> Here {
        Here { path, open: None }
    }

    fn root(&mut self, top: &Root) -> io::Result<&Root> {
        let root = match self.open.take() {
            Some(root) => root,
            None => top.open_dir(&self.path)?,
        };
        Ok(self.open.insert(root))
    }
}

struct Walk<'a> {
    root: &'a Root,
    filter: Filter,
    each: &'a mut dyn FnMut(Entry) -> Result<()>,
    /// First names of files that have several.
    links: HashMap<(u64, u64), PathBuf>,
    /// Directories not wanted themselves, but perhaps something in them.
    pending: Vec<PathBuf>,
}

impl Walk<'_> {
    fn dir(&mut self, here: &mut Here, above: &Above, depth: usize) -> Result<()> {
        let entries = match here
            .root(self.root)
            .and_then(|dir| dir.read_dir_sorted("."))
        {
            Ok(entries) => entries,
            Err(error) if gone(&error) => return Ok(()),
            Err(error) => return Err(reading("directory ", &here.path)(error)),
        };
        for entry in entries {
            self.entry(here, &entry.name, above, depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, here: &mut Here, name: &OsStr, above: &Above, depth: usize) -> Result<()> {
        let path = here.path.join(name);
        let text = path.to_string_lossy();
        let judged = self.filter.wanted.judge(&text, above);
        let wanted = judged.taken();
        let look_inside = wanted || !self.filter.wanted.nothing_in(&text, &judged);
        if !wanted && !look_inside {
            return Ok(());
        }
        let looked = here.root(self.root).and_then(|dir| dir.lstat(name));
        let stat = match looked {
            Ok(stat) => stat,
            Err(error) if gone(&error) => return Ok(()),
            Err(error) => return Err(reading("", &path)(error)),
        };
        if stat.kind != FileKind::Dir {
            return match wanted {
                true => self.emit(here, name, path, stat),
                false => Ok(()),
            };
        }
        if wanted {
            self.emit(here, name, path.clone(), stat)?;
        } else {
            self.pending.push(path.clone());
        }
        if look_inside {
            if depth >= HELD {
                here.open = None;
            }
            let mut inside = Here::new(path.clone());
            self.dir(&mut inside, &judged.here, depth + 1)?;
        }
        if self.pending.last() == Some(&path) {
            self.pending.pop();
        }
        Ok(())
    }

    fn emit(&mut self, here: &mut Here, name: &OsStr, path: PathBuf, stat: Stat) -> Result<()> {
        for dir in std::mem::take(&mut self.pending) {
            if let Ok(stat) = self.root.lstat(&dir) {
                let xattrs = self.root.xattrs(&dir).unwrap_or_default();
                (self.each)(Entry {
                    path: dir,
                    stat,
                    link: None,
                    xattrs,
                })?;
            }
        }
        let here = here.root(self.root).map_err(reading("", &path))?;
        let link = match stat.kind {
            // A socket means something only to who listens on it.
            FileKind::Socket => return Ok(()),
            FileKind::Symlink => match here.read_link(name) {
                Ok(target) => Some(target),
                Err(error) if gone(&error) => return Ok(()),
                Err(error) => return Err(reading("", &path)(error)),
            },
            FileKind::File if stat.nlink > 1 => {
                let first = self
                    .links
                    .entry((stat.dev, stat.ino))
                    .or_insert_with(|| path.clone());
                (*first != path).then(|| first.clone())
            }
            _ => None,
        };
        let xattrs = match stat.kind {
            FileKind::Symlink => Vec::new(),
            _ => here.xattrs(name).unwrap_or_default(),
        };
        (self.each)(Entry {
            path,
            stat,
            link,
            xattrs,
        })
    }
}

fn reading(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::io(format!("reading {what}{}", path.display()), error)
}

fn gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
