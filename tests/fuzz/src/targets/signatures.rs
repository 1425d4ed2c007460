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

/// Nobody signs what is made here. The seeds have keys and signatures of real programs, over bytes
/// that are nowhere in them: one that counts has been forged.
fn run(input: &[u8]) {
    for checked in checks(input) {
        assert!(checked.is_err());
    }
}

/// All that may be asked of an input.
fn checks(input: &[u8]) -> Vec<verify::Result<()>> {
    let policy = Policy {
        reject_expired: true,
        now: 1_700_000_000,
    };
    // The first zero parts what is signed, the signature and the keys.
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let (text, keys) = (parts.next().unwrap_or(b""), parts.next().unwrap_or(b""));
    let mut all = vec![verify::detached(text, keys, policy, text)];
    for kind in [ObjectKind::Commit, ObjectKind::Tag] {
        for sha256 in [false, true] {
            let id = verify::object_id(kind, text, sha256);
            all.push(verify::git_object(kind, text, &id, keys, policy));
        }
    }
    all
}

/// Made by GnuPG.
const PGP_KEY: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEXgvhABYJKwYBBAHaRw8BAQdA6vhtoB59/o0IykDuA8768MsLH05JaYEhqAVs
thW5m3i0BG5hbWWIkAQTFggAOBYhBKDKBIrAcY2EuJyly2BUXvTsmh1LBQJeC+EA
AhsDBQsJCAcCBhUKCQgLAgQWAgMBAh4BAheAAAoJEGBUXvTsmh1LJUwBAN+cge/z
CznIReuVbBA4BufkNLBEmmzjxF4CYVl2rqfCAPwLbW1hwfKLXmcgE6h5S1v7PNFX
eZR/W0Wb3fgXFKkFDA==
=MpYJ
-----END PGP PUBLIC KEY BLOCK-----
";

/// Made by GnuPG with that key.
const PGP_SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----

iHUEABYIAB0WIQSgygSKwHGNhLicpctgVF707JodSwUCXg0ygAAKCRBgVF707Jod
S12NAQCkF13Xdl1Sm0jTNYzy55p1yxAOxL+OB1Oa8RkLopMAhAEAhgYpG2byB5Kn
6YZq++JEkqRuTa8iIZ8KxSOlY3KV4gw=
=kPyK
-----END PGP SIGNATURE-----
";

/// Made by OpenSSH.
const SSH_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE+Huene9lEBz9JyQuKmtFTXOk2DGx1c1E7UY4sPZnZF a@b\n";

/// Made by OpenSSH with that key, for git.
const SSH_SIGNATURE: &str = "-----BEGIN SSH SIGNATURE-----
U1NIU0lHAAAAAQAAADMAAAALc3NoLWVkMjU1MTkAAAAgT4e56d72UQHP0nJC4qa0VNc6TY
MbHVzUTtRjiw9mdkUAAAADZ2l0AAAAAAAAAAZzaGE1MTIAAABTAAAAC3NzaC1lZDI1NTE5
AAAAQIk2TErqOyb3dprFNxBmrcLq4cGwZQMxphffJiUYP4cBvtbvizxNlZqNILIIVEW+cm
NN57h6Lrv51Aeu+W7bYwg=
-----END SSH SIGNATURE-----
";

fn seeds() -> Vec<Vec<u8>> {
    let commit = |signature: &str| {
        let header = signature.trim_end().replace('\n', "\n ");
        format!(
            "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\ncommitter a <b> 0 +0000\ngpgsig {header}\n\nmessage\n"
        )
    };
    let tag = |signature: &str| format!("object x\n\nmessage\n{signature}");
    [
        (PGP_SIGNATURE.to_owned(), PGP_KEY),
        (commit(PGP_SIGNATURE), PGP_KEY),
        (tag(PGP_SIGNATURE), PGP_KEY),
        (commit(SSH_SIGNATURE), SSH_KEY),
        (tag(SSH_SIGNATURE), SSH_KEY),
    ]
    .map(|(text, keys)| format!("{text}\0{keys}").into_bytes())
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is made of them would not get far otherwise.
    ///
    /// Rows: S16, S17
    #[test]
    fn seeds_get_as_far_as_the_numbers_of_a_signature() {
        for seed in seeds() {
            let checked = checks(&seed);
            let far =
                |checked: &verify::Result<()>| matches!(checked, Err(verify::Error::Wrong(_)));
            let shown = String::from_utf8_lossy(&seed);
            assert!(checked.iter().any(far), "{checked:?} for {shown}");
        }
    }
}
