//! Answers that a server sends compressed (`Content-Encoding: gzip`).

use std::collections::VecDeque;
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
/// So much, packed or unpacked, is worth a way to another thread.
const BATCH: usize = 256 << 10;

struct Unpacking {
    body: BoxStream<'static, Result<Bytes>>,
    /// What came and was not unpacked yet.
    packed: Packed,
    /// `None` after the end.
    decoder: Option<Decoder>,
    url: String,
}

type Decoder = MultiGzDecoder<Vec<u8>>;

/// Pieces of the body.
#[derive(Default)]
struct Packed {
    pieces: VecDeque<Bytes>,
    length: usize,
}

/// What is inside of `body`, unpacked as it is read. It ends in an error where the bytes
/// are damaged or stop early.
pub(super) fn unpacked(
    body: BoxStream<'static, Result<Bytes>>,
    url: String,
) -> BoxStream<'static, Result<Bytes>> {
    let unpacking = Unpacking {
        body,
        packed: Packed::default(),
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
            self.gather().await?;
            if self.packed.length == 0 {
                return Ok(Some(self.run(move || last(decoder)).await?.into()));
            }
            let packed = std::mem::take(&mut self.packed);
            let (decoder, packed, unpacked) = self.run(move || some(decoder, packed)).await?;
            (self.decoder, self.packed) = (Some(decoder), packed);
            if !unpacked.is_empty() {
                return Ok(Some(unpacked.into()));
            }
        }
        Ok(None)
    }

    /// Waits for as much as is worth it, or the end.
    async fn gather(&mut self) -> Result<()> {
        while self.packed.length < BATCH {
            let Some(piece) = self.body.next().await.transpose()? else {
                break;
            };
            self.packed.length += piece.len();
            self.packed.pieces.push_back(piece);
        }
        Ok(())
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

/// Unpacks until there is as much as is worth it, and gives back what is left.
fn some(mut decoder: Decoder, mut packed: Packed) -> io::Result<(Decoder, Packed, Vec<u8>)> {
    while decoder.get_ref().len() < BATCH
        && let Some(mut piece) = packed.pieces.pop_front()
    {
        let begin = piece.split_to(PIECE.min(piece.len()));
        packed.length -= begin.len();
        if !piece.is_empty() {
            packed.pieces.push_front(piece);
        }
        decoder.write_all(&begin)?;
    }
    let unpacked = std::mem::take(decoder.get_mut());
    Ok((decoder, packed, unpacked))
}

fn last(mut decoder: Decoder) -> io::Result<Vec<u8>> {
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

    /// Servers send small pieces; each on its own would cost more to hand over than to unpack.
    ///
    /// Rows: S17
    #[tokio::test]
    async fn small_pieces_are_unpacked_together() {
        let mut dice = testkit::dice::Dice::new(1);
        let text = dice.bytes(1 << 20);
        let packed = packed(&text);
        let pieces: Vec<&[u8]> = packed.chunks(1000).collect();
        let unpacked = read(&pieces).try_collect::<Vec<_>>().await.unwrap();
        assert!(unpacked.concat() == text);
        assert!(unpacked.len() <= 6, "{} pieces", unpacked.len());
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
