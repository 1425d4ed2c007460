//! A tar as Go's `archive/tar` writes it: ustar where it fits, else one PAX
//! header with its records sorted by key before the entry.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::block::{self, Block};
use super::{Entry, Kind, pax};
use crate::{Error, Result};

/// Writes entries and their contents.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    left: u64,
    pad: usize,
}

impl<W: Write> Writer<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Writer<W> {
        Writer {
            out,
            left: 0,
            pad: 0,
        }
    }

    /// Writes the headers of an entry. The contents of a file must follow in
    /// full before the next entry.
    pub fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.end_entry()?;
        self.out.write_all(&headers(entry)?).map_err(Error::Write)?;
        self.left = if entry.kind == Kind::File {
            entry.size
        } else {
            0
        };
        self.pad = padding(self.left);
        Ok(())
    }

    /// The headers of an entry alone, for those who send its contents themselves
    /// (they must fill the last block with zeros).
    pub fn headers(entry: &Entry) -> Result<Vec<u8>> {
        headers(entry)
    }

    /// Writes the mark at the end and gives the writer back.
    pub fn finish(mut self) -> Result<W> {
        self.end_entry()?;
        self.out
            .write_all(&[0; 2 * block::SIZE])
            .map_err(Error::Write)?;
        Ok(self.out)
    }

    fn end_entry(&mut self) -> Result<()> {
        debug_assert_eq!(self.left, 0, "the contents were written in full");
        self.out
            .write_all(&[0; block::SIZE][..self.pad])
            .map_err(Error::Write)?;
        self.pad = 0;
        Ok(())
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fits = bytes
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if fits == 0 && !bytes.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "more bytes than announced",
            ));
        }
        let written = self.out.write(&bytes[..fits])?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// How many bytes fill the last block of `length` bytes.
pub(crate) fn padding(length: u64) -> usize {
    (block::SIZE - (length % block::SIZE as u64) as usize) % block::SIZE
}

fn headers(entry: &Entry) -> Result<Vec<u8>> {
    let unwritable = |reason| Error::Unwritable {
        path: entry.display(),
        reason,
    };
    if entry.path.contains(&0) || entry.link.contains(&0) {
        return Err(unwritable("a name holds a NUL byte"));
    }
    let number = |value: u64| i64::try_from(value).map_err(|_| unwritable("a number is too large"));
    let (uid, gid, size) = (number(entry.uid)?, number(entry.gid)?, number(entry.size)?);
    let device = (number(entry.device.0)?, number(entry.device.1)?);
    if !block::fits_octal(device.0, 8) || !block::fits_octal(device.1, 8) {
        return Err(unwritable("a device number is too large"));
    }

    let mut records: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut ustar = true;
    let split = split_path(&entry.path);
    if !plain(&entry.path, block::NAME.len()) {
        ustar &= split.is_some();
        records.insert(pax::PATH.to_vec(), entry.path.clone());
    }
    if !plain(&entry.link, block::LINK.len()) {
        ustar = false;
        records.insert(pax::LINKPATH.to_vec(), entry.link.clone());
    }
    for (key, value, width) in [
        (pax::UID, uid, 8),
        (pax::GID, gid, 8),
        (pax::SIZE, size, 12),
    ] {
        if !block::fits_octal(value, width) {
            ustar = false;
            records.insert(key.to_vec(), value.to_string().into_bytes());
        }
    }
    if entry.mtime.nanos != 0 || !block::fits_octal(entry.mtime.seconds, 12) {
        ustar = false;
        records.insert(pax::MTIME.to_vec(), pax::put_time(entry.mtime));
    }
    for (name, value) in &entry.xattrs {
        if name.contains(&0) || name.contains(&b'=') {
            return Err(unwritable("the name of an extended attribute"));
        }
        ustar = false;
        records.insert([pax::XATTR, name].concat(), value.clone());
    }

    let mut out = Vec::with_capacity(block::SIZE);
    let mut block: Block = [0; block::SIZE];
    if ustar {
        let (prefix, name) = split.unwrap_or((b"", &entry.path));
        block::put_text(&mut block[block::NAME], name);
        block::put_text(&mut block[block::PREFIX], prefix);
        block::put_text(&mut block[block::LINK], &entry.link);
    } else {
        let mut data = Vec::new();
        for (key, value) in &records {
            pax::push(&mut data, key, value);
        }
        put_extended(&mut out, &entry.path, &data);
        block::put_text(&mut block[block::NAME], &ascii(&entry.path));
        block::put_text(&mut block[block::LINK], &ascii(&entry.link));
    }
    block::put_octal(&mut block[block::MODE], i64::from(entry.mode));
    block::put_octal(&mut block[block::UID], uid);
    block::put_octal(&mut block[block::GID], gid);
    block::put_octal(&mut block[block::LENGTH], size);
    block::put_octal(&mut block[block::MTIME], entry.mtime.seconds);
    block[block::TYPE] = flag(entry.kind);
    block[block::MAGIC].copy_from_slice(block::USTAR);
    block::put_octal(&mut block[block::MAJOR], device.0);
    block::put_octal(&mut block[block::MINOR], device.1);
    block::seal(&mut block);
    out.extend_from_slice(&block);
    Ok(out)
}

fn flag(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Dir => b'5',
        Kind::Fifo => b'6',
    }
}

/// The PAX header block and its data, named after the entry.
pub(crate) fn put_extended(out: &mut Vec<u8>, path: &[u8], data: &[u8]) {
    let cut = path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
    let (dir, file) = path.split_at(cut);
    let mut name = clean(dir);
    if !name.is_empty() && name != b"/" {
        name.push(b'/');
    }
    name.extend_from_slice(b"PaxHeaders.0");
    if !file.is_empty() {
        name.push(b'/');
        name.extend_from_slice(file);
    }
    let mut name = ascii(&name);
    name.truncate(block::NAME.len());
    while name.last() == Some(&b'/') {
        name.pop();
    }
    let mut block: Block = [0; block::SIZE];
    block::put_text(&mut block[block::NAME], &name);
    for field in [block::MODE, block::UID, block::GID, block::MTIME] {
        block::put_octal(&mut block[field], 0);
    }
    block::put_octal(&mut block[block::LENGTH], data.len() as i64);
    block[block::TYPE] = b'x';
    block[block::MAGIC].copy_from_slice(block::USTAR);
    block::seal(&mut block);
    out.extend_from_slice(&block);
    out.extend_from_slice(data);
    out.resize(out.len() + padding(data.len() as u64), 0);
}

/// `path` without empty, `.` and `..` steps, keeping a leading slash.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut steps: Vec<&[u8]> = Vec::new();
    for step in path.split(|b| *b == b'/') {
        match step {
            b"" | b"." => {}
            b".." if steps.last().is_some_and(|last| *last != b"..") => {
                steps.pop();
            }
            step => steps.push(step),
        }
    }
    let joined = steps.join(&b'/');
    if path.starts_with(b"/") {
        [b"/", &joined[..]].concat()
    } else {
        joined
    }
}

fn plain(text: &[u8], limit: usize) -> bool {
    text.len() <= limit && text.is_ascii()
}

fn ascii(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(u8::is_ascii).collect()
}

/// ustar's way to hold long names: up to 155 bytes of directories apart.
fn split_path(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= block::NAME.len() || !path.is_ascii() {
        return None;
    }
    let within = if path.len() > block::PREFIX.len() + 1 {
        block::PREFIX.len() + 1
    } else if path.ends_with(b"/") {
        path.len() - 1
    } else {
        path.len()
    };
    let cut = path[..within].iter().rposition(|b| *b == b'/')?;
    let name = &path[cut + 1..];
    let fits = cut > 0 && !name.is_empty() && name.len() <= block::NAME.len();
    (fits && cut <= block::PREFIX.len()).then_some((&path[..cut], name))
}
