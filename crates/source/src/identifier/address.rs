//! Git addresses taken apart: how a repository is reached, and which one it is.

use std::borrow::Cow;

/// `scheme://user@host:port/path`, or `user@host:path` as for scp. What follows a `?` belongs to
/// neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address<'a> {
    /// All in front of the host.
    way: &'a str,
    /// With its port.
    host: &'a str,
    path: &'a str,
}

impl<'a> Address<'a> {
    /// Takes an address apart; `None` if it has no place for a host.
    pub(super) fn parse(address: &'a str) -> Option<Address<'a>> {
        let end = address.find(['?', '#']).unwrap_or(address.len());
        let address = &address[..end];
        let (begin, end, path) = match address.find("://") {
            Some(colon) => {
                let begin = colon + "://".len();
                let slash = address[begin..].find('/');
                let end = slash.map_or(address.len(), |slash| begin + slash);
                (begin, end, end)
            }
            None => {
                let colon = address.find(':')?;
                (0, colon, colon + 1)
            }
        };
        let user = address[begin..end].rfind('@').map_or(0, |at| at + 1);
        Some(Address {
            way: &address[..begin + user],
            host: &address[begin + user..end],
            path: &address[path..],
        })
    }

    fn is_scp(&self) -> bool {
        !self.way.contains("://")
    }

    /// Its path, absolute, in the one way to write it.
    pub(super) fn path(&self) -> String {
        format!("/{}", plain(self.path))
    }

    /// Its host in small letters, without a port that its scheme has anyway.
    pub(super) fn bare_host(&self) -> String {
        let usual = match self.way.split_once("://") {
            Some(("http", _)) => ":80",
            Some(("https", _)) => ":443",
            Some(("git", _)) => ":9418",
            Some(("ssh", _)) => ":22",
            _ => "",
        };
        let host = self.host.strip_suffix(usual).unwrap_or(self.host);
        let host = host.strip_suffix('.').unwrap_or(host);
        host.to_ascii_lowercase()
    }

    /// Whether both are of one repository, however each is reached. As for BuildKit, a path may end
    /// in `.git` or not.
    pub(super) fn is_of(&self, other: &Address<'_>) -> bool {
        let stem = |address: &Address<'_>| {
            let path = address.path();
            path.strip_suffix(".git").map(str::to_owned).unwrap_or(path)
        };
        self.host.eq_ignore_ascii_case(other.host) && stem(self) == stem(other)
    }

    /// The same way to the path of another address.
    pub(super) fn to(&self, other: &Address<'_>) -> String {
        let Address { way, host, path } = self;
        let (colon, to) = match self.is_scp() {
            true => (":", other.path()),
            false => ("", other.path()),
        };
        // For scp, a path without a slash in front is one in the user's home.
        let to = match self.is_scp() && !path.starts_with('/') {
            true => &to[1..],
            false => &to,
        };
        format!("{way}{host}{colon}{to}")
    }
}

/// A path without its empty parts, `.` and `..`, relative, and only that escaped which has to be.
fn plain(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match unescaped(part) {
            part if part.is_empty() || part == "." => {}
            part if part == ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The same text without escapes of what needs none (RFC 3986, 2.3).
pub(super) fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bare = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        bare.push_str(&rest[..at]);
        let escape = rest[at..].get(..3);
        let byte = escape.and_then(|escape| u8::from_str_radix(&escape[1..], 16).ok());
        let end = match byte.filter(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)) {
            Some(byte) => {
                bare.push(char::from(byte));
                at + 3
            }
            None => {
                bare.push('%');
                at + 1
            }
        };
        rest = &rest[end..];
    }
    bare.push_str(rest);
    Cow::Owned(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_escapes_of_plain_letters_are_undone() {
        for (text, plain) in [
            ("a%65%2E%2e%7E", "ae..~"),
            ("%2f%20%25%e4", "%2f%20%25%e4"),
            ("%", "%"),
            ("%4", "%4"),
            ("%+1%4ä%41", "%+1%4äA"),
        ] {
            assert_eq!(unescaped(text), plain, "{text}");
        }
    }

    #[test]
    fn paths_have_one_way_to_be_written() {
        for (path, one) in [
            ("", ""),
            ("/a/./b//", "a/b"),
            ("a/../../b", "b"),
            ("/a/%2e%2E/c%2fd", "c%2fd"),
        ] {
            assert_eq!(plain(path), one, "{path}");
        }
    }
}
