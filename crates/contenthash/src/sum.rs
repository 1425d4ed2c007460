//! Hashing what is not hashed yet, on all cores, and adding it up.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use oci::{Digest, Hasher};
use stdx::sys::{FileKind, Root};

use crate::contents::{Dir, Node};
use crate::{Error, Header, Result};

/// How many files of one directory one thread takes at a time.
const BATCH: usize = 64;
/// Below this many files threads cost more than they give.
const WORTH_THREADS: usize = 32;

/// Files of one directory whose digests are wanted.
struct Batch<'a> {
    dir: PathBuf,
    files: Vec<(&'a OsStr, &'a mut Option<Digest>)>,
}

/// The digest of all in `dir`. `changed` is set if more had to be looked at than what is known:
/// adding up is done again sooner than the sums of a large tree are written down.
pub(crate) fn dir(
    root: Option<&Root>,
    path: &Path,
    dir: &mut Dir,
    changed: &mut bool,
) -> Result<Digest> {
    if let Some(known) = dir.digest {
        return Ok(known);
    }
    *changed |= read_all(root, path, dir)?;
    let mut batches = Vec::new();
    header_of_top(path, &mut dir.header, &mut batches);
    collect(path, &mut dir.children, None, &mut batches);
    *changed |= !batches.is_empty();
    hash_all(root, batches)?;
    Ok(add_up(dir))
}

/// Hashes the headers and files in `wanted` (paths) below `dir`.
pub(crate) fn some(
    root: Option<&Root>,
    path: &Path,
    dir: &mut Dir,
    changed: &mut bool,
    wanted: &HashSet<PathBuf>,
) -> Result<()> {
    let mut batches = Vec::new();
    if wanted.contains(path) {
        header_of_top(path, &mut dir.header, &mut batches);
    }
    collect(path, &mut dir.children, Some(wanted), &mut batches);
    *changed |= !batches.is_empty();
    hash_all(root, batches)
}

/// The digest of one file or link.
pub(crate) fn file(
    root: Option<&Root>,
    path: &Path,
    slot: &mut Option<Digest>,
    changed: &mut bool,
) -> Result<Digest> {
    if let Some(known) = *slot {
        return Ok(known);
    }
    *changed = true;
    let mut batches = Vec::new();
    header_of_top(path, slot, &mut batches);
    hash_all(root, batches)?;
    Ok(slot.expect("it was just hashed"))
}

fn header_of_top<'a>(path: &'a Path, slot: &'a mut Option<Digest>, batches: &mut Vec<Batch<'a>>) {
    if slot.is_none() {
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        let name = path.file_name().unwrap_or(OsStr::new(""));
        batches.push(Batch {
            dir,
            files: vec![(name, slot)],
        });
    }
}

/// Returns whether anything was read.
fn read_all(root: Option<&Root>, path: &Path, dir: &mut Dir) -> Result<bool> {
    let mut read = dir.read(root, path)?;
    for (name, node) in dir.children.iter_mut().flatten() {
        if let Node::Dir(deeper) = node
            && deeper.digest.is_none()
        {
            read |= read_all(root, &path.join(name), deeper)?;
        }
    }
    Ok(read)
}

fn collect<'a>(
    path: &Path,
    children: &'a mut Option<std::collections::BTreeMap<std::ffi::OsString, Node>>,
    wanted: Option<&HashSet<PathBuf>>,
    batches: &mut Vec<Batch<'a>>,
) {
    let mut files: Vec<(&OsStr, &mut Option<Digest>)> = Vec::new();
    for (name, node) in children.iter_mut().flatten() {
        let is_wanted = wanted.is_none_or(|wanted| wanted.contains(&path.join(name)));
        let slot = match node {
            Node::File(slot) | Node::Link { digest: slot, .. } => slot,
            Node::Dir(deeper) => {
                if deeper.digest.is_none() || wanted.is_some() {
                    collect(&path.join(name), &mut deeper.children, wanted, batches);
                }
                &mut deeper.header
            }
        };
        if is_wanted && slot.is_none() {
            files.push((name, slot));
        }
        if files.len() == BATCH {
            batches.push(Batch {
                dir: path.to_owned(),
                files: std::mem::take(&mut files),
            });
        }
    }
    if !files.is_empty() {
        batches.push(Batch {
            dir: path.to_owned(),
            files,
        });
    }
}

fn hash_all(root: Option<&Root>, batches: Vec<Batch<'_>>) -> Result<()> {
    if batches.is_empty() {
        return Ok(());
    }
    let root = root.ok_or(Error::Unread)?;
    let files: usize = batches.iter().map(|batch| batch.files.len()).sum();
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(8);
    if files < WORTH_THREADS || threads == 1 {
        return batches
            .into_iter()
            .try_for_each(|batch| hash_batch(root, batch));
    }
    let queue = Mutex::new(batches.into_iter());
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let work = || {
            while !failed.load(Ordering::Relaxed) {
                let next = queue.lock().expect("no one panics while holding it").next();
                let Some(batch) = next else { break };
                if let Err(error) = hash_batch(root, batch) {
                    failed.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
            Ok(())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut result = Ok(());
        for worker in workers {
            match worker.join() {
                Ok(done) => result = result.and(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        result
    })
}

fn hash_batch(root: &Root, batch: Batch<'_>) -> Result<()> {
    let dir = root
        .open_dir_nofollow(&batch.dir)
        .map_err(Error::io(&batch.dir))?;
    let mut buffer = Vec::new();
    for (name, slot) in batch.files {
        let digest = hash_file(&dir, name, &mut buffer);
        *slot = Some(digest.map_err(Error::io(batch.dir.join(name)))?);
    }
    Ok(())
}

fn hash_file(dir: &Root, name: &OsStr, buffer: &mut Vec<u8>) -> io::Result<Digest> {
    let header = Header::of(dir, name)?;
    let mut hasher = header.hasher();
    if header.kind == FileKind::File && header.size > 0 {
        buffer.resize(256 << 10, 0);
        let mut file = dir.open_file(name)?;
        loop {
            match file.read(buffer) {
                Ok(0) => break,
                Ok(read) => hasher.update(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(hasher.finish())
}

/// A directory's digest: its header, then each name with its digest, sorted.
fn add_up(dir: &mut Dir) -> Digest {
    if let Some(known) = dir.digest {
        return known;
    }
    let mut hasher = Hasher::default();
    let mut add = |name: &OsStr, digest: Digest| {
        hasher.update(b"\0");
        hasher.update(name.as_encoded_bytes());
        hasher.update(digest.to_string().as_bytes());
    };
    add(OsStr::new(""), dir.header.expect("all headers are hashed"));
    for (name, node) in dir.children.iter_mut().flatten() {
        let digest = match node {
            Node::File(digest) | Node::Link { digest, .. } => digest.expect("all files are hashed"),
            Node::Dir(deeper) => add_up(deeper),
        };
        add(name, digest);
    }
    let digest = hasher.finish();
    dir.digest = Some(digest);
    digest
}
