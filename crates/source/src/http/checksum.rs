//! The digest of a download and some bytes more: what a signature over it is of, for those who
//! check it without having the content.

use std::io::{Read, Write};

use llb::facts::{ChecksumAlgorithm, ChecksumQuestion};
use sha2::{Digest, Sha256, Sha384, Sha512};
use stdx::text::hex;

/// The digest that was asked for, as `algorithm:hex`.
pub(super) fn of(content: impl Read, question: &ChecksumQuestion) -> std::io::Result<String> {
    match question.algorithm {
        ChecksumAlgorithm::Sha256 => digest::<Sha256>("sha256", content, &question.suffix),
        ChecksumAlgorithm::Sha384 => digest::<Sha384>("sha384", content, &question.suffix),
        ChecksumAlgorithm::Sha512 => digest::<Sha512>("sha512", content, &question.suffix),
    }
}

fn digest<D: Digest>(name: &str, mut content: impl Read, suffix: &[u8]) -> std::io::Result<String> {
    let mut hashing = Hashing(D::new());
    std::io::copy(&mut content, &mut hashing)?;
    hashing.0.update(suffix);
    Ok(format!("{name}:{}", hex(&hashing.0.finalize())))
}

/// A place to write what is hashed.
struct Hashing<D>(D);

impl<D: Digest> Write for Hashing<D> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: G03
    #[test]
    fn the_suffix_comes_after_the_content() {
        let of = |algorithm| {
            let suffix = bytes::Bytes::from_static(b"c");
            of(&b"ab"[..], &ChecksumQuestion { algorithm, suffix }).unwrap()
        };
        // Digests of "abc" (FIPS 180-4).
        assert_eq!(
            of(ChecksumAlgorithm::Sha256),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(
            of(ChecksumAlgorithm::Sha384).starts_with("sha384:cb00753f45a35e8bb5a03d699ac65007")
        );
        assert!(
            of(ChecksumAlgorithm::Sha512).starts_with("sha512:ddaf35a193617abacc417349ae204131")
        );
    }
}
