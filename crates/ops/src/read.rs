//! Reading files of results: what frontends ask for, and clients that look into a result.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path};

use bytes::Bytes;
use snapshot::Tree;
use stdx::patterns::Patterns;
use stdx::sys::{FileKind, Root, Stat};

use crate::{Error, Result};

/// No more than this of a file is given at once.
const MAX_READ: u64 = 64 << 20;

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Anything else.
    Special,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name in its directory.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Last change, in nanoseconds since 1970.
    pub modified_ns: i64,
    /// Where a link points, as it says.
    pub link: String,
}

impl From<DirEntry> for frontend::FileStat {
    fn from(entry: DirEntry) -> frontend::FileStat {
        use frontend::EntryKind as Kind;
        frontend::FileStat {
            path: entry.path,
            kind: match entry.kind {
                EntryKind::File => Kind::File,
                EntryKind::Directory => Kind::Directory,
                EntryKind::Symlink => Kind::Symlink,
                EntryKind::Special => Kind::Special,
            },
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            size: entry.size,
            modified_ns: entry.modified_ns,
            link: entry.link,
        }
    }
}

/// What is in a file, or the part of it given by offset and length; links are followed inside
/// the tree. What lies beyond the end is left out; more than 64 MiB is refused. No tree is the
/// empty one, here and below.
pub fn read_file(tree: Option<&Tree>, path: &str, range: Option<(u64, u64)>) -> Result<Bytes> {
    let Some(tree) = tree else {
        return Err(not_found(path));
    };
    let mut file = tree
        .root()
        .open_file(path)
        .map_err(failed("reading", path))?;
    let (offset, length) = range.unwrap_or((0, u64::MAX));
    if offset > 0 {
        file.seek(SeekFrom::Start(offset))
            .map_err(failed("reading", path))?;
    }
    let wanted = length.min(MAX_READ);
    let mut bytes = Vec::new();
    let mut part = file.take(wanted);
    part.read_to_end(&mut bytes)
        .map_err(failed("reading", path))?;
    let mut one_more = [0];
    if length > MAX_READ
        && part
            .into_inner()
            .read(&mut one_more)
            .map_err(failed("reading", path))?
            > 0
    {
        return Err(Error::Invalid(format!(
            "{path}: more than 64 MiB cannot be read at once"
        )));
    }
    Ok(bytes.into())
}

/// The entries of a directory, sorted by name; with a pattern only those whose name it matches.
pub fn read_dir(tree: Option<&Tree>, path: &str, include: Option<&str>) -> Result<Vec<DirEntry>> {
    let patterns = match include {
        Some(pattern) => {
            Patterns::new([pattern]).map_err(|error| Error::Invalid(error.to_string()))?
        }
        None => Patterns::default(),
    };
    let Some(tree) = tree else {
        return only_root(path).map(|_| Vec::new());
    };
    let dir = tree
        .root()
        .open_dir(path)
        .map_err(failed("reading directory", path))?;
    let names = dir
        .read_dir_sorted(".")
        .map_err(failed("reading directory", path))?;
    let mut entries = Vec::with_capacity(names.len());
    for name in names {
        let shown = name.name.to_string_lossy().into_owned();
        if !patterns.is_empty() && !patterns.matches(&shown) {
            continue;
        }
        entries.push(
            entry(&dir, Path::new(&name.name), shown).map_err(failed("reading directory", path))?,
        );
    }
    Ok(entries)
}

/// What a path is; if it is a link, what it leads to.
pub fn stat(tree: Option<&Tree>, path: &str) -> Result<DirEntry> {
    let Some(tree) = tree else {
        return only_root(path);
    };
    let stat = tree.root().stat(path).map_err(failed("looking at", path))?;
    let name = Path::new(path).file_name().unwrap_or("/".as_ref());
    Ok(describe(
        &stat,
        name.to_string_lossy().into_owned(),
        String::new(),
    ))
}

/// All there is in the empty tree: its root.
fn only_root(path: &str) -> Result<DirEntry> {
    let below = |part| matches!(part, Component::Normal(_));
    match Path::new(path).components().any(below) {
        true => Err(not_found(path)),
        false => Ok(DirEntry {
            path: "/".to_owned(),
            kind: EntryKind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            size: 0,
            modified_ns: 0,
            link: String::new(),
        }),
    }
}

fn not_found(path: &str) -> Error {
    Error::NotFound {
        path: path.to_owned(),
    }
}

fn entry(dir: &Root, name: &Path, shown: String) -> io::Result<DirEntry> {
    let stat = dir.lstat(name)?;
    let link = match stat.is_symlink() {
        true => dir.read_link(name)?.to_string_lossy().into_owned(),
        false => String::new(),
    };
    Ok(describe(&stat, shown, link))
}

fn describe(stat: &Stat, path: String, link: String) -> DirEntry {
    DirEntry {
        path,
        kind: match stat.kind {
            FileKind::File => EntryKind::File,
            FileKind::Dir => EntryKind::Directory,
            FileKind::Symlink => EntryKind::Symlink,
            _ => EntryKind::Special,
        },
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        size: stat.size,
        modified_ns: stat
            .mtime
            .seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(stat.mtime.nanos.into()),
        link,
    }
}

fn failed(doing: &'static str, path: &str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::NotFound { path },
        _ => Error::Io {
            doing: format!("{doing} {path}"),
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stdx::Kind;

    fn tree() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("etc/sub")).unwrap();
        std::fs::write(root.join("etc/hosts"), "hello world").unwrap();
        std::fs::write(root.join("etc/a.conf"), "a").unwrap();
        std::fs::write(dir.path().join("secret"), "outside").unwrap();
        std::os::unix::fs::symlink("/etc/hosts", root.join("in")).unwrap();
        std::os::unix::fs::symlink("../../secret", root.join("out")).unwrap();
        let tree = Tree::open(root).unwrap();
        (dir, tree)
    }

    #[test]
    fn files_are_read_in_part_and_links_stay_inside() {
        let (_dir, tree) = tree();
        assert_eq!(read_file(Some(&tree), "/in", None).unwrap(), "hello world");
        assert_eq!(
            read_file(Some(&tree), "etc/hosts", Some((6, 3))).unwrap(),
            "wor"
        );
        assert_eq!(
            read_file(Some(&tree), "etc/hosts", Some((6, u64::MAX))).unwrap(),
            "world"
        );
        assert_eq!(
            read_file(Some(&tree), "etc/hosts", Some((60, 3))).unwrap(),
            ""
        );
        for missing in ["/out", "/none", "/etc/hosts/deeper"] {
            let error = read_file(Some(&tree), missing, None).unwrap_err();
            assert_eq!(error.kind(), Kind::NotFound);
            assert!(error.to_string().contains(missing));
        }
        assert!(read_file(Some(&tree), "/etc", None).is_err());
    }

    #[test]
    fn a_file_too_large_is_refused_and_a_part_of_it_is_not() {
        let (dir, tree) = tree();
        let file = std::fs::File::create(dir.path().join("root/large")).unwrap();
        file.set_len(MAX_READ + 1).unwrap();
        assert_eq!(
            read_file(Some(&tree), "large", None).unwrap_err().kind(),
            Kind::InvalidInput
        );
        assert_eq!(
            read_file(Some(&tree), "large", Some((MAX_READ - 1, 10)))
                .unwrap()
                .len(),
            2
        );
    }

    #[test]
    fn directories_are_listed_in_order_and_by_pattern() {
        let (_dir, tree) = tree();
        let names = |found: Vec<DirEntry>| found.into_iter().map(|e| e.path).collect::<Vec<_>>();
        assert_eq!(
            names(read_dir(Some(&tree), "/etc", None).unwrap()),
            ["a.conf", "hosts", "sub"]
        );
        assert_eq!(
            names(read_dir(Some(&tree), "etc", Some("*.conf")).unwrap()),
            ["a.conf"]
        );
        let top = read_dir(Some(&tree), "/", None).unwrap();
        assert_eq!(
            (top[2].kind, top[2].link.as_str()),
            (EntryKind::Symlink, "../../secret")
        );
        assert_eq!(
            read_dir(Some(&tree), "/none", None).unwrap_err().kind(),
            Kind::NotFound
        );
        assert_eq!(
            read_dir(Some(&tree), "/", Some("[")).unwrap_err().kind(),
            Kind::InvalidInput
        );
    }

    /// Rows: G05
    #[test]
    fn the_empty_tree_has_a_root_and_nothing_in_it() {
        for root in ["/", ".", "", "./", "/.."] {
            assert_eq!(read_dir(None, root, None).unwrap(), [], "{root:?}");
            let found = stat(None, root).unwrap();
            assert_eq!(
                (found.kind, found.path.as_str()),
                (EntryKind::Directory, "/"),
                "{root:?}"
            );
        }
        for missing in ["/a", "a", "a/.."] {
            let errors = [
                read_dir(None, missing, None).unwrap_err(),
                stat(None, missing).unwrap_err(),
                read_file(None, missing, None).unwrap_err(),
            ];
            for error in errors {
                assert_eq!(error.kind(), Kind::NotFound, "{missing}");
                assert!(error.to_string().contains(missing));
            }
        }
        assert_eq!(
            read_dir(None, "/", Some("[")).unwrap_err().kind(),
            Kind::InvalidInput
        );
    }

    #[test]
    fn what_a_link_leads_to_is_told() {
        let (_dir, tree) = tree();
        let found = stat(Some(&tree), "/in").unwrap();
        assert_eq!(
            (found.kind, found.size, found.path.as_str()),
            (EntryKind::File, 11, "in")
        );
        assert_eq!(stat(Some(&tree), "/").unwrap().kind, EntryKind::Directory);
        assert_eq!(stat(Some(&tree), "out").unwrap_err().kind(), Kind::NotFound);
    }
}
