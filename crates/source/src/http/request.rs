//! Requests to web servers: logins, redirects, what headers say.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::sync::OnceCell;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::identifier::HttpId;

/// A server that says nothing for so long is given up.
const STALL: Duration = Duration::from_secs(60);
/// As many redirects as Go's client follows.
const MAX_REDIRECTS: usize = 10;

/// An answer.
pub(crate) struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: BoxStream<'static, Result<Bytes>>,
}

/// HTTP to the world.
#[derive(Default)]
pub(crate) struct Web {
    client: OnceCell<reqwest::Client>,
}

impl Web {
    async fn client(&self) -> Result<&reqwest::Client> {
        let make = || async {
            stdx::task::blocking(|| {
                registry::use_ring();
                let builder = || {
                    reqwest::Client::builder()
                        .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
                        .redirect(reqwest::redirect::Policy::limited(MAX_REDIRECTS))
                        .connect_timeout(Duration::from_secs(30))
                        .read_timeout(STALL)
                };
                // Without any root certificate on this machine plain HTTP still works.
                builder()
                    .build()
                    .or_else(|_| builder().tls_certs_only([]).build())
            })
            .await
        };
        let made = self.client.get_or_try_init(make).await;
        made.map_err(|error| Error::Http {
            url: "https".into(),
            reason: error.to_string(),
            status: Some(501),
        })
    }

    /// Sends a request. The login goes to the address's own host only: the
    /// client drops it when a redirect leads elsewhere.
    pub(crate) async fn send(&self, method: Method, url: Url, headers: HeaderMap) -> Result<Reply> {
        let shown = redacted(url.as_str());
        let failed = move |error: reqwest::Error| Error::Http {
            url: shown.clone(),
            reason: stdx::text::sentence(&error.without_url()),
            status: None,
        };
        let client = self.client().await?;
        let answer = client
            .request(method, url)
            .headers(headers)
            .send()
            .await
            .map_err(failed.clone())?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = answer
            .bytes_stream()
            .map(move |piece| piece.map_err(failed.clone()))
            .boxed();
        Ok(Reply {
            status,
            headers,
            body,
        })
    }
}

/// The headers of a request, with the login the build has for the host.
pub(super) async fn headers(id: &HttpId, cx: &Context) -> Result<HeaderMap> {
    let wrong = |reason: &str| Error::Http {
        url: redacted(&id.url),
        reason: reason.into(),
        status: Some(400),
    };
    let mut headers = HeaderMap::new();
    // Asked for in every request alike: a server may have another ETag for what is packed.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    for (name, value) in &id.headers {
        let name: HeaderName = name
            .parse()
            .map_err(|_| wrong("a header's name cannot be sent"))?;
        headers.insert(
            name,
            value
                .parse()
                .map_err(|_| wrong("a header's value cannot be sent"))?,
        );
    }
    let mut login = None;
    if id.auth_header_secret.is_empty() {
        let url = Url::parse(&id.url).map_err(|error| wrong(&error.to_string()))?;
        let host = url.host_str().unwrap_or("");
        if host != "buildkit-session" {
            login = cx
                .secret(&format!("HTTP_AUTH_HEADER_{host}"))
                .await?
                .map(|secret| secret.to_vec());
            if let Some(token) = cx.secret(&format!("HTTP_AUTH_TOKEN_{host}")).await? {
                login = Some([b"Bearer ", &token[..]].concat());
            }
        }
    } else {
        let secret = cx.secret(&id.auth_header_secret).await?;
        let secret = secret.ok_or_else(|| {
            wrong(&format!(
                "failed to retrieve HTTP auth secret {}",
                id.auth_header_secret
            ))
        })?;
        login = Some(secret.to_vec());
    }
    if let Some(login) = login {
        let mut value = HeaderValue::from_bytes(login.trim_ascii())
            .map_err(|_| wrong("the login cannot be sent"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

/// A header as text.
pub(super) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// A `Last-Modified` time as Go writes it again, and in seconds. The two older ways of
/// writing it (RFC 9110, 5.6.7) are read as well.
pub(super) fn modified(text: String) -> Option<(String, i64)> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let said = match words[..] {
        [_, _, _, _, _, "GMT"] => text.trim().to_owned(),
        [weekday, date, clock, "GMT" | "UTC"] => {
            let (day, rest) = date.split_once('-')?;
            let (month, year) = rest.split_once('-')?;
            let year: u8 = year.parse().ok().filter(|year| *year < 100)?;
            let year = u16::from(year) + if year < 69 { 2000 } else { 1900 };
            format!("{}, {day} {month} {year} {clock} GMT", weekday.get(..3)?)
        }
        [weekday, month, day, clock, year] => {
            format!("{weekday}, {day:0>2} {month} {year} {clock} GMT")
        }
        _ => return None,
    };
    let time = OffsetDateTime::parse(&said.replace("GMT", "+0000"), &Rfc2822).ok()?;
    Some((said, time.unix_timestamp()))
}

/// The file name of a `Content-Disposition` (RFC 6266).
pub(super) fn disposition(text: &str) -> Option<String> {
    let mut plain = None;
    for part in split(text).skip(1) {
        let Some((name, value)) = part.split_once('=') else {
            continue;
        };
        let value = value.trim();
        match name.trim().to_ascii_lowercase().as_str() {
            "filename*" => {
                let encoded = value.splitn(3, '\'').nth(2)?;
                return Some(unescaped(encoded))
                    .filter(|name| !name.is_empty() && !name.ends_with('/'));
            }
            "filename" => {
                let inner = value
                    .strip_prefix('"')
                    .and_then(|value| value.strip_suffix('"'));
                plain = Some(inner.map_or(value.to_owned(), |inner| inner.replace("\\\"", "\"")));
            }
            _ => {}
        }
    }
    plain.filter(|name| !name.is_empty() && !name.ends_with('/'))
}

/// Splits at `;` outside of quotes.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        c == ';' && !quoted
    })
}

/// Percent escapes resolved, where they give text.
pub(super) fn unescaped(text: &str) -> String {
    String::from_utf8(stdx::text::percent_decoded(text)).unwrap_or_else(|_| text.to_owned())
}

/// An address without the login in it.
pub(super) fn redacted(address: &str) -> String {
    crate::identifier::redacted(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: S17
    #[test]
    fn names_and_times_are_read_from_headers() {
        for (text, name) in [
            (r#"attachment; filename="a b;c.txt""#, Some("a b;c.txt")),
            ("attachment; filename=x.tar; size=1", Some("x.tar")),
            (
                "attachment; filename*=UTF-8''%e2%82%ac.txt; filename=old",
                Some("€.txt"),
            ),
            ("inline", None),
            ("attachment; filename=dir/", None),
        ] {
            assert_eq!(disposition(text).as_deref(), name, "{text}");
        }
        let time = "Sun, 06 Nov 1994 08:49:37 GMT".to_owned();
        for said in [
            &time,
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 UTC",
            "Sun Nov  6 08:49:37 1994",
        ] {
            let read = modified(said.to_owned());
            assert_eq!(read, Some((time.clone(), 784_111_777)), "{said}");
        }
        let later = modified("Friday, 20-Nov-26 10:41:08 GMT".into()).unwrap();
        assert_eq!(later.0, "Fri, 20 Nov 2026 10:41:08 GMT");
        for none in [
            "yesterday",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "a b c GMT",
            "",
        ] {
            assert_eq!(modified(none.into()), None, "{none}");
        }
        assert_eq!(unescaped("/a%20b%zz"), "/a b%zz");
    }
}
