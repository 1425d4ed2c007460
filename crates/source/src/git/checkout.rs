//! A commit's files, out of a mirror.

use std::path::Path;

use stdx::sys::{Root, Time};

use super::bundle;
use super::cli::{Cli, SHALLOW};
use super::mirror::{Mirror, path_of};
use super::remote::Found;
use crate::error::{Error, Result};
use crate::identifier::{GitId, Mtime, redacted};

/// Where files lie that are moved up later, because only a folder is wanted.
const ASIDE: &str = ".kiln-checkout";

/// Writes the files of the commit, or its bundle, into `target`, which is empty.
pub(super) async fn checkout(
    id: &GitId,
    found: &Found,
    mirror: &Mirror,
    target: &Root,
) -> Result<()> {
    let folder = id.folder();
    let path = path_of(target)?;
    if id.checkout_bundle {
        bundle::write(id, found, mirror, target).await?;
    } else if id.keep_git_dir && folder.is_empty() {
        let git = clone(id, found, mirror, &path).await?;
        submodules(id, &git).await?;
        after_clone(&path)?;
    } else if folder.is_empty() {
        submodules(id, &plain(found, mirror, &path).await?).await?;
    } else {
        let failed = || Error::io("making room for a checkout");
        target.mkdir(ASIDE, 0o700).map_err(failed())?;
        submodules(id, &plain(found, mirror, &path.join(ASIDE)).await?).await?;
        move_up(&folder, target)?;
    }
    if id.old_modes {
        let root = target
            .try_clone()
            .map_err(Error::io("opening a checkout"))?;
        stdx::task::blocking(move || open_modes(&root))
            .await
            .map_err(Error::io("setting modes of a checkout"))?;
    }
    if id.mtime == Mtime::Commit {
        let time = mirror
            .git
            .run(
                "reading the time of",
                &["show", "-s", "--format=%ct", found.commit_id()],
            )
            .await?;
        let seconds: i64 = time.trim().parse().map_err(|_| Error::Git {
            what: "reading the time of".into(),
            remote: redacted(&id.remote),
            reason: format!("`{}` is no time", time.trim()),
        })?;
        let root = target
            .try_clone()
            .map_err(Error::io("opening a checkout"))?;
        let set = stdx::task::blocking(move || set_times(&root, Time::from_seconds(seconds)));
        set.await
            .map_err(Error::io("setting times of a checkout"))?;
    }
    Ok(())
}

/// The files alone.
async fn plain(found: &Found, mirror: &Mirror, work_tree: &Path) -> Result<Cli> {
    // The index belongs to whatever was checked out before.
    let _ = std::fs::remove_file(mirror.dir.join("index"));
    let git = mirror.git.at(&mirror.dir, Some(work_tree));
    git.run(
        "failed to checkout remote",
        &["read-tree", "--reset", "-u", found.commit_id()],
    )
    .await?;
    Ok(git)
}

/// The files with a repository of their own, one commit deep.
async fn clone(id: &GitId, found: &Found, mirror: &Mirror, work_tree: &Path) -> Result<Cli> {
    let what = "failed to checkout remote";
    let git = mirror.git.at(&work_tree.join(".git"), Some(work_tree));
    // Over the file protocol: git's short cut for local clones copies what it finds.
    let near = git.local();
    let format = if found.object.len() == 64 {
        "--object-format=sha256"
    } else {
        "--object-format=sha1"
    };
    near.run(what, &["init", "--quiet", format]).await?;
    let from = format!("file://{}", mirror.dir.display());
    near.run(what, &["remote", "add", "origin", &from]).await?;
    let own = format!("refs/kiln/{}", found.object);
    mirror
        .git
        .run(what, &["update-ref", "--no-deref", &own, &found.object])
        .await?;
    let spec = match found.reference.starts_with("refs/") {
        true => format!("{own}:{}", found.reference),
        false => own,
    };
    near.run(
        what,
        &["fetch", "-u", SHALLOW, "--no-tags", "origin", &spec],
    )
    .await?;
    near.run(
        what,
        &["checkout", "--quiet", "--detach", found.commit_id()],
    )
    .await?;
    near.run(
        what,
        &["remote", "set-url", "origin", &redacted(&id.remote)],
    )
    .await?;
    near.run(what, &["reflog", "expire", "--all", "--expire=now"])
        .await?;
    Ok(git)
}

/// Removes what would make two clones of one commit differ.
fn after_clone(work_tree: &Path) -> Result<()> {
    match std::fs::remove_file(work_tree.join(".git/FETCH_HEAD")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("removing FETCH_HEAD")(error))
        }
        _ => Ok(()),
    }
}

async fn submodules(id: &GitId, git: &Cli) -> Result<()> {
    let has_some = git
        .work_tree
        .as_ref()
        .is_some_and(|tree| tree.join(".gitmodules").symlink_metadata().is_ok());
    if id.skip_submodules || !has_some {
        return Ok(());
    }
    let args = ["submodule", "update", "--init", "--recursive", SHALLOW];
    git.run("failed to update submodules for", &args).await?;
    Ok(())
}

/// Moves what is in `folder` of the checkout to the top and drops the rest.
/// Links in the folder's path stay inside of the checkout.
fn move_up(folder: &str, target: &Root) -> Result<()> {
    let failed = || Error::io(format!("failed to open subdir {folder}"));
    let checkout = target.open_dir_nofollow(ASIDE).map_err(failed())?;
    let real = checkout.canonical(folder).map_err(failed())?;
    let from = Path::new(ASIDE).join(real.strip_prefix("/").unwrap_or(&real));
    for entry in target.read_dir(&from).map_err(failed())? {
        // A file that has the very name of our folder would need room of its own.
        if entry.name == ASIDE {
            return Err(failed()(std::io::Error::other(format!(
                "it has a file named {ASIDE}"
            ))));
        }
        target
            .rename(from.join(&entry.name), Path::new(&entry.name))
            .map_err(failed())?;
    }
    target.remove_tree(ASIDE).map_err(failed())
}

/// Lets group and others write to files, as git does when nobody masks its modes. Programs are
/// left alone, as by BuildKit, and so is what the owner may not write.
fn open_modes(root: &Root) -> std::io::Result<()> {
    for entry in root.read_dir(".")? {
        let stat = root.lstat(&entry.name)?;
        if stat.is_dir() {
            open_modes(&root.open_dir_nofollow(&entry.name)?)?;
        } else if stat.is_file() && stat.mode & 0o111 == 0 && stat.mode & 0o200 != 0 {
            root.chmod(&entry.name, (stat.mode & 0o7777) | 0o022)?;
        }
    }
    Ok(())
}

/// Sets the time of everything, folders after what is in them.
fn set_times(root: &Root, time: Time) -> std::io::Result<()> {
    for entry in root.read_dir(".")? {
        if root.lstat(&entry.name)?.is_dir() {
            let inner = root.open_dir_nofollow(&entry.name)?;
            set_times(&inner, time)?;
        } else {
            root.set_times(&entry.name, time, time)?;
        }
    }
    root.set_times(".", time, time)
}
