//! Signatures written byte by byte.

use base64::Engine as _;

use super::*;
use crate::testkey::Secret;

const MESSAGE: &[u8] = b"what is signed";

/// What goes into a signature.
#[derive(Clone)]
struct Draft {
    version: u32,
    namespace: &'static str,
    told_hash: &'static str,
    format: Option<&'static str>,
    flags: u8,
    after: &'static [u8],
}

const GOOD: Draft = Draft {
    version: 1,
    namespace: "git",
    told_hash: "sha512",
    format: None,
    flags: 1,
    after: b"",
};

/// A number as SSH writes it: a zero before a high first bit.
fn mpint(number: &[u8]) -> Vec<u8> {
    let number = crate::bytes::trimmed(number);
    let high = number.first().is_some_and(|first| first & 0x80 != 0);
    string(&[if high { &[0][..] } else { &[] }, number].concat())
}

fn kind(secret: &Secret, hardware: bool) -> &'static str {
    match (secret, hardware) {
        (Secret::Ed25519(_), false) => "ssh-ed25519",
        (Secret::Ed25519(_), true) => "sk-ssh-ed25519@openssh.com",
        (Secret::Ecdsa(Curve::P256, _), true) => "sk-ecdsa-sha2-nistp256@openssh.com",
        (Secret::Ecdsa(Curve::P256, _), _) => "ecdsa-sha2-nistp256",
        (Secret::Ecdsa(Curve::P384, _), _) => "ecdsa-sha2-nistp384",
        (Secret::Ecdsa(Curve::P521, _), _) => "ecdsa-sha2-nistp521",
        (Secret::Rsa(..), _) => "ssh-rsa",
    }
}

fn blob(secret: &Secret, hardware: bool) -> Vec<u8> {
    let kind = kind(secret, hardware);
    let material = match secret {
        Secret::Ed25519(_) => string(&secret.public()),
        Secret::Ecdsa(..) => {
            let at = kind.find("nistp").unwrap();
            [
                string(&kind.as_bytes()[at..at + 8]),
                string(&secret.public()),
            ]
            .concat()
        }
        Secret::Rsa(..) => [mpint(&Secret::exponent()), mpint(&secret.public())].concat(),
    };
    let application = if hardware {
        string(b"ssh:")
    } else {
        Vec::new()
    };
    [string(kind.as_bytes()), material, application].concat()
}

fn line(secret: &Secret, hardware: bool) -> String {
    let base64 = base64::engine::general_purpose::STANDARD.encode(blob(secret, hardware));
    format!("{} {base64} somebody@somewhere\n", kind(secret, hardware))
}

fn signature(secret: &Secret, hardware: bool, draft: &Draft) -> String {
    let hash = match draft.told_hash {
        "sha256" => Hash::Sha256,
        _ => Hash::Sha512,
    };
    let told = [
        string(draft.namespace.as_bytes()),
        string(b""),
        string(draft.told_hash.as_bytes()),
    ]
    .concat();
    let mut signed = [MAGIC, &told, &string(&hash.of(MESSAGE))].concat();
    let touched = [&[draft.flags][..], &7_u32.to_be_bytes()].concat();
    if hardware {
        let application = Hash::Sha256.of(b"ssh:");
        signed = [application, touched.clone(), Hash::Sha256.of(&signed)].concat();
    }
    let format = draft.format.unwrap_or(match secret {
        Secret::Rsa(..) => "rsa-sha2-512",
        _ => kind(secret, hardware),
    });
    let hash = match (secret, format) {
        (_, "ssh-rsa") => Hash::Sha1,
        (Secret::Rsa(..), "rsa-sha2-256") | (Secret::Ecdsa(Curve::P256, _), _) => Hash::Sha256,
        (Secret::Ecdsa(Curve::P384, _), _) => Hash::Sha384,
        _ => Hash::Sha512,
    };
    let numbers = match secret {
        Secret::Ed25519(_) => secret.sign(hash, &signed),
        _ => secret.sign(hash, &hash.of(&signed)),
    };
    let numbers = match secret {
        Secret::Ecdsa(..) => [mpint(&numbers[0]), mpint(&numbers[1])].concat(),
        _ => numbers.concat(),
    };
    let mut blob_and_format = [string(format.as_bytes()), string(&numbers)].concat();
    if hardware {
        blob_and_format.extend(touched);
    }
    blob_and_format.extend(draft.after);
    let bytes = [
        MAGIC,
        &draft.version.to_be_bytes(),
        &string(&blob(secret, hardware)),
        &told,
        &string(&blob_and_format),
    ]
    .concat();
    armored(&bytes)
}

fn armored(bytes: &[u8]) -> String {
    let base64 = base64::engine::general_purpose::STANDARD.encode(bytes);
    format!("-----BEGIN SSH SIGNATURE-----\n{base64}\n-----END SSH SIGNATURE-----\n")
}

fn check_text(text: &str, keys: &str) -> Result<(), String> {
    check(text.as_bytes(), keys.as_bytes(), "git", MESSAGE).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(checked: Result<(), String>, reason: &str) {
    let error = checked.expect_err(reason);
    assert!(error.contains(reason), "{reason}: {error}");
}

/// Rows: S16
#[test]
fn signatures_of_all_sorts_of_keys_count() {
    for (secret, hardware) in [
        (Secret::Ed25519([1; 32]), false),
        (Secret::Ed25519([1; 32]), true),
        (Secret::RSA, false),
        (Secret::Ecdsa(Curve::P256, 7), false),
        (Secret::Ecdsa(Curve::P256, 7), true),
        (Secret::Ecdsa(Curve::P384, 7), false),
        (Secret::Ecdsa(Curve::P521, 7), false),
    ] {
        let keys = line(&secret, hardware);
        for told_hash in ["sha256", "sha512"] {
            let draft = Draft { told_hash, ..GOOD };
            let text = signature(&secret, hardware, &draft);
            assert_eq!(check_text(&text, &keys), Ok(()), "{keys}");
            let other = check(text.as_bytes(), keys.as_bytes(), "git", b"other");
            assert!(matches!(other, Err(Error::Wrong(_))), "{keys}");
        }
    }
    let draft = Draft {
        format: Some("rsa-sha2-256"),
        ..GOOD
    };
    let text = signature(&Secret::RSA, false, &draft);
    assert_eq!(check_text(&text, &line(&Secret::RSA, false)), Ok(()));
}

/// Rows: S16
#[test]
fn another_key_another_purpose_and_weak_ones_do_not_count() {
    let secret = Secret::Ed25519([1; 32]);
    let own = line(&secret, false);
    let good = signature(&secret, false, &GOOD);
    let other = line(&Secret::Ed25519([2; 32]), false);
    refused(
        check_text(&good, &other),
        "signature made by unknown entity",
    );
    assert_eq!(check_text(&good, &format!("# two\n\n{other}{own}")), Ok(()));
    for (draft, reason) in [
        (
            Draft {
                namespace: "file",
                ..GOOD
            },
            "made for \"file\"",
        ),
        (
            Draft {
                namespace: "",
                ..GOOD
            },
            "made for \"\"",
        ),
        (Draft { version: 2, ..GOOD }, "version 2"),
        (
            Draft {
                told_hash: "sha1",
                ..GOOD
            },
            "weak/unknown hash",
        ),
        (
            Draft {
                told_hash: "sha384",
                ..GOOD
            },
            "weak/unknown hash",
        ),
        (
            Draft {
                format: Some("ssh-dss"),
                ..GOOD
            },
            "a signature as \"ssh-dss\"",
        ),
        (
            Draft {
                after: b"x",
                ..GOOD
            },
            "more after it",
        ),
    ] {
        refused(check_text(&signature(&secret, false, &draft), &own), reason);
    }
    let sha1 = Draft {
        format: Some("ssh-rsa"),
        ..GOOD
    };
    refused(
        check_text(
            &signature(&Secret::RSA, false, &sha1),
            &line(&Secret::RSA, false),
        ),
        "a signature as \"ssh-rsa\"",
    );
    let short = Secret::SHORT_RSA;
    refused(
        check_text(&signature(&short, false, &GOOD), &line(&short, false)),
        "RSA key too short",
    );
    let untouched = Draft { flags: 0, ..GOOD };
    refused(
        check_text(&signature(&secret, true, &untouched), &line(&secret, true)),
        "nobody touched",
    );
}

/// Rows: S16
#[test]
fn several_and_damaged_ones_do_not_count() {
    let secret = Secret::Ed25519([1; 32]);
    let own = line(&secret, false);
    let good = signature(&secret, false, &GOOD);
    refused(check_text(&format!("{good}{good}"), &own), "several");
    let bytes = armor::only_block(good.as_bytes()).unwrap().bytes;
    for cut in 0..bytes.len() {
        assert!(check_text(&armored(&bytes[..cut]), &own).is_err(), "{cut}");
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(check_text(&armored(&changed), &own).is_err(), "{at}");
    }
    refused(
        check_text(&armored(&[&bytes[..], b"x"].concat()), &own),
        "ends early",
    );
    for keys in [
        String::new(),
        "# none\n".into(),
        own.replace("ssh-ed25519 ", "ssh-rsa "),
        format!("cert-authority {own}"),
        format!("somebody@somewhere {own}"),
        "ssh-ed25519 !!!".into(),
        "ssh-ed25519".into(),
    ] {
        refused(check_text(&good, &keys), "failed to parse ssh public key");
    }
}
