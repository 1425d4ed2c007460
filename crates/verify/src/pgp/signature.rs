//! A signature packet.

use std::fmt;

use super::packet;
use crate::bytes::{Bytes, padded};
use crate::error::{Error, Result};
use crate::key::{Hash, Numbers};

pub(super) const RSA: u8 = 1;
pub(super) const RSA_SIGN_ONLY: u8 = 3;
pub(super) const ECDSA: u8 = 19;
pub(super) const EDDSA: u8 = 22;

/// What a signature is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Binary,
    Text,
    /// A user id is the key's.
    Certification,
    /// A subkey is the primary key's.
    SubkeyBinding,
    /// The primary key is the subkey's, too.
    PrimaryBinding,
    /// About a primary key itself.
    Direct,
    KeyRevocation,
    SubkeyRevocation,
    UserIdRevocation,
    Other,
}

/// Whose a signature says it is.
#[derive(Clone, Debug)]
pub(super) enum Issuer {
    Fingerprint([u8; 20]),
    KeyId([u8; 8]),
}

impl Issuer {
    /// Whether it is the key with this fingerprint.
    pub(super) fn names(&self, fingerprint: &[u8; 20]) -> bool {
        match self {
            Issuer::Fingerprint(own) => own == fingerprint,
            Issuer::KeyId(id) => fingerprint.ends_with(id),
        }
    }
}

impl fmt::Display for Issuer {
    /// The key id, which ends a fingerprint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = match self {
            Issuer::Fingerprint(whole) => &whole[12..],
            Issuer::KeyId(id) => &id[..],
        };
        id.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

/// A signature of version 4. Times are seconds since 1970, spans seconds.
pub(super) struct Signature<'a> {
    pub(super) kind: Type,
    algorithm: u8,
    pub(super) hash: Hash,
    /// From the version to the end of the hashed subpackets.
    hashed: &'a [u8],
    numbers: &'a [u8],
    pub(super) created: u64,
    pub(super) issuer: Option<Issuer>,
    lifetime: u64,
    pub(super) key_lifetime: u64,
    pub(super) is_primary: bool,
    pub(super) flags: Option<u8>,
    embedded: Option<&'a [u8]>,
}

impl<'a> Signature<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Signature<'a>, String> {
        let early = || "it ends early".to_owned();
        let mut left = Bytes(body);
        let [version, kind, algorithm, hash] = left.array().ok_or_else(early)?;
        if version != 4 {
            return Err(format!("version {version} is not supported"));
        }
        let length = left.u16().ok_or_else(early)?;
        let subpackets = left.take(length.into()).ok_or_else(early)?;
        let hashed = &body[..6 + usize::from(length)];
        let length = left.u16().ok_or_else(early)?;
        let unhashed = left.take(length.into()).ok_or_else(early)?;
        // Two bytes of the digest, for those who want to know early.
        left.take(2).ok_or_else(early)?;
        let mut signature = Signature {
            kind: kind_of(kind),
            algorithm,
            hash: match hash {
                2 => Hash::Sha1,
                8 => Hash::Sha256,
                9 => Hash::Sha384,
                10 => Hash::Sha512,
                other => return Err(format!("weak/unknown hash: number {other}")),
            },
            hashed,
            numbers: left.0,
            created: 0,
            issuer: None,
            lifetime: 0,
            key_lifetime: 0,
            is_primary: false,
            flags: None,
            embedded: None,
        };
        let mut has_time = false;
        for_each_subpacket(subpackets, |kind, critical, body| {
            has_time |= kind == 2;
            signature.take(kind, critical, body)
        })?;
        for_each_subpacket(unhashed, |kind, _, body| match kind {
            // Not signed: only what is itself checked, or says where to look.
            16 | 32 | 33 => signature.take(kind, false, body),
            _ => Ok(()),
        })?;
        match has_time {
            true => Ok(signature),
            false => Err("it does not say when it was made".into()),
        }
    }

    fn take(&mut self, kind: u8, critical: bool, body: &'a [u8]) -> Result<(), String> {
        let number = || {
            let bytes = body.try_into().map_err(|_| "a bad subpacket".to_owned())?;
            Ok::<_, String>(u64::from(u32::from_be_bytes(bytes)))
        };
        match (kind, body) {
            (2, _) => self.created = number()?,
            (3, _) => self.lifetime = number()?,
            (9, _) => self.key_lifetime = number()?,
            (16, _) if !matches!(self.issuer, Some(Issuer::Fingerprint(_))) => {
                self.issuer = Some(issuer(kind, body).ok_or("a bad subpacket")?);
            }
            (25, [flag]) => self.is_primary = *flag != 0,
            (27, [flags, ..]) => self.flags = Some(*flags),
            (32, _) => self.embedded = Some(body),
            (33, [4, ..]) => self.issuer = Some(issuer(kind, body).ok_or("a bad subpacket")?),
            // Preferences, trust and the like: they limit nothing that is asked here.
            (4..=7 | 11 | 12 | 16 | 21..=31 | 33..=35, _) => {}
            _ if critical => return Err(format!("critical subpacket {kind} is not understood")),
            _ => {}
        }
        Ok(())
    }

    /// That its algorithms are strong ones that BuildKit takes.
    pub(super) fn check_algorithms(&self) -> Result<()> {
        if self.hash == Hash::Sha1 {
            return Err(Error::Rejected("weak/unknown hash: SHA-1".into()));
        }
        let algorithm = self.algorithm;
        match algorithm {
            RSA | RSA_SIGN_ONLY | ECDSA | EDDSA => {}
            other => {
                let why = format!("unsupported pubkey algorithm: {other}");
                return Err(Error::Rejected(why));
            }
        }
        match self.kind {
            Type::Binary | Type::Text => Ok(()),
            other => Err(Error::Rejected(format!(
                "a signature that is not about bytes, but: {other:?}"
            ))),
        }
    }

    /// The numbers, for a key of this algorithm.
    pub(super) fn numbers(&self, algorithm: u8) -> Option<Numbers<'a>> {
        let is_rsa = |algorithm| matches!(algorithm, RSA | RSA_SIGN_ONLY);
        if algorithm != self.algorithm && !(is_rsa(algorithm) && is_rsa(self.algorithm)) {
            return None;
        }
        let mut left = Bytes(self.numbers);
        let numbers = match self.algorithm {
            RSA | RSA_SIGN_ONLY => Numbers::Rsa(left.mpi()?),
            ECDSA => Numbers::Ecdsa(left.mpi()?, left.mpi()?),
            EDDSA => {
                let (r, s) = (padded::<32>(left.mpi()?)?, padded::<32>(left.mpi()?)?);
                let mut both = [0; 64];
                both[..32].copy_from_slice(&r);
                both[32..].copy_from_slice(&s);
                Numbers::Ed25519(both)
            }
            _ => return None,
        };
        left.is_empty().then_some(numbers)
    }

    /// What of the signature itself is signed.
    pub(super) fn trailer(&self) -> Vec<u8> {
        let length = u32::try_from(self.hashed.len()).expect("its length has two bytes");
        [self.hashed, &[4, 0xff], &length.to_be_bytes()].concat()
    }

    /// When it ceases to count, if ever.
    pub(super) fn expires(&self) -> Option<u64> {
        (self.lifetime > 0).then(|| self.created + self.lifetime)
    }

    /// Whether it says that it is the key's; `or_nobodys` when it names nobody, too.
    pub(super) fn is_of(&self, key: &[u8; 20], or_nobodys: bool) -> bool {
        match &self.issuer {
            Some(issuer) => issuer.names(key),
            None => or_nobodys,
        }
    }

    /// The signature inside of it.
    pub(super) fn embedded(&self) -> Option<Signature<'a>> {
        Signature::parse(self.embedded?).ok()
    }
}

/// Whether bytes that cannot be read as a signature may be one of this sort by the key all the same:
/// they say the sort, and name the key or nobody.
pub(super) fn may_be(body: &[u8], kind: Type, key: &[u8; 20]) -> bool {
    let (said, issuers) = match body {
        [2 | 3, _, said, rest @ ..] => {
            let issuer = rest.get(4..12).and_then(|id| issuer(16, id));
            (*said, issuer.into_iter().collect())
        }
        [4, said, _, _, rest @ ..] => (*said, issuers(rest)),
        [_, said, ..] => (*said, Vec::new()),
        _ => return false,
    };
    kind_of(said) == kind && (issuers.is_empty() || issuers.iter().any(|issuer| issuer.names(key)))
}

/// Whoever is named in both sorts of subpackets, as far as they can be read.
fn issuers(bytes: &[u8]) -> Vec<Issuer> {
    let (mut left, mut all) = (Bytes(bytes), Vec::new());
    for _ in 0..2 {
        let length = left.u16();
        let Some(subpackets) = length.and_then(|length| left.take(length.into())) else {
            break;
        };
        let read = for_each_subpacket(subpackets, |kind, _, body| {
            all.extend(issuer(kind, body));
            Ok(())
        });
        if read.is_err() {
            break;
        }
    }
    all
}

/// Whom a subpacket names.
fn issuer(kind: u8, body: &[u8]) -> Option<Issuer> {
    match (kind, body) {
        (16, id) => Some(Issuer::KeyId(id.try_into().ok()?)),
        (33, [4, fingerprint @ ..]) => Some(Issuer::Fingerprint(fingerprint.try_into().ok()?)),
        _ => None,
    }
}

fn kind_of(byte: u8) -> Type {
    match byte {
        0x00 => Type::Binary,
        0x01 => Type::Text,
        0x10..=0x13 => Type::Certification,
        0x18 => Type::SubkeyBinding,
        0x19 => Type::PrimaryBinding,
        0x1f => Type::Direct,
        0x20 => Type::KeyRevocation,
        0x28 => Type::SubkeyRevocation,
        0x30 => Type::UserIdRevocation,
        _ => Type::Other,
    }
}

fn for_each_subpacket<'a>(
    bytes: &'a [u8],
    mut take: impl FnMut(u8, bool, &'a [u8]) -> Result<(), String>,
) -> Result<(), String> {
    let mut left = Bytes(bytes);
    while !left.is_empty() {
        let body = subpacket_length(&mut left)
            .and_then(|length| left.take(usize::try_from(length).ok()?))
            .and_then(|whole| whole.split_first());
        let (kind, body) = body.ok_or("a subpacket ends early")?;
        take(kind & 0x7f, kind & 0x80 != 0, body)?;
    }
    Ok(())
}

/// Like that of packets, without parts: two bytes reach further.
fn subpacket_length(left: &mut Bytes<'_>) -> Option<u32> {
    match left.0.first()? {
        first @ 224..=254 => {
            let first = u32::from(*first);
            left.u8()?;
            Some(((first - 192) << 8) + u32::from(left.u8()?) + 192)
        }
        _ => packet::length(left),
    }
}
