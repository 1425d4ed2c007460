//! The line to the helper process: orders out, starts and ends back.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use crate::cgroup::Cgroups;
use crate::error::Error;
use crate::helper::HELPER_NAME;
use crate::spec::{Order, Reply, Request};
use crate::sys;

/// The program that becomes the helper.
#[derive(Clone, Debug, Default)]
pub enum HelperProgram {
    /// This program itself, which calls [`crate::helper_main`] first.
    #[default]
    ThisProgram,
    /// Another program that does.
    At(PathBuf),
}

/// A running helper.
pub(super) struct Link {
    socket: Arc<AsyncFd<OwnedFd>>,
    waiting: Waiting,
    /// Which of our cgroups the helper knows.
    kept: tokio::sync::Mutex<BTreeSet<u64>>,
    _reader: stdx::task::Task<()>,
}

type Waiting = Arc<Mutex<Option<HashMap<u64, Waiter>>>>;

struct Waiter {
    started: Option<oneshot::Sender<Result<OwnedFd, Error>>>,
    ended: oneshot::Sender<i32>,
}

/// A process the helper started.
pub(super) struct Started {
    pub(super) pidfd: OwnedFd,
    /// Its wait status; an error when the helper died first.
    pub(super) ended: oneshot::Receiver<i32>,
}

impl Link {
    /// Starts a helper.
    pub(super) async fn start(program: &HelperProgram, cgroups: &Cgroups) -> Result<Link, Error> {
        let failed = |step: &str, source: io::Error| Error::Setup {
            step: step.into(),
            source,
        };
        let (ours, theirs) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|error| failed("making the helper's socket", error.into()))?;
        rustix::io::ioctl_fionbio(&ours, true)
            .map_err(|error| failed("making the helper's socket", error.into()))?;
        let exe = guarded(program).map_err(|error| failed("opening the helper program", error))?;
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&exe));
        let child = tokio::process::Command::new(path)
            .arg0(HELPER_NAME)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|error| failed("starting the helper", error))?;
        // SAFETY: the descriptor is owned by the `AsyncFd` and stays open until it drops.
        let socket = unsafe { AsyncFd::register(ours) };
        let socket = socket.map_err(|error| failed("watching the helper", error.into()))?;
        let socket = Arc::new(socket);
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let reader = stdx::task::spawn(
            "container-ends",
            read(socket.clone(), waiting.clone(), child),
        );
        let link = Link {
            socket,
            waiting,
            kept: tokio::sync::Mutex::default(),
            _reader: reader,
        };
        link.keep(cgroups).await?;
        Ok(link)
    }

    /// Whether the helper is gone.
    pub(super) fn is_broken(&self) -> bool {
        self.waiting
            .lock()
            .expect("never panics while held")
            .is_none()
    }

    /// Tells the helper which cgroups to clean up after us, and which it need not any more, as far
    /// as it does not know.
    pub(super) async fn keep(&self, cgroups: &Cgroups) -> Result<(), Error> {
        let mut known = self.kept.lock().await;
        let all = cgroups.left();
        while let Some(&number) = known.iter().find(|number| !all.contains_key(number)) {
            let order = Order::Forget { number };
            self.send(&Request { id: 0, order }, &[]).await?;
            known.remove(&number);
        }
        for (&number, left) in &all {
            if known.contains(&number) {
                continue;
            }
            let kept = left.iter().map(|left| (left.name.clone(), left.if_empty));
            let order = Order::Keep {
                number,
                kept: kept.collect(),
            };
            let fds = left
                .iter()
                .flat_map(|left| [left.parent.as_fd(), left.dir.as_fd()]);
            let fds: Vec<_> = fds.collect();
            self.send(&Request { id: 0, order }, &fds).await?;
            known.insert(number);
        }
        Ok(())
    }

    /// Has a process started. The first handle is the spec itself; for an `Enter` the
    /// second is the container.
    pub(super) async fn order(
        &self,
        id: u64,
        order: Order,
        fds: &[OwnedFd],
    ) -> Result<Started, Error> {
        let (started_to, started) = oneshot::channel();
        let (ended_to, ended) = oneshot::channel();
        let waiter = Waiter {
            started: Some(started_to),
            ended: ended_to,
        };
        match self
            .waiting
            .lock()
            .expect("never panics while held")
            .as_mut()
        {
            Some(waiting) => waiting.insert(id, waiter),
            None => return Err(gone()),
        };
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        self.send(&Request { id, order }, &borrowed).await?;
        let pidfd = started.await.map_err(|_| gone())??;
        Ok(Started { pidfd, ended })
    }

    async fn send(
        &self,
        request: &Request,
        fds: &[std::os::fd::BorrowedFd<'_>],
    ) -> Result<(), Error> {
        if fds.len() > sys::MOST_FDS {
            let reason = format!(
                "{} handles are needed, {} is the most",
                fds.len(),
                sys::MOST_FDS
            );
            return Err(Error::Invalid {
                what: "number of mounts".to_string(),
                reason,
            });
        }
        let bytes = serde_json::to_vec(request).expect("plain data always serialises");
        loop {
            let mut ready = self.socket.writable().await.map_err(|_| gone())?;
            match ready.try_io(|socket| sys::send(socket.get_ref().as_fd(), &bytes, fds)) {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) => return Err(gone()),
                Err(_would_block) => {}
            }
        }
    }
}

fn gone() -> Error {
    Error::Helper {
        reason: "it no longer answers; the next run starts another".to_string(),
    }
}

/// Hands replies to whoever waits for them, until the helper ends.
async fn read(socket: Arc<AsyncFd<OwnedFd>>, waiting: Waiting, mut child: tokio::process::Child) {
    loop {
        let Ok(mut ready) = socket.readable().await else {
            break;
        };
        let message = match ready.try_io(|socket| sys::receive(socket.get_ref().as_fd())) {
            Ok(Ok(message)) => message,
            Ok(Err(_)) => break,
            Err(_would_block) => continue,
        };
        let Ok(reply) = serde_json::from_slice::<Reply>(&message.0) else {
            break;
        };
        dispatch(&waiting, reply, message.1.into_iter().next());
    }
    drop(waiting.lock().expect("never panics while held").take());
    let status = child.wait().await;
    tracing::debug!(?status, "the container helper ended");
}

fn dispatch(waiting: &Waiting, reply: Reply, handle: Option<OwnedFd>) {
    let mut waiting = waiting.lock().expect("never panics while held");
    let Some(waiting) = waiting.as_mut() else {
        return;
    };
    match reply {
        Reply::Started { id } => {
            let sender = waiting
                .get_mut(&id)
                .and_then(|waiter| waiter.started.take());
            if let (Some(sender), Some(handle)) = (sender, handle) {
                let _nobody_waits = sender.send(Ok(handle));
            }
        }
        Reply::Refused { id, step, errno } => {
            let source = io::Error::from_raw_os_error(errno);
            if let Some(sender) = waiting.remove(&id).and_then(|waiter| waiter.started) {
                let _nobody_waits = sender.send(Err(Error::Setup { step, source }));
            }
        }
        Reply::Ended { id, status } => {
            if let Some(waiter) = waiting.remove(&id) {
                let _nobody_waits = waiter.ended.send(status);
            }
        }
    }
}

/// Opens the program so that nobody can write to it through the helper: a container
/// that gets hold of `/proc/<helper>/exe` holds a file on a read-only mount, or a
/// sealed copy (CVE-2019-5736).
pub(crate) fn guarded(program: &HelperProgram) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let path = match program {
        HelperProgram::ThisProgram => "/proc/self/exe".into(),
        HelperProgram::At(path) => path.clone(),
    };
    let file = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let guard = || -> io::Result<OwnedFd> {
        let mount = sys::copy_mount(file.as_fd(), false)?;
        sys::set_attributes(mount.as_fd(), sys::RDONLY | sys::NOSUID | sys::NODEV, false)?;
        Ok(mount)
    };
    guard().or_else(|_| sealed_copy(file))
}

fn sealed_copy(file: OwnedFd) -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags};
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create("kiln", flags)?;
    let mut copy = std::fs::File::from(copy);
    io::copy(&mut std::fs::File::from(file), &mut copy)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy.into())
}
