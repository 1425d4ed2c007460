//! One process per state directory (row D21).

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::Error;

/// The file that is locked; BuildKit's name, so that the two never share a directory.
const NAME: &str = "buildkitd.lock";

/// What stands there for who ends as soon as it can.
const STOPPING: &str = "stopping";

/// More than is ever written there.
const MAX_TEXT: usize = 4 << 10;

/// How long one that ends may take: builds that are cancelled clean up.
const WAIT: Duration = Duration::from_secs(20);
/// How long one that is just beginning may take to say what it is.
const GRACE: Duration = Duration::from_secs(1);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The state directory is ours while this lives, and no longer: the kernel lets go
/// of it whatever way the process ends.
#[derive(Debug)]
pub struct StateLock {
    file: File,
    says: Mutex<Says>,
}

/// What stands in the file.
#[derive(Debug)]
struct Says {
    /// Bytes of it, older ones included.
    length: usize,
    /// That we end. Nothing else is said any more.
    stopping: bool,
}

/// What the holder of a lock wrote about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Its process id, `?` if it did not say.
    pub pid: String,
    /// Where it can be reached, if it serves.
    pub address: Option<String>,
    /// It was asked to stop.
    pub stopping: bool,
}

/// The outcome of trying to take a state directory.
#[derive(Debug)]
pub enum Taken {
    /// It is ours.
    Ours(StateLock),
    /// Someone else has it.
    Theirs(Owner),
}

impl StateLock {
    /// Takes `root` if nobody has it, making the directory if it is not there.
    pub fn take(root: &Path) -> Result<Taken, Error> {
        let failed = |doing, path: PathBuf| {
            move |source| Error::File {
                doing,
                path,
                source,
            }
        };
        std::fs::create_dir_all(root).map_err(failed("creating", root.to_owned()))?;
        let path = root.join(NAME);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("opening", path.clone()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let before = file.metadata().map_err(failed("reading", path.clone()))?;
                let says = Says {
                    length: usize::try_from(before.len()).map_or(MAX_TEXT, |it| it.min(MAX_TEXT)),
                    stopping: false,
                };
                let lock = StateLock {
                    file,
                    says: Mutex::new(says),
                };
                lock.announce(None).map_err(failed("writing", path))?;
                Ok(Taken::Ours(lock))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = [0; MAX_TEXT];
                // In one piece, as it is written.
                let length = file
                    .read_at(&mut text, 0)
                    .map_err(failed("reading", path))?;
                Ok(Taken::Theirs(Owner::read(&text[..length])))
            }
            Err(error) => Err(failed("locking", path)(error.into())),
        }
    }

    /// As [`StateLock::take`], where nothing but having it will do.
    pub fn take_or_fail(root: &Path) -> Result<StateLock, Error> {
        match StateLock::take(root)? {
            Taken::Ours(lock) => Ok(lock),
            Taken::Theirs(owner) => Err(Error::Locked {
                root: root.to_owned(),
                owner: owner.pid,
            }),
        }
    }

    /// The same, but one that is just ending is waited for, and for a moment one that is just
    /// beginning, as it may have been asked to stop: who stops a daemon and starts the next one
    /// need not care.
    pub async fn take_when_free(root: &Path) -> Result<StateLock, Error> {
        let began = tokio::time::Instant::now();
        loop {
            let owner = match StateLock::take(root)? {
                Taken::Ours(lock) => return Ok(lock),
                Taken::Theirs(owner) => owner,
            };
            let patience = match (owner.stopping, &owner.address) {
                (true, _) => WAIT,
                (false, None) => GRACE,
                (false, Some(_)) => Duration::ZERO,
            };
            if began.elapsed() >= patience {
                return Err(Error::Locked {
                    root: root.to_owned(),
                    owner: owner.pid,
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Writes that we end as soon as we can.
    pub fn stopping(&self) -> std::io::Result<()> {
        let mut says = self.says.lock().unwrap_or_else(PoisonError::into_inner);
        says.stopping = true;
        self.write(&mut says, Some(STOPPING))
    }

    /// Writes who we are and where we can be reached, for those who find the lock taken.
    pub fn announce(&self, address: Option<&str>) -> std::io::Result<()> {
        let mut says = self.says.lock().unwrap_or_else(PoisonError::into_inner);
        match says.stopping {
            true => Ok(()),
            false => self.write(&mut says, address),
        }
    }

    /// In one piece, over all that stood there: whoever reads meanwhile reads the one or the other.
    fn write(&self, says: &mut Says, second: Option<&str>) -> std::io::Result<()> {
        let mut text = format!("{}\n", std::process::id());
        if let Some(second) = second {
            text.push_str(second);
            text.push('\n');
        }
        let length = text.len();
        while text.len() < says.length {
            text.push('\n');
        }
        self.file.write_all_at(text.as_bytes(), 0)?;
        says.length = length;
        self.file.set_len(length as u64)
    }
}

impl Owner {
    fn read(text: &[u8]) -> Owner {
        // It may just be getting shorter.
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = String::from_utf8_lossy(text);
        let mut lines = text
            .lines()
            .map(|line| Some(line).filter(|line| !line.is_empty()));
        let pid = lines.next().flatten().unwrap_or("?").to_owned();
        let says = lines.next().flatten();
        let address = says.filter(|says| *says != STOPPING);
        Owner {
            pid,
            address: address.map(str::to_owned),
            stopping: says == Some(STOPPING),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: D21
    #[test]
    fn the_second_one_learns_who_has_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("state");
        let Taken::Ours(lock) = StateLock::take(&root).unwrap() else {
            panic!("nobody had it")
        };
        lock.announce(Some("unix:///run/kiln.sock")).unwrap();
        let Taken::Theirs(owner) = StateLock::take(&root).unwrap() else {
            panic!("it was taken")
        };
        assert_eq!(owner.pid, std::process::id().to_string());
        assert_eq!(owner.address.as_deref(), Some("unix:///run/kiln.sock"));
        let error = StateLock::take_or_fail(&root).unwrap_err();
        assert!(
            error.to_string().contains("is in use by process"),
            "{error}"
        );
        drop(lock);
        StateLock::take_or_fail(&root).unwrap();
    }

    /// Rows: B04, D21
    #[tokio::test(start_paused = true)]
    async fn one_that_is_ending_is_waited_for_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let lock = StateLock::take_or_fail(root).unwrap();
        let began = tokio::time::Instant::now();
        lock.announce(Some("unix:///run/kiln.sock")).unwrap();
        StateLock::take_when_free(root).await.unwrap_err();
        assert_eq!(began.elapsed(), Duration::ZERO);
        lock.stopping().unwrap();
        let (next, ()) = tokio::join!(StateLock::take_when_free(root), async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(lock);
        });
        let lock = next.unwrap();
        assert!(began.elapsed() >= Duration::from_secs(5));
        // But not for ever.
        lock.stopping().unwrap();
        let error = StateLock::take_when_free(root).await.unwrap_err();
        assert!(error.to_string().contains("is in use by"), "{error}");
        // What it becomes while it ends is of no interest.
        lock.announce(Some("unix:///run/kiln.sock")).unwrap();
        let Taken::Theirs(owner) = StateLock::take(root).unwrap() else {
            panic!("it was taken")
        };
        assert!(owner.stopping, "{owner:?}");
    }

    /// One that has only just taken the directory may have been asked to stop before it could say
    /// so.
    ///
    /// Rows: B04, D21
    #[tokio::test(start_paused = true)]
    async fn one_that_is_beginning_has_a_moment() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let lock = StateLock::take_or_fail(root).unwrap();
        let began = tokio::time::Instant::now();
        let (next, ()) = tokio::join!(StateLock::take_when_free(root), async {
            tokio::time::sleep(GRACE / 2).await;
            lock.stopping().unwrap();
            tokio::time::sleep(GRACE * 2).await;
            drop(lock);
        });
        let lock = next.unwrap();
        assert!(began.elapsed() >= GRACE * 2);
        // One that works without serving anybody never says more.
        let began = tokio::time::Instant::now();
        StateLock::take_when_free(root).await.unwrap_err();
        assert!(began.elapsed() >= GRACE && began.elapsed() < GRACE * 2);
        drop(lock);
    }

    /// Rows: D21
    #[test]
    fn who_looks_while_it_is_written_sees_the_one_or_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let lock = StateLock::take_or_fail(root).unwrap();
        let addresses = [None, Some("unix:///run/kiln.sock"), Some("tcp://h:1")];
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for turn in 0..3000 {
                    lock.announce(addresses[turn % addresses.len()]).unwrap();
                }
                done.store(true, std::sync::atomic::Ordering::Release);
            });
            while !done.load(std::sync::atomic::Ordering::Acquire) {
                let Taken::Theirs(owner) = StateLock::take(root).unwrap() else {
                    panic!("it was taken")
                };
                assert_eq!(owner.pid, std::process::id().to_string());
                assert!(addresses.contains(&owner.address.as_deref()), "{owner:?}");
            }
        });
    }
}
