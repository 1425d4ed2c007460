//! One process per state directory (row D21).

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::Error;

/// The file that is locked; BuildKit's name, so that the two never share a directory.
const NAME: &str = "buildkitd.lock";

/// What stands there for who ends as soon as it can.
const STOPPING: &str = "stopping";

/// How long one that ends may take: builds that are cancelled clean up.
const WAIT: Duration = Duration::from_secs(20);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The state directory is ours while this lives, and no longer: the kernel lets go
/// of it whatever way the process ends.
#[derive(Debug)]
pub struct StateLock {
    file: File,
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
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("opening", path.clone()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let mut lock = StateLock { file };
                lock.announce(None).map_err(failed("writing", path))?;
                Ok(Taken::Ours(lock))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                file.read_to_string(&mut text)
                    .map_err(failed("reading", path))?;
                let mut lines = text.lines();
                let pid = lines
                    .next()
                    .filter(|pid| !pid.is_empty())
                    .unwrap_or("?")
                    .to_owned();
                let says = lines.next();
                let address = says.filter(|says| *says != STOPPING);
                Ok(Taken::Theirs(Owner {
                    pid,
                    address: address.map(str::to_owned),
                    stopping: says == Some(STOPPING),
                }))
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

    /// The same, but one that is just ending is waited for: who stops a daemon and starts the
    /// next one need not care.
    pub async fn take_when_free(root: &Path) -> Result<StateLock, Error> {
        let deadline = tokio::time::Instant::now() + WAIT;
        loop {
            match StateLock::take(root)? {
                Taken::Theirs(owner)
                    if owner.stopping && tokio::time::Instant::now() < deadline =>
                {
                    tokio::time::sleep(LOOK).await;
                }
                Taken::Ours(lock) => return Ok(lock),
                Taken::Theirs(_) => return StateLock::take_or_fail(root),
            }
        }
    }

    /// Writes that we end as soon as we can.
    pub fn stopping(&mut self) -> std::io::Result<()> {
        self.announce(Some(STOPPING))
    }

    /// Writes who we are and where we can be reached, for those who find the lock taken.
    pub fn announce(&mut self, address: Option<&str>) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        writeln!(self.file, "{}", std::process::id())?;
        if let Some(address) = address {
            writeln!(self.file, "{address}")?;
        }
        Ok(())
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
        let Taken::Ours(mut lock) = StateLock::take(&root).unwrap() else {
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
        let mut lock = StateLock::take_or_fail(root).unwrap();
        let began = tokio::time::Instant::now();
        lock.announce(Some("unix:///run/kiln.sock")).unwrap();
        StateLock::take_when_free(root).await.unwrap_err();
        assert_eq!(began.elapsed(), Duration::ZERO);
        lock.stopping().unwrap();
        let (next, ()) = tokio::join!(StateLock::take_when_free(root), async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(lock);
        });
        let mut lock = next.unwrap();
        assert!(began.elapsed() >= Duration::from_secs(5));
        // But not for ever.
        lock.stopping().unwrap();
        let error = StateLock::take_when_free(root).await.unwrap_err();
        assert!(error.to_string().contains("is in use by"), "{error}");
    }
}
