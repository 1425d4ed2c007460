//! The digest of a download and some bytes more: what a signature over it is of, for those who
//! check it without having the content.

use std::io::Read;

use llb::facts::{ChecksumAlgorithm, ChecksumQuestion};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// The digest that was asked for, as `algorithm:hex`.
pub(super) fn of(content: impl Read, question: &ChecksumQuestion) -> std::io::Result<String> {
    match question.algorithm {
        ChecksumAlgorithm::Sha256 => digest::<Sha256>("sha256", content, &question.suffix),
        ChecksumAlgorithm::Sha384 => digest::<Sha384>("sha384", content, &question.suffix),
        ChecksumAlgorithm::Sha512 => digest::<Sha512>("sha512", content, &question.suffix),
    }
}

fn digest<D: Digest>(name: &str, mut content: impl Read, suffix: &[u8]) -> std::io::Result<String> {
    let (mut hash, mut buffer) = (D::new(), vec![0; 64 << 10]);
    loop {
        match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => hash.update(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    hash.update(suffix);
    let hex: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Ok(format!("{name}:{hex}"))
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
