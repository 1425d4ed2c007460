//! Answers that a server sends compressed (`Content-Encoding: gzip`).

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use stdx::task::blocking;

use crate::error::{Error, Result};

/// So much is unpacked at a time. It becomes a thousand times as much at worst: eight
/// megabytes in memory, whatever a server sends.
const PIECE: usize = 8 << 10;

struct Unpacking {
    body: BoxStream<'static, Result<Bytes>>,
    /// What came and was not unpacked yet.
    rest: Bytes,
    /// `None` after the end.
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
    url: String,
}

/// What is inside of `body`, unpacked as it is read. It ends in an error where the bytes
/// are damaged or stop early.
pub(super) fn unpacked(
    body: BoxStream<'static, Result<Bytes>>,
    url: String,
) -> BoxStream<'static, Result<Bytes>> {
    let unpacking = Unpacking {
        body,
        rest: Bytes::new(),
        decoder: Some(MultiGzDecoder::new(Vec::new())),
        url,
    };
    stream::try_unfold(unpacking, |mut unpacking| async move {
        let next = unpacking.next().await?;
        Ok(next.map(|piece| (piece, unpacking)))
    })
    .boxed()
}

impl Unpacking {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while let Some(decoder) = self.decoder.take() {
            if self.rest.is_empty() {
                match self.body.next().await {
                    Some(piece) => self.rest = piece?,
                    None => return Ok(Some(self.run(move || last(decoder)).await?.into())),
                }
            }
            let piece = self.rest.split_to(PIECE.min(self.rest.len()));
            let (decoder, unpacked) = self.run(move || some(decoder, &piece)).await?;
            self.decoder = Some(decoder);
            if !unpacked.is_empty() {
                return Ok(Some(unpacked.into()));
            }
        }
        Ok(None)
    }

    async fn run<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        blocking(work).await.map_err(|error| Error::Http {
            url: self.url.clone(),
            reason: format!("the answer is no whole gzip: {error}"),
            status: None,
        })
    }
}

fn some(
    mut decoder: MultiGzDecoder<Vec<u8>>,
    piece: &[u8],
) -> io::Result<(MultiGzDecoder<Vec<u8>>, Vec<u8>)> {
    decoder.write_all(piece)?;
    let unpacked = std::mem::take(decoder.get_mut());
    Ok((decoder, unpacked))
}

fn last(mut decoder: MultiGzDecoder<Vec<u8>>) -> io::Result<Vec<u8>> {
    decoder.try_finish()?;
    Ok(std::mem::take(decoder.get_mut()))
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt as _;

    use super::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read(pieces: &[&[u8]]) -> BoxStream<'static, Result<Bytes>> {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|p| Ok(Bytes::copy_from_slice(p)))
            .collect();
        unpacked(stream::iter(pieces).boxed(), "http://h/x".to_owned())
    }

    /// Rows: S17
    #[tokio::test]
    async fn members_are_unpacked_wherever_they_were_cut() {
        let text: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let both = [packed(&text), packed(b"more")].concat();
        for size in [1, 7, both.len()] {
            let pieces: Vec<&[u8]> = both.chunks(size).take(3000).collect();
            let whole = pieces.concat().len() == both.len();
            let unpacked = read(&pieces).try_collect::<Vec<_>>().await;
            match whole {
                true => assert!(unpacked.unwrap().concat() == [&text[..], b"more"].concat()),
                false => assert!(unpacked.is_err()),
            }
        }
    }

    /// Rows: S17
    #[tokio::test]
    async fn damage_is_told_and_no_piece_is_large() {
        let zeros = packed(&vec![0; 100 << 20]);
        let mut all = 0;
        let mut pieces = read(&[&zeros]);
        while let Some(piece) = pieces.try_next().await.unwrap() {
            assert!(piece.len() <= PIECE * 1100, "{} at once", piece.len());
            all += piece.len();
        }
        assert_eq!(all, 100 << 20);
        let damaged: [&[u8]; 4] = [
            b"",
            b"plain text",
            &zeros[..zeros.len() - 3],
            b"\x1f\x8b\x08",
        ];
        for bytes in damaged {
            let error = read(&[bytes]).try_collect::<Vec<_>>().await.unwrap_err();
            let text = error.to_string();
            assert!(text.contains("no whole gzip"), "{text}");
        }
    }
}
