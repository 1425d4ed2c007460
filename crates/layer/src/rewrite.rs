//! Setting back the times in a layer tar to an epoch, and nothing else: headers
//! that need no change keep their bytes, contents are passed through.

use std::io::{Read, Write};

use stdx::sys::Time;

use crate::tar::block::{self, Block, Dialect};
use crate::tar::{Reader, Writer, padding, pax};
use crate::{Error, Result};

/// Copies a tar; times after `epoch` (seconds since 1970) become `epoch`.
pub fn clamp_times<R: Read, W: Write>(tar: R, out: W, epoch: i64) -> Result<W> {
    let mut reader = Reader::new(tar);
    let mut out = out;
    while reader.entry()?.is_some() {
        let headers = clamp_headers(reader.raw(), epoch);
        out.write_all(&headers).map_err(Error::Write)?;
        let stored = reader.stored();
        let copied = std::io::copy(&mut reader, &mut out).map_err(Error::Read)?;
        debug_assert_eq!(copied, stored);
        out.write_all(&[0; block::SIZE][..padding(stored)])
            .map_err(Error::Write)?;
    }
    // The end mark, without what some writers pad it with.
    Writer::new(out).finish()
}

/// `raw` is one or more header blocks with their data, whole blocks each.
fn clamp_headers(raw: &[u8], epoch: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while rest.len() >= block::SIZE {
        let (head, after) = rest.split_at(block::SIZE);
        let mut head: Block = head.try_into().expect("a block long");
        match head[block::TYPE] {
            flag @ (b'x' | b'g' | b'L' | b'K') => {
                let length = block::number(&head[block::LENGTH]).unwrap_or(0);
                let length = usize::try_from(length).unwrap_or(0).min(after.len());
                let whole = (length + padding(length as u64)).min(after.len());
                if flag == b'x' {
                    put_records(&mut out, &head, &after[..length], epoch);
                } else {
                    out.extend_from_slice(&rest[..block::SIZE + whole]);
                }
                rest = &after[whole..];
            }
            _ => {
                clamp_block(&mut head, epoch);
                out.extend_from_slice(&head);
                // A sparse map may follow; it has no times.
                out.extend_from_slice(after);
                break;
            }
        }
    }
    out
}

fn clamp_block(head: &mut Block, epoch: i64) {
    let mut changed = clamp_field(&mut head[block::MTIME], epoch);
    if block::dialect(head) == Dialect::Gnu {
        changed |= clamp_field(&mut head[block::GNU_ATIME], epoch);
        changed |= clamp_field(&mut head[block::GNU_CTIME], epoch);
    }
    if changed {
        block::seal(head);
    }
}

fn clamp_field(field: &mut [u8], epoch: i64) -> bool {
    let later = field[0] != 0 && block::number(field).is_some_and(|time| time > epoch);
    if later {
        block::put_octal(field, epoch);
    }
    later
}

/// Writes a PAX header again with its times set back. A time of last change that
/// is whole then fits the main header and needs no record.
fn put_records(out: &mut Vec<u8>, head: &Block, data: &[u8], epoch: i64) {
    let limit = Time::from_seconds(epoch);
    let mut kept = Vec::with_capacity(data.len());
    let mut changed = false;
    let mut rest = data;
    while let Some(((key, value), after)) = pax::split(rest) {
        rest = after;
        let is_time = key == pax::MTIME || key == pax::ATIME || key == pax::CTIME;
        if is_time && pax::time(value).is_some_and(|time| time > limit) {
            changed = true;
            if key != pax::MTIME {
                pax::push(&mut kept, key, &pax::put_time(limit));
            }
        } else {
            pax::push(&mut kept, key, value);
        }
    }
    if !changed {
        kept = data.to_vec();
    }
    if changed && kept.is_empty() {
        return;
    }
    let mut head = *head;
    block::put_octal(&mut head[block::LENGTH], kept.len() as i64);
    block::seal(&mut head);
    out.extend_from_slice(&head);
    out.extend_from_slice(&kept);
    out.resize(out.len() + padding(kept.len() as u64), 0);
}
