//! What can go wrong between us and a registry, and what to do about it.

use std::time::Duration;

use oci::{Descriptor, Digest};
use stdx::Kind;

/// Short for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A registry did not do what we asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No connection came about: refused, no such host, bad certificate.
    #[error("cannot reach registry {host}: {reason}")]
    Unreachable {
        /// Whom we called.
        host: String,
        /// The causes, outermost first.
        reason: String,
        /// Whether trying again may help (a reset may, a refusal will not soon).
        transient: bool,
    },
    /// The connection broke, or nothing came for too long.
    #[error("connection to registry {host} broke: {reason}")]
    Broken {
        /// Whom we called.
        host: String,
        /// The causes, outermost first.
        reason: String,
    },
    /// The registry answered with a status that means no.
    #[error("{what}: {}registry {host} answered {status}{}", meaning(*.status), detail(.message))]
    Status {
        /// Whom we called.
        host: String,
        /// What we wanted, like `pull docker.io/library/alpine:3`.
        what: String,
        /// The HTTP status.
        status: u16,
        /// What the body said.
        message: String,
        /// How long it asked us to wait.
        retry_after: Option<Duration>,
    },
    /// Logging in did not work.
    #[error("cannot log in to {host}: {reason}")]
    Login {
        /// Whom we called.
        host: String,
        /// What happened.
        reason: String,
        /// Whether it is for want of rights, or something that may pass.
        kind: Kind,
    },
    /// Bytes that are not what their name says.
    #[error("{what}: expected {expected}, received {received}")]
    Corrupt {
        /// What was fetched or pushed.
        what: String,
        /// The name we asked for.
        expected: Digest,
        /// The name of what came.
        received: Digest,
    },
    /// An answer that breaks the protocol.
    #[error("registry {host}: {reason}")]
    Protocol {
        /// Whom we called.
        host: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The place does not have it.
    #[error("{what} not found in {repository}")]
    NotFound {
        /// What was looked for.
        what: String,
        /// Where.
        repository: String,
    },
    /// Configuration that cannot be used.
    #[error("registry configuration of {host}: {reason}")]
    Config {
        /// Whose configuration.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// The bytes to be pushed could not be read.
    #[error("reading {blob} to push it: {reason}")]
    Reading {
        /// What was to be pushed.
        blob: Digest,
        /// Why it could not be read.
        reason: String,
        /// The kind of that error.
        kind: Kind,
    },
}

/// `: message`, or nothing.
fn detail(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Unreachable { .. } | Error::Broken { .. } => Kind::Unavailable,
            Error::Status { status, .. } => match status {
                401 | 403 => Kind::Denied,
                404 | 410 => Kind::NotFound,
                408 | 429 | 500.. => Kind::Unavailable,
                405 | 415 => Kind::Unsupported,
                _ => Kind::InvalidInput,
            },
            Error::Login { kind, .. } | Error::Reading { kind, .. } => *kind,
            Error::Corrupt { .. } | Error::Protocol { .. } => Kind::Internal,
            Error::NotFound { .. } => Kind::NotFound,
            Error::Config { .. } => Kind::InvalidInput,
        }
    }

    /// Whether this crate itself tries again (S08): server faults, throttling,
    /// and connections that broke. A refused connection is not retried.
    pub(crate) fn retryable(&self) -> bool {
        match self {
            Error::Unreachable { transient, .. } => *transient,
            Error::Broken { .. } => true,
            Error::Status { status, .. } => matches!(status, 408 | 429 | 500..),
            Error::Login { kind, .. } => kind.is_transient(),
            _ => false,
        }
    }

    /// How long the registry asked us to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// A sentence that helps whoever reads the error, when we know one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Unreachable { host, reason, .. } => Some(unreachable_hint(host, reason)),
            Error::Status { host, status: 401, .. } | Error::Login { host, kind: Kind::Denied, .. } => {
                Some(format!("Log in first with `docker login {}`.", familiar_host(host)))
            }
            Error::Status { status: 403, .. } => {
                Some("The login is known but may not do this: ask the owner of the repository for the right to.".into())
            }
            Error::Status { status: 404, .. } | Error::NotFound { .. } => Some(
                "Check the spelling of the name and the tag; private repositories also answer like this when one is not logged in."
                    .into(),
            ),
            Error::Status { status: 429, host, .. } => Some(format!(
                "The registry limits how often one may ask. Wait a while, log in with `docker login {}`, or configure a mirror.",
                familiar_host(host)
            )),
            Error::Status { status: 413, .. } => Some("A proxy before the registry refuses bodies of this size.".into()),
            Error::Status { status: 500.., .. } => {
                Some("This is a fault on the registry's side; it may pass.".into())
            }
            Error::Corrupt { .. } => {
                Some("The registry or something between it and us changed the bytes; nothing of it was kept.".into())
            }
            _ => None,
        }
    }

    /// A `NotFound` about a blob.
    pub(crate) fn absent(blob: &Descriptor, repository: &str) -> Error {
        Error::NotFound {
            what: blob.digest.to_string(),
            repository: repository.to_owned(),
        }
    }
}

/// A status in words, where all agree what it means.
fn meaning(status: u16) -> &'static str {
    match status {
        404 => "not found: ",
        _ => "",
    }
}

fn unreachable_hint(host: &str, reason: &str) -> String {
    let lower = reason.to_lowercase();
    if lower.contains("certificate") || lower.contains("unknownissuer") {
        return format!(
            "If {host} has a certificate of its own, name its CA in [registry.\"{host}\"] ca."
        );
    }
    if lower.contains("corrupt message") || lower.contains("invalidcontenttype") {
        return format!("If {host} speaks plain HTTP, set http = true in [registry.\"{host}\"].");
    }
    if lower.contains("dns") || lower.contains("lookup") || lower.contains("resolve") {
        return format!("The name {host} is not known here: check its spelling and the network.");
    }
    format!("Check that {host} is running and that this machine may connect to it.")
}

/// The host as people write it on the command line.
fn familiar_host(host: &str) -> &str {
    match host {
        "registry-1.docker.io" | "auth.docker.io" => "docker.io",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16) -> Error {
        Error::Status {
            host: "r.example".into(),
            what: "pull r.example/a:1".into(),
            status,
            message: "MANIFEST_UNKNOWN: manifest unknown".into(),
            retry_after: None,
        }
    }

    #[test]
    fn each_status_says_what_and_has_a_kind_and_a_hint() {
        assert_eq!(
            status(404).to_string(),
            "pull r.example/a:1: not found: registry r.example answered 404: MANIFEST_UNKNOWN: manifest unknown"
        );
        for (code, kind) in [
            (401, Kind::Denied),
            (403, Kind::Denied),
            (404, Kind::NotFound),
            (429, Kind::Unavailable),
            (500, Kind::Unavailable),
            (503, Kind::Unavailable),
        ] {
            assert_eq!(status(code).kind(), kind, "{code}");
            assert!(
                status(code).hint().is_some_and(|hint| hint.ends_with('.')),
                "{code}"
            );
        }
    }
}
