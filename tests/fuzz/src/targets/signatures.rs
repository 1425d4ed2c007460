//! Keys and signatures, and the commits and tags that carry them.

use verify::{ObjectKind, Policy};

use super::Target;
use crate::mutate::Shape;

pub(super) const TARGET: Target = Target {
    name: "signatures",
    run,
    seeds,
    shape: Shape::Bytes,
    words: &[
        "-----BEGIN PGP SIGNATURE-----\n\n",
        "-----END PGP SIGNATURE-----\n",
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n",
        "-----END PGP PUBLIC KEY BLOCK-----\n",
        "-----BEGIN SSH SIGNATURE-----\n",
        "-----END SSH SIGNATURE-----\n",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA",
        "gpgsig ",
        "gpgsig-sha256 ",
        "tree ",
        "object ",
        "\n\n",
        "\n ",
        "=",
        "\0",
    ],
    longest: 4000,
    memory: 16 << 20,
};

/// Whatever is made of bytes, nobody has signed them with keys that are made of bytes, too: what
/// is tried here begins with seeds that have no signature that counts.
fn run(input: &[u8]) {
    let policy = Policy {
        reject_expired: true,
        now: 1_700_000_000,
    };
    // The first zero parts what is signed, the signature and the keys.
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let (text, keys) = (parts.next().unwrap_or(b""), parts.next().unwrap_or(b""));
    assert!(verify::detached(text, keys, policy, text).is_err());
    for kind in [ObjectKind::Commit, ObjectKind::Tag] {
        for sha256 in [false, true] {
            let id = verify::object_id(kind, text, sha256);
            assert!(verify::git_object(kind, text, &id, keys, policy).is_err());
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    // A key of version 4 over Ed25519 with a name and a signature of it, and the beginning of one
    // over bytes. None of the numbers is right.
    let key = "xjMEX14QABYJKwYBBAHaRw8BAQdAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAADNBG5hbWU=";
    let signature =
        "wnUEABYIACcFgmJZA4AJEAAAAAAAAAAAAAAAAAAAAQEAAAEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let keys = format!(
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{key}\n-----END PGP PUBLIC KEY BLOCK-----\n"
    );
    let armored =
        format!("-----BEGIN PGP SIGNATURE-----\n\n{signature}\n-----END PGP SIGNATURE-----\n");
    let commit = format!(
        "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\ngpgsig {}\n\nmessage\n",
        armored.trim_end().replace('\n', "\n ")
    );
    let ssh = "-----BEGIN SSH SIGNATURE-----\nU1NIU0lHAAAAAQAAADMAAAALc3NoLWVkMjU1MTkAAAAgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAADZ2l0AAAAAAAAAAZzaGE1MTIAAABTAAAAC3NzaC1lZDI1NTE5AAAAQA==\n-----END SSH SIGNATURE-----\n";
    let line =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA a@b\n";
    [
        format!("{armored}\0{keys}"),
        format!("{commit}\0{keys}"),
        format!("object x\n\nmessage\n{armored}\0{keys}"),
        format!("object x\n\nmessage\n{ssh}\0{line}"),
        commit,
    ]
    .map(String::into_bytes)
    .to_vec()
}
