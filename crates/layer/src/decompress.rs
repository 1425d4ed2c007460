//! Which compression some bytes have, told by their first few, and a reader of what is inside.

use std::io::{self, BufRead, BufReader, Read};

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Not, or in no way we know.
    Plain,
    /// gzip, one member or many.
    Gzip,
    /// Zstandard.
    Zstd,
    /// bzip2 (found in files people ADD).
    Bzip2,
    /// xz (found in files people ADD).
    Xz,
}

impl Format {
    /// Tells from the first six bytes or more.
    pub fn of(start: &[u8]) -> Format {
        match start {
            [0x1f, 0x8b, 0x08, ..] => Format::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Format::Zstd,
            // A skippable frame: zstd written in chunks begins so.
            [first, 0x2a, 0x4d, 0x18, ..] if first & 0xf0 == 0x50 => Format::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Format::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Format::Xz,
            _ => Format::Plain,
        }
    }
}

/// A reader of the uncompressed bytes, and how they were compressed.
pub fn decompress<'a>(
    input: impl Read + Send + 'a,
) -> io::Result<(Box<dyn Read + Send + 'a>, Format)> {
    let (start, input) = peek(input)?;
    let format = Format::of(&start);
    let input = BufReader::with_capacity(128 << 10, io::Cursor::new(start).chain(input));
    Ok((open(format, input)?, format))
}

fn open<'a>(
    format: Format,
    input: impl BufRead + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match format {
        Format::Plain => Box::new(input),
        Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Format::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
        Format::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        Format::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(input)),
    })
}

fn peek<R: Read>(mut input: R) -> io::Result<(Vec<u8>, R)> {
    let mut start = Vec::with_capacity(6);
    (&mut input).take(6).read_to_end(&mut start)?;
    Ok((start, input))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read_all(bytes: &[u8]) -> (Vec<u8>, Format) {
        let (mut reader, format) = decompress(bytes).unwrap();
        let mut out = Vec::new();
        reader.read_to_end(&mut out).unwrap();
        (out, format)
    }

    /// Rows: F26
    #[test]
    fn every_format_is_told_and_read() {
        let text = b"some text ".repeat(5000);
        let half = text.len() / 2;
        let mut gzip = Vec::new();
        for part in [&text[..half], &text[half..]] {
            let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            member.write_all(part).unwrap();
            gzip.extend(member.finish().unwrap());
        }
        assert_eq!(read_all(&gzip), (text.clone(), Format::Gzip));
        let mut frames = zstd::encode_all(&text[..half], 1).unwrap();
        frames.extend(zstd::encode_all(&text[half..], 1).unwrap());
        assert_eq!(read_all(&frames), (text.clone(), Format::Zstd));
        let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bz.write_all(&text).unwrap();
        assert_eq!(
            read_all(&bz.finish().unwrap()),
            (text.clone(), Format::Bzip2)
        );
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
        xz.write_all(&text).unwrap();
        assert_eq!(read_all(&xz.finish().unwrap()), (text.clone(), Format::Xz));
        assert_eq!(read_all(&text), (text, Format::Plain));
        assert_eq!(read_all(b""), (vec![], Format::Plain));
    }
}
