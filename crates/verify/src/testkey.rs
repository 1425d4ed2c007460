//! Keys for tests, made here: they sign what nobody's real key would.

use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, NonZero, Odd};
use p256::ecdsa::signature::hazmat::PrehashSigner;

use crate::key::{Curve, Hash};

/// A private key.
#[derive(Clone)]
pub(crate) enum Secret {
    Ed25519([u8; 32]),
    Ecdsa(Curve, u8),
    /// Its modulus is the product of the Mersenne primes with these exponents.
    Rsa(u32, u32),
}

/// The numbers of a signature, without leading zeros.
pub(crate) type Signed = Vec<Vec<u8>>;

const EXPONENT: u64 = 65537;

impl Secret {
    /// 3482 bits.
    pub(crate) const RSA: Secret = Secret::Rsa(1279, 2203);
    /// 1128 bits.
    pub(crate) const SHORT_RSA: Secret = Secret::Rsa(521, 607);

    /// The point, or the modulus.
    pub(crate) fn public(&self) -> Vec<u8> {
        use ring::signature::KeyPair;
        match self {
            Secret::Ed25519(seed) => ed25519(seed).public_key().as_ref().to_vec(),
            Secret::Ecdsa(Curve::P256, seed) => {
                let key = p256::ecdsa::SigningKey::from_slice(&[*seed; 32]).unwrap();
                key.verifying_key().to_sec1_point(false).as_bytes().to_vec()
            }
            Secret::Ecdsa(Curve::P384, seed) => {
                let key = p384::ecdsa::SigningKey::from_slice(&[*seed; 48]).unwrap();
                key.verifying_key().to_sec1_point(false).as_bytes().to_vec()
            }
            Secret::Ecdsa(Curve::P521, seed) => {
                let key = p521::ecdsa::SigningKey::from_slice(&p521_seed(*seed)).unwrap();
                key.verifying_key().to_sec1_point(false).as_bytes().to_vec()
            }
            Secret::Rsa(p, q) => {
                let n = mersenne(*p).wrapping_mul(mersenne(*q));
                n.to_be_bytes_trimmed_vartime().to_vec()
            }
        }
    }

    pub(crate) fn exponent() -> Vec<u8> {
        vec![1, 0, 1]
    }

    /// Signs a digest as OpenPGP does: Ed25519 takes it for the message.
    pub(crate) fn sign(&self, hash: Hash, digest: &[u8]) -> Signed {
        match self {
            Secret::Ed25519(seed) => {
                let signature = ed25519(seed).sign(digest);
                let (r, s) = signature.as_ref().split_at(32);
                vec![r.to_vec(), s.to_vec()]
            }
            Secret::Ecdsa(Curve::P256, seed) => {
                let key = p256::ecdsa::SigningKey::from_slice(&[*seed; 32]).unwrap();
                let signature: p256::ecdsa::Signature = key.sign_prehash(digest).unwrap();
                let (r, s) = signature.split_bytes();
                vec![r.to_vec(), s.to_vec()]
            }
            Secret::Ecdsa(Curve::P384, seed) => {
                let key = p384::ecdsa::SigningKey::from_slice(&[*seed; 48]).unwrap();
                let signature: p384::ecdsa::Signature = key.sign_prehash(digest).unwrap();
                let (r, s) = signature.split_bytes();
                vec![r.to_vec(), s.to_vec()]
            }
            Secret::Ecdsa(Curve::P521, seed) => {
                let key = p521::ecdsa::SigningKey::from_slice(&p521_seed(*seed)).unwrap();
                let signature: p521::ecdsa::Signature = key.sign_prehash(digest).unwrap();
                let (r, s) = signature.split_bytes();
                vec![r.to_vec(), s.to_vec()]
            }
            Secret::Rsa(p, q) => {
                let length = self.public().len();
                vec![rsa(*p, *q, &padded(hash, digest, length))]
            }
        }
    }
}

fn p521_seed(seed: u8) -> [u8; 66] {
    let mut bytes = [seed; 66];
    bytes[0] = 0;
    bytes
}

fn ed25519(seed: &[u8; 32]) -> ring::signature::Ed25519KeyPair {
    ring::signature::Ed25519KeyPair::from_seed_unchecked(seed).unwrap()
}

/// Room for all products here.
const BITS: u32 = 3584;

fn number(value: u64) -> BoxedUint {
    BoxedUint::from_be_slice(&value.to_be_bytes(), BITS).unwrap()
}

/// 2ⁿ - 1.
fn mersenne(n: u32) -> BoxedUint {
    number(1).shl(n).wrapping_sub(number(1))
}

/// The text that is signed, of `length` bytes.
pub(crate) fn padded(hash: Hash, digest: &[u8], length: usize) -> Vec<u8> {
    let tail = [hash.prefix(), digest].concat();
    let mut text = vec![0x00, 0x01];
    text.resize(length - tail.len() - 1, 0xff);
    text.push(0);
    text.extend(tail);
    text
}

/// `text` to the private exponent.
pub(crate) fn rsa(p: u32, q: u32, text: &[u8]) -> Vec<u8> {
    let (p, q) = (mersenne(p), mersenne(q));
    let phi = p
        .wrapping_sub(number(1))
        .wrapping_mul(q.wrapping_sub(number(1)));
    // d = (k·φ + 1) / e, for the k that makes it whole.
    let by = NonZero::new(number(EXPONENT)).unwrap();
    let (_, left) = phi.div_rem(&by);
    let left = u64::from_be_bytes(
        left.to_be_bytes()[BITS as usize / 8 - 8..]
            .try_into()
            .unwrap(),
    );
    let k = (1..EXPONENT)
        .find(|k| (k * left + 1) % EXPONENT == 0)
        .unwrap();
    let (d, _) = phi
        .wrapping_mul(number(k))
        .wrapping_add(number(1))
        .div_rem(&by);
    let modulus = Odd::new(p.wrapping_mul(&q)).unwrap();
    let params = BoxedMontyParams::new_vartime(modulus);
    let text = BoxedUint::from_be_slice(text, BITS).unwrap();
    let signed = BoxedMontyForm::new(text, &params).pow(&d).retrieve();
    signed.to_be_bytes_trimmed_vartime().to_vec()
}
