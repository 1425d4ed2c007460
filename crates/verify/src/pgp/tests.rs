//! Keys and signatures written packet by packet, good ones and all sorts of bad ones.

mod keyrings;
mod making;

use super::*;
use crate::key::Curve;
use crate::testkey::{Secret, padded, rsa};
use making::*;

/// Rows: S16, S17
#[test]
fn signatures_of_all_algorithms_count() {
    for secret in [
        ed25519(1),
        Secret::RSA,
        Secret::Ecdsa(Curve::P256, 7),
        Secret::Ecdsa(Curve::P384, 7),
        Secret::Ecdsa(Curve::P521, 7),
    ] {
        for hash in [8, 9, 10] {
            let signed = signature(&secret, &draft(0).hash(hash));
            assert_eq!(check(&signed, &certificate(&secret, b"")), Ok(()), "{hash}");
        }
    }
}

/// Rows: S16, S17
#[test]
fn another_key_and_other_bytes_do_not_count() {
    let own = certificate(&ed25519(1), b"");
    let signed = signature(&ed25519(1), &draft(0));
    assert_eq!(check(&signed, &own), Ok(()));
    refused(
        check(&signed, &certificate(&ed25519(2), b"")),
        "signature made by unknown entity",
    );
    // It says that it is of our key, and is of another.
    let mut forged = draft(0);
    forged.with_issuer = false;
    forged.unhashed = subpacket(16, &fingerprint(&key(&ed25519(1)))[12..]);
    refused(
        check(&signature(&ed25519(2), &forged), &own),
        "does not match what is signed",
    );
    let policy = Policy {
        reject_expired: false,
        now: NOW,
    };
    for other in [&b"other"[..], b"", &DATA[1..], &[DATA, b"\n"].concat()] {
        let error = detached(signed.as_bytes(), own.as_bytes(), policy, other).unwrap_err();
        assert!(matches!(error, Error::Wrong(_)), "{error}");
    }
    // Any of several keys may have made it, in one block or in several.
    let both = format!("{}two keys:\n{own}", certificate(&ed25519(2), b""));
    assert_eq!(check(&signed, &both), Ok(()));
    let two = [
        packet(6, &key(&ed25519(2))),
        name(&ed25519(2), &usual()),
        packet(12, b"trust"),
        packet(6, &key(&ed25519(1))),
        name(&ed25519(1), &usual()),
    ];
    let ring = armored("PGP PUBLIC KEY BLOCK", &two.concat());
    assert_eq!(check(&signed, &ring), Ok(()));
}

/// Rows: S16, S17
#[test]
fn weak_signatures_do_not_count() {
    let own = certificate(&ed25519(1), b"");
    refused(
        check(&signature(&ed25519(1), &draft(0).hash(2)), &own),
        "rejecting weak/unknown hash: SHA-1",
    );
    for hash in [1, 3, 11, 12, 0, 255] {
        let signed = signature(&ed25519(1), &draft(0).hash(hash));
        refused(check(&signed, &own), "weak/unknown hash");
    }
    let short = certificate(&Secret::SHORT_RSA, b"");
    refused(
        check(&signature(&Secret::SHORT_RSA, &draft(0)), &short),
        "RSA key too short: 1128 bits",
    );
    // DSA, and Ed25519 by its newer number, which BuildKit does not take either.
    for algorithm in [17_u8, 27] {
        let mut body = draft(0).sign(&ed25519(1), DATA);
        body[2] = algorithm;
        let signed = armored("PGP SIGNATURE", &packet(2, &body));
        refused(check(&signed, &own), "unsupported pubkey algorithm");
    }
    // A signature of a key over a name is none over bytes.
    for kind in [0x02, 0x10, 0x18, 0x40] {
        let signed = signature(&ed25519(1), &draft(kind));
        refused(check(&signed, &own), "not about bytes");
    }
}

/// Rows: S16, S17
#[test]
fn rsa_padding_is_that_of_the_standard() {
    let Secret::Rsa(p, q) = Secret::RSA else {
        panic!("it is")
    };
    let own = certificate(&Secret::RSA, b"");
    let length = Secret::RSA.public().len();
    let forged = |text: &dyn Fn(Hash, &[u8]) -> Vec<u8>| {
        let body = draft(0).sign_with(&Secret::RSA, DATA, |hash, digest| {
            vec![rsa(p, q, &text(hash, digest))]
        });
        armored("PGP SIGNATURE", &packet(2, &body))
    };
    let right = forged(&|hash, digest| padded(hash, digest, length));
    assert_eq!(check(&right, &own), Ok(()));
    // Bleichenbacher's: less padding, and more after the digest.
    let early = forged(&|hash, digest| {
        let mut text = padded(hash, digest, length - 40);
        text.extend([0x5a; 40]);
        text
    });
    let other_hash = forged(&|_, digest| padded(Hash::Sha512, digest, length));
    let no_name = forged(&|_, digest| {
        let mut text = vec![0x00, 0x01];
        text.resize(length - digest.len() - 1, 0xff);
        [&text[..], &[0], digest].concat()
    });
    for wrong in [early, other_hash, no_name] {
        refused(check(&wrong, &own), "does not match what is signed");
    }
}

/// Rows: S16, S17
#[test]
fn expired_keys_and_signatures() {
    let secret = ed25519(1);
    let ending = |lifetime: u64| {
        let name = name(&secret, &usual().with(time(9, lifetime)));
        let bytes = [packet(6, &key(&secret)), name].concat();
        armored("PGP PUBLIC KEY BLOCK", &bytes)
    };
    let signed = signature(&secret, &draft(0));
    // It ended after it signed and before now.
    let ended = ending(SIGNED - MADE + 10);
    assert_eq!(check(&signed, &ended), Ok(()));
    refused(check_at(&signed, &ended, true, NOW), "key expired at");
    assert_eq!(check_at(&signed, &ended, true, SIGNED + 9), Ok(()));
    // It had ended when it signed.
    refused(check(&signed, &ending(SIGNED - MADE)), "key expired at");
    let short = signature(&secret, &draft(0).with(time(3, 100)));
    let own = certificate(&secret, b"");
    assert_eq!(check(&short, &own), Ok(()));
    refused(check_at(&short, &own, true, NOW), "signature expired at");
    assert_eq!(check_at(&short, &own, true, SIGNED + 99), Ok(()));
    refused(
        check(&signature(&secret, &draft(0).at(NOW + 301)), &own),
        "in the future",
    );
    refused(
        check(&signature(&secret, &draft(0).at(MADE - 1)), &own),
        "older than the key",
    );
    // The newest word on the key counts, also one that came after the signature.
    let mut names = packet(13, b"name");
    for draft in [
        usual().with(time(9, 10)),
        usual().at(NOW - 5).with(time(9, NOW)),
    ] {
        names.extend(packet(2, &draft.sign(&secret, &said_of_name(&secret))));
    }
    let renewed = [packet(6, &key(&secret)), names].concat();
    let renewed = armored("PGP PUBLIC KEY BLOCK", &renewed);
    assert_eq!(check_at(&signed, &renewed, true, NOW), Ok(()));
}

/// Rows: S16, S17
#[test]
fn revoked_keys_do_not_count() {
    let (secret, other) = (ed25519(1), ed25519(2));
    let signed = signature(&secret, &draft(0));
    let with = |revocation: &[u8], more: &[u8]| {
        let bytes = [
            &packet(6, &key(&secret))[..],
            revocation,
            &name(&secret, &usual()),
            more,
        ];
        armored("PGP PUBLIC KEY BLOCK", &bytes.concat())
    };
    let said = framed_key(&key(&secret));
    let revoked = packet(2, &draft(0x20).at(NOW).sign(&secret, &said));
    refused(check(&signed, &with(&revoked, b"")), "key revoked");
    // A revocation by somebody else who only says that it is the key's is none.
    let mut foreign = draft(0x20);
    foreign.with_issuer = false;
    foreign.unhashed = subpacket(16, &fingerprint(&key(&secret))[12..]);
    let foreign = packet(2, &foreign.sign(&other, &said));
    assert_eq!(check(&signed, &with(&foreign, b"")), Ok(()));
    // Without a name of its own it says nothing about what it may do.
    let no_name = draft(0x30).at(NOW).sign(&secret, &said_of_name(&secret));
    refused(check(&signed, &with(b"", &packet(2, &no_name))), "no name");
    let bare = armored("PGP PUBLIC KEY BLOCK", &packet(6, &key(&secret)));
    refused(check(&signed, &bare), "no name");
}

/// Rows: S16, S17
#[test]
fn subkeys_sign_when_both_keys_say_so() {
    let (primary, subkey) = (ed25519(1), ed25519(2));
    let said = said_of_subkey(&primary, &subkey);
    let back = draft(0x19).at(MADE).sign(&subkey, &said);
    let signed = signature(&subkey, &draft(0));
    let bound = |binding: &Draft, by: &Secret, more: &[u8]| {
        let body = binding.sign(by, &said);
        let more = [&packet(14, &key(&subkey))[..], &packet(2, &body), more].concat();
        certificate(&primary, &more)
    };
    let signing = draft(0x18).at(MADE).with(subpacket(27, &[2]));
    let good = signing.clone().with(subpacket(32, &back));
    assert_eq!(check(&signed, &bound(&good, &primary, b"")), Ok(()));
    let unknown = "signature made by unknown entity";
    // Not for signing; the subkey does not agree; somebody else agrees; bound by nobody.
    let encrypting = draft(0x18).at(MADE).with(subpacket(27, &[12]));
    let encrypting = encrypting.with(subpacket(32, &back));
    refused(check(&signed, &bound(&encrypting, &primary, b"")), unknown);
    refused(check(&signed, &bound(&signing, &primary, b"")), unknown);
    let not_its = draft(0x19).at(MADE).sign(&ed25519(3), &said);
    let stolen = signing.clone().with(subpacket(32, &not_its));
    refused(check(&signed, &bound(&stolen, &primary, b"")), unknown);
    let mut foreign = good.clone();
    foreign.with_issuer = false;
    foreign.unhashed = subpacket(16, &fingerprint(&key(&primary))[12..]);
    refused(check(&signed, &bound(&foreign, &ed25519(3), b"")), unknown);
    let loose = certificate(&primary, &packet(14, &key(&subkey)));
    refused(check(&signed, &loose), unknown);
    // Revoked, and expired.
    let revocation = packet(2, &draft(0x28).at(NOW).sign(&primary, &said));
    refused(
        check(&signed, &bound(&good, &primary, &revocation)),
        "key revoked",
    );
    let ended = good.with(time(9, 10));
    refused(check(&signed, &bound(&ended, &primary, b"")), "key expired");
    // The primary key of a good subkey may lack the right to sign itself.
    let bytes = [
        packet(6, &key(&primary)),
        name(&primary, &draft(0x13).at(MADE).with(subpacket(27, &[1]))),
    ];
    let certifying = armored("PGP PUBLIC KEY BLOCK", &bytes.concat());
    refused(check(&signature(&primary, &draft(0)), &certifying), unknown);
}

/// Rows: S16, S17
#[test]
fn a_key_may_do_what_it_says_itself() {
    let secret = ed25519(1);
    let signed = signature(&secret, &draft(0));
    let named = |names: &[Vec<u8>]| {
        let bytes = [packet(6, &key(&secret)), names.concat()].concat();
        armored("PGP PUBLIC KEY BLOCK", &bytes)
    };
    let certifying = || draft(0x13).at(MADE).with(subpacket(27, &[1]));
    let unknown = "signature made by unknown entity";
    let good = named(&[name(&secret, &usual())]);
    assert_eq!(check(&signed, &good), Ok(()));
    // It says nothing; it says so where anybody may write.
    let silent = named(&[name(&secret, &draft(0x13).at(MADE))]);
    refused(check(&signed, &silent), unknown);
    let mut written_in = certifying();
    written_in.unhashed = subpacket(27, &[3]);
    refused(
        check(&signed, &named(&[name(&secret, &written_in)])),
        unknown,
    );
    // Somebody else says so for it, later and of its first name.
    let mut foreign = usual().at(NOW - 1).with(subpacket(25, &[1]));
    foreign.with_issuer = false;
    foreign.unhashed = subpacket(16, &fingerprint(&key(&secret))[12..]);
    let foreign = packet(2, &foreign.sign(&ed25519(2), &said_of_name(&secret)));
    let own = name(&secret, &certifying());
    refused(check(&signed, &named(&[own, foreign])), unknown);
    // It said so of another key.
    let other = name(&ed25519(2), &usual());
    refused(check(&signed, &named(&[other])), "no name");
}

/// Rows: S16, S17
#[test]
fn several_signatures_and_garbage_do_not_count() {
    let secret = ed25519(1);
    let own = certificate(&secret, b"");
    let body = draft(0).sign(&secret, DATA);
    let one = packet(2, &body);
    let good = armored("PGP SIGNATURE", &one);
    assert_eq!(check(&good, &own), Ok(()));
    let twice = armored("PGP SIGNATURE", &[&one[..], &one].concat());
    refused(check(&twice, &own), "several");
    refused(check(&format!("{good}{good}"), &own), "several");
    let longer = armored("PGP SIGNATURE", &packet(2, &[&body[..], &[0]].concat()));
    refused(check(&longer, &own), "does not match what is signed");
    for bytes in [&b""[..], b"garbage", &packet(1, b"x"), &[0xc2, 0xe1, 1, 2]] {
        assert!(check(&armored("PGP SIGNATURE", bytes), &own).is_err());
    }
    for cut in 0..one.len() {
        assert!(
            check(&armored("PGP SIGNATURE", &one[..cut]), &own).is_err(),
            "{cut}"
        );
    }
    // The two bytes for the impatient, after both sorts of subpackets, are all that may change.
    let length_at = |at: usize| usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
    let unhashed = 6 + length_at(4);
    let free = unhashed + 2 + length_at(unhashed);
    for at in 0..body.len() {
        let mut changed = body.clone();
        changed[at] ^= 0xff;
        let changed = armored("PGP SIGNATURE", &packet(2, &changed));
        let counted = check(&changed, &own).is_ok();
        assert_eq!(counted, (free..free + 2).contains(&at), "{at}");
    }
    let critical = draft(0).with(subpacket(0x80 | 20, &[0; 8]));
    refused(
        check(&signature(&secret, &critical), &own),
        "critical subpacket 20",
    );
    let mut nobodys = draft(0);
    nobodys.with_issuer = false;
    refused(check(&signature(&secret, &nobodys), &own), "have an issuer");
    for (keys, reason) in [
        (String::new(), "no armored data found"),
        ("ssh-ed25519 AAAA".into(), "no armored data found"),
        (
            armored("PGP PRIVATE KEY BLOCK", b""),
            "expected public key block",
        ),
        (armored("PGP PUBLIC KEY BLOCK", b""), "none in it"),
        (armored("PGP PUBLIC KEY BLOCK", b"x"), "no packet"),
        (good.clone(), "expected public key block"),
    ] {
        refused(check(&good, &keys), reason);
    }
}

/// Rows: S16, S17
#[test]
fn a_signature_of_a_text_is_over_its_lines() {
    let secret = ed25519(1);
    let own = certificate(&secret, b"");
    let crlf = String::from_utf8_lossy(DATA).replace('\n', "\r\n");
    let body = draft(1).sign(&secret, crlf.as_bytes());
    let signed = armored("PGP SIGNATURE", &packet(2, &body));
    assert_eq!(check(&signed, &own), Ok(()));
    let policy = Policy {
        reject_expired: false,
        now: NOW,
    };
    let pieces = Pieces(crlf.as_bytes());
    detached(signed.as_bytes(), own.as_bytes(), policy, pieces).unwrap();
    // Of bytes it is over the bytes.
    let binary = signature(&secret, &draft(0));
    let other = detached(binary.as_bytes(), own.as_bytes(), policy, crlf.as_bytes());
    assert!(other.is_err());
}

/// A reader that gives a byte at a time.
struct Pieces<'a>(&'a [u8]);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(1);
        self.0.read(&mut buffer[..length])
    }
}
