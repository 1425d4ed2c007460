//! What the tests are made of: keys, names, signatures.

use base64::Engine as _;

use super::super::*;
use crate::key::Curve;
use crate::testkey::Secret;

/// When keys are made.
pub(super) const MADE: u64 = 1_600_000_000;
/// When they sign.
pub(super) const SIGNED: u64 = 1_650_000_000;
/// When signatures are looked at.
pub(super) const NOW: u64 = 1_700_000_000;

pub(super) const DATA: &[u8] = b"what is signed\nin two lines\n";

pub(super) fn ed25519(seed: u8) -> Secret {
    Secret::Ed25519([seed; 32])
}

pub(super) fn packet(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[0xc0 | tag, 255][..], &length, body].concat()
}

pub(super) fn armored(label: &str, bytes: &[u8]) -> String {
    let base64 = base64::engine::general_purpose::STANDARD.encode(bytes);
    format!("-----BEGIN {label}-----\n\n{base64}\n-----END {label}-----\n")
}

pub(super) fn mpi(number: &[u8]) -> Vec<u8> {
    let number = crate::bytes::trimmed(number);
    let bits = number.len() * 8
        - number
            .first()
            .map_or(0, |first| first.leading_zeros() as usize);
    [&u16::try_from(bits).unwrap().to_be_bytes()[..], number].concat()
}

/// A key packet's body.
pub(super) fn key(secret: &Secret) -> Vec<u8> {
    let made = u32::try_from(MADE).unwrap().to_be_bytes();
    let material = match secret {
        Secret::Ed25519(_) => {
            let point = [&[0x40][..], &secret.public()].concat();
            [
                &b"\x16\x09\x2b\x06\x01\x04\x01\xda\x47\x0f\x01"[..],
                &mpi(&point),
            ]
            .concat()
        }
        Secret::Ecdsa(curve, _) => {
            let oid: &[u8] = match curve {
                Curve::P256 => b"\x13\x08\x2a\x86\x48\xce\x3d\x03\x01\x07",
                Curve::P384 => b"\x13\x05\x2b\x81\x04\x00\x22",
                Curve::P521 => b"\x13\x05\x2b\x81\x04\x00\x23",
            };
            [oid, &mpi(&secret.public())].concat()
        }
        Secret::Rsa(..) => [&[1][..], &mpi(&secret.public()), &mpi(&Secret::exponent())].concat(),
    };
    [&[4][..], &made, &material].concat()
}

pub(super) fn algorithm(secret: &Secret) -> u8 {
    match secret {
        Secret::Ed25519(_) => 22,
        Secret::Ecdsa(..) => 19,
        Secret::Rsa(..) => 1,
    }
}

/// A signature to be made.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) kind: u8,
    pub(super) hash: u8,
    pub(super) created: u64,
    pub(super) subpackets: Vec<u8>,
    /// Beside the issuer.
    pub(super) unhashed: Vec<u8>,
    pub(super) with_issuer: bool,
}

pub(super) fn subpacket(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 1).unwrap().to_be_bytes();
    [&[255][..], &length, &[kind], body].concat()
}

pub(super) fn time(kind: u8, seconds: u64) -> Vec<u8> {
    subpacket(kind, &u32::try_from(seconds).unwrap().to_be_bytes())
}

pub(super) fn draft(kind: u8) -> Draft {
    Draft {
        kind,
        hash: 8,
        created: SIGNED,
        subpackets: Vec::new(),
        unhashed: Vec::new(),
        with_issuer: true,
    }
}

impl Draft {
    pub(super) fn with(mut self, subpacket: Vec<u8>) -> Draft {
        self.subpackets.extend(subpacket);
        self
    }

    pub(super) fn at(self, created: u64) -> Draft {
        Draft { created, ..self }
    }

    pub(super) fn hash(self, hash: u8) -> Draft {
        Draft { hash, ..self }
    }

    /// The packet's body.
    pub(super) fn sign(&self, secret: &Secret, said: &[u8]) -> Vec<u8> {
        self.sign_with(secret, said, |hash, digest| secret.sign(hash, digest))
    }

    pub(super) fn sign_with(
        &self,
        secret: &Secret,
        said: &[u8],
        sign: impl FnOnce(Hash, &[u8]) -> Vec<Vec<u8>>,
    ) -> Vec<u8> {
        let hashed = [time(2, self.created), self.subpackets.clone()].concat();
        let length = u16::try_from(hashed.len()).unwrap().to_be_bytes();
        let head = [4, self.kind, algorithm(secret), self.hash];
        let start = [&head[..], &length, &hashed].concat();
        let length = u32::try_from(start.len()).unwrap().to_be_bytes();
        let hash = match self.hash {
            2 => Hash::Sha1,
            9 => Hash::Sha384,
            10 => Hash::Sha512,
            _ => Hash::Sha256,
        };
        let digest = hash.of(&[said, &start, &[4, 0xff], &length].concat());
        let mut unhashed = self.unhashed.clone();
        if self.with_issuer {
            unhashed.extend(subpacket(16, &fingerprint(&key(secret))[12..]));
        }
        let length = u16::try_from(unhashed.len()).unwrap().to_be_bytes();
        let numbers = sign(hash, &digest);
        let numbers: Vec<u8> = numbers.iter().flat_map(|number| mpi(number)).collect();
        [&start[..], &length, &unhashed, &digest[..2], &numbers].concat()
    }
}

pub(super) fn said_of_name(primary: &Secret) -> Vec<u8> {
    [
        &framed_key(&key(primary))[..],
        &[0xb4],
        &4_u32.to_be_bytes(),
        b"name",
    ]
    .concat()
}

pub(super) fn said_of_subkey(primary: &Secret, subkey: &Secret) -> Vec<u8> {
    [framed_key(&key(primary)), framed_key(&key(subkey))].concat()
}

/// A name with what `draft` says of it.
pub(super) fn name(primary: &Secret, draft: &Draft) -> Vec<u8> {
    let signed = draft.sign(primary, &said_of_name(primary));
    [packet(13, b"name"), packet(2, &signed)].concat()
}

/// What a key that may sign says of its name.
pub(super) fn usual() -> Draft {
    draft(0x13).at(MADE).with(subpacket(27, &[3]))
}

/// A key that may sign, with these packets after its name.
pub(super) fn certificate(primary: &Secret, more: &[u8]) -> String {
    let bytes = [
        &packet(6, &key(primary))[..],
        &name(primary, &usual()),
        more,
    ]
    .concat();
    armored("PGP PUBLIC KEY BLOCK", &bytes)
}

pub(super) fn signature(secret: &Secret, draft: &Draft) -> String {
    armored("PGP SIGNATURE", &packet(2, &draft.sign(secret, DATA)))
}

pub(super) fn check_at(
    signature: &str,
    keys: &str,
    reject_expired: bool,
    now: u64,
) -> Result<(), String> {
    let policy = Policy {
        reject_expired,
        now,
    };
    detached(signature.as_bytes(), keys.as_bytes(), policy, DATA).map_err(|e| e.to_string())
}

pub(super) fn check(signature: &str, keys: &str) -> Result<(), String> {
    check_at(signature, keys, false, NOW)
}

#[track_caller]
pub(super) fn refused(checked: Result<(), String>, reason: &str) {
    let error = checked.expect_err(reason);
    assert!(error.contains(reason), "{reason}: {error}");
}
