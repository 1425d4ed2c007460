//! OpenPGP (RFC 9580, of it version 4): keys, what they say of themselves, and detached signatures.

mod certificate;
mod packet;
mod signature;

use std::io::Read;
use std::sync::Arc;

use crate::armor;
use crate::error::{Error, Result, bad_key, bad_signature};
use crate::key::Hash;
use crate::{MAX_TEXT, Policy};

use certificate::{Certificate, Parts, SigningKey};
use signature::{Issuer, Signature, Type};

/// Clocks differ by so many seconds.
const SKEW: u64 = 5 * 60;
/// So many signatures of keys on themselves are checked. Keys of people have dozens.
const MAX_SELF_SIGNATURES: usize = 1000;

/// That `signature`, in armor, is of one of `keys`, in armor, too, over all that `data` gives.
/// The bytes are read once and not kept.
pub fn detached(signature: &[u8], keys: &[u8], policy: Policy, data: impl Read) -> Result<()> {
    let block = armor::only_block(signature)?;
    if block.label != "PGP SIGNATURE" {
        return Err(bad_signature("invalid signature format"));
    }
    let signature = only_signature(&block.bytes)?;
    signature.check_algorithms()?;
    if signature.created > policy.now + SKEW {
        return Err(bad_signature(format!(
            "signature creation time is in the future: {}",
            signature.created
        )));
    }
    let issuer = signature
        .issuer
        .clone()
        .ok_or_else(|| bad_signature("signature doesn't have an issuer"))?;
    let certificates = certificates(keys, &issuer)?;
    let candidates: Vec<_> = certificates
        .iter()
        .flat_map(Certificate::signing_keys)
        .filter(|key| issuer.names(&key.fingerprint))
        .collect();
    let digest = digest(&signature, data)?;
    let (mut good, mut last) = (false, Error::UnknownKey(issuer.to_string()));
    for key in candidates {
        let Some(public) = key.public.as_ref() else {
            let algorithm = key.algorithm;
            last = Error::Rejected(format!("unsupported pubkey algorithm: {algorithm}"));
            continue;
        };
        let numbers = signature.numbers(key.algorithm);
        let right = numbers.is_some_and(|numbers| public.signed(signature.hash, &digest, &numbers));
        let checked = match right {
            false => Err(Error::Wrong(issuer.to_string())),
            true => may_sign(&key, &signature, policy),
        };
        match checked {
            Ok(()) => good = true,
            // A key that has ended has, also where another key calls it its subkey still.
            Err(error @ (Error::Revoked | Error::Expired(..))) => return Err(error),
            Err(error) => last = error,
        }
    }
    match good {
        true => Ok(()),
        false => Err(last),
    }
}

/// That a key which made a signature could do so.
fn may_sign(key: &SigningKey<'_>, signature: &Signature<'_>, policy: Policy) -> Result<()> {
    if key.revoked {
        return Err(Error::Revoked);
    }
    for public in key.public.into_iter().chain(key.primary) {
        public.check_strength()?;
    }
    let at = match policy.reject_expired {
        true => policy.now,
        false => signature.created,
    };
    if key.created > signature.created {
        return Err(bad_signature("it is older than the key that made it"));
    }
    if let Some(expires) = key.expires.iter().find(|expires| **expires <= at) {
        return Err(Error::Expired("key", *expires));
    }
    match signature.expires() {
        Some(expires) if policy.reject_expired && expires <= at => {
            Err(Error::Expired("signature", expires))
        }
        _ => Ok(()),
    }
}

fn only_signature(bytes: &[u8]) -> Result<Signature<'_>> {
    let mut packets = packet::packets(bytes);
    let first = packets.next().transpose().map_err(bad_signature)?;
    let Some(packet) = first.filter(|packet| packet.tag == packet::SIGNATURE) else {
        return Err(bad_signature("no signature packet found"));
    };
    if packets.next().is_some() {
        return Err(bad_signature("there are several"));
    }
    Signature::parse(packet.body).map_err(bad_signature)
}

/// Those keys of all blocks that have the one named, as a subkey or themselves. Others are not looked
/// at: a keyring may be full of them.
fn certificates(keys: &[u8], issuer: &Issuer) -> Result<Vec<Certificate>> {
    if keys.len() > MAX_TEXT {
        return Err(bad_key("it is larger than 1 MiB"));
    }
    let blocks = armor::blocks(keys)?;
    if blocks.is_empty() {
        let why = "failed to read armored public key: no armored data found";
        return Err(bad_key(why));
    }
    let mut packets = Vec::new();
    for block in &blocks {
        packets.extend(packets_of_keys(block)?);
    }
    let (named, others): (Vec<_>, Vec<_>) = Parts::of(packets.into_iter())
        .into_iter()
        .partition(|parts| parts.has(issuer));
    if named.iter().map(Parts::cost).sum::<usize>() > MAX_SELF_SIGNATURES {
        let why = format!("it has more than {MAX_SELF_SIGNATURES} signatures on itself");
        return Err(bad_key(why));
    }
    let (mut all, mut refused) = (Vec::new(), None);
    for parts in &named {
        match Certificate::parse(parts) {
            Ok(certificate) => all.push(certificate),
            Err(reason) => refused = Some(reason),
        }
    }
    // Of keys none of which is of any use, it is said why.
    let useless: Option<Vec<_>> = others.iter().map(Parts::unsupported).collect();
    refused = refused.or_else(|| useless?.pop());
    match refused {
        Some(reason) if all.is_empty() => Err(bad_key(reason)),
        _ => Ok(all),
    }
}

/// The packets of a block that keys consist of, of which the first is a key.
fn packets_of_keys<'a>(block: &'a armor::Block) -> Result<Vec<packet::Packet<'a>>> {
    if block.label != "PGP PUBLIC KEY BLOCK" {
        let label = &block.label;
        return Err(bad_key(format!("expected public key block, got: {label}")));
    }
    let mut packets: Vec<_> = packet::packets(&block.bytes)
        .collect::<Result<_, _>>()
        .map_err(bad_key)?;
    packets.retain(|packet| packet::OF_KEYS.contains(&packet.tag));
    match packets.first().map(|packet| packet.tag) {
        Some(packet::PUBLIC_KEY) => Ok(packets),
        // As `gpg --gen-revoke` writes it; the key it is about would be taken for a good one.
        Some(packet::SIGNATURE) => Err(bad_key(
            "there is a signature without the key it is about; import a revocation and export the key",
        )),
        Some(_) => Err(bad_key("a block does not begin with a key")),
        None => Err(bad_key("there is none in it")),
    }
}

/// The digest that was signed: what is read, then what the signature says of itself.
fn digest(signature: &Signature<'_>, mut data: impl Read) -> Result<Vec<u8>> {
    let mut digest = signature.hash.begin();
    let (mut buffer, mut last) = (vec![0; 64 << 10], 0);
    loop {
        let read = match data.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::Read(Arc::new(error))),
        };
        match signature.kind {
            Type::Text => update_as_text(&mut digest, &buffer[..read], &mut last),
            _ => digest.update(&buffer[..read]),
        }
    }
    digest.update(&signature.trailer());
    Ok(digest.finish().as_ref().to_vec())
}

/// A signature of a text is over it with line ends of CR LF.
fn update_as_text(digest: &mut ring::digest::Context, bytes: &[u8], last: &mut u8) {
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte == b'\n' && *last != b'\r' {
            digest.update(&bytes[from..at]);
            digest.update(b"\r");
            from = at;
        }
        *last = *byte;
    }
    digest.update(&bytes[from..]);
}

/// The name of a key: SHA-1 over its packet.
fn fingerprint(key: &[u8]) -> [u8; 20] {
    Hash::Sha1
        .of(&framed_key(key))
        .try_into()
        .expect("SHA-1 has 20 bytes")
}

/// A key as it is hashed. A packet longer than its length can say was refused when it was read.
fn framed_key(key: &[u8]) -> Vec<u8> {
    let length = u16::try_from(key.len()).unwrap_or(u16::MAX);
    [&[0x99][..], &length.to_be_bytes(), key].concat()
}

#[cfg(test)]
mod tests;
