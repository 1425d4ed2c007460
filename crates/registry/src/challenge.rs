//! What a 401 answer says about logging in: the `WWW-Authenticate` header
//! (RFC 7235, and the Docker registry token specification), and token scopes.

use std::collections::{BTreeMap, BTreeSet};

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// How a registry wants us to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token from the server at `realm`.
    Bearer {
        /// The token server.
        realm: String,
        /// What the token server calls the registry.
        service: String,
        /// The scopes this request would have needed.
        scopes: Scopes,
    },
}

impl Challenge {
    /// The strongest challenge of an answer: bearer before basic.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Challenge> {
        let mut found = None;
        for value in headers.get_all(WWW_AUTHENTICATE) {
            let Ok(value) = value.to_str() else { continue };
            for (scheme, parameters) in split(value) {
                match scheme.to_ascii_lowercase().as_str() {
                    "bearer" => {
                        let get = |name: &str| parameters.get(name).cloned().unwrap_or_default();
                        let mut scopes = Scopes::default();
                        get("scope")
                            .split_whitespace()
                            .for_each(|scope| scopes.add_text(scope));
                        return Some(Challenge::Bearer {
                            realm: get("realm"),
                            service: get("service"),
                            scopes,
                        });
                    }
                    "basic" => found = Some(Challenge::Basic),
                    _ => {}
                }
            }
        }
        found
    }
}

/// The challenges of one header value with their parameters.
fn split(value: &str) -> Vec<(&str, BTreeMap<String, String>)> {
    let mut challenges: Vec<(&str, BTreeMap<String, String>)> = Vec::new();
    let mut rest = value.trim_start_matches([' ', ',']);
    while !rest.is_empty() {
        let end = rest.find([' ', '=', ',']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after = after.trim_start_matches(' ');
        if let Some(text) = after.strip_prefix('=') {
            let (argument, next) = argument(text.trim_start());
            if let Some((_, parameters)) = challenges.last_mut() {
                parameters.insert(word.to_ascii_lowercase(), argument);
            }
            rest = next;
        } else {
            challenges.push((word, BTreeMap::new()));
            rest = after;
        }
        rest = rest.trim_start_matches([' ', ',']);
    }
    challenges
}

/// A token or quoted string, and what follows it.
fn argument(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, &quoted[at + 1..]),
            _ => value.push(c),
        }
    }
    (value, "")
}

/// What a token shall allow: actions by resource, always in the same order.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Scopes(BTreeMap<String, BTreeSet<String>>);

impl Scopes {
    /// Reading `repository`.
    pub(crate) fn pull(repository: &str) -> Scopes {
        Scopes::default().and(repository, &["pull"])
    }

    /// Reading and writing `repository`.
    pub(crate) fn push(repository: &str) -> Scopes {
        Scopes::default().and(repository, &["pull", "push"])
    }

    /// These and `actions` on `repository`.
    pub(crate) fn and(mut self, repository: &str, actions: &[&str]) -> Scopes {
        let known = self
            .0
            .entry(format!("repository:{repository}"))
            .or_default();
        known.extend(actions.iter().map(|&action| action.to_owned()));
        self
    }

    /// These and those.
    pub(crate) fn merge(mut self, other: &Scopes) -> Scopes {
        for (resource, actions) in &other.0 {
            self.0
                .entry(resource.clone())
                .or_default()
                .extend(actions.iter().cloned());
        }
        self
    }

    fn add_text(&mut self, scope: &str) {
        if let Some((resource, actions)) = scope.rsplit_once(':') {
            let known = self.0.entry(resource.to_owned()).or_default();
            known.extend(
                actions
                    .split(',')
                    .filter(|a| !a.is_empty())
                    .map(str::to_owned),
            );
        }
    }

    /// Each as `repository:name:pull,push`.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|(resource, actions)| {
                let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
                format!("{resource}:{}", actions.join(","))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        Challenge::of(&headers)
    }

    fn bearer(realm: &str, service: &str, scopes: &[&str]) -> Option<Challenge> {
        let mut all = Scopes::default();
        scopes.iter().for_each(|scope| all.add_text(scope));
        Some(Challenge::Bearer {
            realm: realm.into(),
            service: service.into(),
            scopes: all,
        })
    }

    /// Rows: P29
    #[test]
    fn reads_challenges_as_registries_write_them() {
        assert_eq!(
            parse(&[
                r#"Bearer realm="https://a/token",service="r",scope="repository:x/y:pull,push repository:z:pull""#
            ]),
            bearer(
                "https://a/token",
                "r",
                &["repository:x/y:pull,push", "repository:z:pull"]
            )
        );
        assert_eq!(
            parse(&[r#"Basic realm="R, \"quoted\""#]),
            Some(Challenge::Basic)
        );
        assert_eq!(
            parse(&[r#"Basic realm=a, Bearer realm=https://b/t, service=s"#]),
            bearer("https://b/t", "s", &[])
        );
        assert_eq!(
            parse(&["Basic", r#"bearer REALM="u" "#]),
            bearer("u", "", &[])
        );
        assert_eq!(parse(&["Negotiate", "= , \" ,,"]), None);
        assert_eq!(parse(&[]), None);
    }

    /// Rows: P29
    #[test]
    fn scopes_merge_into_one_per_resource() {
        let scopes = Scopes::push("b")
            .and("a", &["pull"])
            .merge(&Scopes::pull("b"));
        assert_eq!(
            scopes.texts(),
            ["repository:a:pull", "repository:b:pull,push"]
        );
    }
}
