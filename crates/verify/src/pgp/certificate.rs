//! A public key with what it says of itself: names, subkeys, when it ends. None of it is believed
//! that the key has not signed: anybody may add packets to a key on its way.

use super::packet::{self, Packet};
use super::signature::{ECDSA, EDDSA, RSA, RSA_SIGN_ONLY, Signature, Type};
use super::{fingerprint, framed_key};
use crate::bytes::{Bytes, padded};
use crate::key::{Curve, PublicKey};

/// The flag of keys that may sign.
const MAY_SIGN: u8 = 2;

/// A key packet.
struct Key {
    body: Vec<u8>,
    created: u64,
    algorithm: u8,
    /// `None` for algorithms that are not supported.
    public: Option<PublicKey>,
    fingerprint: [u8; 20],
}

/// What a key's own signatures say of it.
#[derive(Clone, Copy)]
struct Binding {
    made: u64,
    is_primary: bool,
    may_sign: bool,
    /// When the key ends.
    key_expires: Option<u64>,
    /// When this itself ends.
    expires: Option<u64>,
}

/// A primary key and its subkeys.
pub(super) struct Certificate {
    primary: Key,
    revoked: bool,
    /// From the user id that counts.
    binding: Binding,
    subkeys: Vec<(Key, Binding, bool)>,
}

/// A key that may have made a signature.
pub(super) struct SigningKey<'a> {
    pub(super) fingerprint: [u8; 20],
    pub(super) algorithm: u8,
    pub(super) public: Option<&'a PublicKey>,
    /// The primary key, when this is a subkey.
    pub(super) primary: Option<&'a PublicKey>,
    pub(super) created: u64,
    pub(super) revoked: bool,
    /// All the times at which it ends.
    pub(super) expires: Vec<u64>,
}

/// The packets of each key of a keyring.
pub(super) fn split<'p, 'a>(packets: &'p [Packet<'a>]) -> impl Iterator<Item = &'p [Packet<'a>]> {
    packets
        .chunk_by(|_, next| next.tag != packet::PUBLIC_KEY)
        .filter(|chunk| chunk[0].tag == packet::PUBLIC_KEY)
}

impl Certificate {
    pub(super) fn parse(packets: &[Packet<'_>]) -> Result<Certificate, String> {
        let primary = Key::parse(packets[0].body)?;
        if primary.public.is_none() {
            let algorithm = primary.algorithm;
            return Err(format!(
                "rejecting unsupported pubkey algorithm: {algorithm}"
            ));
        }
        let frame = framed_key(&primary.body);
        let (mut revoked, mut names, mut subkeys) = (false, Vec::new(), Vec::new());
        let parts = packets[1..].chunk_by(|_, next| next.tag == packet::SIGNATURE);
        // Signatures before the first name are about the key itself.
        for (at, part) in parts.enumerate() {
            let signatures = || own_signatures(part, &primary.fingerprint);
            match part[0].tag {
                packet::SIGNATURE if at == 0 => {
                    revoked |= signatures().any(|signature| {
                        signature.kind == Type::KeyRevocation && primary.signed(&signature, &frame)
                    });
                }
                packet::USER_ID | packet::USER_ATTRIBUTE => {
                    let mark = [if part[0].tag == packet::USER_ID {
                        0xb4
                    } else {
                        0xd1
                    }];
                    let length = u32::try_from(part[0].body.len()).map_err(|_| "a long name")?;
                    let length = length.to_be_bytes();
                    let said = [&frame[..], &mark, &length, part[0].body].concat();
                    names.extend(name(&primary, signatures(), &said));
                }
                packet::PUBLIC_SUBKEY => {
                    // One that is not understood cannot have signed; it does no harm.
                    if let Ok(key) = Key::parse(part[0].body) {
                        let said = [&frame[..], &framed_key(&key.body)].concat();
                        subkeys.extend(subkey(&primary, key, signatures(), &said));
                    }
                }
                _ => {}
            }
        }
        let binding = names
            .into_iter()
            .max_by_key(|name| (name.is_primary, name.made))
            .ok_or("it has no name of its own that is not revoked")?;
        Ok(Certificate {
            primary,
            revoked,
            binding,
            subkeys,
        })
    }

    /// Its keys that may sign.
    pub(super) fn signing_keys(&self) -> impl Iterator<Item = SigningKey<'_>> {
        let primary = self.binding.may_sign.then(|| SigningKey {
            fingerprint: self.primary.fingerprint,
            algorithm: self.primary.algorithm,
            public: self.primary.public.as_ref(),
            primary: None,
            created: self.primary.created,
            revoked: self.revoked,
            expires: self.binding.ends(),
        });
        let subkeys = self
            .subkeys
            .iter()
            .filter(|(_, binding, _)| binding.may_sign);
        let subkeys = subkeys.map(|(key, binding, revoked)| SigningKey {
            fingerprint: key.fingerprint,
            algorithm: key.algorithm,
            public: key.public.as_ref(),
            primary: self.primary.public.as_ref(),
            created: key.created.max(self.primary.created),
            revoked: self.revoked || *revoked,
            expires: [self.binding.ends(), binding.ends()].concat(),
        });
        primary.into_iter().chain(subkeys)
    }
}

impl Binding {
    fn of(signature: &Signature<'_>, key: &Key) -> Binding {
        Binding {
            made: signature.created,
            is_primary: signature.is_primary,
            may_sign: signature.flags.is_some_and(|flags| flags & MAY_SIGN != 0),
            key_expires: (signature.key_lifetime > 0).then(|| key.created + signature.key_lifetime),
            expires: signature.expires(),
        }
    }

    fn ends(&self) -> Vec<u64> {
        self.key_expires.into_iter().chain(self.expires).collect()
    }
}

/// The signatures after the first packet of a part that say they are the primary key's.
fn own_signatures<'a>(
    part: &[Packet<'a>],
    primary: &[u8; 20],
) -> impl Iterator<Item = Signature<'a>> {
    part.iter()
        .filter(|packet| packet.tag == packet::SIGNATURE)
        .filter_map(|packet| Signature::parse(packet.body).ok())
        .filter(|signature| {
            let issuer = signature.issuer.as_ref();
            issuer.is_some_and(|issuer| issuer.names(primary))
        })
}

/// What the newest signature of a name says, unless the name was taken back since.
fn name<'a>(
    primary: &Key,
    signatures: impl Iterator<Item = Signature<'a>>,
    said: &[u8],
) -> Option<Binding> {
    let (mut newest, mut taken_back) = (None::<Binding>, None);
    for signature in signatures {
        let is_name = signature.kind == Type::Certification;
        if !(is_name || signature.kind == Type::UserIdRevocation)
            || !primary.signed(&signature, said)
        {
            continue;
        }
        if !is_name {
            taken_back = taken_back.max(Some(signature.created));
        } else if newest.is_none_or(|newest| newest.made <= signature.created) {
            newest = Some(Binding::of(&signature, primary));
        }
    }
    newest.filter(|newest| taken_back.is_none_or(|time| time < newest.made))
}

/// What the newest signature over a subkey says, and whether it was revoked.
fn subkey<'a>(
    primary: &Key,
    key: Key,
    signatures: impl Iterator<Item = Signature<'a>>,
    said: &[u8],
) -> Option<(Key, Binding, bool)> {
    let (mut newest, mut revoked) = (None::<Binding>, false);
    for signature in signatures {
        let is_binding = signature.kind == Type::SubkeyBinding;
        if !(is_binding || signature.kind == Type::SubkeyRevocation)
            || !primary.signed(&signature, said)
        {
            continue;
        }
        if !is_binding {
            revoked = true;
        } else if newest.is_none_or(|newest| newest.made <= signature.created) {
            let mut binding = Binding::of(&signature, &key);
            // Else anybody could claim another's key as a subkey, and its signatures with it.
            binding.may_sign &= signature
                .embedded()
                .is_some_and(|back| back.kind == Type::PrimaryBinding && key.signed(&back, said));
            newest = Some(binding);
        }
    }
    newest.map(|binding| (key, binding, revoked))
}

impl Key {
    fn parse(body: &[u8]) -> Result<Key, String> {
        let early = || "a key ends early".to_owned();
        if body.len() > usize::from(u16::MAX) {
            return Err("a key is longer than it can say".into());
        }
        let mut left = Bytes(body);
        let version = left.u8().ok_or_else(early)?;
        if version != 4 {
            return Err(format!("a key of version {version} is not supported"));
        }
        let created = left.u32().ok_or_else(early)?;
        let algorithm = left.u8().ok_or_else(early)?;
        Ok(Key {
            body: body.to_vec(),
            created: created.into(),
            algorithm,
            public: public(algorithm, left),
            fingerprint: fingerprint(body),
        })
    }

    /// Whether it made the signature over `said`.
    fn signed(&self, signature: &Signature<'_>, said: &[u8]) -> bool {
        let (Some(public), Some(numbers)) = (&self.public, signature.numbers(self.algorithm))
        else {
            return false;
        };
        let mut digest = signature.hash.begin();
        digest.update(said);
        digest.update(&signature.trailer());
        public.signed(signature.hash, digest.finish().as_ref(), &numbers)
    }
}

/// The key's numbers; `None` for what is not supported, and for what cannot be.
fn public(algorithm: u8, mut left: Bytes<'_>) -> Option<PublicKey> {
    let public = match algorithm {
        RSA | RSA_SIGN_ONLY => {
            let modulus = left.mpi()?.to_vec();
            let exponent = left.mpi()?.to_vec();
            PublicKey::Rsa { modulus, exponent }
        }
        ECDSA | EDDSA => {
            let length = left.u8()?;
            let curve = left.take(length.into())?;
            let point = left.mpi()?;
            match (algorithm, curve) {
                (ECDSA, b"\x2a\x86\x48\xce\x3d\x03\x01\x07") => {
                    PublicKey::Ecdsa(Curve::P256, point.to_vec())
                }
                (ECDSA, b"\x2b\x81\x04\x00\x22") => PublicKey::Ecdsa(Curve::P384, point.to_vec()),
                (ECDSA, b"\x2b\x81\x04\x00\x23") => PublicKey::Ecdsa(Curve::P521, point.to_vec()),
                (EDDSA, b"\x2b\x06\x01\x04\x01\xda\x47\x0f\x01") => {
                    PublicKey::Ed25519(padded(point.strip_prefix(&[0x40])?)?)
                }
                _ => return None,
            }
        }
        _ => return None,
    };
    left.is_empty().then_some(public)
}
