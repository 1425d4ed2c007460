//! What a ref of a remote stands for.

use super::cli::Cli;
use crate::error::{Error, Result};
use crate::identifier::{is_commit, redacted};

/// What a ref stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The full name of the ref; the commit itself when it was named.
    pub reference: String,
    /// The object: a commit, or an annotated tag.
    pub object: String,
    /// The commit an annotated tag points at.
    pub tagged: Option<String>,
}

impl Found {
    pub(super) fn commit(sha: &str) -> Found {
        Found {
            reference: sha.to_owned(),
            object: sha.to_owned(),
            tagged: None,
        }
    }

    /// The commit to check out.
    pub(super) fn commit_id(&self) -> &str {
        self.tagged.as_deref().unwrap_or(&self.object)
    }
}

/// Asks the remote, which may be reached at another `address`. An empty ref is its default branch.
pub(super) async fn look_up(git: &Cli, address: &str, reference: &str) -> Result<Found> {
    let remote = git.remote.as_str();
    let mut reference = reference.to_owned();
    if reference.is_empty() {
        let heads = git
            .run(
                "error fetching default branch for repository",
                &["ls-remote", "--symref", "--", address, "HEAD"],
            )
            .await?;
        reference = default_branch(&heads).ok_or_else(|| Error::Git {
            what: "could not find default branch for repository:".into(),
            remote: redacted(remote),
            reason: "it has no HEAD that does not exist elsewhere".into(),
        })?;
    }
    let peeled = format!("{reference}^{{}}");
    let listed = git
        .run(
            "failed to fetch remote",
            &["ls-remote", "--", address, &reference, &peeled],
        )
        .await?;
    choose(&listed, &reference).ok_or_else(|| Error::Git {
        what: "failed to fetch remote".into(),
        remote: redacted(remote),
        reason: format!("repository does not contain ref {reference}"),
    })
}

fn default_branch(listed: &str) -> Option<String> {
    listed.lines().find_map(|line| {
        let target = line.strip_prefix("ref: ")?.split_whitespace().next()?;
        target.starts_with("refs/heads/").then(|| target.to_owned())
    })
}

/// Full names first, then branches, then tags, as `git checkout` does.
fn choose(listed: &str, reference: &str) -> Option<Found> {
    let get = |name: &str| {
        let line = listed.lines().find(|line| {
            line.split_once('\t')
                .is_some_and(|(_, found)| found == name)
        })?;
        line.split_once('\t')
            .map(|(sha, _)| sha.to_owned())
            .filter(|sha| is_commit(sha))
    };
    let under = |prefix: &str| {
        format!(
            "{prefix}{}",
            reference.strip_prefix(prefix).unwrap_or(reference)
        )
    };
    let (full, head, tag) = (under("refs/"), under("refs/heads/"), under("refs/tags/"));
    // Told by its full name, a tag is a tag still and is peeled.
    let names = [
        if full == tag { None } else { Some(full) },
        Some(head),
        Some(tag.clone()),
    ];
    for name in names.into_iter().flatten() {
        if let Some(object) = get(&name) {
            let tagged = if name == tag {
                get(&format!("{name}^{{}}"))
            } else {
                None
            };
            return Some(Found {
                reference: name,
                object,
                tagged,
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: S14
    #[test]
    fn branches_win_over_tags_and_tags_are_peeled() {
        let sha = |c: char| c.to_string().repeat(40);
        let listed = format!(
            "{}\trefs/heads/v1\n{}\trefs/tags/v1\n{}\trefs/tags/v2\n{}\trefs/tags/v2^{{}}\nshort\trefs/heads/bad\n",
            sha('a'),
            sha('b'),
            sha('c'),
            sha('d')
        );
        let found =
            |reference: &str| choose(&listed, reference).map(|f| (f.reference, f.object, f.tagged));
        assert_eq!(found("v1"), Some(("refs/heads/v1".into(), sha('a'), None)));
        assert_eq!(
            found("refs/tags/v1"),
            Some(("refs/tags/v1".into(), sha('b'), None))
        );
        assert_eq!(
            found("tags/v1"),
            Some(("refs/tags/v1".into(), sha('b'), None))
        );
        assert_eq!(
            found("v2"),
            Some(("refs/tags/v2".into(), sha('c'), Some(sha('d'))))
        );
        assert_eq!(found("bad"), None);
        assert_eq!(found("none"), None);
        assert_eq!(
            default_branch("ref: refs/heads/main\tHEAD\nabc\tHEAD\n").as_deref(),
            Some("refs/heads/main")
        );
        assert!(is_commit(&sha('0')) && !is_commit("g") && !is_commit(&sha('A')));
    }
}
