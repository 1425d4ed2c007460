//! That a commit or tag was signed by one of the keys it must be signed by.

use std::borrow::Cow;

use oci::Digest;
use verify::{ObjectKind, Policy};

use super::cli::Cli;
use super::mirror::Mirror;
use super::remote::Found;
use crate::error::{Error, Result};
use crate::identifier::GitSignature;

/// The bytes of what was found: of the commit, and of the tag that led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Objects {
    pub(super) commit_id: String,
    pub(super) commit: Vec<u8>,
    /// Its name and bytes.
    pub(super) tag: Option<(String, Vec<u8>)>,
    /// What the ref calls the tag.
    called: Option<String>,
}

/// Reads the objects out of the mirror. A name that is itself an object's may be a tag's as well.
pub(super) async fn objects(found: &Found, mirror: &Mirror) -> Result<Objects> {
    let what = "failed to read objects of";
    let git: &Cli = &mirror.git;
    let kind = git.run(what, &["cat-file", "-t", &found.object]).await?;
    let is_tag = match kind.trim() {
        "commit" => false,
        "tag" => true,
        other => {
            return Err(git.failed(what, format!("expected commit or tag object, got {other}")));
        }
    };
    let peeled = format!("{}^{{commit}}", found.object);
    let commit_id = git.run(what, &["rev-parse", "--verify", &peeled]).await?;
    let commit_id = commit_id.trim().to_owned();
    let commit = git.bytes(what, &["cat-file", "commit", &commit_id]).await?;
    let tag = match is_tag {
        true => {
            let bytes = git.bytes(what, &["cat-file", "tag", &found.object]).await?;
            Some((found.object.clone(), bytes))
        }
        false => None,
    };
    Ok(Objects {
        commit_id,
        commit,
        tag,
        called: found.reference.strip_prefix("refs/tags/").map(Into::into),
    })
}

/// What is asked of the objects, in a few letters: one digest over all that the answer rests on.
pub(super) fn question(wanted: &GitSignature, objects: &Objects) -> String {
    let GitSignature {
        keys,
        reject_expired,
        require_tag,
        ignore_tag,
    } = wanted;
    let Objects {
        commit_id,
        commit,
        tag,
        called,
    } = objects;
    let rules = format!("{reject_expired} {require_tag} {ignore_tag} {called:?} {commit_id}");
    let (name, tag) = tag
        .as_ref()
        .map_or(("", &[][..]), |(name, tag)| (name, tag));
    let parts = [
        rules.as_bytes(),
        keys.as_bytes(),
        commit,
        name.as_bytes(),
        tag,
    ];
    let digests = parts.map(|part| Digest::of(part).to_string());
    format!("git signature {}", Digest::of(digests.concat()))
}

/// The tag's signature does, and so does the commit's, unless one of them is asked for.
pub(super) fn check(wanted: &GitSignature, objects: &Objects) -> Result<()> {
    let policy = Policy {
        reject_expired: wanted.reject_expired,
        now: crate::source::now(),
    };
    let check = |kind, id: &str, raw: &[u8]| {
        verify::git_object(kind, raw, id, wanted.keys.as_bytes(), policy).map_err(|source| {
            Error::GitSignature {
                object: format!(
                    "{} {id}",
                    match kind {
                        ObjectKind::Commit => "commit",
                        ObjectKind::Tag => "tag",
                    }
                ),
                source,
            }
        })
    };
    let tag = objects.tag.as_ref().filter(|_| !wanted.ignore_tag);
    let of_tag = tag.map(|(id, raw)| {
        check(ObjectKind::Tag, id, raw)?;
        // Whoever may move refs could call an old release by the name of a new one.
        match objects
            .called
            .as_deref()
            .filter(|called| *called != name(raw))
        {
            None => Ok(()),
            Some(called) => Err(Error::GitTagName {
                called: called.to_owned(),
                signed: name(raw).into_owned(),
            }),
        }
    });
    match of_tag {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) if wanted.require_tag => Err(error),
        None if wanted.require_tag => Err(Error::NoSignedTag),
        Some(Err(_)) | None => check(ObjectKind::Commit, &objects.commit_id, &objects.commit),
    }
}

/// What a tag calls itself.
fn name(raw: &[u8]) -> Cow<'_, str> {
    let mut headers = raw
        .split(|byte| *byte == b'\n')
        .take_while(|line| !line.is_empty());
    let name = headers.find_map(|line| line.strip_prefix(b"tag "));
    String::from_utf8_lossy(name.unwrap_or_default())
}
