//! Descriptors that whoever started this process handed over by number.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// Takes the descriptor `number`, which the starter's protocol gives to this process (as
/// systemd's `LISTEN_FDS` does), and keeps it from programs we start. Each can be taken once.
pub fn inherited(number: i32) -> io::Result<OwnedFd> {
    static TAKEN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());
    let twice = || io::Error::new(io::ErrorKind::AlreadyExists, "it was taken already");
    if number <= 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if !TAKEN
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(number)
    {
        return Err(twice());
    }
    // SAFETY: the starter opened it for us before this process began, so nothing in here
    // owns it, and it is taken once. A number that is not open fails in the next call.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    match rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC) {
        Ok(()) => Ok(fd),
        Err(error) => {
            // Not open: there is nothing to close.
            std::mem::forget(fd);
            Err(error.into())
        }
    }
}
