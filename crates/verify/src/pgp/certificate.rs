//! A public key with what it says of itself: names, subkeys, when it ends. None of it is believed
//! that the key has not signed: anybody may add packets to a key on its way.

use std::collections::{HashMap, HashSet};

use super::packet::{self, Packet};
use super::signature::{self, ECDSA, EDDSA, Issuer, RSA, RSA_SIGN_ONLY, Signature, Type};
use super::{fingerprint, framed_key};
use crate::bytes::{Bytes, padded};
use crate::key::{Curve, PublicKey, RsaKey};

/// The flag of keys that may sign.
const MAY_SIGN: u8 = 2;
/// Longer names are passed over: every signature of one goes over all of it.
const MAX_NAME: usize = 4 << 10;

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
    /// When this itself, or what it rests on, ends.
    expires: Option<u64>,
}

/// A primary key and its subkeys.
pub(super) struct Certificate {
    primary: Key,
    revoked: bool,
    /// From the user id that counts.
    binding: Binding,
    /// When it ends by what it says directly of itself.
    ends: Option<u64>,
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

/// Something of a key with all the signatures that stand behind it, in any copy of the key.
struct Part<'a> {
    about: Packet<'a>,
    signatures: Vec<&'a [u8]>,
}

/// The primary key, then its names and subkeys, of all copies of the key: what a newer copy says
/// holds whichever is read first.
pub(super) struct Parts<'a>(Vec<Part<'a>>);

impl<'a> Parts<'a> {
    /// The keys of a keyring.
    pub(super) fn of(packets: impl Iterator<Item = Packet<'a>>) -> Vec<Parts<'a>> {
        let mut keys: Vec<Parts<'a>> = Vec::new();
        let (mut by_primary, mut places) = (HashMap::new(), HashMap::new());
        let mut seen = HashSet::new();
        let mut at = None;
        for packet in packets {
            let new = Part {
                about: packet,
                signatures: Vec::new(),
            };
            match (packet.tag, at) {
                (packet::PUBLIC_KEY, _) => {
                    let key = *by_primary.entry(packet.body).or_insert(keys.len());
                    if key == keys.len() {
                        keys.push(Parts(vec![new]));
                    }
                    at = Some((key, 0));
                }
                (packet::SIGNATURE, Some((key, part))) => {
                    if seen.insert((key, part, packet.body)) {
                        keys[key].0[part].signatures.push(packet.body);
                    }
                }
                (tag, Some((key, _))) => {
                    let parts = &mut keys[key].0;
                    let part = *places.entry((key, tag, packet.body)).or_insert(parts.len());
                    if part == parts.len() {
                        parts.push(new);
                    }
                    at = Some((key, part));
                }
                (_, None) => {}
            }
        }
        keys
    }

    /// Whether the key or one of its subkeys is the one that is named.
    pub(super) fn has(&self, issuer: &Issuer) -> bool {
        let keys = [packet::PUBLIC_KEY, packet::PUBLIC_SUBKEY];
        let mut keys = self.0.iter().filter(|part| keys.contains(&part.about.tag));
        keys.any(|part| issuer.names(&fingerprint(part.about.body)))
    }

    /// Why its primary key is not taken, if it is of such a sort.
    pub(super) fn unsupported(&self) -> Option<String> {
        Key::supported(self.0[0].about.body).err()
    }

    /// How many signatures have to be checked to know the key.
    pub(super) fn cost(&self) -> usize {
        let primary = fingerprint(self.0[0].about.body);
        let signatures = self.0.iter().flat_map(|part| &part.signatures);
        let parsed = signatures.filter_map(|body| Signature::parse(body).ok());
        parsed.filter(|one| one.is_of(&primary, true)).count()
    }
}

impl Certificate {
    pub(super) fn parse(parts: &Parts<'_>) -> Result<Certificate, String> {
        let primary = Key::supported(parts.0[0].about.body)?;
        let frame = framed_key(&primary.body);
        // Wherever they stand.
        let mut all = parts.0.iter().flat_map(|part| &part.signatures);
        let revoked = all.any(|body| takes_back(&primary, Type::KeyRevocation, body, &frame));
        let (mut names, mut subkeys) = (Vec::new(), Vec::new());
        for part in &parts.0[1..] {
            let body = part.about.body;
            match part.about.tag {
                packet::USER_ID | packet::USER_ATTRIBUTE if body.len() <= MAX_NAME => {
                    let mark = match part.about.tag {
                        packet::USER_ID => [0xb4],
                        _ => [0xd1],
                    };
                    let length = u32::try_from(body.len()).map_err(|_| "a long name")?;
                    let said = [&frame[..], &mark, &length.to_be_bytes(), body].concat();
                    names.extend(name(&primary, part, &said));
                }
                packet::PUBLIC_SUBKEY => {
                    // One that is not understood cannot have signed; it does no harm.
                    if let Ok(key) = Key::parse(body) {
                        let said = [&frame[..], &framed_key(&key.body)].concat();
                        subkeys.extend(subkey(&primary, key, part, &said));
                    }
                }
                _ => {}
            }
        }
        let binding = names
            .into_iter()
            .max_by_key(|name| (name.is_primary, name.made))
            .ok_or("it has no name of its own that is not revoked")?;
        let direct = own_signatures(&parts.0[0], &primary.fingerprint)
            .filter(|own| own.kind == Type::Direct && primary.signed(own, &frame))
            .max_by_key(|own| own.created);
        Ok(Certificate {
            revoked,
            binding,
            ends: direct.and_then(|own| Binding::of(&own, &primary).key_expires),
            primary,
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
            expires: self.ends(),
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
            expires: [self.ends(), binding.ends()].concat(),
        });
        primary.into_iter().chain(subkeys)
    }

    fn ends(&self) -> Vec<u64> {
        self.binding.ends().into_iter().chain(self.ends).collect()
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

/// The signatures of a part that say they are the primary key's.
fn own_signatures<'a>(part: &Part<'a>, primary: &[u8; 20]) -> impl Iterator<Item = Signature<'a>> {
    part.signatures
        .iter()
        .filter_map(|body| Signature::parse(body).ok())
        .filter(|signature| signature.is_of(primary, false))
}

/// Whether a signature of this sort takes back what is `said`. One that may be the key's own and is
/// not understood does: nobody knows that the key is still good.
fn takes_back(primary: &Key, kind: Type, body: &[u8], said: &[u8]) -> bool {
    match Signature::parse(body) {
        Ok(own) => {
            own.kind == kind && own.is_of(&primary.fingerprint, true) && primary.signed(&own, said)
        }
        Err(_) => signature::may_be(body, kind, &primary.fingerprint),
    }
}

/// What the newest signature of a name says, unless the name was taken back since. Unlike a key, a
/// name is not taken back by what cannot be read, as for gpg: it need not be that the key is bad.
fn name(primary: &Key, part: &Part<'_>, said: &[u8]) -> Option<Binding> {
    let (mut newest, mut taken_back) = (None::<Binding>, None);
    for signature in own_signatures(part, &primary.fingerprint) {
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
fn subkey(primary: &Key, key: Key, part: &Part<'_>, said: &[u8]) -> Option<(Key, Binding, bool)> {
    let mut bodies = part.signatures.iter();
    let revoked = bodies.any(|body| takes_back(primary, Type::SubkeyRevocation, body, said));
    let newest = own_signatures(part, &primary.fingerprint)
        .filter(|own| own.kind == Type::SubkeyBinding && primary.signed(own, said))
        .max_by_key(|own| own.created)?;
    let mut binding = Binding::of(&newest, &key);
    // Else anybody could claim another's key as a subkey, and its signatures with it.
    let back = newest
        .embedded()
        .filter(|back| back.kind == Type::PrimaryBinding && key.signed(back, said));
    binding.may_sign &= back.is_some();
    let ends = back.and_then(|back| back.expires());
    binding.expires = binding.expires.into_iter().chain(ends).min();
    Some((key, binding, revoked))
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

    /// A key of a sort that is taken.
    fn supported(body: &[u8]) -> Result<Key, String> {
        let key = Key::parse(body)?;
        match key.public {
            Some(_) => Ok(key),
            None => Err(format!(
                "rejecting unsupported pubkey algorithm: {}",
                key.algorithm
            )),
        }
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
            let (modulus, exponent) = (left.mpi()?, left.mpi()?);
            PublicKey::Rsa(RsaKey::new(modulus, exponent))
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
