//! What is known of a tree, as bytes to keep. A format of our own: it is a cache,
//! and damage only means hashing again.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use oci::Digest;

use crate::contents::{Contents, Dir, Node};
use crate::{Error, Result};

const MAGIC: &[u8; 4] = b"kch1";
/// No path is deeper than this many names.
const MAX_DEPTH: usize = 4096;

impl Contents {
    /// All that is known, as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        put_dir(&mut out, &self.top);
        out
    }

    /// All that is known, if that is other than when this was last asked or when it was
    /// [decoded](Contents::decode).
    pub fn unsaved(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.changed).then(|| self.encode())
    }

    /// Reads what [`Contents::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Contents> {
        let mut rest = bytes.strip_prefix(MAGIC).ok_or(Error::Stored)?;
        let top = dir(&mut rest, 0)?;
        if rest.is_empty() {
            Ok(Contents {
                top,
                changed: false,
            })
        } else {
            Err(Error::Stored)
        }
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("names are short");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_digest(out: &mut Vec<u8>, digest: Option<Digest>) {
    match digest {
        Some(Digest::Sha256(bytes)) => {
            out.push(1);
            out.extend_from_slice(&bytes);
        }
        Some(Digest::Sha512(_)) | None => out.push(0),
    }
}

fn put_dir(out: &mut Vec<u8>, dir: &Dir) {
    put_digest(out, dir.header);
    put_digest(out, dir.digest);
    let Some(children) = &dir.children else {
        out.push(0);
        return;
    };
    out.push(1);
    let count = u32::try_from(children.len()).expect("fewer than four thousand million names");
    out.extend_from_slice(&count.to_le_bytes());
    for (name, node) in children {
        put_bytes(out, name.as_bytes());
        match node {
            Node::File(digest) => {
                out.push(b'f');
                put_digest(out, *digest);
            }
            Node::Link { target, digest } => {
                out.push(b'l');
                put_bytes(out, target);
                put_digest(out, *digest);
            }
            Node::Dir(deeper) => {
                out.push(b'd');
                put_dir(out, deeper);
            }
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count).ok_or(Error::Stored)?;
    *rest = left;
    Ok(taken)
}

fn byte(rest: &mut &[u8]) -> Result<u8> {
    Ok(take(rest, 1)?[0])
}

fn number(rest: &mut &[u8]) -> Result<usize> {
    let bytes = take(rest, 4)?.try_into().expect("four of them");
    Ok(u32::from_le_bytes(bytes) as usize)
}

fn bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = number(rest)?;
    take(rest, length)
}

fn digest(rest: &mut &[u8]) -> Result<Option<Digest>> {
    match byte(rest)? {
        0 => Ok(None),
        1 => Ok(Some(Digest::Sha256(
            take(rest, 32)?.try_into().expect("32 of them"),
        ))),
        _ => Err(Error::Stored),
    }
}

fn dir(rest: &mut &[u8], depth: usize) -> Result<Dir> {
    if depth > MAX_DEPTH {
        return Err(Error::Stored);
    }
    let mut found = Dir {
        header: digest(rest)?,
        digest: digest(rest)?,
        children: None,
    };
    match byte(rest)? {
        0 => return Ok(found),
        1 => {}
        _ => return Err(Error::Stored),
    }
    let mut children = BTreeMap::new();
    for _ in 0..number(rest)? {
        let name = OsStr::from_bytes(bytes(rest)?).to_owned();
        let node = match byte(rest)? {
            b'f' => Node::File(digest(rest)?),
            b'l' => Node::Link {
                target: bytes(rest)?.to_vec(),
                digest: digest(rest)?,
            },
            b'd' => Node::Dir(dir(rest, depth + 1)?),
            _ => return Err(Error::Stored),
        };
        children.insert(name, node);
    }
    found.children = Some(children);
    Ok(found)
}
