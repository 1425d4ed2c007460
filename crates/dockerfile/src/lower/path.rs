//! What `COPY` and `ADD` write in words: owners, modes, places and addresses.

use std::sync::LazyLock;

use regex::Regex;

use crate::Error;
use crate::git::GitAddress;
use crate::ignore::clean;

static SYMBOLIC_MODE: LazyLock<Regex> = LazyLock::new(|| {
    let clause = "[ugoa]*(?:[-+=](?:[rwxXst]*|[ugo]))+";
    Regex::new(&format!("^{clause}(?:,{clause})*$")).expect("a constant pattern")
});

/// `--chmod`: octal or symbolic.
pub(super) fn mode(text: &str) -> Result<llb::Mode, Error> {
    if text.is_empty() {
        return Ok(llb::Mode::Keep);
    }
    match u32::from_str_radix(text, 8) {
        Ok(bits) if bits <= 0o7777 && !text.starts_with('+') => Ok(llb::Mode::Bits(bits)),
        Err(_) if SYMBOLIC_MODE.is_match(text) => Ok(llb::Mode::Symbolic(text.to_owned())),
        _ => Err(Error::BadMode {
            mode: text.to_owned(),
        }),
    }
}

/// `user`, `user:group`, by name or number.
pub(super) fn owner(text: &str) -> Option<llb::Chown> {
    if text.is_empty() {
        return None;
    }
    let user = |name: &str| match name.parse() {
        Ok(id) => llb::User::Id(id),
        Err(_) => llb::User::Name {
            name: name.to_owned(),
            input: -1,
        },
    };
    let (name, group) = match text.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (text, None),
    };
    Some(llb::Chown {
        user: Some(user(name)),
        group: group.map(user),
    })
}

/// Where files go: a slash or `/.` at the end means a directory and stays.
pub(super) fn destination(dir: &str, written: &str) -> String {
    let written = if written.is_empty() || written == "." {
        "./"
    } else {
        written
    };
    let cleaned = super::meta::join(dir, written);
    match written {
        w if w.ends_with('/') && cleaned != "/" => format!("{cleaned}/"),
        w if w.ends_with("/.") && cleaned != "/" => format!("{cleaned}/."),
        w if w.ends_with("/.") => "/.".into(),
        _ => cleaned,
    }
}

pub(super) fn join_root(path: &str) -> String {
    clean(&format!("/{path}"))
}

pub(super) fn has_wildcards(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
    false
}

/// An address to download from. One that ends in `.git` is a repository.
pub(crate) fn is_url(text: &str) -> bool {
    (text.starts_with("http://") || text.starts_with("https://"))
        && !matches!(GitAddress::parse(text), Ok(Some(_)) | Err(_))
}

/// The last part of a URL's path.
pub(super) fn file_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let path = rest
        .split_once('/')
        .map_or("", |(_, path)| path)
        .trim_end_matches('/');
    let name = percent_decoded(path.rsplit('/').next().unwrap_or_default());
    match name.as_str() {
        "" | "." | ".." => "__unnamed__".into(),
        name if name.contains('/') => "__unnamed__".into(),
        _ => name,
    }
}

fn percent_decoded(text: &str) -> String {
    String::from_utf8_lossy(&stdx::text::percent_decoded(text)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: F24
    #[test]
    fn destinations_keep_their_slash() {
        assert_eq!(destination("/w", "."), "/w/");
        assert_eq!(destination("/w", "a"), "/w/a");
        assert_eq!(destination("/w", "a/"), "/w/a/");
        assert_eq!(destination("/w", "/a/."), "/a/.");
        assert_eq!(destination("", "/"), "/");
        assert_eq!(destination("", "/../x"), "/x");
    }

    /// Rows: F24
    #[test]
    fn modes_are_octal_or_symbolic() {
        assert_eq!(mode("0644").unwrap(), llb::Mode::Bits(0o644));
        assert_eq!(
            mode("u+x,go-w").unwrap(),
            llb::Mode::Symbolic("u+x,go-w".into())
        );
        for bad in ["99", "10000", "u+q", "-1", "+7", "x"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }

    /// Rows: F26
    #[test]
    fn downloads_get_a_name() {
        assert_eq!(file_name("https://a/b/c.tgz?x=1#y"), "c.tgz");
        assert_eq!(file_name("https://a/%20b"), " b");
        assert_eq!(file_name("https://a"), "__unnamed__");
        assert_eq!(file_name("https://a/%2e%2e"), "__unnamed__");
        assert!(is_url("https://a/b") && !is_url("https://a/b.git") && !is_url("a/b"));
    }
}
