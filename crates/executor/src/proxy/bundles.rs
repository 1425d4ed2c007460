//! The proxy's authority in the bundles of certificates that a container's programs trust, for as
//! long as the container runs.
//!
//! A bundle that can be written is replaced by one with the authority at its end, and put back
//! afterwards, so that a step may update it as ever (a mount in its place could not be renamed
//! over). What the step made of it stays, without the authority. Nothing is ever written into: a
//! file of a layer may be others', too.

use std::ffi::OsStr;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::fchown;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use snapshot::Tree;
use stdx::sys::{FileKind, Root, Stat};

use crate::error::Error;
use crate::prepare::{Handles, setup};
use crate::process::Process;
use crate::spec::{MountKind, MountRef};

/// Where the programs of Linux distributions look.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// A bundle is a few hundred KiB.
const MOST_BYTES: u64 = 10 << 20;
const BEGIN: &str = "# kiln proxy CA begin\n";
const END: &str = "# kiln proxy CA end\n";
const PEM_BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
const PEM_END: &[u8] = b"-----END CERTIFICATE-----";

/// The bundles of a root that have the authority, until they are put back.
#[derive(Default)]
pub(crate) struct Bundles {
    root: Option<Arc<Tree>>,
    authority: String,
    changed: Vec<Changed>,
    /// Bundles to be shown in place of those of a root that is not to be written.
    shown: Vec<Shown>,
}

/// One that was replaced.
struct Changed {
    /// No component of it was a symlink.
    path: PathBuf,
    before: Vec<u8>,
    /// What was added to it.
    added: String,
}

/// One to be mounted over.
struct Shown {
    target: String,
    content: Vec<u8>,
    stat: Stat,
}

impl Bundles {
    /// Adds the authority to the bundles that are there.
    pub(crate) fn trust(process: &Process, authority: &str) -> Result<Bundles, Error> {
        let readonly = process.readonly_root || process.root.is_readonly();
        let mut bundles = Bundles {
            root: Some(process.root.clone()),
            authority: authority.to_owned(),
            changed: Vec::new(),
            shown: Vec::new(),
        };
        let root = process.root.root();
        for name in BUNDLES {
            bundles
                .trust_in(root, name, readonly)
                .map_err(|source| Error::Setup {
                    step: format!("adding the proxy's certificate to {name}"),
                    source,
                })?;
        }
        Ok(bundles)
    }

    fn trust_in(&mut self, root: &Root, name: &str, readonly: bool) -> io::Result<()> {
        let Some(path) = canonical(root, Path::new(name))? else {
            return Ok(());
        };
        let target = Path::new("/").join(&path).to_string_lossy().into_owned();
        let known = self.changed.iter().any(|one| one.path == path)
            || self.shown.iter().any(|one| one.target == target);
        let Some((stat, before)) = read(root, &path)?.filter(|_| !known) else {
            return Ok(());
        };
        let added = block(&before, &self.authority);
        let content = [&before[..], added.as_bytes()].concat();
        if readonly {
            self.shown.push(Shown {
                target,
                content,
                stat,
            });
            return Ok(());
        }
        replace(root, &path, &stat, &content)?;
        self.changed.push(Changed {
            path,
            before,
            added,
        });
        Ok(())
    }

    /// Those to show in place of what is in a root that is not to be written.
    pub(crate) fn mounts(&self, handles: &mut Handles) -> Result<Vec<MountRef>, Error> {
        let mounts = self.shown.iter().map(|shown| {
            let file = crate::sys::memory_file(&shown.content);
            let file = file.map_err(setup("writing certificates"))?;
            let kind = MountKind::File {
                content: handles.push(file),
                mode: shown.stat.mode,
                uid: shown.stat.uid,
                gid: shown.stat.gid,
            };
            Ok(MountRef {
                target: shown.target.clone(),
                readonly: true,
                attributes: 0,
                kind,
            })
        });
        mounts.collect()
    }

    /// Takes the authority out again, wherever that can be done; the first place where it cannot is
    /// the error. The container has ended.
    pub(crate) fn restore(&mut self) -> Result<(), Error> {
        let Some(root) = self.root.take() else {
            return Ok(());
        };
        let mut restored = Ok(());
        for changed in std::mem::take(&mut self.changed) {
            let one = changed.restore(&root, &self.authority);
            let one = one.map_err(|source| Error::Setup {
                step: format!(
                    "taking the proxy's certificate out of /{}",
                    changed.path.display()
                ),
                source,
            });
            restored = restored.and(one);
        }
        restored
    }
}

impl Drop for Bundles {
    fn drop(&mut self) {
        if let Err(error) = self.restore() {
            tracing::warn!(%error, "the tree is not to be used");
        }
    }
}

impl Changed {
    fn restore(&self, tree: &Tree, authority: &str) -> io::Result<()> {
        let root = tree.root();
        // Wherever the step's links lead now: somebody reads it there.
        let Some(path) = canonical(root, &self.path)? else {
            return Ok(());
        };
        let Some((stat, now)) = read(root, &path)? else {
            return Ok(());
        };
        if now.strip_suffix(self.added.as_bytes()) == Some(&self.before) {
            replace(root, &path, &stat, &self.before)?;
            tree.was_restored(&path);
            return Ok(());
        }
        match without_authority(&now, &self.added, authority) {
            Some(cleaned) => replace(root, &path, &stat, &cleaned),
            None => Ok(()),
        }
    }
}

/// Where links lead. In a circle they lead to no bundle.
fn canonical(root: &Root, path: &Path) -> io::Result<Option<PathBuf>> {
    match root.canonical(path) {
        Ok(path) => Ok(Some(path)),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A regular file and what is known of it; nothing if there is none.
fn read(root: &Root, path: &Path) -> io::Result<Option<(Stat, Vec<u8>)>> {
    let stat = match root.lstat(path) {
        Ok(stat) if stat.kind == FileKind::File => stat,
        Ok(_) => return Ok(None),
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    let file = root.open_file(path)?;
    if file.take(MOST_BYTES + 1).read_to_end(&mut bytes)? as u64 > MOST_BYTES {
        let text = format!("it is larger than {} MiB", MOST_BYTES >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(Some((stat, bytes)))
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Puts another file with `content` there, which is like the old one in everything else; also
/// its directory keeps its times.
fn replace(root: &Root, path: &Path, stat: &Stat, content: &[u8]) -> io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let (dir, name) = root.parent(path)?;
    let dir_before = dir.lstat(".")?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let aside = format!(".kiln-ca-{}-{number}", std::process::id());
    let aside = OsStr::new(&aside);
    let written = write(&dir, aside, stat, &name, content).and_then(|()| dir.rename(aside, &name));
    if written.is_err() {
        let _was_none = dir.unlink(aside);
    }
    dir.set_times(".", dir_before.atime, dir_before.mtime)?;
    written
}

fn write(dir: &Root, aside: &OsStr, stat: &Stat, like: &OsStr, content: &[u8]) -> io::Result<()> {
    let mut file = dir.create_file(aside, 0o600)?;
    file.write_all(content)?;
    fchown(&file, Some(stat.uid), Some(stat.gid))?;
    dir.chmod(aside, stat.mode)?;
    for (key, value) in dir.xattrs(like)? {
        // What overlayfs writes is for its own eyes.
        if !key.to_string_lossy().contains(".overlay.") {
            dir.set_xattr(aside, &key, &value)?;
        }
    }
    drop(file);
    dir.set_times(aside, stat.atime, stat.mtime)
}

/// What is added to a bundle.
fn block(bundle: &[u8], authority: &str) -> String {
    let newline = |text: &[u8]| match text.last() {
        Some(b'\n') | None => "",
        Some(_) => "\n",
    };
    let (before, after) = (newline(bundle), newline(authority.as_bytes()));
    format!("{before}\n{BEGIN}{authority}{after}{END}")
}

/// What is left of a bundle that a step changed; nothing if the authority is not in it.
fn without_authority(bundle: &[u8], added: &str, authority: &str) -> Option<Vec<u8>> {
    let text = without(bundle, added.as_bytes());
    // A program may have kept the certificates alone, and written them in its own way.
    let wanted = letters(authority.as_bytes());
    let (mut left, mut rest) = (Vec::with_capacity(text.len()), &text[..]);
    while let Some(begin) = find(rest, PEM_BEGIN) {
        let Some(length) = find(&rest[begin..], PEM_END) else {
            break;
        };
        let end = begin + length + PEM_END.len();
        if letters(&rest[begin..end]) == wanted {
            left.extend_from_slice(&rest[..begin]);
            let newline = usize::from(rest.get(end) == Some(&b'\n'));
            rest = &rest[end + newline..];
        } else {
            left.extend_from_slice(&rest[..end]);
            rest = &rest[end..];
        }
    }
    left.extend_from_slice(rest);
    (left != bundle).then_some(left)
}

fn without(text: &[u8], unwanted: &[u8]) -> Vec<u8> {
    let (mut left, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some(at) = find(rest, unwanted) {
        left.extend_from_slice(&rest[..at]);
        rest = &rest[at + unwanted.len()..];
    }
    left.extend_from_slice(rest);
    left
}

/// A certificate in PEM without the space in it.
fn letters(pem: &[u8]) -> Vec<u8> {
    let space = |byte: &&u8| !byte.is_ascii_whitespace();
    pem.iter().filter(space).copied().collect()
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|part| part == wanted)
}

#[cfg(test)]
mod tests;
