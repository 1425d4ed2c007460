//! SSH signatures (`PROTOCOL.sshsig` of OpenSSH).

use crate::armor;
use crate::bytes::Bytes;
use crate::error::{Error, Result, bad_key, bad_signature};
use crate::key::{Curve, Hash, Numbers, PublicKey, RsaKey};

const MAGIC: &[u8] = b"SSHSIG";
/// What keys in hardware sign besides: that somebody touched them.
const PRESENT: u8 = 1;

/// That the text is a signature of one of `keys` over `message`, made for `namespace`.
pub(crate) fn check(text: &[u8], keys: &[u8], namespace: &str, message: &[u8]) -> Result<()> {
    let block = armor::only_block(text)?;
    if block.label != "SSH SIGNATURE" {
        return Err(bad_signature("it is no SSH signature"));
    }
    let signature = Signature::parse(&block.bytes).ok_or_else(|| bad_signature("it ends early"))?;
    if signature.version != 1 {
        let version = format!("an SSH signature of version {}", signature.version);
        return Err(Error::Rejected(version));
    }
    if signature.namespace != namespace.as_bytes() {
        let told = String::from_utf8_lossy(signature.namespace).into_owned();
        return Err(Error::Rejected(format!(
            "an SSH signature made for {told:?}, not for {namespace:?}"
        )));
    }
    let hash = match signature.hash {
        b"sha256" => Hash::Sha256,
        b"sha512" => Hash::Sha512,
        other => {
            let other = String::from_utf8_lossy(other).into_owned();
            return Err(Error::Rejected(format!("weak/unknown hash: {other:?}")));
        }
    };
    let known = known_keys(keys)?;
    let name = fingerprint(signature.key);
    if !known.iter().any(|key| key == signature.key) {
        return Err(Error::UnknownKey(name));
    }
    let key = Key::parse(signature.key)?;
    key.public.check_strength()?;
    let signed = [
        MAGIC,
        &string(signature.namespace),
        &string(signature.reserved),
        &string(signature.hash),
        &string(&hash.of(message)),
    ]
    .concat();
    match key.signed(&signed, signature.signature) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Wrong(name)),
        Err(error) => Err(error),
    }
}

/// A signature taken apart.
struct Signature<'a> {
    version: u32,
    key: &'a [u8],
    namespace: &'a [u8],
    reserved: &'a [u8],
    hash: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signature<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Signature<'a>> {
        let mut bytes = Bytes(bytes.strip_prefix(MAGIC)?);
        let signature = Signature {
            version: bytes.u32()?,
            key: bytes.string()?,
            namespace: bytes.string()?,
            reserved: bytes.string()?,
            hash: bytes.string()?,
            signature: bytes.string()?,
        };
        bytes.is_empty().then_some(signature)
    }
}

/// A public key, and the application a key in hardware was made for.
struct Key {
    /// What signatures of it call themselves; RSA has more than one name.
    format: &'static str,
    public: PublicKey,
    application: Option<Vec<u8>>,
}

impl Key {
    fn parse(blob: &[u8]) -> Result<Key> {
        let kind = Bytes(blob).string().unwrap_or_default();
        let (format, hardware) = match kind {
            b"ssh-ed25519" => ("ssh-ed25519", false),
            b"ssh-rsa" => ("rsa-sha2-512", false),
            b"ecdsa-sha2-nistp256" => ("ecdsa-sha2-nistp256", false),
            b"ecdsa-sha2-nistp384" => ("ecdsa-sha2-nistp384", false),
            b"ecdsa-sha2-nistp521" => ("ecdsa-sha2-nistp521", false),
            b"sk-ssh-ed25519@openssh.com" => ("sk-ssh-ed25519@openssh.com", true),
            b"sk-ecdsa-sha2-nistp256@openssh.com" => ("sk-ecdsa-sha2-nistp256@openssh.com", true),
            other => {
                let other = String::from_utf8_lossy(other).into_owned();
                return Err(Error::Rejected(format!("unsupported SSH key {other:?}")));
            }
        };
        Key::of(format, hardware, blob).ok_or_else(|| bad_key("an SSH key ends early"))
    }

    fn of(format: &'static str, hardware: bool, blob: &[u8]) -> Option<Key> {
        let mut blob = Bytes(blob);
        blob.string()?;
        let public = if format.ends_with("ed25519") || format.starts_with("sk-ssh-ed25519") {
            PublicKey::Ed25519(blob.string()?.try_into().ok()?)
        } else if format.starts_with("rsa") {
            let (exponent, modulus) = (blob.string()?, blob.string()?);
            PublicKey::Rsa(RsaKey::new(modulus, exponent))
        } else {
            let curve = match blob.string()? {
                b"nistp256" => Curve::P256,
                b"nistp384" => Curve::P384,
                b"nistp521" => Curve::P521,
                _ => return None,
            };
            if curve != curve_of(format) {
                return None;
            }
            PublicKey::Ecdsa(curve, blob.string()?.to_vec())
        };
        let application = match hardware {
            true => Some(blob.string()?.to_vec()),
            false => None,
        };
        blob.is_empty().then_some(Key {
            format,
            public,
            application,
        })
    }

    /// Whether it signed `message`; an error when the signature is of a sort that is not taken.
    fn signed(&self, message: &[u8], signature: &[u8]) -> Result<bool> {
        let early = || bad_signature("it ends early");
        let mut signature = Bytes(signature);
        let format = signature.string().ok_or_else(early)?;
        let blob = signature.string().ok_or_else(early)?;
        let hash = match (&self.public, format) {
            (PublicKey::Rsa(_), b"rsa-sha2-256") => Hash::Sha256,
            (PublicKey::Rsa(_), b"rsa-sha2-512") => Hash::Sha512,
            // With `ssh-rsa` it would be SHA-1.
            (_, format) if format != self.format.as_bytes() => {
                let format = String::from_utf8_lossy(format).into_owned();
                return Err(Error::Rejected(format!("a signature as {format:?}")));
            }
            (PublicKey::Ecdsa(Curve::P384, _), _) => Hash::Sha384,
            (PublicKey::Ecdsa(Curve::P521, _), _) => Hash::Sha512,
            _ => Hash::Sha256,
        };
        let message = match &self.application {
            None => message.to_vec(),
            Some(application) => {
                let flags = signature.u8().ok_or_else(early)?;
                let count = signature.array::<4>().ok_or_else(early)?;
                if flags & PRESENT == 0 {
                    let why = "a signature of a hardware key that nobody touched";
                    return Err(Error::Rejected(why.into()));
                }
                [
                    &Hash::Sha256.of(application)[..],
                    &[flags],
                    &count,
                    &Hash::Sha256.of(message),
                ]
                .concat()
            }
        };
        if !signature.is_empty() {
            return Err(bad_signature("there is more after it"));
        }
        Ok(match &self.public {
            PublicKey::Ed25519(_) => {
                let numbers = blob.try_into().map(Numbers::Ed25519);
                numbers.is_ok_and(|numbers| self.public.signed(hash, &message, &numbers))
            }
            PublicKey::Rsa(_) => {
                let digest = hash.of(&message);
                self.public.signed(hash, &digest, &Numbers::Rsa(blob))
            }
            PublicKey::Ecdsa(..) => {
                let mut blob = Bytes(blob);
                let (Some(r), Some(s), true) = (blob.string(), blob.string(), blob.is_empty())
                else {
                    return Err(early());
                };
                let digest = hash.of(&message);
                self.public.signed(hash, &digest, &Numbers::Ecdsa(r, s))
            }
        })
    }
}

fn curve_of(format: &str) -> Curve {
    if format.ends_with("nistp384") {
        Curve::P384
    } else if format.ends_with("nistp521") {
        Curve::P521
    } else {
        Curve::P256
    }
}

/// The keys of lines as in `id_ed25519.pub`: kind, base64, comment. Options in front of a key would
/// limit what it may sign; they are not understood, so a line with some is refused.
fn known_keys(text: &[u8]) -> Result<Vec<Vec<u8>>> {
    use base64::Engine as _;
    if text.len() > crate::MAX_TEXT {
        return Err(bad_key("it is larger than 1 MiB"));
    }
    let text = std::str::from_utf8(text).map_err(|_| bad_key("it is no text"))?;
    let mut keys = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split_ascii_whitespace();
        let (kind, base64) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let blob = base64::engine::general_purpose::STANDARD
            .decode(base64)
            .ok()
            .filter(|blob| Bytes(blob).string() == Some(kind.as_bytes()));
        keys.push(blob.ok_or_else(|| bad_key("failed to parse ssh public key"))?);
    }
    if keys.is_empty() {
        return Err(bad_key("failed to parse ssh public key"));
    }
    Ok(keys)
}

/// The name of a key, as `ssh-keygen -l` shows it.
fn fingerprint(blob: &[u8]) -> String {
    use base64::Engine as _;
    let digest = Hash::Sha256.of(blob);
    format!(
        "SHA256:{}",
        base64::engine::general_purpose::STANDARD_NO_PAD.encode(digest)
    )
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("bounded by the text's limit");
    [&length.to_be_bytes()[..], bytes].concat()
}

#[cfg(test)]
mod tests;
