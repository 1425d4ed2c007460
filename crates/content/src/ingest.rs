//! A blob being written: aside, hashed on the way, not visible before its commit.
//!
//! When the digest is known beforehand, what was written survives in `ingest/<digest>` and the
//! next ingest of the same digest goes on after it, also in another process. A lock on the open
//! file says that someone is writing; files without one are left over and may be taken up or
//! swept away.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use db::Tx;
use oci::{Descriptor, Digest, Hasher};

use crate::{Error, Result, Store};

/// Small writes are gathered up to this size.
const BUFFER: usize = 256 << 10;

/// A blob being written. Commit it to make it visible; dropped before that, it keeps what it has
/// for a later try when its digest is known, and leaves nothing when not.
pub struct Ingest {
    store: Store,
    path: PathBuf,
    file: io::BufWriter<File>,
    hasher: Hasher,
    written: u64,
    expected: Option<Expected>,
    end: End,
}

#[derive(Clone, Copy)]
struct Expected {
    digest: Digest,
    size: u64,
}

/// What becomes of the file when the ingest is dropped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Keep,
    Remove,
    Moved,
}

impl Ingest {
    pub(crate) fn begin(store: &Store, expected: Option<&Descriptor>) -> Result<Ingest> {
        let Some(blob) = expected else {
            return Ingest::begin_aside(store, None);
        };
        let expected = Expected {
            digest: blob.digest,
            size: blob.size,
        };
        let name = format!("{}-{}", blob.digest.algorithm().name(), blob.digest.hex());
        let path = store.ingest_dir().join(name);
        let Some(mut file) = open_alone(&path)? else {
            // Someone else is writing the same blob: do it beside them, the first to end wins.
            return Ingest::begin_aside(store, Some(expected));
        };
        let (hasher, written) = take_up(&mut file, &path, expected)?;
        Ok(Ingest {
            store: store.clone(),
            path,
            file: io::BufWriter::with_capacity(BUFFER, file),
            hasher,
            written,
            expected: Some(expected),
            end: End::Keep,
        })
    }

    fn begin_aside(store: &Store, expected: Option<Expected>) -> Result<Ingest> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = store
                .ingest_dir()
                .join(format!("new-{}-{number}", std::process::id()));
            // An old process may have had our number.
            let Some(file) = open_alone(&path)? else {
                continue;
            };
            file.set_len(0).map_err(|source| Error::io(&path, source))?;
            let algorithm = expected.map_or(oci::Algorithm::Sha256, |e| e.digest.algorithm());
            return Ok(Ingest {
                store: store.clone(),
                path,
                file: io::BufWriter::with_capacity(BUFFER, file),
                hasher: algorithm.hasher(),
                written: 0,
                expected,
                end: End::Remove,
            });
        }
    }

    /// Bytes written so far, those of an earlier try included: where to go on reading.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Another handle to read what an earlier try left, from its first byte.
    pub fn reader(&mut self) -> Result<impl Read + use<>> {
        self.file
            .flush()
            .map_err(|source| Error::io(&self.path, source))?;
        let file = File::open(&self.path).map_err(|source| Error::io(&self.path, source))?;
        Ok(file.take(self.written))
    }

    /// Makes the blob visible, if it is the one that was expected.
    pub fn commit(self, media_type: &str) -> Result<Descriptor> {
        self.commit_with(media_type, |_, _| Ok::<(), Error>(()))
    }

    /// [`Ingest::commit`], with `also` done in the same transaction (a lease taken, say), so that
    /// no sweep can come between.
    pub fn commit_with<E: From<Error>>(
        mut self,
        media_type: &str,
        also: impl FnOnce(&Tx<'_>, &Descriptor) -> Result<(), E>,
    ) -> Result<Descriptor, E> {
        self.file
            .flush()
            .map_err(|source| Error::io(&self.path, source))?;
        let found = std::mem::take(&mut self.hasher).finish();
        if let Some(expected) = self.expected {
            if self.written < expected.size {
                return Err(Error::WrongSize {
                    digest: expected.digest,
                    expected: expected.size,
                    found: self.written,
                }
                .into());
            }
            if found != expected.digest {
                self.end = End::Remove;
                return Err(Error::Corrupt {
                    expected: expected.digest,
                    found,
                }
                .into());
            }
        }
        let blob = Descriptor::new(media_type, found, self.written);
        self.store.clone().publish(&self.path, &blob, also)?;
        self.end = End::Moved;
        Ok(blob)
    }

    /// Gives up and leaves nothing for a later try.
    pub fn abort(mut self) {
        self.end = End::Remove;
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(expected) = self.expected
            && self.written + bytes.len() as u64 > expected.size
        {
            self.end = End::Remove;
            return Err(io::Error::other(Error::WrongSize {
                digest: expected.digest,
                expected: expected.size,
                found: self.written + bytes.len() as u64,
            }));
        }
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        let empty = self.written == 0;
        if self.end == End::Remove || (self.end == End::Keep && empty) {
            // Still locked, so this is our own file. What cannot be removed is swept later.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens or makes the file at `path` with a lock on it; `None` when someone else has the lock.
pub(crate) fn open_alone(path: &Path) -> Result<Option<File>> {
    let error = |source| Error::io(path, source);
    loop {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path).map_err(error)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(error(source)),
        }
        // Between open and lock the writer before us may have moved it away.
        let here = file.metadata().map_err(error)?;
        match fs::symlink_metadata(path) {
            Ok(there) if there.ino() == here.ino() => return Ok(Some(file)),
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(error(source)),
            _ => {}
        }
    }
}

/// Hashes what an earlier try left; too much of it cannot be right and is dropped.
fn take_up(file: &mut File, path: &Path, expected: Expected) -> Result<(Hasher, u64)> {
    let error = |source| Error::io(path, source);
    let mut hasher = expected.digest.algorithm().hasher();
    let there = file.metadata().map_err(error)?.len();
    if there > expected.size {
        file.set_len(0).map_err(error)?;
        return Ok((hasher, 0));
    }
    let mut seen = 0;
    let mut buffer = vec![0; if there == 0 { 0 } else { BUFFER }];
    while seen < there {
        let count = file.read(&mut buffer).map_err(error)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        seen += count as u64;
    }
    Ok((hasher, seen))
}
