//! File contents from one open file to another, the cheapest way the kernel has.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use rustix::fs::SeekFrom as Seeking;
use rustix::io::Errno;

/// Copies all of `from` into the empty file `to`: shared blocks where the file
/// system can, otherwise data ranges inside the kernel, otherwise read and
/// write. Holes stay holes. Returns the length.
pub fn copy_data(from: &File, to: &File) -> io::Result<u64> {
    let length = from.metadata()?.len();
    if length == 0 || rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(length);
    }
    let mut at = 0;
    while at < length {
        let Some((start, end)) = next_data(from, at, length)? else {
            break;
        };
        copy_range(from, to, start, end)?;
        at = end;
    }
    to.set_len(length)?;
    Ok(length)
}

/// The next stretch of data at or after `at`; `None` when only a hole is left.
fn next_data(from: &File, at: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    let start = match rustix::fs::seek(from, Seeking::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // A file system without holes has only data.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((at, length))),
        Err(error) => return Err(error.into()),
    };
    let end = rustix::fs::seek(from, Seeking::Hole(start)).unwrap_or(length);
    Ok(Some((start, end.min(length))))
}

fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        let want = usize::try_from((end - read_at).min(1 << 30)).expect("at most 1 GiB");
        match rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), want) {
            // Shorter than when we measured it: nothing more to copy.
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                return copy_by_hand(from, to, read_at, end);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(mut from: &File, mut to: &File, start: u64, end: u64) -> io::Result<()> {
    from.seek(SeekFrom::Start(start))?;
    to.seek(SeekFrom::Start(start))?;
    let mut buffer = vec![0; 128 << 10];
    let mut left = end - start;
    while left > 0 {
        let want = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let got = from.read(&mut buffer[..want])?;
        if got == 0 {
            break;
        }
        to.write_all(&buffer[..got])?;
        left -= got as u64;
    }
    Ok(())
}
