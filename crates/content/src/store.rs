//! Blobs on disk by digest.
//!
//! ```text
//! blobs/sha256/<hex>   whole and right
//! ingest/<...>         being written, or left for a later try
//! ```
//!
//! A file under `blobs` *is* the blob; the tables only say more about it, so losing the database
//! loses no blob. Nothing is flushed to disk when a blob is committed, which makes thousands of
//! small ones cheap. Instead each row says in which life of the machine (boot id) the bytes were
//! written. In another life, or without a row, the first read hashes the file once, and a file
//! that a power cut has emptied is dropped and counts as never fetched.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use db::{Db, Tx};
use futures::{StreamExt, stream};
use oci::{Descriptor, Digest};
use stdx::task::blocking;
use tokio::sync::mpsc;

use crate::{ByteStream, Error, Ingest, Provider, Result, Sink, ingest, resuming};

const TABLES: &[&str] = &["
    CREATE TABLE content_blobs (
        digest TEXT PRIMARY KEY,
        media_type TEXT NOT NULL,
        size INTEGER NOT NULL,
        created INTEGER NOT NULL,
        trusted TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE content_labels (
        digest TEXT NOT NULL REFERENCES content_blobs (digest) ON DELETE CASCADE,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (digest, key)
    ) WITHOUT ROWID;
"];

/// Bytes were read back after the machine had restarted: they are on the disk for good.
const TRUSTED_FOR_GOOD: &str = "disk";

/// Bytes read from disk at once.
const PIECE: usize = 256 << 10;

/// Pieces between the network and the disk.
const PIECES_BETWEEN: usize = 8;

/// A folder of blobs. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    db: Arc<Db>,
    life: String,
    /// Blobs known to be right, so that a read asks no table.
    trusted: Mutex<HashSet<Digest>>,
}

/// What the store knows of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its name.
    pub digest: Digest,
    /// What whoever put it said it is.
    pub media_type: String,
    /// Its length in bytes.
    pub size: u64,
    /// When it came.
    pub created: SystemTime,
}

impl Store {
    /// Opens or makes the store in `dir`, with its tables in `db`.
    pub fn open(dir: impl AsRef<Path>, db: Arc<Db>) -> Result<Store> {
        let dir = dir.as_ref().to_path_buf();
        db.migrate("content", TABLES)?;
        for part in ["blobs/sha256", "blobs/sha512", "ingest"] {
            let part = dir.join(part);
            fs::create_dir_all(&part).map_err(|source| Error::io(&part, source))?;
        }
        let store = Store(Arc::new(Inner {
            dir,
            db,
            life: this_life(),
            trusted: Mutex::default(),
        }));
        store.sweep_ingests(|name| name.starts_with("new-"))?;
        Ok(store)
    }

    /// Begins to write a blob. When its digest is known beforehand, an earlier try is taken up:
    /// go on at [`Ingest::written`]. Blocks while it hashes what that try left.
    pub fn ingest(&self, expected: Option<&Descriptor>) -> Result<Ingest> {
        Ingest::begin(self, expected)
    }

    /// What is known of a blob; `None` when it is not here.
    pub fn info(&self, digest: &Digest) -> Result<Option<BlobInfo>> {
        let sql = "SELECT digest, media_type, size, created FROM content_blobs WHERE digest = ?1";
        let row = self
            .0
            .db
            .read(|tx| tx.row(sql, [digest.to_string()], read_info))?;
        let path = self.path(digest);
        match (row.flatten(), fs::metadata(&path)) {
            (Some(info), Ok(file)) if file.len() == info.size => Ok(Some(info)),
            (_, Ok(_)) => match self.open_file(digest) {
                Ok(_) => Ok(self
                    .0
                    .db
                    .read(|tx| tx.row(sql, [digest.to_string()], read_info))?
                    .flatten()),
                Err(Error::NotFound(_) | Error::Corrupt { .. }) => Ok(None),
                Err(error) => Err(error),
            },
            (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            (_, Err(source)) => Err(Error::io(path, source)),
        }
    }

    /// Whether the blob is here.
    pub fn contains(&self, digest: &Digest) -> Result<bool> {
        Ok(self.info(digest)?.is_some())
    }

    /// The blob's file, for reading. The bytes are verified: when they were written in another
    /// life of the machine or by hand, this hashes them once, and a false file is removed.
    pub fn open_file(&self, digest: &Digest) -> Result<File> {
        let path = self.path(digest);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotFound(*digest));
            }
            Err(source) => return Err(Error::io(path, source)),
        };
        if !self.is_trusted(digest, &file)? {
            self.verify(digest, &mut file, &path)?;
        }
        Ok(file)
    }

    /// A small document, whole. Refuses more than `limit` bytes.
    pub fn read_all(&self, digest: &Digest, limit: u64) -> Result<Bytes> {
        let mut file = self.open_file(digest)?;
        let io = |source| Error::io(self.path(digest), source);
        let size = file.metadata().map_err(io)?.len();
        if size > limit {
            return Err(Error::TooLarge {
                digest: *digest,
                size,
                limit,
            });
        }
        let mut bytes = Vec::with_capacity(size as usize);
        file.read_to_end(&mut bytes).map_err(io)?;
        Ok(bytes.into())
    }

    /// Puts a small document.
    pub fn write_all(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        self.write_all_with(media_type, bytes, |_, _| Ok::<(), Error>(()))
    }

    /// [`Store::write_all`], with `also` done in the same transaction.
    pub fn write_all_with<E: From<Error>>(
        &self,
        media_type: &str,
        bytes: &[u8],
        also: impl FnOnce(&Tx<'_>, &Descriptor) -> Result<(), E>,
    ) -> Result<Descriptor, E> {
        let mut ingest = self.ingest(None)?;
        io::Write::write_all(&mut ingest, bytes)
            .map_err(|source| Error::io(self.ingest_dir(), source))?;
        ingest.commit_with(media_type, also)
    }

    /// Every blob, by digest.
    pub fn list(&self) -> Result<Vec<BlobInfo>> {
        self.list_from(None, usize::MAX)
    }

    /// So many blobs by digest, those that come after one: a part of a list that may be long.
    pub fn list_from(&self, after: Option<&Digest>, count: usize) -> Result<Vec<BlobInfo>> {
        let sql = "SELECT digest, media_type, size, created FROM content_blobs \
                   WHERE digest > ?1 ORDER BY digest LIMIT ?2";
        let after = after.map_or_else(String::new, Digest::to_string);
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let rows = self
            .0
            .db
            .read(|tx| tx.rows(sql, db::params![after, count], read_info))?;
        Ok(rows.into_iter().flatten().collect())
    }

    /// Removes a blob; `false` when it was not here. Those who have it open may read on.
    pub fn remove(&self, digest: &Digest) -> Result<bool> {
        self.0.db.write(|tx| self.remove_in(tx, digest))
    }

    /// [`Store::remove`] inside the caller's transaction, which no ingest of the same blob can
    /// overlap.
    pub fn remove_in(&self, tx: &Tx<'_>, digest: &Digest) -> Result<bool> {
        let rows = tx.execute(
            "DELETE FROM content_blobs WHERE digest = ?1",
            [digest.to_string()],
        )?;
        self.trusted().remove(digest);
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(rows > 0),
            Err(source) => Err(Error::io(path, source)),
        }
    }

    /// Files under `blobs`, with or without a row, inside a transaction: what a sweep looks at.
    pub fn digests_on_disk(&self) -> Result<Vec<Digest>> {
        let mut digests = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            let dir = self.0.dir.join("blobs").join(algorithm);
            let entries = fs::read_dir(&dir).map_err(|source| Error::io(&dir, source))?;
            for entry in entries {
                let entry = entry.map_err(|source| Error::io(&dir, source))?;
                let name = entry.file_name();
                match format!("{algorithm}:{}", name.to_string_lossy()).parse() {
                    Ok(digest) => digests.push(digest),
                    Err(_) => tracing::warn!(path = %entry.path().display(), "not a blob"),
                }
            }
        }
        Ok(digests)
    }

    /// Removes what broken ingests left, also what could be taken up again; gives the bytes freed.
    pub fn sweep_all_ingests(&self) -> Result<u64> {
        self.sweep_ingests(|_| true)
    }

    /// Bytes of disk the blob's file takes.
    pub fn disk_usage(&self, digest: &Digest) -> u64 {
        fs::metadata(self.path(digest)).map_or(0, |file| file.blocks() * 512)
    }

    /// Fetches a blob, unless it is here: goes on where an earlier try broke off, and reads on
    /// after a broken stream.
    pub async fn fetch(&self, provider: &dyn Provider, blob: &Descriptor) -> Result<()> {
        if self.has(blob).await? {
            return Ok(());
        }
        let ingest = self.begin(blob).await?;
        let mut reading = resuming(provider, blob, ingest.written());
        let writer = Writer::start(ingest);
        while let Some(bytes) = reading.next().await? {
            if !writer.write(bytes).await {
                break;
            }
        }
        writer.finish(&blob.media_type).await
    }

    async fn begin(&self, blob: &Descriptor) -> Result<Ingest> {
        let (store, blob) = (self.clone(), blob.clone());
        blocking(move || store.ingest(Some(&blob))).await
    }

    pub(crate) fn db(&self) -> &Db {
        &self.0.db
    }

    pub(crate) fn ingest_dir(&self) -> PathBuf {
        self.0.dir.join("ingest")
    }

    /// Renames a finished file into its place, in the transaction that makes its row.
    pub(crate) fn publish<E: From<Error>>(
        &self,
        from: &Path,
        blob: &Descriptor,
        also: impl FnOnce(&Tx<'_>, &Descriptor) -> Result<(), E>,
    ) -> Result<(), E> {
        let written = self.0.db.write(|tx| {
            let to = self.path(&blob.digest);
            fs::rename(from, &to).map_err(|source| Refused::Here(Error::io(&to, source)))?;
            self.insert_row(tx, blob, &self.0.life)
                .map_err(Refused::Here)?;
            also(tx, blob).map_err(Refused::There)
        });
        match written {
            Ok(()) => {
                self.trusted().insert(blob.digest);
                Ok(())
            }
            Err(Refused::Here(error)) => Err(error.into()),
            Err(Refused::There(error)) => Err(error),
        }
    }

    fn insert_row(&self, tx: &Tx<'_>, blob: &Descriptor, trusted: &str) -> Result<()> {
        let sql = "INSERT INTO content_blobs VALUES (?1, ?2, ?3, ?4, ?5) \
                   ON CONFLICT (digest) DO UPDATE SET size = excluded.size, trusted = excluded.trusted";
        let created = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        tx.execute(
            sql,
            db::params![
                blob.digest.to_string(),
                blob.media_type,
                blob.size as i64,
                created.as_nanos() as i64,
                trusted
            ],
        )?;
        Ok(())
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.0
            .dir
            .join("blobs")
            .join(digest.algorithm().name())
            .join(digest.hex())
    }

    fn trusted(&self) -> std::sync::MutexGuard<'_, HashSet<Digest>> {
        self.0
            .trusted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn is_trusted(&self, digest: &Digest, file: &File) -> Result<bool> {
        if self.trusted().contains(digest) {
            return Ok(true);
        }
        let sql = "SELECT size, trusted FROM content_blobs WHERE digest = ?1";
        let row = self.0.db.read(|tx| {
            tx.row(sql, [digest.to_string()], |row| {
                Ok((row.get::<_, i64>(0)? as u64, row.get::<_, String>(1)?))
            })
        })?;
        let Some((size, trusted)) = row else {
            return Ok(false);
        };
        let found = file
            .metadata()
            .map_err(|source| Error::io(self.path(digest), source))?
            .len();
        let right = size == found && (trusted == self.0.life || trusted == TRUSTED_FOR_GOOD);
        if right {
            self.trusted().insert(*digest);
        }
        Ok(right)
    }

    /// Hashes a file that nobody vouches for, and removes it when it is false.
    fn verify(&self, digest: &Digest, file: &mut File, path: &Path) -> Result<()> {
        let io = |source| Error::io(path, source);
        let (mut hasher, mut size) = (digest.algorithm().hasher(), 0);
        let mut buffer = vec![0; PIECE];
        loop {
            match file.read(&mut buffer).map_err(io)? {
                0 => break,
                count => {
                    hasher.update(&buffer[..count]);
                    size += count as u64;
                }
            }
        }
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        let found = hasher.finish();
        if found != *digest {
            tracing::warn!(%digest, %found, "a blob on disk is not what its name says: removing it");
            self.remove(digest)?;
            return Err(Error::Corrupt {
                expected: *digest,
                found,
            });
        }
        let blob = Descriptor::new("application/octet-stream", *digest, size);
        self.0
            .db
            .write(|tx| self.insert_row(tx, &blob, TRUSTED_FOR_GOOD))?;
        self.trusted().insert(*digest);
        Ok(())
    }

    fn sweep_ingests(&self, which: impl Fn(&str) -> bool) -> Result<u64> {
        let dir = self.ingest_dir();
        let mut freed = 0;
        for entry in fs::read_dir(&dir).map_err(|source| Error::io(&dir, source))? {
            let entry = entry.map_err(|source| Error::io(&dir, source))?;
            if !which(&entry.file_name().to_string_lossy()) {
                continue;
            }
            let path = entry.path();
            if let Some(file) = ingest::open_alone(&path)? {
                freed += file.metadata().map_or(0, |file| file.blocks() * 512);
                fs::remove_file(&path).map_err(|source| Error::io(&path, source))?;
            }
        }
        Ok(freed)
    }
}

#[async_trait]
impl Provider for Store {
    async fn size(&self, blob: &Descriptor) -> Result<u64> {
        let (store, digest) = (self.clone(), blob.digest);
        let info = blocking(move || store.info(&digest)).await?;
        Ok(info.ok_or(Error::NotFound(blob.digest))?.size)
    }

    async fn read(&self, blob: &Descriptor, offset: u64) -> Result<ByteStream> {
        let (store, digest) = (self.clone(), blob.digest);
        let path = self.path(&digest);
        let file = blocking(move || {
            let mut file = store.open_file(&digest)?;
            file.seek(SeekFrom::Start(offset))
                .map_err(|source| Error::io(store.path(&digest), source))?;
            Ok::<_, Error>(file)
        })
        .await?;
        Ok(stream::unfold(Some((file, path)), |state| async {
            let (mut file, path) = state?;
            blocking(move || {
                let mut buffer = BytesMut::zeroed(PIECE);
                match file.read(&mut buffer) {
                    Ok(0) => None,
                    Ok(count) => {
                        buffer.truncate(count);
                        Some((Ok(buffer.freeze()), Some((file, path))))
                    }
                    Err(source) => Some((Err(Error::io(path, source)), None)),
                }
            })
            .await
        })
        .boxed())
    }
}

#[async_trait]
impl Sink for Store {
    async fn has(&self, blob: &Descriptor) -> Result<bool> {
        let (store, digest) = (self.clone(), blob.digest);
        blocking(move || store.contains(&digest)).await
    }

    async fn put(&self, blob: &Descriptor, mut bytes: ByteStream) -> Result<()> {
        if self.has(blob).await? {
            return Ok(());
        }
        let mut ingest = self.begin(blob).await?;
        if ingest.written() > 0 {
            // The stream begins at the first byte, so an earlier try is of no use here.
            ingest.abort();
            ingest = self.begin(blob).await?;
        }
        let writer = Writer::start(ingest);
        while let Some(bytes) = bytes.next().await {
            if !writer.write(bytes?).await {
                break;
            }
        }
        writer.finish(&blob.media_type).await
    }
}

/// Who refused a transaction: this store, or what was to be done beside it.
enum Refused<E> {
    Here(Error),
    There(E),
}

impl<E> From<db::Error> for Refused<E> {
    fn from(error: db::Error) -> Refused<E> {
        Refused::Here(error.into())
    }
}

/// An ingest fed from async code: one blocking thread writes what comes through a channel.
struct Writer {
    pieces: mpsc::Sender<Piece>,
    done: stdx::task::Task<Result<()>>,
}

enum Piece {
    Bytes(Bytes),
    /// Only this commits. When the sender just goes away, the ingest is dropped as it is.
    End {
        media_type: String,
    },
}

impl Writer {
    fn start(ingest: Ingest) -> Writer {
        let (pieces, from) = mpsc::channel(PIECES_BETWEEN);
        let work = blocking(move || write_pieces(ingest, from));
        Writer {
            pieces,
            done: stdx::task::spawn("write blob", work),
        }
    }

    /// `false` when the writer has failed; `finish` tells why.
    async fn write(&self, bytes: Bytes) -> bool {
        self.pieces.send(Piece::Bytes(bytes)).await.is_ok()
    }

    async fn finish(self, media_type: &str) -> Result<()> {
        let _ = self
            .pieces
            .send(Piece::End {
                media_type: media_type.to_owned(),
            })
            .await;
        self.done.await
    }
}

fn write_pieces(mut ingest: Ingest, mut from: mpsc::Receiver<Piece>) -> Result<()> {
    while let Some(piece) = from.blocking_recv() {
        match piece {
            Piece::Bytes(bytes) => {
                if let Err(error) = io::Write::write_all(&mut ingest, &bytes) {
                    return Err(match error.downcast::<Error>() {
                        Ok(ours) => ours,
                        Err(source) => Error::io("ingest", source),
                    });
                }
            }
            Piece::End { media_type } => {
                ingest.commit(&media_type)?;
                return Ok(());
            }
        }
    }
    Ok(())
}

fn read_info(row: &db::Row<'_>) -> Result<Option<BlobInfo>, db::SqlError> {
    let digest: String = row.get(0)?;
    let Ok(digest) = digest.parse() else {
        return Ok(None);
    };
    Ok(Some(BlobInfo {
        digest,
        media_type: row.get(1)?,
        size: row.get::<_, i64>(2)? as u64,
        created: UNIX_EPOCH + Duration::from_nanos(row.get::<_, i64>(3)? as u64),
    }))
}

/// The name of this life of the machine; without one (no /proc) each process is its own.
fn this_life() -> String {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    boot_id.map_or_else(
        |_| format!("pid {}", std::process::id()),
        |id| id.trim().to_owned(),
    )
}
