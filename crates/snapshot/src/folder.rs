//! The folder on disk that both kinds share.
//!
//! ```text
//! layers/<id>/fs        committed layers, never written again
//! active/<owner>/<n>/   being written; gone when its owner is
//! kept/<id>/fs          kept and writable; `lock` says that it is in use
//! owners/<owner>        locked by the process that owns
//! trash/                on its way out
//! empty/                an empty directory
//! synced                until when layers survive a crash of the machine, and which life it is
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use stdx::owner::{self, Owner};
use stdx::sys::Root;

use crate::active::fs_of;
use crate::layer_id::now;
use crate::{Error, KeptId, LayerId, Result, Usage, disk_usage};

/// The folder of one snapshotter.
pub(crate) struct Folder {
    dir: PathBuf,
    owner: Owner,
    next: AtomicU64,
    trash: Arc<Trash>,
}

impl Folder {
    /// Opens or makes the folder, and clears up after processes and lives of the machine that
    /// are gone.
    pub(crate) fn open(dir: &Path) -> Result<Arc<Folder>> {
        fs::create_dir_all(dir).map_err(Error::io("making", dir))?;
        let dir = fs::canonicalize(dir).map_err(Error::io("finding", dir))?;
        for part in ["layers", "active", "kept", "trash", "empty"] {
            let part = dir.join(part);
            fs::create_dir_all(&part).map_err(Error::io("making", &part))?;
        }
        let owners = dir.join("owners");
        let owner =
            Owner::announce(&owners).map_err(Error::io("announcing ourselves in", &owners))?;
        let own = dir.join("active").join(owner.name());
        fs::create_dir(&own).map_err(Error::io("making", &own))?;
        let folder = Folder {
            dir,
            owner,
            next: AtomicU64::new(0),
            trash: Arc::new(Trash::default()),
        };
        // One at a time, or the second to open would drop what the first already made anew.
        let door = folder.dir.join("door");
        let door = fs::File::create(&door).and_then(|file| file.lock().map(|()| file));
        let _door = door.map_err(Error::io("locking", &folder.dir))?;
        folder.drop_what_a_crash_may_have_torn()?;
        folder.sweep_departed()?;
        Ok(Arc::new(folder))
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn empty(&self) -> PathBuf {
        self.dir.join("empty")
    }

    /// A new directory for an active, with an empty `fs` in it.
    pub(crate) fn new_active(&self) -> Result<PathBuf> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let dir = self
            .dir
            .join("active")
            .join(self.owner.name())
            .join(number.to_string());
        make_with_fs(&dir)?;
        Ok(dir)
    }

    pub(crate) fn layer_dir(&self, layer: &LayerId) -> PathBuf {
        self.dir.join("layers").join(layer.as_str())
    }

    pub(crate) fn layer_fs(&self, layer: &LayerId) -> Result<PathBuf> {
        let fs = fs_of(&self.layer_dir(layer));
        if fs.exists() {
            Ok(fs)
        } else {
            Err(Error::NoLayer(layer.clone()))
        }
    }

    pub(crate) fn contains(&self, layer: &LayerId) -> bool {
        fs_of(&self.layer_dir(layer)).exists()
    }

    /// Makes a directory that holds a finished `fs` a layer. One rename: whole or not at all.
    pub(crate) fn publish(&self, dir: &Path) -> Result<LayerId> {
        let id = LayerId::new();
        let to = self.layer_dir(&id);
        fs::rename(dir, &to).map_err(Error::io("committing", dir))?;
        Ok(id)
    }

    pub(crate) fn remove(&self, layer: &LayerId) -> Result<()> {
        self.throw_away(&self.layer_dir(layer))
    }

    pub(crate) fn kept_dir(&self, id: &KeptId) -> PathBuf {
        self.dir.join("kept").join(id.as_str())
    }

    pub(crate) fn new_kept(&self) -> Result<(KeptId, PathBuf)> {
        let id = KeptId::new();
        let dir = self.kept_dir(&id);
        make_with_fs(&dir)?;
        Ok((id, dir))
    }

    pub(crate) fn thaw(&self, layer: &LayerId) -> Result<KeptId> {
        self.layer_fs(layer)?;
        let id = KeptId::new();
        let from = self.layer_dir(layer);
        fs::rename(&from, self.kept_dir(&id)).map_err(Error::io("thawing", &from))?;
        Ok(id)
    }

    /// Removes a kept directory unless someone has it open.
    pub(crate) fn remove_kept(&self, id: &KeptId) -> Result<()> {
        let dir = self.kept_dir(id);
        if !dir.exists() {
            return Ok(());
        }
        let _lock = KeptLock::take(&dir, id, true)?;
        self.throw_away(&dir)
    }

    pub(crate) fn usage(&self, layer: &LayerId) -> Result<Usage> {
        let fs = self.layer_dir(layer);
        let root = Root::open(&fs).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NoLayer(layer.clone()),
            _ => Error::io("opening", &fs)(error),
        })?;
        disk_usage(&root).map_err(Error::io("counting", &fs))
    }

    pub(crate) fn usage_of_kept(&self, id: &KeptId) -> Result<Usage> {
        let dir = self.kept_dir(id);
        let root = Root::open(&dir).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NoKept(id.clone()),
            _ => Error::io("opening", &dir)(error),
        })?;
        disk_usage(&root).map_err(Error::io("counting", &dir))
    }

    pub(crate) fn layers(&self) -> Result<Vec<LayerId>> {
        self.names("layers")
    }

    pub(crate) fn kept(&self) -> Result<Vec<KeptId>> {
        self.names("kept")
    }

    /// Gets a directory out of the way at once and off the disk soon after.
    pub(crate) fn throw_away(&self, dir: &Path) -> Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", self.owner.name());
        let to = self.dir.join("trash").join(name);
        match fs::rename(dir, &to) {
            Ok(()) => {
                self.trash.add(to);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("removing", dir)(error)),
        }
    }

    /// [`Folder::throw_away`] where nobody can be told of an error: the next open sweeps it.
    pub(crate) fn discard(&self, dir: &Path) {
        if let Err(error) = self.throw_away(dir) {
            tracing::warn!(dir = %dir.display(), %error, "left for the next start to remove");
        }
    }

    pub(crate) fn settle(&self) {
        self.trash.settle();
    }

    /// Flushes the file system and remembers until when layers are safe.
    pub(crate) fn sync(&self) -> Result<()> {
        let now = now();
        let root = Root::open(&self.dir).map_err(Error::io("opening", &self.dir))?;
        rustix::fs::syncfs(&root).map_err(|e| Error::io("flushing", &self.dir)(e.into()))?;
        self.write_synced(now)
    }

    fn write_synced(&self, until: u64) -> Result<()> {
        let path = self.dir.join("synced");
        let aside = self.dir.join(format!("synced.{}", self.owner.name()));
        fs::write(&aside, format!("{until:x} {}", this_life()))
            .map_err(Error::io("writing", &aside))?;
        fs::rename(&aside, &path).map_err(Error::io("writing", &path))
    }

    /// After a crash of the machine, layers made since the last flush may have files without
    /// their bytes. They go: a layer is a cache and can be made again.
    fn drop_what_a_crash_may_have_torn(&self) -> Result<()> {
        let path = self.dir.join("synced");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Error::io("reading", &path)(error)),
        };
        let (until, life) = text.split_once(' ').unwrap_or(("0", ""));
        if life == this_life() {
            return Ok(());
        }
        let until = u64::from_str_radix(until, 16).unwrap_or(0);
        for layer in self.layers()? {
            if layer.made() > until {
                tracing::warn!(%layer, "dropping a layer that was not yet flushed when the machine stopped");
                self.remove(&layer)?;
            }
        }
        self.write_synced(until.max(now()))
    }

    fn sweep_departed(&self) -> Result<()> {
        let owners = self.dir.join("owners");
        for gone in owner::departed(&owners).map_err(Error::io("reading", &owners))? {
            self.throw_away(&self.dir.join("active").join(gone.name()))?;
            let _ = fs::remove_file(self.dir.join(format!("synced.{}", gone.name())));
            gone.forget().map_err(Error::io("clearing up", &owners))?;
        }
        // Also of those who ended well, but before all they threw away was off the disk.
        let trash = self.dir.join("trash");
        for entry in fs::read_dir(&trash)
            .map_err(Error::io("reading", &trash))?
            .flatten()
        {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let alive = name
                .rsplit_once('-')
                .is_some_and(|(owner, _)| owners.join(owner).exists());
            if !alive {
                self.trash.add(entry.path());
            }
        }
        Ok(())
    }

    fn names<T: std::str::FromStr>(&self, part: &str) -> Result<Vec<T>> {
        let dir = self.dir.join(part);
        let entries = fs::read_dir(&dir).map_err(Error::io("reading", &dir))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("reading", &dir))?;
            match entry.file_name().to_string_lossy().parse() {
                Ok(name) => names.push(name),
                Err(_) => tracing::warn!(path = %entry.path().display(), "not ours"),
            }
        }
        Ok(names)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.trash.close();
        // Empty unless someone let an active outlive its snapshotter, which cannot be: it holds us.
        let _ = fs::remove_dir(self.dir.join("active").join(self.owner.name()));
    }
}

/// Says that a kept directory is in use, here or in another process.
pub(crate) struct KeptLock(#[expect(dead_code, reason = "held for its lock")] fs::File);

impl KeptLock {
    pub(crate) fn take(dir: &Path, id: &KeptId, alone: bool) -> Result<KeptLock> {
        let path = dir.join("lock");
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NoKept(id.clone()),
            _ => Error::io("locking", &path)(error),
        })?;
        match if alone {
            file.try_lock()
        } else {
            file.try_lock_shared()
        } {
            Ok(()) => Ok(KeptLock(file)),
            Err(fs::TryLockError::WouldBlock) => Err(Error::KeptInUse(id.clone())),
            Err(fs::TryLockError::Error(error)) => Err(Error::io("locking", &path)(error)),
        }
    }
}

fn make_with_fs(dir: &Path) -> Result<()> {
    fs::create_dir(dir).map_err(Error::io("making", dir))?;
    let fs = fs_of(dir);
    fs::create_dir(&fs).map_err(Error::io("making", &fs))?;
    // What the process's umask may have taken away.
    rustix::fs::chmod(&fs, rustix::fs::Mode::from_raw_mode(0o755))
        .map_err(|error| Error::io("making", &fs)(error.into()))
}

/// The name of this life of the machine.
fn this_life() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// A thread that removes directories, so that nobody who drops one waits for it. It ends when
/// there is nothing to do.
#[derive(Default)]
struct Trash {
    state: Mutex<TrashState>,
    changed: Condvar,
}

#[derive(Default)]
struct TrashState {
    waiting: Vec<PathBuf>,
    working: bool,
}

impl Trash {
    fn add(self: &Arc<Trash>, dir: PathBuf) {
        let mut state = self.lock();
        state.waiting.push(dir);
        if !state.working {
            state.working = true;
            let trash = Arc::clone(self);
            let thread = std::thread::Builder::new().name("remove trees".to_owned());
            if thread.spawn(move || trash.work()).is_err() {
                state.working = false; // the next start sweeps it
            }
        }
    }

    fn work(&self) {
        loop {
            let dir = {
                let mut state = self.lock();
                match state.waiting.pop() {
                    Some(dir) => dir,
                    None => {
                        state.working = false;
                        self.changed.notify_all();
                        return;
                    }
                }
            };
            let (parent, name) = (dir.parent().expect("trash is in a folder"), dir.file_name());
            let removed = Root::open(parent)
                .and_then(|root| root.remove_tree(name.expect("a name in the trash folder")));
            if let Err(error) = removed
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(dir = %dir.display(), %error, "left for the next start to remove");
            }
        }
    }

    fn settle(&self) {
        let mut state = self.lock();
        while state.working {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for the work, so that nothing runs on after the folder is closed.
    fn close(&self) {
        self.settle();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, TrashState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
