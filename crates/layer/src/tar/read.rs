//! Reading a tar entry by entry. Nothing here touches a file system; memory is
//! bounded by [`MAX_EXTENSION`] whatever the headers claim.

use std::collections::BTreeMap;
use std::io::{self, Read};

use stdx::sys::Time;

use super::block::{self, Block, Dialect};
use super::{Entry, Extent, Kind, padding, pax};
use crate::{Error, Result};

/// The most bytes the headers before one entry may take together.
const MAX_EXTENSION: usize = 2 << 20;

/// Reads entries and, through [`Read`], the stored bytes of the current one.
/// For a sparse file these are its extents one after the other.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    offset: u64,
    left: u64,
    pad: usize,
    raw: Vec<u8>,
    ended: bool,
}

/// What came before the header of an entry.
#[derive(Default)]
struct Extensions {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The old PAX way to tell of holes: offset and length in turn.
    sparse: Vec<u64>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: Read> Reader<R> {
    /// Reads from `input`, which should be buffered.
    pub fn new(input: R) -> Reader<R> {
        Reader {
            input,
            offset: 0,
            left: 0,
            pad: 0,
            raw: Vec::new(),
            ended: false,
        }
    }

    /// The next entry; what is left of the current one is skipped.
    pub fn entry(&mut self) -> Result<Option<Entry>> {
        self.skip()?;
        self.raw.clear();
        let mut extensions = Extensions::default();
        loop {
            let Some(block) = self.header()? else {
                return Ok(None);
            };
            let length = self.number(&block, block::LENGTH, "a length")?;
            match block[block::TYPE] {
                b'x' | b'L' | b'K' => self.extension(&block, length, &mut extensions)?,
                // Global records carry comments (git's commit id); nothing in them is for us.
                b'g' => {
                    self.extension_data(length)?;
                }
                _ => return self.finish(&block, extensions).map(Some),
            }
        }
    }

    /// The header blocks of the current entry with all extensions, as read.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// How many stored bytes of the current entry are still to be read.
    pub fn stored(&self) -> u64 {
        self.left
    }

    /// Where in the stream we are.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Gives back the input, right behind what was read.
    pub fn into_inner(self) -> R {
        self.input
    }

    fn bad<T>(&self, reason: &'static str) -> Result<T> {
        Err(Error::Tar {
            offset: self.offset,
            reason,
        })
    }

    fn skip(&mut self) -> Result<()> {
        let mut scratch = [0; 16 << 10];
        let mut left = self.left + self.pad as u64;
        while left > 0 {
            let want = scratch
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            self.fill(&mut scratch[..want])?;
            left -= want as u64;
        }
        (self.left, self.pad) = (0, 0);
        Ok(())
    }

    fn fill(&mut self, into: &mut [u8]) -> Result<()> {
        self.input
            .read_exact(into)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => Error::Tar {
                    offset: self.offset,
                    reason: "it ends too early",
                },
                _ => Error::Read(error),
            })?;
        self.offset += into.len() as u64;
        Ok(())
    }

    /// The next header block; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Block>> {
        if self.ended {
            return Ok(None);
        }
        let mut block: Block = [0; block::SIZE];
        // A tar may lack its end mark, but not half a block.
        let first = loop {
            match self.input.read(&mut block) {
                Ok(read) => break read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Read(error)),
            }
        };
        if first == 0 {
            self.ended = true;
            return if self.raw.is_empty() {
                Ok(None)
            } else {
                self.bad("a header is missing")
            };
        }
        self.offset += first as u64;
        let mut rest = [0; block::SIZE];
        self.fill(&mut rest[first..])?;
        block[first..].copy_from_slice(&rest[first..]);
        if block.iter().all(|b| *b == 0) {
            self.ended = true;
            return if self.raw.is_empty() {
                Ok(None)
            } else {
                self.bad("a header is missing")
            };
        }
        if !block::checksum_holds(&block) {
            return self.bad("wrong header checksum");
        }
        self.keep(&block)?;
        Ok(Some(block))
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<()> {
        if self.raw.len() + bytes.len() > MAX_EXTENSION {
            return self.bad("the headers of one entry are too large");
        }
        self.raw.extend_from_slice(bytes);
        Ok(())
    }

    fn number(
        &self,
        block: &Block,
        field: std::ops::Range<usize>,
        what: &'static str,
    ) -> Result<u64> {
        match block::number(&block[field]).and_then(|n| u64::try_from(n).ok()) {
            Some(number) => Ok(number),
            None => self.bad(what),
        }
    }

    fn extension_data(&mut self, length: u64) -> Result<Vec<u8>> {
        if length > MAX_EXTENSION as u64 {
            return self.bad("the headers of one entry are too large");
        }
        let length = usize::try_from(length).expect("it is below the limit");
        let mut data = vec![0; length + padding(length as u64)];
        self.fill(&mut data)?;
        self.keep(&data)?;
        data.truncate(length);
        Ok(data)
    }

    fn extension(&mut self, block: &Block, length: u64, into: &mut Extensions) -> Result<()> {
        let data = self.extension_data(length)?;
        match block[block::TYPE] {
            b'L' => into.long_name = Some(block::text(&data).to_vec()),
            b'K' => into.long_link = Some(block::text(&data).to_vec()),
            _ => {
                into.records.clear();
                into.sparse.clear();
                self.records(&data, into)?;
            }
        }
        Ok(())
    }

    fn records(&self, mut data: &[u8], into: &mut Extensions) -> Result<()> {
        while !data.is_empty() {
            let Some(((key, value), rest)) = pax::split(data) else {
                return self.bad("a malformed PAX record");
            };
            data = rest;
            let wants_offset = match key {
                b"GNU.sparse.offset" => Some(true),
                b"GNU.sparse.numbytes" => Some(false),
                _ => None,
            };
            match wants_offset {
                Some(offset) if into.sparse.len().is_multiple_of(2) == offset => {
                    into.sparse.push(self.decimal(value)?);
                }
                Some(_) => return self.bad("a sparse map out of order"),
                None => {
                    into.records.insert(key.to_vec(), value.to_vec());
                }
            }
        }
        Ok(())
    }

    fn decimal(&self, text: &[u8]) -> Result<u64> {
        match std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()) {
            Some(number) if i64::try_from(number).is_ok() => Ok(number),
            _ => self.bad("a malformed PAX number"),
        }
    }

    fn finish(&mut self, block: &Block, extensions: Extensions) -> Result<Entry> {
        let mut entry = self.basic(block)?;
        let records = &extensions.records;
        if let Some(name) = extensions.long_name {
            entry.path = name;
        }
        if let Some(link) = extensions.long_link {
            entry.link = link;
        }
        let record = |key: &[u8]| records.get(key).filter(|value| !value.is_empty());
        if let Some(path) = record(pax::PATH) {
            entry.path.clone_from(path);
        }
        if let Some(link) = record(pax::LINKPATH) {
            entry.link.clone_from(link);
        }
        for (key, field) in [
            (pax::UID, &mut entry.uid),
            (pax::GID, &mut entry.gid),
            (pax::SIZE, &mut entry.size),
        ] {
            if let Some(value) = record(key) {
                *field = self.decimal(value)?;
            }
        }
        if let Some(value) = record(pax::MTIME) {
            entry.mtime = self.time(value)?;
        }
        if let Some(value) = record(pax::ATIME) {
            entry.atime = Some(self.time(value)?);
        }
        for (key, value) in records {
            if let Some(name) = key.strip_prefix(pax::XATTR) {
                entry.xattrs.insert(name.to_vec(), value.clone());
            }
        }
        if block[block::TYPE] == 0 && entry.path.ends_with(b"/") {
            entry.kind = Kind::Dir;
        }
        if entry.kind != Kind::File {
            entry.size = 0;
        }
        self.left = entry.size;
        self.pad = padding(self.left);
        self.sparse(block, extensions.sparse, records, &mut entry)?;
        Ok(entry)
    }

    fn time(&self, value: &[u8]) -> Result<Time> {
        match pax::time(value) {
            Some(time) => Ok(time),
            None => self.bad("a malformed PAX time"),
        }
    }

    fn basic(&self, block: &Block) -> Result<Entry> {
        let kind = match block[block::TYPE] {
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Dir,
            b'6' => Kind::Fifo,
            flag => {
                let path = String::from_utf8_lossy(block::text(&block[block::NAME])).into_owned();
                return Err(Error::EntryType {
                    path,
                    flag: char::from(flag),
                });
            }
        };
        let mut path = block::text(&block[block::NAME]).to_vec();
        let prefix = block::text(&block[block::PREFIX]);
        if block::dialect(block) == Dialect::Ustar && !prefix.is_empty() {
            path = [prefix, b"/", &path[..]].concat();
        }
        let mut entry = Entry::new(path, kind);
        entry.link = block::text(&block[block::LINK]).to_vec();
        entry.mode = (self.number(block, block::MODE, "a malformed mode")? & 0o7777) as u32;
        entry.uid = self.number(block, block::UID, "a malformed owner")?;
        entry.gid = self.number(block, block::GID, "a malformed group")?;
        entry.size = self.number(block, block::LENGTH, "a malformed length")?;
        match block::number(&block[block::MTIME]) {
            Some(seconds) => entry.mtime = Time::from_seconds(seconds),
            None => return self.bad("a malformed time"),
        }
        if block::dialect(block) != Dialect::V7 {
            let major = self.number(block, block::MAJOR, "a malformed device number")?;
            let minor = self.number(block, block::MINOR, "a malformed device number")?;
            entry.device = (major, minor);
        }
        if block::dialect(block) == Dialect::Gnu && block[block::GNU_ATIME.start] != 0 {
            // Some writers put a ustar prefix here; a time that is none is ignored, as Go does.
            entry.atime = block::number(&block[block::GNU_ATIME]).map(Time::from_seconds);
        }
        Ok(entry)
    }

    /// Finds the map of a sparse file in one of the four places it may be.
    fn sparse(
        &mut self,
        block: &Block,
        pairs: Vec<u64>,
        records: &BTreeMap<Vec<u8>, Vec<u8>>,
        entry: &mut Entry,
    ) -> Result<()> {
        let record = |key: &str| records.get(key.as_bytes());
        let version = (record("GNU.sparse.major"), record("GNU.sparse.minor"));
        let mut pairs = pairs;
        if block[block::TYPE] == b'S' {
            entry.size = self.number(block, block::GNU_REAL_SIZE, "a malformed sparse length")?;
            pairs = self.gnu_map(block)?;
        } else if version.0.is_some_and(|v| v == b"1") && version.1.is_some_and(|v| v == b"0") {
            pairs = self.map_in_data()?;
        } else if let Some(map) = record("GNU.sparse.map") {
            pairs = map
                .split(|b| *b == b',')
                .filter(|n| !n.is_empty())
                .map(|n| self.decimal(n))
                .collect::<Result<_>>()?;
        } else if pairs.is_empty() {
            return Ok(());
        }
        if entry.kind != Kind::File {
            return self.bad("a sparse map on something that is no file");
        }
        if let Some(name) = record("GNU.sparse.name").filter(|name| !name.is_empty()) {
            entry.path.clone_from(name);
        }
        if let Some(size) = record("GNU.sparse.realsize").or(record("GNU.sparse.size")) {
            entry.size = self.decimal(size)?;
        }
        entry.sparse = Some(self.check_map(&pairs, entry.size)?);
        Ok(())
    }

    fn check_map(&self, pairs: &[u64], size: u64) -> Result<Vec<Extent>> {
        if !pairs.len().is_multiple_of(2) {
            return self.bad("half an entry in a sparse map");
        }
        let (mut end, mut stored) = (0, 0_u64);
        let mut extents = Vec::with_capacity(pairs.len() / 2);
        for pair in pairs.chunks_exact(2) {
            let (offset, length) = (pair[0], pair[1]);
            let after = offset.checked_add(length).filter(|after| *after <= size);
            let Some(after) = after.filter(|_| offset >= end) else {
                return self.bad("a sparse map that overlaps or leaves the file");
            };
            end = after;
            stored += length;
            if length > 0 {
                extents.push(Extent { offset, length });
            }
        }
        if stored != self.left {
            return self.bad("a sparse map that does not fit its data");
        }
        Ok(extents)
    }

    fn gnu_map(&mut self, block: &Block) -> Result<Vec<u64>> {
        if block::dialect(block) != Dialect::Gnu {
            return self.bad("a sparse map in a header that cannot hold one");
        }
        let mut pairs = Vec::new();
        self.gnu_pairs(&block[block::GNU_SPARSE], &mut pairs)?;
        let mut more = block[block::GNU_EXTENDED] != 0;
        while more {
            let mut next: Block = [0; block::SIZE];
            self.fill(&mut next)?;
            self.keep(&next)?;
            self.gnu_pairs(&next[block::MORE_SPARSE], &mut pairs)?;
            more = next[block::MORE_EXTENDED] != 0;
        }
        Ok(pairs)
    }

    fn gnu_pairs(&self, table: &[u8], into: &mut Vec<u64>) -> Result<()> {
        for pair in table.chunks_exact(24) {
            if pair[0] == 0 {
                break;
            }
            for field in [&pair[..12], &pair[12..]] {
                match block::number(field).and_then(|n| u64::try_from(n).ok()) {
                    Some(number) => into.push(number),
                    None => return self.bad("a malformed sparse map"),
                }
            }
        }
        Ok(())
    }

    /// PAX 1.0: the map is text in the first blocks of the data.
    fn map_in_data(&mut self) -> Result<Vec<u64>> {
        let mut pairs = Vec::new();
        let mut wanted: Option<u64> = None;
        let mut digits: Vec<u8> = Vec::new();
        while wanted.is_none_or(|wanted| (pairs.len() as u64) < wanted) {
            if self.left < block::SIZE as u64 {
                return self.bad("a sparse map that never ends");
            }
            let mut block: Block = [0; block::SIZE];
            self.fill(&mut block)?;
            self.keep(&block)?;
            self.left -= block::SIZE as u64;
            for byte in block {
                if byte != b'\n' {
                    digits.push(byte);
                    continue;
                }
                let number = self.decimal(&digits)?;
                digits.clear();
                match wanted {
                    None => wanted = Some(number.saturating_mul(2)),
                    Some(_) => pairs.push(number),
                }
                if wanted.is_some_and(|wanted| pairs.len() as u64 >= wanted) {
                    break;
                }
            }
        }
        Ok(pairs)
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let want = into
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let read = self.input.read(&mut into[..want])?;
        if read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the tar ends too early",
            ));
        }
        self.left -= read as u64;
        self.offset += read as u64;
        Ok(read)
    }
}
