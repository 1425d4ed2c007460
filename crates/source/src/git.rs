//! Git repositories (S14, S15), read with the `git` program: a mirror of each
//! remote is kept between builds, and a commit is checked out of it.

mod access;
mod bundle;
mod checkout;
mod cli;
mod mirror;
mod remote;
mod signature;

use std::sync::Arc;

use llb::facts::GitFacts;
use refs::{RecordMeta, RecordType, Ref};

use crate::context::{Context, Sources};
use crate::error::{Error, Result};
use crate::identifier::{GitId, Mtime, is_commit, redacted};
use crate::source::Key;

use access::Access;
use bundle::Staged;
use remote::Found;
use signature::Objects;

/// Part of a repository at some commit.
#[derive(Clone)]
pub struct Git {
    sources: Sources,
    id: Arc<GitId>,
}

impl Git {
    /// The repository `id` names.
    pub fn new(sources: &Sources, id: GitId) -> Git {
        Git {
            sources: sources.clone(),
            id: Arc::new(id),
        }
    }

    /// Its key: the commit, and what is taken of it. Signatures do not enter it, but are checked
    /// first: files that are in the cache already are not fetched again.
    pub async fn cache_key(&self, cx: &Context) -> Result<Key> {
        let found = self.found(cx).await?;
        if self.id.signature.is_some() {
            self.checked_objects(&found, cx).await?;
        }
        let with_tag = self.id.keep_git_dir || self.id.checkout_bundle;
        let commit = match (&found.tagged, with_tag) {
            // Without `.git` the tag object itself leaves no trace.
            (Some(commit), false) => commit,
            _ => &found.object,
        };
        Ok(Key {
            text: key(&self.id, commit, &found.reference),
            pin: found.object.clone(),
            last: true,
        })
    }

    /// The files of that commit.
    pub async fn fetch(&self, cx: &Context) -> Result<Ref> {
        let found = self.found(cx).await?;
        let id = &self.id;
        let access = Access::open(&self.sources, id, cx).await?;
        let _alone = self.sources.0.git_locks.lock(id.remote.clone()).await;
        let mirror = mirror::fetched(&self.sources, id, &found, &access, cx).await?;
        if id.signature.is_some() {
            // Another build may have asked for the key, and been told of another commit.
            let objects = signature::objects(&found, &mirror).await?;
            self.check(objects, cx).await?;
        }
        let parts = self.sources.parts();
        let shown = if id.reference.is_empty() {
            &found.reference
        } else {
            &id.reference
        };
        let meta = RecordMeta {
            description: format!(
                "git {} for {}#{shown}",
                match id.checkout_bundle {
                    true => "bundle checkout",
                    false => "snapshot",
                },
                redacted(&id.remote)
            ),
            record_type: RecordType::GitCheckout,
        };
        let mutable = parts.refs.begin(None, meta)?;
        let tree = mutable.tree();
        checkout::checkout(id, &found, &mirror, tree.root()).await?;
        drop((tree, mirror));
        Ok(stdx::task::blocking(move || mutable.commit()).await?)
    }

    /// What is known of it without having its files; `with_objects` the bytes of the commit and its
    /// tag, too. A signature that is missing is an error here as well.
    pub async fn facts(&self, with_objects: bool, cx: &Context) -> Result<GitFacts> {
        let found = self.found(cx).await?;
        let mut facts = GitFacts {
            reference: found.reference.clone(),
            checksum: found.object.clone(),
            // With `.git` the tag counts, and not where it leads.
            commit: found.tagged.clone().filter(|_| !self.id.keep_git_dir),
            ..GitFacts::default()
        };
        if !with_objects && self.id.signature.is_none() {
            return Ok(facts);
        }
        let objects = self.checked_objects(&found, cx).await?;
        if with_objects {
            let tag = objects.tag.as_ref().map(|(_, tag)| tag.clone());
            facts.commit = tag.is_some().then(|| objects.commit_id.clone());
            facts.commit_object = objects.commit.clone().into();
            facts.tag_object = tag.unwrap_or_default().into();
        }
        Ok(facts)
    }

    /// The bytes of the commit and of its tag, which have the signature they must have.
    async fn checked_objects(&self, found: &Found, cx: &Context) -> Result<Arc<Objects>> {
        let objects = {
            let access = Access::open(&self.sources, &self.id, cx).await?;
            let _alone = self.sources.0.git_locks.lock(self.id.remote.clone()).await;
            let mirror = mirror::fetched(&self.sources, &self.id, found, &access, cx).await?;
            signature::objects(found, &mirror).await?
        };
        // Keys may be many and large. Others use the mirror meanwhile.
        self.check(objects, cx).await
    }

    /// That the objects have the signature they must have, which is found out once in a build.
    async fn check(&self, objects: Objects, cx: &Context) -> Result<Arc<Objects>> {
        let objects = Arc::new(objects);
        if let Some(wanted) = &self.id.signature {
            let (id, checked) = (Arc::clone(&self.id), Arc::clone(&objects));
            let check = stdx::task::blocking(move || match &id.signature {
                Some(wanted) => signature::check(wanted, &checked),
                None => Ok(()),
            });
            let question = signature::question(wanted, &objects);
            cx.resolutions.get_or(question, check).await?;
        }
        Ok(objects)
    }

    /// What the ref stands for, the same for all of this build.
    async fn found(&self, cx: &Context) -> Result<Found> {
        let id = &self.id;
        let bundle = id.bundle.as_deref();
        let checksum = id.checksum.to_ascii_lowercase();
        let by_checksum = id.fetch_by_commit || id.reference.is_empty();
        let named = match is_commit(&id.reference) {
            true => Some(&id.reference),
            false => Some(&checksum).filter(|sum| by_checksum && is_commit(sum)),
        };
        let found = match named {
            Some(commit) => Found::commit(commit),
            None => {
                let known = format!(
                    "git {}#{} {} {}",
                    id.remote,
                    id.reference,
                    bundle.map_or("", |bundle| bundle.locator.as_str()),
                    // Who trusts other hosts does not believe their answers.
                    id.known_hosts
                );
                let found = cx.resolutions.get_or(known, async {
                    let access = Access::open(&self.sources, id, cx).await?;
                    match bundle {
                        Some(bundle) => {
                            let staged =
                                Staged::open(&self.sources, id, bundle, &access, cx).await?;
                            staged.look_up(&id.reference).await
                        }
                        None => remote::look_up(&access.git(None), &id.remote, &id.reference).await,
                    }
                });
                found.await?
            }
        };
        let matches = |commit: &String| commit.starts_with(&checksum);
        if matches(&found.object) || found.tagged.as_ref().is_some_and(matches) {
            return Ok(found);
        }
        let or = found
            .tagged
            .as_ref()
            .map(|tagged| format!(" or {tagged}"))
            .unwrap_or_default();
        Err(Error::GitChecksum {
            expected: id.checksum.clone(),
            found: format!("{}{or}", found.object),
        })
    }
}

/// core.md §0.5, "git key".
fn key(id: &GitId, commit: &str, reference: &str) -> String {
    let mut key = commit.to_owned();
    if id.keep_git_dir {
        key.push_str(".git");
        if !reference.is_empty() {
            key.push('#');
            key.push_str(reference);
        }
    }
    if !id.subdir.is_empty() {
        key.push(':');
        key.push_str(&id.subdir);
    }
    if id.skip_submodules {
        key.push_str("(skip-submodules)");
    }
    if id.mtime == Mtime::Commit {
        key.push_str("(mtime=commit)");
    }
    if id.checkout_bundle {
        // In it, the ref has a name.
        key.push_str(&format!("(bundle {})", bundle::name(reference)));
    }
    if id.old_modes {
        key.push_str("(oldmodes)");
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identifier;
    use llb::attr;

    /// Rows: S14
    #[test]
    fn the_key_names_the_commit_and_what_is_taken_of_it() {
        let of = |identifier: &str, attrs: &[&str]| {
            let attrs = attrs.iter().map(|name| {
                let value = if *name == "git.mtime" {
                    "commit"
                } else {
                    "true"
                };
                ((*name).to_owned(), value.to_owned())
            });
            match Identifier::parse(identifier, &attrs.collect()) {
                Ok(Identifier::Git(id)) => key(&id, "C0", "refs/heads/main"),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(of("git://h/r", &[]), "C0");
        assert_eq!(of("git://h/r", &[attr::GIT_OLD_MODES]), "C0(oldmodes)");
        assert_eq!(of("git://h/r#main:a/b", &[]), "C0:a/b");
        assert_eq!(
            of("git://h/r", &["git.keepgitdir"]),
            "C0.git#refs/heads/main"
        );
        assert_eq!(
            of(
                "git://h/r#:x",
                &["git.keepgitdir", "git.skipsubmodules", "git.mtime"]
            ),
            "C0.git#refs/heads/main:x(skip-submodules)(mtime=commit)"
        );
        assert_eq!(
            of("git://h/r", &["git.mtime", "git.checkoutbundle"]),
            "C0(mtime=commit)(bundle refs/heads/main)"
        );
    }
}
