//! The packing pipeline: digests, determinism, levels.

use std::io::{Read, Write};

use layer::{Algorithm, Compression, Error, decompress, pack};
use oci::{DiffId, Digest};

fn input() -> Vec<u8> {
    let mut state = 1_u32;
    let mut text = Vec::new();
    while text.len() < 5_300_000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.extend_from_slice(format!("line {} of {}\n", state >> 20, text.len()).as_bytes());
    }
    text
}

fn packed(compression: Compression, input: &[u8], chunk: usize) -> (layer::Packed, Vec<u8>) {
    pack(compression, Vec::new(), |out| {
        for part in input.chunks(chunk) {
            out.write_all(part).map_err(Error::Write)?;
        }
        Ok(())
    })
    .unwrap()
}

/// Rows: B19
#[test]
fn one_pass_gives_both_digests_and_the_same_bytes_every_time() {
    let input = input();
    for algorithm in [Algorithm::Uncompressed, Algorithm::Gzip, Algorithm::Zstd] {
        let (names, blob) = packed(algorithm.into(), &input, 64 << 10);
        assert_eq!(names.diff_id, DiffId(Digest::of(&input)));
        assert_eq!(names.digest, Digest::of(&blob));
        assert_eq!(
            (names.size, names.uncompressed_size),
            (blob.len() as u64, input.len() as u64)
        );
        let mut out = Vec::new();
        decompress(&blob[..])
            .unwrap()
            .0
            .read_to_end(&mut out)
            .unwrap();
        assert!(out == input, "{algorithm} comes back");
        let (_, again) = packed(algorithm.into(), &input, 1_000_001);
        assert!(
            again == blob,
            "{algorithm} does not depend on how the bytes arrive"
        );
    }
}

/// Rows: B19
#[test]
fn levels_trade_size_and_nothing_is_valid_too() {
    let input = input();
    let size = |algorithm, level| {
        packed(
            Compression {
                algorithm,
                level: Some(level),
            },
            &input,
            1 << 20,
        )
        .1
        .len()
    };
    assert!(size(Algorithm::Gzip, 1) > size(Algorithm::Gzip, 9));
    assert!(size(Algorithm::Zstd, 1) > size(Algorithm::Zstd, 10));
    assert!(size(Algorithm::Gzip, 0) > input.len());
    for algorithm in [Algorithm::Gzip, Algorithm::Zstd] {
        let (_, blob) = packed(algorithm.into(), b"", 1);
        let mut out = Vec::new();
        decompress(&blob[..])
            .unwrap()
            .0
            .read_to_end(&mut out)
            .unwrap();
        assert_eq!(out, b"");
    }
    let error = pack(Algorithm::Estargz.into(), Vec::new(), |_| Ok(())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "compression estargz is not supported yet"
    );
}

/// A writer that is full stops the work and gives its reason.
#[test]
fn a_failing_writer_fails_the_pack() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            Ok(taken)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let input = input();
    for algorithm in [Algorithm::Uncompressed, Algorithm::Gzip, Algorithm::Zstd] {
        let result = pack(algorithm.into(), Full(1000), |out| {
            out.write_all(&input).map_err(Error::Write)
        });
        let error = result.map(drop).unwrap_err();
        assert_eq!(
            error.kind(),
            stdx::Kind::Unavailable,
            "{algorithm}: {error}"
        );
    }
}
