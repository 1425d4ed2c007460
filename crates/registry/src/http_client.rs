//! HTTP as we speak it to registries: TLS without system libraries, no
//! HTTP/2 (P32), no redirects followed blindly, errors with their causes.

use std::error::Error as _;
use std::sync::Once;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::header::RETRY_AFTER;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::hosts::TlsFiles;

/// An answer whose body is still to be read.
pub(crate) type Answer = reqwest::Response;

/// How we introduce ourselves.
const USER_AGENT: &str = concat!("kiln/", env!("CARGO_PKG_VERSION"));
/// Longer waits than this, asked for by a registry, are cut short.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// So much of an error's body is worth reading.
const MAX_REFUSAL: usize = 16 << 10;

/// Makes `ring` the one TLS provider of this process.
pub fn use_ring() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Fails only when somebody installed one before, which is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
    });
}

/// A client for one kind of TLS. Blocking work: roots are read from disk.
pub(crate) fn build(
    host: &str,
    tls: bool,
    verify: bool,
    local: bool,
    files: &TlsFiles,
) -> Result<reqwest::Client> {
    use_ring();
    let config = |reason: String| Error::Config {
        host: host.into(),
        reason,
    };
    let mut builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .http1_only()
        .connect_timeout(Duration::from_secs(30))
        .tcp_keepalive(Duration::from_secs(30))
        .pool_idle_timeout(Duration::from_secs(60))
        .referer(false);
    if local {
        builder = builder.no_proxy();
    }
    let mut authorities = Vec::new();
    for pem in &files.ca {
        let some = reqwest::Certificate::from_pem_bundle(pem)
            .map_err(|error| config(format!("ca: {error}")))?;
        authorities.extend(some);
    }
    builder = match (tls, verify) {
        // Without TLS the system's roots need not be there at all.
        (false, _) => builder.tls_certs_only(authorities),
        (true, true) => builder.tls_certs_merge(authorities),
        (true, false) => builder
            .tls_certs_only(authorities)
            .tls_danger_accept_invalid_certs(true),
    };
    if let Some(pem) = &files.identity {
        let identity = reqwest::Identity::from_pem(pem)
            .map_err(|error| config(format!("keypair: {error}")))?;
        builder = builder.identity(identity);
    }
    builder.build().map_err(|error| config(causes(&error)))
}

/// Sends a request; only a connection that fails is an error here.
pub(crate) async fn send(request: reqwest::RequestBuilder, host: &str) -> Result<Answer> {
    request.send().await.map_err(|error| failure(&error, host))
}

/// What a failed exchange means.
pub(crate) fn failure(error: &reqwest::Error, host: &str) -> Error {
    let (host, reason) = (host.to_owned(), causes(error));
    if !error.is_connect() {
        return Error::Broken { host, reason };
    }
    let mut transient = error.is_timeout();
    let mut cause = error.source();
    while let Some(inner) = cause {
        use std::io::ErrorKind as E;
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            transient |= matches!(
                io.kind(),
                E::ConnectionReset
                    | E::ConnectionAborted
                    | E::BrokenPipe
                    | E::UnexpectedEof
                    | E::TimedOut
            );
        }
        cause = inner.source();
    }
    Error::Unreachable {
        host,
        reason,
        transient,
    }
}

/// The causes of an error, innermost last, without repeating themselves.
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        // `error sending request for url (…)` says nothing the reader asks for.
        if !text.starts_with("error sending request") && parts.last() != Some(&text) {
            parts.push(text);
        }
        next = error.source();
    }
    parts.join(": ")
}

/// The error for an answer that means no.
pub(crate) async fn refusal(answer: Answer, host: &str, what: &str) -> Error {
    let status = answer.status().as_u16();
    let retry_after = answer
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(seconds);
    let head = tokio::time::timeout(Duration::from_secs(5), beginning(answer))
        .await
        .unwrap_or_default();
    Error::Status {
        host: host.into(),
        what: what.into(),
        status,
        message: message(&head),
        retry_after,
    }
}

/// `Retry-After` in seconds. The form with a date is not used by registries.
fn seconds(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(Duration::from_secs)
}

async fn beginning(answer: Answer) -> Bytes {
    let mut head = BytesMut::new();
    let mut body = answer.bytes_stream();
    while let Some(Ok(piece)) = body.next().await {
        head.extend_from_slice(&piece[..piece.len().min(MAX_REFUSAL - head.len())]);
        if head.len() >= MAX_REFUSAL {
            break;
        }
    }
    head.freeze()
}

/// What the body of a refusal says: `CODE: message` of the registry's JSON, or
/// the beginning of whatever text it is.
fn message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Problems {
        #[serde(default)]
        errors: Vec<Problem>,
        #[serde(default)]
        details: Option<String>,
        #[serde(default)]
        error_description: Option<String>,
    }
    #[derive(Deserialize)]
    struct Problem {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    if let Ok(problems) = serde_json::from_slice::<Problems>(body) {
        let mut texts: Vec<String> = problems
            .errors
            .into_iter()
            .map(
                |problem| match (problem.code.is_empty(), problem.message.is_empty()) {
                    (false, false) => format!("{}: {}", problem.code, problem.message),
                    (_, true) => problem.code,
                    (true, false) => problem.message,
                },
            )
            .collect();
        texts.extend(problems.details);
        texts.extend(problems.error_description);
        return clean(&texts.join("; "));
    }
    clean(&String::from_utf8_lossy(body))
}

/// One line, no control characters, not long: this goes to a terminal.
fn clean(text: &str) -> String {
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|w| !w.is_empty())
        .collect();
    let mut line = words.join(" ");
    if let Some((end, _)) = line.char_indices().nth(300) {
        line.truncate(end);
        line.push('…');
    }
    line
}

/// A whole body of at most `limit` bytes.
pub(crate) async fn whole(answer: Answer, limit: usize, host: &str) -> Result<Bytes> {
    let too_long = || Error::Protocol {
        host: host.into(),
        reason: format!("an answer is longer than {limit} bytes"),
    };
    if answer
        .content_length()
        .is_some_and(|length| length > limit as u64)
    {
        return Err(too_long());
    }
    let mut bytes = BytesMut::new();
    let mut body = answer.bytes_stream();
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|error| failure(&error, host))?;
        if bytes.len() + piece.len() > limit {
            return Err(too_long());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.freeze())
}

/// Waits `delay`, or as long as the other side asked for within reason.
pub(crate) async fn pause(delay: Duration, asked: Option<Duration>) {
    tokio::time::sleep(asked.unwrap_or(delay).min(LONGEST_WAIT)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: X14
    #[test]
    fn a_refusal_says_what_the_body_says() {
        let json = br#"{"errors":[{"code":"DENIED","message":"requested access"},{"code":"X"}]}"#;
        assert_eq!(message(json), "DENIED: requested access; X");
        assert_eq!(
            message(br#"{"details":"incorrect username or password"}"#),
            "incorrect username or password"
        );
        assert_eq!(
            message(b"<html>\n  bad \x1b[31m gateway\0"),
            "<html> bad [31m gateway"
        );
        assert_eq!(message(&[b'x'; 5000]).chars().count(), 301);
        assert_eq!(message(b""), "");
    }
}
