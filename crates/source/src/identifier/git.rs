//! `git://`: the remote, what to take of it, and how to log in.

use llb::attr;

use oci::{Algorithm, Digest};

use super::address::Address;
use super::attrs::Attrs;
use super::image::BlobPlace;
use crate::error::{Error, Result};

/// Which times checked-out files get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mtime {
    /// When they were written.
    #[default]
    Checkout,
    /// When the commit was made.
    Commit,
}

/// Whose signature a commit or tag must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitSignature {
    /// OpenPGP keys in armor, or lines of SSH public keys.
    pub keys: String,
    /// Refuse keys that have expired since they signed.
    pub reject_expired: bool,
    /// A tag must be signed; else a signed commit does, too.
    pub require_tag: bool,
    /// The commit must be signed; else a signed tag does, too.
    pub ignore_tag: bool,
}

impl GitSignature {
    /// What is asked of signatures; `None` when nothing is.
    fn parse(attrs: &mut Attrs<'_>) -> Result<Option<GitSignature>> {
        let rules = [
            attr::GIT_SIGNATURE_REJECT_EXPIRED,
            attr::GIT_SIGNATURE_REQUIRE_TAG,
            attr::GIT_SIGNATURE_IGNORE_TAG,
        ];
        // Whoever says how signatures are checked, or names no key, wants them checked.
        let asked = attrs.has(attr::GIT_SIGNATURE_KEYS) || rules.iter().any(|rule| attrs.has(rule));
        let keys = attrs.text_or_empty(attr::GIT_SIGNATURE_KEYS);
        let [reject_expired, require_tag, ignore_tag] = rules.map(|name| attrs.truth(name));
        let signature = GitSignature {
            keys,
            reject_expired: reject_expired?,
            require_tag: require_tag?,
            ignore_tag: ignore_tag?,
        };
        match (asked, signature.keys.trim().is_empty()) {
            (false, _) => Ok(None),
            (true, false) => Ok(Some(signature)),
            (true, true) => Err(attrs.wrong(format!("{} is missing", attr::GIT_SIGNATURE_KEYS))),
        }
    }
}

/// A bundle that has the commit, in place of the remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitBundle {
    /// Where it is, as it was written: the identifier of a blob.
    pub locator: String,
    /// Where it is.
    pub place: BlobPlace,
    /// The blob.
    pub digest: Digest,
}

impl GitBundle {
    fn parse(attrs: &mut Attrs<'_>) -> Result<Option<GitBundle>> {
        let locator = attrs.text_or_empty(attr::GIT_BUNDLE);
        if locator.is_empty() {
            return Ok(None);
        }
        let wrong = |reason: &str| format!("{} locator {locator:?}: {reason}", attr::GIT_BUNDLE);
        let (rest, layout) = match locator.split_once("://") {
            Some(("docker-image+blob", rest)) => (rest, false),
            Some(("oci-layout+blob", rest)) => (rest, true),
            Some(_) => {
                let why = "its scheme is not supported; expected \"docker-image+blob\" or \"oci-layout+blob\"";
                return Err(attrs.wrong(wrong(why)));
            }
            None => return Err(attrs.wrong(wrong("missing scheme"))),
        };
        let (place, digest) = BlobPlace::parse(rest, layout, attrs)?;
        if digest.algorithm() != Algorithm::Sha256 {
            return Err(attrs.wrong(wrong("its digest is not sha256")));
        }
        Ok(Some(GitBundle {
            locator,
            place,
            digest,
        }))
    }
}

/// Part of a repository at some commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitId {
    /// The repository's address.
    pub remote: String,
    /// Branch, tag, full ref name or commit; empty for the default branch.
    pub reference: String,
    /// Only this folder, as it was written: it enters the key so.
    pub subdir: String,
    /// Keep `.git`.
    pub keep_git_dir: bool,
    /// The commit (or its beginning) it must be.
    pub checksum: String,
    /// Leave submodules alone.
    pub skip_submodules: bool,
    /// Which times files get.
    pub mtime: Mtime,
    /// Files can be written by all.
    pub old_modes: bool,
    /// The ref is only a hint; the commit is fetched by its own name.
    pub fetch_by_commit: bool,
    /// Secret with a token.
    pub auth_token_secret: String,
    /// Secret with an `Authorization` header.
    pub auth_header_secret: String,
    /// The lines of a known_hosts file.
    pub known_hosts: String,
    /// Which SSH agent to use; empty for none.
    pub ssh: String,
    /// Whose signature it must have.
    pub signature: Option<GitSignature>,
    /// The bundle to read in place of the remote.
    pub bundle: Option<Box<GitBundle>>,
    /// Give a bundle of the commit in place of its files.
    pub checkout_bundle: bool,
}

impl GitId {
    pub(super) fn parse(rest: &str, attrs: &mut Attrs<'_>) -> Result<GitId> {
        let (remote, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        let full = attrs.text(attr::GIT_FULL_URL);
        let full = full.filter(|full| !full.is_empty());
        let id = GitId {
            remote: remote_of(remote, full.as_deref(), attrs)?,
            reference: reference.to_owned(),
            subdir: if clean(subdir).is_empty() {
                String::new()
            } else {
                subdir.to_owned()
            },
            keep_git_dir: attrs.truth(attr::GIT_KEEP_DIR)?,
            checksum: attrs.text_or_empty(attr::GIT_CHECKSUM),
            skip_submodules: attrs.truth(attr::GIT_SKIP_SUBMODULES)?,
            mtime: attrs
                .read(attr::GIT_MTIME, |value| match value {
                    "" | "checkout" => Ok(Mtime::Checkout),
                    "commit" => Ok(Mtime::Commit),
                    other => Err(format!(
                        "invalid mtime `{other}`, expected checkout or commit"
                    )),
                })?
                .unwrap_or_default(),
            old_modes: attrs.truth(attr::GIT_OLD_MODES)?,
            fetch_by_commit: attrs.truth(attr::GIT_FETCH_BY_COMMIT)?,
            auth_token_secret: attrs.text_or_empty(attr::GIT_AUTH_TOKEN),
            auth_header_secret: attrs.text_or_empty(attr::GIT_AUTH_HEADER),
            known_hosts: attrs.text_or_empty(attr::GIT_KNOWN_HOSTS),
            ssh: attrs.text_or_empty(attr::GIT_SSH_SOCKET),
            signature: GitSignature::parse(attrs)?,
            bundle: GitBundle::parse(attrs)?.map(Box::new),
            checkout_bundle: attrs.truth(attr::GIT_CHECKOUT_BUNDLE)?,
        };
        id.check().map_err(|reason| attrs.wrong(reason))?;
        Ok(id)
    }

    /// The folder, relative and without empty parts; empty for all of it.
    pub fn folder(&self) -> String {
        clean(&self.subdir)
    }

    /// That nothing in it can be taken by git for an option, another protocol
    /// or a path outside.
    pub fn check(&self) -> Result<(), String> {
        let remote = &self.remote;
        let scheme = remote.split_once("://").map(|(scheme, _)| scheme);
        let known = matches!(scheme, Some("http" | "https" | "git" | "ssh"))
            || scheme.is_none() && is_scp(remote);
        if !known || remote.starts_with('-') || remote.chars().any(|c| c.is_control() || c == ' ') {
            return Err(format!("`{}` is no git address", redacted(remote)));
        }
        // `ssh://-oProxyCommand=…` and `-x@host:path` would become options of ssh.
        let host = match remote.split_once("://") {
            Some((_, rest)) => rest.split('/').next().unwrap_or(""),
            None => remote.split(':').next().unwrap_or(""),
        };
        let name = host.rsplit('@').next().unwrap_or("");
        if name.is_empty() || name.starts_with('-') || host.starts_with('-') {
            return Err(format!("`{}` has no usable host", redacted(remote)));
        }
        check_ref(&self.reference)?;
        let hex = self.checksum.bytes().all(|b| b.is_ascii_hexdigit());
        if !hex || self.checksum.len() > 64 {
            return Err(format!(
                "invalid checksum {} for Git URL, expected hex commit hash",
                self.checksum
            ));
        }
        if self
            .subdir
            .split('/')
            .any(|part| part == ".." || part == ".git")
        {
            return Err(format!(
                "folder `{}` leads outside of the files",
                self.subdir
            ));
        }
        self.check_bundles()
    }

    /// That what is said of bundles goes together.
    fn check_bundles(&self) -> Result<(), String> {
        let (bundle, checkout) = (attr::GIT_BUNDLE, attr::GIT_CHECKOUT_BUNDLE);
        let checksum = self.checksum.to_ascii_lowercase();
        if self.bundle.is_some() {
            let named = is_commit(&self.reference);
            if checksum.is_empty() {
                return Err(format!(
                    "{bundle} requires {} to be set",
                    attr::GIT_CHECKSUM
                ));
            }
            if named && !self.reference.starts_with(&checksum) {
                return Err(format!(
                    "expected checksum to match {}, got {}",
                    self.checksum, self.reference
                ));
            }
            if self.reference.is_empty() && !is_commit(&checksum) {
                return Err(format!(
                    "{bundle} requires a ref, or {} to be a whole commit",
                    attr::GIT_CHECKSUM
                ));
            }
        }
        if self.checkout_bundle && self.keep_git_dir {
            return Err(format!(
                "{checkout} is incompatible with {}",
                attr::GIT_KEEP_DIR
            ));
        }
        if self.checkout_bundle && !self.subdir.is_empty() {
            return Err(format!("{checkout} is incompatible with git.subdir"));
        }
        Ok(())
    }
}

/// Whether the text is a whole commit id, of either of git's hashes.
pub(crate) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The rules of `git check-ref-format`, and no option.
fn check_ref(name: &str) -> Result<(), String> {
    let bad = name.starts_with(['-', '/', '.', '+'])
        || name.ends_with(['/', '.'])
        || name.ends_with(".lock")
        || ["..", "//", "@{", "/."]
            .iter()
            .any(|part| name.contains(part))
        || name
            .chars()
            .any(|c| c.is_control() || " ~^:?*[\\".contains(c));
    if bad {
        Err(format!("`{name}` is no git ref"))
    } else {
        Ok(())
    }
}

/// The form `user@host:path`.
fn is_scp(remote: &str) -> bool {
    let Some((host, path)) = remote.split_once(':') else {
        return false;
    };
    !path.is_empty() && host.contains('@') && !host.contains('/')
}

/// The address to fetch from: the repository is the one of the identifier, which is what policies
/// know and people see; the attribute only says how it is reached.
fn remote_of(remote: &str, full: Option<&str>, attrs: &Attrs<'_>) -> Result<String> {
    let own = with_scheme(remote);
    let Some(place) = Address::parse(&own) else {
        return Ok(own);
    };
    let Some(full) = full else {
        return Ok(place.to(&place));
    };
    let full = with_scheme(full);
    match Address::parse(&full).filter(|full| full.is_of(&place)) {
        Some(way) => Ok(way.to(&place)),
        None => Err(Error::GitAddress {
            identifier: attrs.identifier().to_owned(),
            address: redacted(&full),
        }),
    }
}

pub(super) fn with_scheme(remote: &str) -> String {
    if remote.contains("://") || is_scp(remote) {
        remote.to_owned()
    } else {
        format!("https://{remote}")
    }
}

/// A path without its empty and `.` parts, relative.
pub(super) fn clean(path: &str) -> String {
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect::<Vec<_>>()
        .join("/")
}

/// An address without the password in it.
pub(crate) fn redacted(address: &str) -> String {
    match reqwest::Url::parse(address) {
        Ok(mut url) if url.password().is_some() => {
            let _ = url.set_password(Some("xxxxx"));
            url.to_string()
        }
        Ok(_) => address.to_owned(),
        Err(_) => {
            // Not of this form, or wrong in some other place.
            let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
            match rest.split('/').next().and_then(|host| host.rfind('@')) {
                Some(at) if rest[..at].contains(':') => format!("{scheme}://xxxxx{}", &rest[at..]),
                _ => address.to_owned(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Identifier;
    use super::*;

    fn parse(identifier: &str, attrs: &[(&str, &str)]) -> Result<GitId, String> {
        let attrs: BTreeMap<_, _> = attrs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        match Identifier::parse(identifier, &attrs) {
            Ok(Identifier::Git(id)) => Ok(id),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Rows: S14, S15
    #[test]
    fn address_ref_and_folder_are_taken_apart() {
        let id = parse("git://github.com/a/b.git#v1:sub/./dir/", &[]).unwrap();
        assert_eq!(
            (
                id.remote.as_str(),
                id.reference.as_str(),
                id.folder().as_str()
            ),
            ("https://github.com/a/b.git", "v1", "sub/dir")
        );
        let id = parse(
            "git://github.com/a/b.git#:/",
            &[("git.fullurl", "git@github.com:a/b.git")],
        )
        .unwrap();
        assert_eq!(
            (
                id.remote.as_str(),
                id.reference.as_str(),
                id.subdir.as_str()
            ),
            ("git@github.com:a/b.git", "", "")
        );
    }

    /// The repository is that of the identifier, by which policies know it.
    ///
    /// Rows: S14, P05
    #[test]
    fn the_full_address_only_says_how_the_repository_is_reached() {
        let place = "example.com/user/repo.git";
        for (place, full, remote) in [
            (place, "https://example.com/user/repo.git", None),
            (place, "git://example.com/user/repo.git", None),
            (
                place,
                "https://user:password@example.com/user/repo.git",
                None,
            ),
            (place, "git@example.com:user/repo.git", None),
            (place, "git@example.com:/user/repo.git", None),
            (
                "example.com/user/repo.git#main:sub",
                "ssh://git@example.com/user/repo.git",
                None,
            ),
            (place, "https://EXAMPLE.COM/user/repo.git", None),
            ("h:2222/r", "ssh://git@h:2222/r", None),
            (
                "https://example.com/user/repo",
                "example.com/user/repo",
                Some("https://example.com/user/repo"),
            ),
            (
                place,
                "https://example.com/user/repo.git/",
                Some("https://example.com/user/repo.git"),
            ),
            (
                place,
                "https://example.com/user/repo",
                Some("https://example.com/user/repo.git"),
            ),
            (
                place,
                "https://example.com/user/repo.git?a=b#main",
                Some("https://example.com/user/repo.git"),
            ),
            (
                "example.com/user/repo",
                "git@example.com:user/repo.git",
                Some("git@example.com:user/repo"),
            ),
            ("h/../a/%2e%2e//r", "http://h/r", None),
        ] {
            let id = parse(&format!("git://{place}"), &[("git.fullurl", full)]).unwrap();
            assert_eq!(id.remote, remote.unwrap_or(full), "{place} {full}");
        }
        for full in [
            "https://mirror.example.com/user/repo.git",
            "ssh://git@example.com:2222/user/repo.git",
            "https://example.com/user/other.git",
            "https://example.com/user/repo.git.backup",
            "https://example.com/user/repo.git/../../other/repo.git",
            "https://example.com@evil.com/user/repo.git",
            "https://user:password@[/repo.git",
            "git@evil.com:user/repo.git",
            "evil",
        ] {
            let error = parse(&format!("git://{place}"), &[("git.fullurl", full)]).unwrap_err();
            assert!(
                error.contains("git.fullurl does not match source identifier"),
                "{error}"
            );
            assert!(!error.contains("password"), "{error}");
        }
        let alone = |identifier: &str| parse(identifier, &[]).unwrap().remote;
        assert_eq!(alone("git://h//a/../b/?x#main"), "https://h/b");
        assert_eq!(alone("git://git@h:a/b.git"), "git@h:a/b.git");
    }

    /// Rows: S16
    #[test]
    fn what_is_said_of_bundles_goes_together() {
        let digest = oci::Digest::of("b");
        let (in_registry, in_layout) = (
            format!("docker-image+blob://r.io/b@{digest}"),
            format!("oci-layout+blob://not/real@{digest}"),
        );
        let commit = "1".repeat(40);
        let parse = |reference: &str, attrs: &[(&str, &str)]| {
            parse(&format!("git://h/r#{reference}"), attrs)
        };
        let sum = ("git.checksum", commit.as_str());
        let id = parse("main", &[("git.bundle", &in_registry), sum]).unwrap();
        assert!(matches!(id.bundle.unwrap().place, BlobPlace::Registry(_)));
        let stored = [("git.bundle", in_layout.as_str()), sum, ("oci.store", "s")];
        let id = parse("", &stored).unwrap();
        assert_eq!(
            id.bundle.unwrap().place,
            BlobPlace::Layout {
                session: String::new(),
                store: "s".into()
            }
        );
        let sha512 = format!("docker-image+blob://r.io/b@sha512:{}", "a".repeat(128));
        let other = "2".repeat(40);
        for (reference, attrs, reason) in [
            (
                "",
                &[("git.bundle", in_registry.as_str())][..],
                "requires git.checksum",
            ),
            (
                "",
                &[("git.bundle", &in_registry), ("git.checksum", "11")],
                "whole commit",
            ),
            (
                &other,
                &[("git.bundle", &in_registry), sum],
                "expected checksum to match",
            ),
            ("", &[("git.bundle", "https://h/b"), sum], "not supported"),
            ("", &[("git.bundle", "bundle"), sum], "missing scheme"),
            (
                "",
                &[("git.bundle", "docker-image+blob://r.io/b:1"), sum],
                "digest is required",
            ),
            ("", &[("git.bundle", &sha512), sum], "not sha256"),
            (
                "",
                &[("git.bundle", &in_registry), sum, ("oci.store", "s")],
                "oci.store",
            ),
            ("", &[("oci.store", "s")], "oci.store"),
            (
                "",
                &[("git.checkoutbundle", "true"), ("git.keepgitdir", "true")],
                "incompatible with git.keepgitdir",
            ),
            (
                ":sub",
                &[("git.checkoutbundle", "true")],
                "incompatible with git.subdir",
            ),
        ] {
            let error = parse(reference, attrs).expect_err(reason);
            assert!(error.contains(reason), "{reason}: {error}");
        }
        let both = [
            ("git.checkoutbundle", "true"),
            ("git.bundle", in_registry.as_str()),
            sum,
        ];
        assert!(parse("v1", &both).unwrap().checkout_bundle);
    }

    /// Rows: S16
    #[test]
    fn whoever_says_how_signatures_are_checked_says_whose() {
        let keys = ("git.sig.pubkey", "KEYS");
        assert_eq!(parse("git://h/r", &[]).unwrap().signature, None);
        let strict = [keys, ("git.sig.rejectexpired", "true")];
        let signature = parse("git://h/r", &strict).unwrap().signature.unwrap();
        assert_eq!(
            (
                signature.keys.as_str(),
                signature.reject_expired,
                signature.require_tag
            ),
            ("KEYS", true, false)
        );
        for rule in [
            "git.sig.rejectexpired",
            "git.sig.requiresignedtag",
            "git.sig.ignoresignedtag",
        ] {
            for value in ["true", "false"] {
                let error = parse("git://h/r", &[(rule, value)]).unwrap_err();
                assert!(error.contains("git.sig.pubkey is missing"), "{error}");
            }
            assert!(parse("git://h/r", &[keys, (rule, "perhaps")]).is_err());
        }
        // A variable that was never set must not turn the check off.
        for none in ["", " \n"] {
            let error = parse("git://h/r", &[("git.sig.pubkey", none)]).unwrap_err();
            assert!(error.contains("git.sig.pubkey is missing"), "{error}");
        }
        let unknown = parse("git://h/r", &[keys, ("git.sig.color", "red")]);
        assert!(unknown.unwrap_err().contains("git.sig.color"));
    }

    /// Rows: S14
    #[test]
    fn hostile_addresses_refs_and_folders_are_refused() {
        for address in [
            "ssh://-oProxyCommand=touch%20x/y",
            "-u@host:path",
            "ext::sh -c touch% x",
            "file:///etc",
            "https://h/a b",
            "--upload-pack=x",
            "ssh:///nohost",
            "user@-oProxyCommand=x:path",
            "https://h/\nx",
        ] {
            let identifier = format!("git://{address}");
            assert!(parse(&identifier, &[]).is_err(), "{address}");
            let reached = [("git.fullurl", address)];
            assert!(parse(&identifier, &reached).is_err(), "{address}");
            assert!(parse("git://h/r", &reached).is_err(), "{address}");
        }
        for fragment in [
            "--upload-pack=x",
            "a..b",
            "a b",
            "x:../up",
            "x:a/../../b",
            "x:.git/hooks",
            "a.lock",
            "+a",
            "a^{}",
        ] {
            assert!(
                parse(&format!("git://h/r#{fragment}"), &[]).is_err(),
                "{fragment}"
            );
        }
        assert!(parse("git://h/r", &[("git.checksum", "--x")]).is_err());
        assert_eq!(redacted("https://u:secret@h/x"), "https://u:xxxxx@h/x");
    }
}
