//! From a stream of tar bytes to a blob, in one pass: both digests, the
//! compression and the writing go on beside each other in bounded memory.

mod gzip;
mod media;

use std::io::{self, Write};

use oci::{DiffId, Digest, Hasher};

use crate::{Error, Result};

pub use media::{to_docker, to_oci};

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Not at all.
    Uncompressed,
    /// gzip, what every registry and runtime takes.
    #[default]
    Gzip,
    /// gzip with a table of contents, for lazy pulling.
    Estargz,
    /// Zstandard: smaller and faster, needs newer runtimes.
    Zstd,
}

/// A compression and how hard to try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Compression {
    /// Which.
    pub algorithm: Algorithm,
    /// 0 to 9 for gzip, 0 to 22 for zstd; `None` is a good middle.
    pub level: Option<i32>,
}

impl From<Algorithm> for Compression {
    fn from(algorithm: Algorithm) -> Compression {
        Compression {
            algorithm,
            level: None,
        }
    }
}

/// A finished blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Digest of the blob.
    pub digest: Digest,
    /// Length of the blob.
    pub size: u64,
    /// Digest of the tar inside.
    pub diff_id: DiffId,
    /// Length of the tar inside.
    pub uncompressed_size: u64,
}

/// Takes tar bytes and writes the blob to `W`. Equal tar bytes, compression and
/// version of this program give equal blobs, whatever the number of cores.
pub struct Packer<W: Write + Send + 'static> {
    tar: Hasher,
    tar_size: u64,
    body: Body<W>,
}

enum Body<W: Write + Send + 'static> {
    Plain(Counted<W>),
    Gzip(gzip::Members<Counted<W>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, Counted<W>>>),
}

impl<W: Write + Send + 'static> Packer<W> {
    /// A packer that writes to `out`.
    pub fn new(compression: Compression, out: W) -> Result<Packer<W>> {
        let out = Counted {
            out,
            hasher: Hasher::default(),
            size: 0,
        };
        let body = match compression.algorithm {
            Algorithm::Uncompressed => Body::Plain(out),
            Algorithm::Gzip => Body::Gzip(gzip::Members::new(out, compression.level)),
            Algorithm::Zstd => Body::Zstd(Box::new(zstd_encoder(out, compression.level)?)),
            Algorithm::Estargz => return Err(Error::Unsupported("estargz")),
        };
        Ok(Packer {
            tar: Hasher::default(),
            tar_size: 0,
            body,
        })
    }

    /// Ends the blob; tells its names and gives the writer back.
    pub fn finish(self) -> Result<(Packed, W)> {
        let out = match self.body {
            Body::Plain(out) => out,
            Body::Gzip(members) => members.finish().map_err(Error::Write)?,
            Body::Zstd(encoder) => encoder.finish().map_err(Error::Write)?,
        };
        let diff_id = DiffId(self.tar.finish());
        let digest = out.hasher.finish();
        let packed = Packed {
            digest,
            size: out.size,
            diff_id,
            uncompressed_size: self.tar_size,
        };
        Ok((packed, out.out))
    }
}

impl<W: Write + Send + 'static> Write for Packer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.body {
            Body::Plain(out) => out.write(bytes),
            Body::Gzip(members) => members.write(bytes),
            Body::Zstd(encoder) => encoder.write(bytes),
        }?;
        self.tar.update(&bytes[..written]);
        self.tar_size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Packs all bytes `fill` writes.
pub fn pack<W: Write + Send + 'static>(
    compression: Compression,
    out: W,
    fill: impl FnOnce(&mut Packer<W>) -> Result<()>,
) -> Result<(Packed, W)> {
    let mut packer = Packer::new(compression, out)?;
    fill(&mut packer)?;
    packer.finish()
}

fn zstd_encoder<W: Write>(
    out: W,
    level: Option<i32>,
) -> Result<zstd::stream::write::Encoder<'static, W>> {
    let mut encoder =
        zstd::stream::write::Encoder::new(out, zstd_level(level)).map_err(Error::Write)?;
    encoder.include_checksum(true).map_err(Error::Write)?;
    // Any number of workers from one up gives the same bytes; none would not.
    encoder
        .multithread(workers() as u32)
        .map_err(Error::Write)?;
    Ok(encoder)
}

/// The four speed classes: fastest, default, better, best.
fn zstd_level(level: Option<i32>) -> i32 {
    match level {
        None => 3,
        Some(level) if level < 3 => 1,
        Some(level) if level < 6 => 3,
        Some(level) if level < 10 => 7,
        Some(_) => 11,
    }
}

fn workers() -> usize {
    std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(8)
}

/// Counts and hashes what goes out.
struct Counted<W> {
    out: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
