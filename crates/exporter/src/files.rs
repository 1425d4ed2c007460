//! The files themselves: into a directory, or as one tar (rows E05).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use snapshot::Tree;
use stdx::sys::{FileKind, Root, copy_data};
use stdx::task::blocking;
use tokio::sync::mpsc;

use crate::archive::Bytestream;
use crate::image::Context;
use crate::options::{epoch, flag};
use crate::{Error, PlatformResult, Result, Source, Stamp, attestation};

/// Options of the local and tar exporters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesOptions {
    /// A directory per platform: as asked, else if there are several.
    pub platform_split: Option<bool>,
    /// Goes before the file names of attestations.
    pub attestation_prefix: String,
    /// Remove what is there and was not exported.
    pub delete: bool,
    /// When every file was made.
    pub epoch: Option<Stamp>,
    /// Everything else.
    pub rest: BTreeMap<String, String>,
}

impl FilesOptions {
    /// Reads the options of an exporter.
    pub fn parse(attrs: &BTreeMap<String, String>) -> Result<FilesOptions> {
        let mut options = FilesOptions::default();
        for (key, value) in attrs {
            match key.as_str() {
                "platform-split" => options.platform_split = Some(flag(key, value)?),
                "attestation-prefix" => options.attestation_prefix.clone_from(value),
                "source-date-epoch" if value.is_empty() => options.epoch = None,
                "source-date-epoch" => options.epoch = Some(epoch(key, value)?),
                "mode" => match value.as_str() {
                    "copy" => options.delete = false,
                    "delete" => options.delete = true,
                    _ => {
                        return Err(Error::Conflict {
                            first: format!("mode={value}"),
                            second: "mode=copy or mode=delete".to_owned(),
                        });
                    }
                },
                _ => drop(options.rest.insert(key.clone(), value.clone())),
            }
        }
        Ok(options)
    }
}

/// A tree and where it goes below the target.
pub struct Part {
    /// Empty, or the platform's directory (`linux_amd64`).
    pub prefix: PathBuf,
    /// The files; `None` is nothing.
    pub tree: Option<Arc<Tree>>,
    /// Whole statements about them, by file name.
    pub statements: Vec<(String, Bytes)>,
    /// When every file was made, if that is not its own affair.
    pub epoch: Option<Stamp>,
}

impl Part {
    /// Whether there is something at `path`, and whether that is a directory.
    fn has(&self, path: &Path) -> Result<Option<bool>> {
        if self
            .statements
            .iter()
            .any(|(name, _)| Path::new(name) == path)
        {
            return Ok(Some(false));
        }
        let Some(tree) = &self.tree else {
            return Ok(None);
        };
        match tree.root().lstat(path) {
            Ok(stat) => Ok(Some(stat.is_dir())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("reading the result")(error)),
        }
    }
}

/// The trees to take out, fetched and unpacked as needed.
pub async fn parts(source: &Source, options: &FilesOptions, cx: &Context) -> Result<Vec<Part>> {
    let split = options.platform_split.unwrap_or(source.multi_platform);
    let (mut parts, mut directories) = (Vec::new(), BTreeMap::new());
    for result in &source.results {
        let tree = match &result.files {
            Some(files) => Some(files.tree(cx.provider.as_ref(), &cx.step).await?),
            None => None,
        };
        let platform = directory(result)?;
        if split && let Some(id) = directories.insert(platform.clone(), &result.id) {
            // A platform that was asked for twice comes out once.
            match *id == result.id {
                true => continue,
                false => return Err(Error::PlatformDir(result.id.clone())),
            }
        }
        let kept = result.statements.iter().filter(|one| !one.inline_only);
        let statements: Vec<_> = kept.cloned().collect();
        let suffix = (source.multi_platform && !split).then(|| platform.clone());
        let attestation_prefix = options.attestation_prefix.clone();
        let described = tree.clone();
        let statements = blocking(move || {
            let root = described.as_deref().map(root_of).transpose();
            let root = root.map_err(Error::io("opening the result"))?;
            let suffix = suffix.as_deref();
            attestation::about_files(&statements, root.as_ref(), &attestation_prefix, suffix)
        });
        let statements = statements.await?;
        let prefix = match split {
            true => PathBuf::from(platform),
            false => PathBuf::new(),
        };
        parts.push(Part {
            prefix,
            tree,
            statements,
            epoch: options.epoch.or(result.epoch),
        });
    }
    if split || parts.len() < 2 {
        return Ok(parts);
    }
    let ids: Vec<String> = source.results.iter().map(|one| one.id.clone()).collect();
    blocking(move || nothing_twice(&parts, &ids).map(|()| parts)).await
}

/// The name a platform's directory has: as the frontend calls the platform.
fn directory(result: &PlatformResult) -> Result<String> {
    let name = match result.id.as_str() {
        "" => result.platform.to_string(),
        id => id.to_owned(),
    };
    let name = name.replace('/', "_");
    match name.as_str() {
        "." | ".." => Err(Error::PlatformDir(name)),
        _ if name.contains('\0') => Err(Error::PlatformDir(name)),
        _ => Ok(name),
    }
}

/// That no part replaces a file of an earlier one, or is in the way of its directories.
fn nothing_twice(parts: &[Part], ids: &[String]) -> Result<()> {
    for (at, part) in parts.iter().enumerate() {
        let check = |path: &Path, is_dir: bool| {
            for (other, first) in parts[..at].iter().zip(ids) {
                let there = other.has(path)?;
                if there.is_some_and(|other_is_dir| !(is_dir && other_is_dir)) {
                    return Err(Error::Overwrite {
                        path: path.display().to_string(),
                        first: first.clone(),
                        second: ids[at].clone(),
                    });
                }
            }
            Ok(())
        };
        for (name, _) in &part.statements {
            check(Path::new(name), false)?;
        }
        let Some(tree) = &part.tree else { continue };
        let reading = || Error::io("reading the result");
        // A directory is looked at before what is in it, so that nothing is looked up
        // below another's file or link.
        let mut todo = vec![PathBuf::new()];
        while let Some(dir) = todo.pop() {
            for entry in tree.root().read_dir_sorted(&dir).map_err(reading())? {
                let path = dir.join(&entry.name);
                let is_dir = tree.root().lstat(&path).map_err(reading())?.is_dir();
                check(&path, is_dir)?;
                if is_dir {
                    todo.push(path);
                }
            }
        }
    }
    Ok(())
}

fn root_of(tree: &Tree) -> io::Result<Root> {
    tree.root().try_clone()
}

/// All parts as one tar with owners and modes, made while it is read.
pub fn tar(parts: Vec<Part>, cx: &Context) -> Bytestream {
    let (sender, receiver) = mpsc::channel(8);
    let status = cx.step.transfer("sending tarball");
    let task = stdx::task::spawn("tar", async move {
        let failed = sender.clone();
        let done = blocking(move || {
            write_tar(
                &parts,
                Pieces {
                    sender,
                    piece: Vec::new(),
                },
            )
        })
        .await;
        if let Err(error) = done {
            let _ = failed.send(Err(error)).await;
        }
        status.done();
    });
    futures::stream::unfold((receiver, task), |(mut receiver, task)| async move {
        let next = receiver.recv().await?;
        Some((next, (receiver, task)))
    })
    .boxed()
}

fn write_tar(parts: &[Part], out: Pieces) -> Result<()> {
    let mut archive = layer::Archive::new(out);
    for part in parts {
        archive.date(part.epoch.map(Stamp::epoch));
        if let Some(tree) = &part.tree {
            let root = root_of(tree).map_err(Error::io("opening the result"))?;
            archive.tree(&part.prefix, &root)?;
        }
        for (name, bytes) in &part.statements {
            archive.file(&part.prefix.join(name), bytes)?;
        }
    }
    archive
        .finish()?
        .flush()
        .map_err(Error::io("sending the tarball"))
}

/// A writer whose pieces come out of a stream.
struct Pieces {
    sender: mpsc::Sender<Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= 256 << 10 {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::take(&mut self.piece));
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        if piece.is_empty() {
            Ok(())
        } else {
            self.sender.blocking_send(Ok(piece)).map_err(gone)
        }
    }
}

/// Copies all parts into a directory of this machine: modes and times kept, owners
/// ours unless we are root and `owners` is set.
pub async fn copy_into(parts: Vec<Part>, target: Root, owners: bool, delete: bool) -> Result<()> {
    blocking(move || {
        if delete {
            target
                .remove_contents()
                .map_err(Error::io("emptying the target"))?;
        }
        for part in &parts {
            if !part.prefix.as_os_str().is_empty() {
                let made = target.create_dir_all(&part.prefix, 0o755);
                made.map_err(Error::io("making the platform's directory"))?;
            }
            let into = target
                .open_dir(&part.prefix)
                .map_err(Error::io("opening the target"))?;
            if let Some(tree) = &part.tree {
                let from = root_of(tree).map_err(Error::io("opening the result"))?;
                copy_dir(&from, &into, owners).map_err(Error::io("copying files to the target"))?;
            }
            for (name, bytes) in &part.statements {
                put_file(&into, name, bytes).map_err(Error::io("writing attestations"))?;
            }
        }
        Ok(())
    })
    .await
}

fn put_file(dir: &Root, name: &str, bytes: &[u8]) -> io::Result<()> {
    dir.remove_tree(name)?;
    dir.create_file(name, 0o600)?.write_all(bytes)
}

/// Directories still to be copied are kept in a list: depth costs no stack.
fn copy_dir(from: &Root, into: &Root, owners: bool) -> io::Result<()> {
    let mut todo = vec![PathBuf::new()];
    let mut times = Vec::new();
    let mut links: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
    while let Some(dir) = todo.pop() {
        for entry in from.read_dir_sorted(&dir)? {
            let path = dir.join(&entry.name);
            let stat = from.lstat(&path)?;
            let first = (stat.nlink > 1 && !stat.is_dir()).then_some((stat.dev, stat.ino));
            if let Some(known) = first.and_then(|inode| links.get(&inode)) {
                into.remove_tree(&path)?;
                into.link(known, &path)?;
                continue;
            }
            if stat.is_dir() {
                make_dir(into, &path)?;
                todo.push(path.clone());
                times.push((path.clone(), stat));
            } else if !copy_file(from, into, &path, &stat)? {
                continue;
            }
            if let Some(inode) = first {
                links.insert(inode, path.clone());
            }
            if owners {
                into.chown(&path, stat.uid, stat.gid)?;
            }
            for (name, value) in from
                .xattrs(&path)?
                .into_iter()
                .filter(|(name, _)| kept(name))
            {
                into.set_xattr(&path, &name, &value)?;
            }
            if !stat.is_dir() {
                into.chmod(&path, stat.mode)?;
                into.set_times(&path, stat.atime, stat.mtime)?;
            }
        }
    }
    for (path, stat) in times.into_iter().rev() {
        into.chmod(&path, stat.mode)?;
        into.set_times(&path, stat.atime, stat.mtime)?;
    }
    Ok(())
}

fn kept(xattr: &OsStr) -> bool {
    xattr.as_encoded_bytes().starts_with(b"user.")
        && !xattr.as_encoded_bytes().starts_with(b"user.overlay.")
}

fn make_dir(into: &Root, path: &Path) -> io::Result<()> {
    match into.mkdir(path, 0o700) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if into.lstat(path)?.is_dir() {
                return Ok(());
            }
            into.unlink(path)?;
            into.mkdir(path, 0o700)
        }
        other => other,
    }
}

/// Whether it was something that can be copied.
fn copy_file(from: &Root, into: &Root, path: &Path, stat: &stdx::sys::Stat) -> io::Result<bool> {
    into.remove_tree(path)?;
    match stat.kind {
        FileKind::File => {
            copy_data(&from.open_file(path)?, &into.create_file(path, 0o600)?)?;
        }
        FileKind::Symlink => into.symlink(from.read_link(path)?, path)?,
        FileKind::Socket => return Ok(false),
        FileKind::Dir => unreachable!("made elsewhere"),
        kind => into.mknod(path, kind, stat.mode, stat.device())?,
    }
    Ok(true)
}
