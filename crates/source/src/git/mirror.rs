//! The bare repository that is kept of each remote.

use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use refs::{MutableRef, RecordMeta, RecordType, Sharing};
use stdx::sys::Root;

use super::access::Access;
use super::bundle::Staged;
use super::cli::{Cli, SHALLOW};
use super::remote::Found;
use crate::context::{Context, Sources};
use crate::error::{Error, Result};
use crate::identifier::{GitId, is_commit, redacted};

/// Files a killed git leaves and the next one trips over.
const LEFT_LOCKS: [&str; 6] = [
    "shallow.lock",
    "index.lock",
    "HEAD.lock",
    "config.lock",
    "packed-refs.lock",
    "FETCH_HEAD.lock",
];

/// A mirror that has the commit that is wanted.
pub(super) struct Mirror {
    pub git: Cli,
    pub dir: PathBuf,
    /// A folder for short-lived files.
    pub scratch: PathBuf,
    _kept: MutableRef,
}

/// The mirror of the remote, after fetching what is missing. A mirror that
/// cannot be used any more is thrown away and begun anew.
pub(super) async fn fetched(
    sources: &Sources,
    id: &GitId,
    found: &Found,
    access: &Access,
    cx: &Context,
) -> Result<Mirror> {
    let first = fetch_into(sources, id, found, access, cx).await;
    let mirror = match first {
        Err(Error::Git { reason, .. }) if is_beyond_use(&reason) => {
            tracing::warn!(
                remote = redacted(&id.remote),
                reason,
                "the mirror is begun anew"
            );
            sources.parts().refs.forget_named(&kept_as(id, found))?;
            fetch_into(sources, id, found, access, cx).await?
        }
        done => done?,
    };
    mirror.check_tagged(found).await?;
    Ok(mirror)
}

/// What git says of a mirror that damage or a rewritten remote made useless.
fn is_beyond_use(reason: &str) -> bool {
    let signs = [
        "would clobber existing tag",
        "unable to update local ref",
        "some local refs could not be updated",
        "not a git repository",
        "bad object",
        "object file",
        "is corrupt",
        "loose object",
        "bad config",
        "cannot lock ref",
    ];
    signs.iter().any(|sign| reason.contains(sign))
}

fn kept_as(id: &GitId, found: &Found) -> String {
    // In front: at the end it could be the end of another remote's address.
    let format = if found.object.len() == 64 {
        "git-sha256"
    } else {
        "git"
    };
    format!("{format}:{}", id.remote)
}

async fn fetch_into(
    sources: &Sources,
    id: &GitId,
    found: &Found,
    access: &Access,
    cx: &Context,
) -> Result<Mirror> {
    let meta = RecordMeta {
        description: format!("shared git repo for {}", redacted(&id.remote)),
        record_type: RecordType::Regular,
    };
    let kept = sources
        .parts()
        .refs
        .named(&kept_as(id, found), None, Sharing::Locked, meta)
        .await?;
    let dir = path_of(kept.tree().root())?;
    let git = access.git(Some(&dir));
    if !dir.join("HEAD").exists() {
        let format = if found.object.len() == 64 {
            "--object-format=sha256"
        } else {
            "--object-format=sha1"
        };
        git.run(
            "failed to init repo for",
            &["init", "--quiet", "--bare", format],
        )
        .await?;
        git.run(
            "failed add origin repo",
            &["remote", "add", "origin", &id.remote],
        )
        .await?;
    }
    for lock in LEFT_LOCKS {
        let _ = std::fs::remove_file(dir.join(lock));
    }
    let mirror = Mirror {
        git,
        dir,
        scratch: sources.parts().scratch.clone(),
        _kept: kept,
    };
    let missing = !mirror.has(found).await;
    // A bundle of a commit has all that led to it.
    let incomplete = id.checkout_bundle && mirror.is_shallow();
    if !missing && !incomplete {
        return Ok(mirror);
    }
    match &id.bundle {
        Some(bundle) => {
            let staged = Staged::open(sources, id, bundle, access, cx).await?;
            mirror.fetch_staged(&staged, found).await?;
            staged.done(bundle, cx);
        }
        None => {
            if missing {
                mirror.fetch(found).await?;
            }
            if id.checkout_bundle && mirror.is_shallow() {
                mirror.fetch_history(found).await?;
            }
        }
    }
    Ok(mirror)
}

impl Mirror {
    /// That the tag points where the remote's list of refs says: the key and the checksum know only
    /// what that says, and it is the tag that counts.
    async fn check_tagged(&self, found: &Found) -> Result<()> {
        let Some(told) = &found.tagged else {
            return Ok(());
        };
        let what = "failed to read the tag of";
        let peeled = format!("{}^{{commit}}", found.object);
        let args = ["rev-parse", "--verify", &peeled];
        if self.git.run(what, &args).await?.trim() == told {
            return Ok(());
        }
        let reason = format!("{} does not point at the commit it says", found.reference);
        Err(self.git.failed(what, reason))
    }

    async fn has(&self, found: &Found) -> bool {
        let wanted = format!("{}^{{commit}}", found.object);
        self.git.succeeds(&["cat-file", "-e", &wanted]).await
    }

    /// Gets the object with as little of its history as the remote allows.
    async fn fetch(&self, found: &Found) -> Result<()> {
        let what = "failed to fetch remote";
        let own = format!("refs/kiln/{}", found.object);
        if !is_commit(&found.reference) {
            let spec = format!("+{}:{}", found.reference, found.reference);
            self.git
                .run(
                    what,
                    &["fetch", SHALLOW, "--no-tags", "--force", "origin", &spec],
                )
                .await?;
        }
        if !self.has(found).await {
            // The ref moved on meanwhile, or a commit was named: many servers give it by itself.
            let spec = format!("{}:{own}", found.object);
            let alone = self
                .git
                .run(what, &["fetch", SHALLOW, "--no-tags", "origin", &spec])
                .await;
            if let Err(error) = alone {
                tracing::debug!(%error, "the commit alone is not to be had");
                self.fetch_all(what).await?;
            }
        }
        if !self.has(found).await {
            return Err(Error::Git {
                what: what.into(),
                remote: redacted(&self.git.remote),
                reason: format!(
                    "ref {} does not match expected commit {} and commit can not be found in the repository",
                    found.reference, found.object
                ),
            });
        }
        self.git
            .run(what, &["update-ref", "--no-deref", &own, &found.object])
            .await?;
        self.git
            .run(what, &["reflog", "expire", "--all", "--expire=now"])
            .await?;
        Ok(())
    }

    /// Gets the object and its history from a bundle's repository.
    async fn fetch_staged(&self, staged: &Staged, found: &Found) -> Result<()> {
        let own = staged.offer(found).await?;
        let spec = format!("+{own}:{own}");
        let mut args = vec!["fetch", "--no-tags"];
        if self.is_shallow() {
            args.push("--unshallow");
        }
        args.extend([staged.address.as_str(), spec.as_str()]);
        let git = self.git.local();
        git.run("failed to fetch a bundle of", &args).await?;
        Ok(())
    }

    /// Gets what the first fetch left out.
    async fn fetch_history(&self, found: &Found) -> Result<()> {
        let what = "failed to fetch the history of";
        let alone = ["fetch", "--unshallow", "--no-tags", "origin", &found.object];
        if let Err(error) = self.git.run(what, &alone).await {
            tracing::debug!(%error, "the history of the commit alone is not to be had");
            self.fetch_all(what).await?;
        }
        Ok(())
    }

    /// Whether some history is missing.
    fn is_shallow(&self) -> bool {
        self.dir.join("shallow").exists()
    }

    async fn fetch_all(&self, what: &str) -> Result<()> {
        let mut args = vec!["fetch", "--force"];
        if self.is_shallow() {
            args.push("--unshallow");
        }
        args.extend([
            "origin",
            "+refs/heads/*:refs/heads/*",
            "+refs/tags/*:refs/tags/*",
        ]);
        self.git.run(what, &args).await?;
        Ok(())
    }
}

/// The path of an open plain directory, which git needs. Checked, because a
/// path may by now lead elsewhere.
pub(super) fn path_of(root: &Root) -> Result<PathBuf> {
    use std::os::fd::AsFd;
    let link = format!("/proc/self/fd/{}", root.as_fd().as_raw_fd());
    let failed = || Error::io("finding the path of a folder for git");
    let path = std::fs::read_link(&link).map_err(failed())?;
    let (here, there) = (
        std::fs::metadata(Path::new(&link)).map_err(failed())?,
        std::fs::metadata(&path).map_err(failed())?,
    );
    if (here.dev(), here.ino()) == (there.dev(), there.ino()) {
        return Ok(path);
    }
    Err(failed()(std::io::Error::other(format!(
        "{} is another folder",
        path.display()
    ))))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::Identifier;

    /// Rows: S14
    #[test]
    fn no_address_reaches_the_mirror_of_another() {
        let named = |address: &str, object: &str| {
            let identifier = format!("git://{address}");
            let Ok(Identifier::Git(id)) = Identifier::parse(&identifier, &BTreeMap::new()) else {
                panic!("{address}");
            };
            kept_as(&id, &Found::commit(object))
        };
        let (sha1, sha256) = ("a".repeat(40), "a".repeat(64));
        let names = [
            named("https://h/r", &sha1),
            named("https://h/r", &sha256),
            named("https://h/r:sha256", &sha1),
            named("https://h/r:sha256", &sha256),
        ];
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
    }
}
