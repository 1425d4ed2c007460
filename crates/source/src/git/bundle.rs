//! Bundles: a commit with all its history in one file, to read from in place of the remote, and
//! to write in place of the commit's files.

use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use stdx::sys::Root;
use tokio::io::AsyncWriteExt;

use super::access::Access;
use super::cli::Cli;
use super::mirror::Mirror;
use super::remote::{self, Found};
use crate::blob;
use crate::context::{Context, Sources};
use crate::error::{Error, Result};
use crate::identifier::{GitBundle, GitId, is_commit};

/// The file a bundle becomes.
const NAME: &str = "bundle";
/// Where one is unpacked.
const REPO: &str = "repo";
/// The branch of a bundle whose commit was named by its id: it must have some name.
const BRANCH: &str = "refs/heads/main";

/// A bundle unpacked into a repository of its own, which goes with the value. Nothing of it gets
/// into the mirror but what the commit needs.
pub(super) struct Staged {
    git: Cli,
    /// Where to fetch from.
    pub(super) address: String,
    locator: String,
    _scratch: Arc<tempfile::TempDir>,
}

impl Staged {
    /// Gets the bundle and unpacks it, unless this build did so already; it must have the commit.
    pub(super) async fn open(
        sources: &Sources,
        id: &GitId,
        bundle: &GitBundle,
        access: &Access,
        cx: &Context,
    ) -> Result<Staged> {
        let git = access.git(None).local();
        let unpacked = async {
            let scratch = scratch(sources.parts().scratch.as_path())?;
            unpack(sources, bundle, &git, scratch.path(), cx).await?;
            Ok::<_, Error>(Arc::new(scratch))
        };
        let scratch = cx.resolutions.get_or(known_as(bundle), unpacked).await?;
        let repo = scratch.path().join(REPO);
        let staged = Staged {
            git: git.at(&repo, None),
            address: format!("file://{}", repo.display()),
            locator: bundle.locator.clone(),
            _scratch: scratch,
        };
        let commit = format!("{}^{{commit}}", id.checksum.to_ascii_lowercase());
        match staged.git.succeeds(&["cat-file", "-e", &commit]).await {
            true => Ok(staged),
            false => Err(staged.wrong(format!("commit {} not found in it", id.checksum))),
        }
    }

    /// The mirror has what is wanted of it: it is no use to this build any more.
    pub(super) fn done(self, bundle: &GitBundle, cx: &Context) {
        cx.resolutions.forget(&known_as(bundle));
    }

    /// What one of its refs stands for.
    pub(super) async fn look_up(&self, reference: &str) -> Result<Found> {
        remote::look_up(&self.git, &self.address, reference).await
    }

    /// Gives the object a name it can be fetched by.
    pub(super) async fn offer(&self, found: &Found) -> Result<String> {
        let own = format!("refs/kiln/{}", found.object);
        self.run(&["update-ref", "--no-deref", &own, &found.object])
            .await?;
        Ok(own)
    }

    async fn run(&self, args: &[&str]) -> Result<()> {
        match self.git.run("git", args).await {
            Ok(_) => Ok(()),
            Err(Error::Git { reason, .. }) => Err(self.wrong(reason)),
            Err(error) => Err(error),
        }
    }

    fn wrong(&self, reason: String) -> Error {
        Error::GitBundle {
            locator: self.locator.clone(),
            reason,
        }
    }
}

/// What git says of a bundle is no word on the remote or its mirror.
fn of_bundle(bundle: &GitBundle, error: Error) -> Error {
    match error {
        Error::Git { reason, .. } => Error::GitBundle {
            locator: bundle.locator.clone(),
            reason,
        },
        other => other,
    }
}

fn known_as(bundle: &GitBundle) -> String {
    format!("git bundle {}", bundle.digest)
}

/// Downloads a bundle and unpacks it in `dir`.
async fn unpack(
    sources: &Sources,
    bundle: &GitBundle,
    git: &Cli,
    dir: &Path,
    cx: &Context,
) -> Result<()> {
    let file = dir.join(NAME);
    download(sources, bundle, &file, cx).await?;
    let sha256 = is_sha256(&file).map_err(Error::io("reading a bundle"))?;
    let failed = |error| of_bundle(bundle, error);
    let git = begin(git, &dir.join(REPO), sha256).await.map_err(failed)?;
    // Whatever its refs are called, none is obeyed: git is told to use no replacements.
    let path = file.display().to_string();
    let args = ["fetch", "--quiet", "--no-tags", &path, "+refs/*:refs/*"];
    git.run("git", &args).await.map_err(failed)?;
    tokio::fs::remove_file(&file)
        .await
        .map_err(Error::io("removing a bundle"))
}

fn scratch(parent: &Path) -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("git-bundle-")
        .tempdir_in(parent)
        .map_err(Error::io("a folder for a bundle"))
}

/// Whether its objects are named by SHA-256, which its head says.
fn is_sha256(file: &Path) -> std::io::Result<bool> {
    use std::io::{BufRead, BufReader, Read};
    const LONGEST_HEAD: u64 = 4 << 10;
    let file = std::fs::File::open(file)?;
    for line in BufReader::new(file.take(LONGEST_HEAD)).split(b'\n') {
        match line?.as_slice() {
            b"@object-format=sha256" => return Ok(true),
            line if line.starts_with(b"#") || line.starts_with(b"@") => {}
            _ => break,
        }
    }
    Ok(false)
}

/// An empty repository at `repo`.
async fn begin(git: &Cli, repo: &Path, sha256: bool) -> Result<Cli> {
    std::fs::create_dir(repo).map_err(Error::io("a folder for a bundle"))?;
    let git = git.at(repo, None);
    let format = match sha256 {
        true => "--object-format=sha256",
        false => "--object-format=sha1",
    };
    let args = ["init", "--quiet", "--bare", format];
    git.run("failed to init repo for a bundle of", &args)
        .await?;
    Ok(git)
}

async fn download(sources: &Sources, bundle: &GitBundle, to: &Path, cx: &Context) -> Result<()> {
    let failed = || Error::io("writing a bundle");
    let transfer = cx.step.transfer(format!("git bundle {}", bundle.digest));
    let (mut bytes, size) = blob::open(sources, &bundle.place, bundle.digest, cx).await?;
    let mut file = tokio::fs::File::create(to).await.map_err(failed())?;
    let mut written = 0;
    while let Some(piece) = bytes.next().await {
        let piece = piece?;
        file.write_all(&piece).await.map_err(failed())?;
        written += piece.len() as u64;
        transfer.set(written, size.max(written));
    }
    file.flush().await.map_err(failed())?;
    transfer.done();
    Ok(())
}

/// Writes the bundle of what was found into `target`. Submodules are other repositories and not
/// in it.
pub(super) async fn write(id: &GitId, found: &Found, mirror: &Mirror, target: &Root) -> Result<()> {
    let what = "failed to create git bundle for";
    let scratch = scratch(&mirror.scratch)?;
    let repo = scratch.path().join(REPO);
    // A repository that has the name only and borrows the objects.
    let git = begin(&mirror.git.local(), &repo, found.object.len() == 64).await?;
    let objects = format!("{}\n", mirror.dir.join("objects").display());
    std::fs::write(repo.join("objects/info/alternates"), objects)
        .map_err(Error::io("borrowing objects for a bundle"))?;
    let name = name(&found.reference);
    let object = match name.starts_with("refs/tags/") {
        true => found.object.clone(),
        false => format!("{}^{{commit}}", found.object),
    };
    git.run(what, &["update-ref", "--no-deref", &name, &object])
        .await?;
    let file = scratch.path().join(NAME);
    let path = file.display().to_string();
    git.run(what, &["bundle", "create", "--quiet", &path, &name])
        .await?;
    let root = target
        .try_clone()
        .map_err(Error::io("opening a checkout"))?;
    let copied = stdx::task::blocking(move || {
        let mut from = std::fs::File::open(&file)?;
        let mut to = root.create_file(NAME, 0o644)?;
        std::io::copy(&mut from, &mut to)?;
        // Whatever our own umask is.
        root.chmod(NAME, 0o644)
    });
    copied.await.map_err(Error::io("writing a bundle"))?;
    tracing::debug!(remote = id.remote, name, "a bundle is written");
    Ok(())
}

/// The full name a ref has in a bundle: its own for branches and tags, that of a branch for others.
pub(super) fn name(reference: &str) -> String {
    if reference.is_empty() || is_commit(reference) {
        return BRANCH.to_owned();
    }
    if reference.starts_with("refs/tags/") || reference.starts_with("refs/heads/") {
        return reference.to_owned();
    }
    let short = reference.strip_prefix("refs/").unwrap_or(reference);
    format!("refs/heads/{short}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: S16
    #[test]
    fn refs_keep_their_names_where_they_can() {
        for (reference, expected) in [
            ("", "refs/heads/main"),
            (&"a".repeat(40), "refs/heads/main"),
            ("refs/heads/a/b", "refs/heads/a/b"),
            ("refs/tags/v1", "refs/tags/v1"),
            ("refs/pull/1/head", "refs/heads/pull/1/head"),
        ] {
            assert_eq!(name(reference), expected);
        }
    }
}
