//! The arithmetic: whether a digest or message was signed by a public key.

use std::sync::OnceLock;

use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Odd};
use p256::ecdsa::signature::hazmat::PrehashVerifier;

use crate::bytes::{padded, trimmed};
use crate::error::{Error, Result};

/// The shortest RSA key that is taken.
const MIN_RSA_BITS: usize = 2048;
/// The longest: checking one takes milliseconds, and nobody has a longer one.
const MAX_RSA_BITS: usize = 16384;

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    /// Only in what keys say of themselves, and for names of keys and git's objects.
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    fn algorithm(self) -> &'static ring::digest::Algorithm {
        match self {
            Hash::Sha1 => &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => &ring::digest::SHA256,
            Hash::Sha384 => &ring::digest::SHA384,
            Hash::Sha512 => &ring::digest::SHA512,
        }
    }

    /// A digest being made.
    pub(crate) fn begin(self) -> ring::digest::Context {
        ring::digest::Context::new(self.algorithm())
    }

    pub(crate) fn of(self, bytes: &[u8]) -> Vec<u8> {
        ring::digest::digest(self.algorithm(), bytes)
            .as_ref()
            .to_vec()
    }

    /// What stands before the digest in an RSA signature (RFC 8017, 9.2).
    pub(crate) fn prefix(self) -> &'static [u8] {
        match self {
            Hash::Sha1 => b"\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14",
            Hash::Sha256 => {
                b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"
            }
            Hash::Sha384 => {
                b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30"
            }
            Hash::Sha512 => {
                b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40"
            }
        }
    }
}

/// A curve of ECDSA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
    P521,
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PublicKey {
    Rsa(RsaKey),
    /// The point as SEC 1 writes it.
    Ecdsa(Curve, Vec<u8>),
    Ed25519([u8; 32]),
}

/// An RSA key.
#[derive(Clone, Debug)]
pub(crate) struct RsaKey {
    modulus: Vec<u8>,
    exponent: Vec<u8>,
    /// What its arithmetic needs, which takes as long to make as a signature to check.
    params: OnceLock<Option<BoxedMontyParams>>,
}

impl RsaKey {
    pub(crate) fn new(modulus: &[u8], exponent: &[u8]) -> RsaKey {
        RsaKey {
            modulus: trimmed(modulus).to_vec(),
            exponent: trimmed(exponent).to_vec(),
            params: OnceLock::new(),
        }
    }

    fn params(&self) -> Option<&BoxedMontyParams> {
        let make = || {
            let modulus = BoxedUint::from_be_slice_vartime(&self.modulus);
            let modulus = Option::<Odd<BoxedUint>>::from(Odd::new(modulus))?;
            Some(BoxedMontyParams::new_vartime(modulus))
        };
        self.params.get_or_init(make).as_ref()
    }
}

impl PartialEq for RsaKey {
    fn eq(&self, other: &RsaKey) -> bool {
        (&self.modulus, &self.exponent) == (&other.modulus, &other.exponent)
    }
}

impl Eq for RsaKey {}

/// The numbers of a signature.
pub(crate) enum Numbers<'a> {
    Rsa(&'a [u8]),
    Ecdsa(&'a [u8], &'a [u8]),
    Ed25519([u8; 64]),
}

impl PublicKey {
    /// That it is long enough.
    pub(crate) fn check_strength(&self) -> Result<()> {
        let PublicKey::Rsa(key) = self else {
            return Ok(());
        };
        match bits(&key.modulus) {
            short @ ..MIN_RSA_BITS => Err(Error::Rejected(format!(
                "an RSA key too short: {short} bits"
            ))),
            MIN_RSA_BITS..=MAX_RSA_BITS => Ok(()),
            long => Err(Error::Rejected(format!("an RSA key of {long} bits"))),
        }
    }

    /// Whether it signed the digest. For Ed25519 the digest is itself the message, as in OpenPGP.
    pub(crate) fn signed(&self, hash: Hash, digest: &[u8], numbers: &Numbers<'_>) -> bool {
        match (self, numbers) {
            (PublicKey::Rsa(key), Numbers::Rsa(number)) => rsa(key, hash, digest, number).is_some(),
            (PublicKey::Ecdsa(curve, point), Numbers::Ecdsa(r, s)) => {
                ecdsa(*curve, point, digest, r, s).is_some()
            }
            (PublicKey::Ed25519(key), Numbers::Ed25519(signature)) => {
                ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key)
                    .verify(digest, signature)
                    .is_ok()
            }
            _ => false,
        }
    }
}

fn bits(number: &[u8]) -> usize {
    let number = trimmed(number);
    number.first().map_or(0, |first| {
        number.len() * 8 - usize::try_from(first.leading_zeros()).expect("at most 8")
    })
}

/// PKCS #1 version 1.5. The whole padded text is made and compared: taking the signature's apart
/// has let forged ones through elsewhere.
fn rsa(key: &RsaKey, hash: Hash, digest: &[u8], number: &[u8]) -> Option<()> {
    if bits(&key.modulus) > MAX_RSA_BITS {
        return None;
    }
    let exponent = u64::from_be_bytes(padded(&key.exponent)?);
    // Larger ones are not in use and cost time.
    if exponent < 3 || exponent % 2 == 0 || exponent >= 1 << 33 {
        return None;
    }
    let length = key.modulus.len();
    let tail = [hash.prefix(), digest].concat();
    let padding = length.checked_sub(tail.len() + 3).filter(|p| *p >= 8)?;
    let mut expected = vec![0x00, 0x01];
    expected.resize(2 + padding, 0xff);
    expected.push(0x00);
    expected.extend(tail);

    let params = key.params()?;
    let modulus = params.modulus();
    let number = BoxedUint::from_be_slice(trimmed(number), modulus.bits_precision()).ok()?;
    if number >= **modulus {
        return None;
    }
    // The exponent is no secret: only the bits it has cost time.
    let bits = u64::BITS - exponent.leading_zeros();
    let opened = BoxedMontyForm::new(number, params)
        .pow_bounded_exp(&BoxedUint::from(exponent), bits)
        .retrieve()
        .to_be_bytes();
    let (zeros, opened) = opened.split_at_checked(opened.len().checked_sub(length)?)?;
    (zeros.iter().all(|byte| *byte == 0) && opened == expected).then_some(())
}

fn ecdsa(curve: Curve, point: &[u8], digest: &[u8], r: &[u8], s: &[u8]) -> Option<()> {
    match curve {
        Curve::P256 => {
            let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(point).ok()?;
            let (r, s) = (padded::<32>(r)?, padded::<32>(s)?);
            let signature = p256::ecdsa::Signature::from_scalars(r, s).ok()?;
            key.verify_prehash(digest, &signature).ok()
        }
        Curve::P384 => {
            let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(point).ok()?;
            let (r, s) = (padded::<48>(r)?, padded::<48>(s)?);
            let signature = p384::ecdsa::Signature::from_scalars(r, s).ok()?;
            key.verify_prehash(digest, &signature).ok()
        }
        Curve::P521 => {
            let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(point).ok()?;
            let (r, s) = (padded::<66>(r)?, padded::<66>(s)?);
            let signature = p521::ecdsa::Signature::from_scalars(r, s).ok()?;
            key.verify_prehash(digest, &signature).ok()
        }
    }
}
