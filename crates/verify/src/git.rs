//! Signed commits and tags: what of them is signed, and the signature.

use crate::error::{Error, Result, bad_signature};
use crate::key::Hash;
use crate::{Policy, pgp, ssh};

const PGP: &[u8] = b"-----BEGIN PGP SIGNATURE-----";
const SSH: &[u8] = b"-----BEGIN SSH SIGNATURE-----";

/// What an object of git is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// A commit; its signature is a header.
    Commit,
    /// An annotated tag; its signature ends the message.
    Tag,
}

/// The name of an object: the hash of its kind, its length and its bytes.
pub fn object_id(kind: ObjectKind, raw: &[u8], sha256: bool) -> String {
    let hash = if sha256 { Hash::Sha256 } else { Hash::Sha1 };
    let kind = match kind {
        ObjectKind::Commit => "commit",
        ObjectKind::Tag => "tag",
    };
    let mut digest = hash.begin();
    digest.update(format!("{kind} {}\0", raw.len()).as_bytes());
    digest.update(raw);
    stdx::text::hex(digest.finish().as_ref())
}

/// That the object is the one named `id` and is signed by one of `keys`: OpenPGP keys in armor, or
/// lines of SSH public keys.
pub fn git_object(
    kind: ObjectKind,
    raw: &[u8],
    id: &str,
    keys: &[u8],
    policy: Policy,
) -> Result<()> {
    let sha256 = id.len() == 64;
    let found = object_id(kind, raw, sha256);
    if found != id {
        return Err(Error::Checksum {
            expected: id.into(),
            found,
        });
    }
    let (signed, signature) = match kind {
        ObjectKind::Commit => commit(raw, sha256)?,
        ObjectKind::Tag => tag(raw),
    };
    if signature.is_empty() {
        return Err(Error::Unsigned);
    }
    if signature.starts_with(PGP) {
        return pgp::detached(&signature, keys, policy, signed.as_slice());
    }
    if signature.starts_with(SSH) {
        return ssh::check(&signature, keys, "git", &signed);
    }
    Err(bad_signature("invalid signature format"))
}

/// A commit without its signatures, and the one for the repository's hash. A repository that is being
/// moved to SHA-256 has commits with one for each.
fn commit(raw: &[u8], sha256: bool) -> Result<(Vec<u8>, Vec<u8>)> {
    let own: &[u8] = if sha256 {
        b"gpgsig-sha256 "
    } else {
        b"gpgsig "
    };
    let (mut signed, mut signature) = (Vec::with_capacity(raw.len()), Vec::new());
    // Which header the line goes on with: none of signatures, ours, the other.
    let (mut inside, mut has_committer) = (None, false);
    let mut rest = raw;
    while let Some(line) = first_line(&mut rest) {
        if line == b"\n" {
            signed.extend_from_slice(line);
            break;
        }
        let begins = [&b"gpgsig "[..], b"gpgsig-sha256 "]
            .into_iter()
            .find(|name| line.starts_with(name));
        let text = match (begins, inside, line) {
            // Git writes it after all else, and finds the commit's own headers by their place.
            (Some(_), ..) if !has_committer => {
                return Err(bad_signature("it stands before the committer"));
            }
            (Some(name), ..) => {
                if name == own && !signature.is_empty() {
                    return Err(bad_signature("there are several"));
                }
                inside = Some(name == own);
                &line[name.len()..]
            }
            (None, Some(_), [b' ', more @ ..]) => more,
            _ => {
                inside = None;
                has_committer |= line.starts_with(b"committer ");
                signed.extend_from_slice(line);
                continue;
            }
        };
        if inside == Some(true) {
            signature.extend_from_slice(text);
        }
    }
    signed.extend_from_slice(rest);
    Ok((signed, signature))
}

/// A tag up to its signature, and that. As git reads it, the last beginning of one counts.
fn tag(raw: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut at, mut rest) = (raw.len(), raw);
    loop {
        let here = raw.len() - rest.len();
        let Some(line) = first_line(&mut rest) else {
            break;
        };
        if line.starts_with(PGP) || line.starts_with(SSH) {
            at = here;
        }
    }
    (raw[..at].to_vec(), raw[at..].to_vec())
}

/// Takes the first line with its end.
fn first_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    if rest.is_empty() {
        return None;
    }
    let length = rest
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(rest.len(), |at| at + 1);
    let (line, left) = rest.split_at(length);
    *rest = left;
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    /// Rows: S16
    #[test]
    fn a_commit_is_signed_without_its_signature_headers() {
        let raw = b"tree T\ncommitter K\nmergetag object X\n -----BEGIN PGP SIGNATURE-----\n y\ngpgsig A\n B\ngpgsig-sha256 C\n D\nencoding E\n\nm\ngpgsig no\n";
        let (signed, signature) = commit(raw, false).unwrap();
        assert_eq!(
            text(signed),
            "tree T\ncommitter K\nmergetag object X\n -----BEGIN PGP SIGNATURE-----\n y\nencoding E\n\nm\ngpgsig no\n"
        );
        assert_eq!(text(signature), "A\nB\n");
        assert_eq!(text(commit(raw, true).unwrap().1), "C\nD\n");
        for (raw, reason) in [
            ("tree T\ncommitter K\ngpgsig A\ngpgsig B\n\nm\n", "several"),
            (
                "tree T\ngpgsig A\ncommitter K\n\nm\n",
                "before the committer",
            ),
            (
                "gpgsig-sha256 A\ntree T\ncommitter K\n\nm\n",
                "before the committer",
            ),
        ] {
            let error = commit(raw.as_bytes(), false).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    /// Rows: S16
    #[test]
    fn a_tag_is_signed_up_to_the_last_signature() {
        let raw =
            b"object O\n\nm\n-----BEGIN PGP SIGNATURE-----\nx\n-----BEGIN SSH SIGNATURE-----\ny\n";
        let (signed, signature) = tag(raw);
        assert_eq!(
            text(signed),
            "object O\n\nm\n-----BEGIN PGP SIGNATURE-----\nx\n"
        );
        assert_eq!(text(signature), "-----BEGIN SSH SIGNATURE-----\ny\n");
        assert!(tag(b"object O\n\nm\n").1.is_empty());
    }

    /// Rows: S16
    #[test]
    fn an_object_must_be_the_one_named() {
        let policy = Policy {
            reject_expired: false,
            now: 0,
        };
        let raw = b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\nx";
        for sha256 in [false, true] {
            let id = object_id(ObjectKind::Commit, raw, sha256);
            let other = git_object(ObjectKind::Commit, b"tree", &id, b"", policy);
            assert!(matches!(other, Err(Error::Checksum { .. })));
            let kind = git_object(ObjectKind::Tag, raw, &id, b"", policy);
            assert!(matches!(kind, Err(Error::Checksum { .. })));
            let same = git_object(ObjectKind::Commit, raw, &id, b"", policy);
            assert!(matches!(same, Err(Error::Unsigned)));
        }
        // As `git hash-object -t commit` says.
        let known = b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor a <a> 0 +0000\ncommitter a <a> 0 +0000\n\nx\n";
        assert_eq!(
            object_id(ObjectKind::Commit, known, false),
            "7ee854e56cee44582c8110b5ca114861ca77285f"
        );
    }
}
