//! Git addresses: `https://host/repo.git#ref:dir`, `git@host:repo`, and the query form.

use std::borrow::Cow;

use crate::Error;
use crate::ignore::clean;
use crate::plan::{About, Work};

/// A repository, and what of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GitAddress {
    written: String,
    /// Where it is fetched from, without fragment and query.
    remote: String,
    /// Host and path, as the source's identifier has them.
    place: String,
    reference: String,
    subdir: String,
    checksum: String,
    keep_git_dir: Option<bool>,
    submodules: Option<bool>,
    fetch_by_commit: bool,
    /// The time files get, when it is not that of the checkout.
    mtime: String,
    ssh: bool,
    /// `github.com/a/b`: could be a path as well.
    pub(crate) looks_local: bool,
}

impl GitAddress {
    /// Reads an address; `None` if it is none.
    pub(crate) fn parse(text: &str) -> Result<Option<GitAddress>, Error> {
        if text.starts_with("./") || text.starts_with("../") || text.starts_with('/') {
            return Ok(None);
        }
        let looks_local = text.starts_with("github.com/");
        let full = match looks_local {
            true => Cow::Owned(format!("https://{text}")),
            false => Cow::Borrowed(text),
        };
        let (whole, fragment) = full.split_once('#').unwrap_or((&full, ""));
        let (remote, query) = whole.split_once('?').unwrap_or((whole, ""));
        let Some((place, ssh)) = place(remote, looks_local) else {
            return Ok(None);
        };
        // `git@host:path` is no URL, and what it says is what it means.
        let is_url = remote.contains("://");
        let fragment = match is_url {
            true => decoded(fragment),
            false => fragment.to_owned(),
        };
        let (reference, subdir) = fragment.split_once(':').unwrap_or((&fragment, ""));
        let mut address = GitAddress {
            written: text.to_owned(),
            remote: remote.to_owned(),
            place,
            reference: reference.to_owned(),
            subdir: subdir.to_owned(),
            ssh,
            looks_local,
            ..GitAddress::default()
        };
        address.read_query(query)?;
        Ok(Some(address))
    }

    fn bad(&self, reason: impl Into<String>) -> Error {
        Error::BadGitAddress {
            address: self.written.clone(),
            reason: reason.into(),
        }
    }

    fn read_query(&mut self, query: &str) -> Result<(), Error> {
        let (mut tag, mut branch, mut seen) = (String::new(), String::new(), Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let pair = pair.replace('+', " ");
            let (key, value) = pair.split_once('=').unwrap_or((&pair, ""));
            let (key, value) = (&*decoded(key), &*decoded(value));
            if seen.iter().any(|seen| seen == key) {
                return Err(self.bad(format!("query {key:?} has multiple values")));
            }
            seen.push(key.to_owned());
            let is_flag = matches!(key, "submodules" | "keep-git-dir" | "fetch-by-commit");
            if value.is_empty() && !is_flag {
                return Err(self.bad(format!("query {key:?} has no value")));
            }
            match key {
                "ref" => self.set_reference(value)?,
                "tag" => value.clone_into(&mut tag),
                "branch" => value.clone_into(&mut branch),
                "subdir" if !self.subdir.is_empty() && self.subdir != value => {
                    return Err(
                        self.bad(format!("subdir conflicts: {:?} vs {value:?}", self.subdir))
                    );
                }
                "subdir" => value.clone_into(&mut self.subdir),
                "checksum" | "commit" => value.clone_into(&mut self.checksum),
                "keep-git-dir" => self.keep_git_dir = Some(self.flag(key, value)?),
                "submodules" => self.submodules = Some(self.flag(key, value)?),
                "fetch-by-commit" => self.fetch_by_commit = self.flag(key, value)?,
                "mtime" if !matches!(value, "checkout" | "commit") => {
                    let reason = format!("invalid mtime value: {value:?}: checkout or commit");
                    return Err(self.bad(reason));
                }
                "mtime" => value.clone_into(&mut self.mtime),
                _ => return Err(self.bad(format!("unexpected query {key:?}"))),
            }
        }
        if !tag.is_empty() && !branch.is_empty() {
            return Err(self.bad("branch conflicts with tag"));
        }
        for (name, prefix) in [(tag, "refs/tags/"), (branch, "refs/heads/")] {
            if !name.is_empty() {
                let name = name.strip_prefix(prefix).unwrap_or(&name);
                self.set_reference(&format!("{prefix}{name}"))?;
            }
        }
        Ok(())
    }

    fn flag(&self, key: &str, value: &str) -> Result<bool, Error> {
        match value {
            "" => Ok(true),
            value => stdx::text::go_bool(value)
                .ok_or_else(|| self.bad(format!("invalid {key} value: {value:?}"))),
        }
    }

    fn set_reference(&mut self, value: &str) -> Result<(), Error> {
        if !self.reference.is_empty() && self.reference != value {
            return Err(self.bad(format!("ref conflicts: {:?} vs {value:?}", self.reference)));
        }
        value.clone_into(&mut self.reference);
        Ok(())
    }

    /// The step that fetches it.
    pub(crate) fn work(
        &self,
        keep: Option<bool>,
        checksum: &str,
        name: &str,
    ) -> Result<(Work, About), Error> {
        if let (Some(a), Some(b)) = (keep, self.keep_git_dir)
            && a != b
        {
            return Err(self.bad("inconsistent keep-git-dir configuration"));
        }
        if !checksum.is_empty() && !self.checksum.is_empty() && checksum != self.checksum {
            return Err(self.bad(format!(
                "checksum mismatch {checksum:?} != {:?}",
                self.checksum
            )));
        }
        let mut identifier = format!("git://{}", self.place);
        if !self.reference.is_empty() || !self.subdir.is_empty() {
            identifier.push_str(&format!("#{}", self.reference));
        }
        if !self.subdir.is_empty() {
            identifier.push_str(&format!(":{}", self.subdir));
        }
        let mut attrs = vec![(llb::attr::GIT_FULL_URL, self.remote.clone())];
        if self.ssh {
            attrs.push((llb::attr::GIT_SSH_SOCKET, "default".into()));
        } else {
            attrs.push((llb::attr::GIT_AUTH_HEADER, "GIT_AUTH_HEADER".into()));
            attrs.push((llb::attr::GIT_AUTH_TOKEN, "GIT_AUTH_TOKEN".into()));
        }
        if keep.or(self.keep_git_dir) == Some(true) {
            attrs.push((llb::attr::GIT_KEEP_DIR, "true".into()));
        }
        let checksum = if checksum.is_empty() {
            &self.checksum
        } else {
            checksum
        };
        if !checksum.is_empty() {
            attrs.push((llb::attr::GIT_CHECKSUM, checksum.to_owned()));
        }
        if self.submodules == Some(false) {
            attrs.push((llb::attr::GIT_SKIP_SUBMODULES, "true".into()));
        }
        if self.fetch_by_commit {
            attrs.push((llb::attr::GIT_FETCH_BY_COMMIT, "true".into()));
        }
        if !self.mtime.is_empty() {
            attrs.push((llb::attr::GIT_MTIME, self.mtime.clone()));
        }
        let attrs = attrs
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        Ok((
            Work::Source {
                identifier,
                attrs,
                platform: None,
            },
            About::named(name),
        ))
    }
}

fn decoded(text: &str) -> String {
    let bytes = stdx::text::percent_decoded(text);
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

/// Host and path, and whether it is reached by SSH.
fn place(remote: &str, looks_local: bool) -> Option<(String, bool)> {
    let with_path = |rest: &str| {
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = host.rsplit('@').next().unwrap_or(host);
        (!host.is_empty()).then(|| format!("{host}{}", clean(&format!("/{path}"))))
    };
    if let Some((scheme, rest)) = remote.split_once("://") {
        return match scheme {
            "http" | "https" if remote.ends_with(".git") || looks_local => {
                Some((with_path(rest)?, false))
            }
            "git" => Some((with_path(rest)?, false)),
            "ssh" => Some((with_path(rest)?, true)),
            _ => None,
        };
    }
    // The form of scp: user@host:path.
    let (user_host, path) = remote.split_once(':')?;
    let (user, host) = user_host.split_once('@')?;
    let word = |text: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
    };
    (word(user) && word(host)).then(|| (format!("{host}{}", clean(&format!("/{path}"))), true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<GitAddress> {
        GitAddress::parse(text).unwrap()
    }

    /// Rows: F03, F26
    #[test]
    fn addresses_are_told_from_paths_and_downloads() {
        assert_eq!(parse("https://a/b.git#v1:sub").unwrap().subdir, "sub");
        assert_eq!(parse("git@a.com:b/c").unwrap().place, "a.com/b/c");
        assert_eq!(parse("ssh://git@a:22/b").unwrap().place, "a:22/b");
        assert!(parse("github.com/a/b").unwrap().looks_local);
        for other in [
            "https://a/b",
            "a/b",
            "./a.git",
            "/a.git",
            "a:b",
            "ftp://a/b.git",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    /// Rows: F26
    #[test]
    fn the_query_form() {
        let git = parse("https://a/b.git?tag=v1&subdir=x&keep-git-dir&submodules=false").unwrap();
        assert_eq!(git.reference, "refs/tags/v1");
        assert_eq!(
            (git.keep_git_dir, git.submodules),
            (Some(true), Some(false))
        );
        let spelled = parse("https://a/b.git?branch=feature%2Fx&subdir=a+b%2Bc").unwrap();
        assert_eq!(spelled.reference, "refs/heads/feature/x");
        assert_eq!(spelled.subdir, "a b+c");
        let spelled = parse("https://a/b.git#feature%2Fx:a%20b").unwrap();
        assert_eq!(
            (&*spelled.reference, &*spelled.subdir),
            ("feature/x", "a b")
        );
        let plain = parse("git@a:b.git#a%20b").unwrap();
        assert_eq!(plain.reference, "a%20b");
        for bad in [
            "?ref=a&ref=b",
            "?foo=1",
            "?tag=a&branch=b",
            "?ref=",
            "?ref=a#b",
            "?keep-git-dir=x",
            "?mtime=now",
        ] {
            assert!(
                GitAddress::parse(&format!("https://a/b.git{bad}")).is_err(),
                "{bad}"
            );
        }
        let (work, _) = git.work(None, "", "n").unwrap();
        let Work::Source { identifier, .. } = work else {
            panic!()
        };
        assert_eq!(identifier, "git://a/b.git#refs/tags/v1:x");
        assert!(git.work(Some(false), "", "n").is_err());
        // What is to be found is no name for it: a short one is of the default branch.
        let git = parse("https://a/b.git?commit=abcd&mtime=commit&fetch-by-commit").unwrap();
        let (work, _) = git.work(None, "", "n").unwrap();
        let Work::Source {
            identifier, attrs, ..
        } = work
        else {
            panic!()
        };
        assert_eq!(identifier, "git://a/b.git");
        let attrs: std::collections::BTreeMap<String, String> = attrs.into_iter().collect();
        assert_eq!(attrs["git.checksum"], "abcd");
        assert_eq!(attrs["git.mtime"], "commit");
        assert_eq!(attrs["git.fetchbycommit"], "true");
    }
}
