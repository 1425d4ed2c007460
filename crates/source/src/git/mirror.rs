//! The bare repository that is kept of each remote.

use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use refs::{MutableRef, RecordMeta, RecordType, Sharing};
use stdx::sys::Root;

use super::access::Access;
use super::cli::Cli;
use super::remote::{Found, is_commit};
use crate::context::Sources;
use crate::error::{Error, Result};
use crate::identifier::{GitId, redacted};

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
    _kept: MutableRef,
}

/// The mirror of the remote, after fetching what is missing. A mirror that
/// cannot be used any more is thrown away and begun anew.
pub(super) async fn fetched(
    sources: &Sources,
    id: &GitId,
    found: &Found,
    access: &Access,
) -> Result<Mirror> {
    let first = fetch_into(sources, id, found, access).await;
    match first {
        Err(Error::Git { reason, .. }) if is_beyond_use(&reason) => {
            tracing::warn!(
                remote = redacted(&id.remote),
                reason,
                "the mirror is begun anew"
            );
            sources.parts().refs.forget_named(&kept_as(id, found))?;
            fetch_into(sources, id, found, access).await
        }
        done => done,
    }
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
    let format = if found.object.len() == 64 {
        ":sha256"
    } else {
        ""
    };
    format!("git:{}{format}", id.remote)
}

async fn fetch_into(
    sources: &Sources,
    id: &GitId,
    found: &Found,
    access: &Access,
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
        _kept: kept,
    };
    if !mirror.has(found).await {
        mirror.fetch(found).await?;
    }
    Ok(mirror)
}

impl Mirror {
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
                    &[
                        "fetch",
                        "--depth=1",
                        "--no-tags",
                        "--force",
                        "origin",
                        &spec,
                    ],
                )
                .await?;
        }
        if !self.has(found).await {
            // The ref moved on meanwhile, or a commit was named: many servers give it by itself.
            let spec = format!("{}:{own}", found.object);
            let alone = self
                .git
                .run(what, &["fetch", "--depth=1", "--no-tags", "origin", &spec])
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

    async fn fetch_all(&self, what: &str) -> Result<()> {
        let mut args = vec!["fetch", "--force"];
        if self.dir.join("shallow").exists() {
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
