//! Which collector spans go to, as the environment of every OpenTelemetry program says
//! (OpenTelemetry specification, "OpenTelemetry Protocol Exporter").

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use crate::Error;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// How long one batch may take where `OTEL_EXPORTER_OTLP_TIMEOUT` does not say.
const PATIENCE: Duration = Duration::from_secs(10);

/// A collector, as the environment names it.
#[derive(Clone, Debug)]
pub struct Collector {
    pub(super) protocol: Protocol,
    pub(super) address: Address,
    pub(super) headers: HeaderMap,
    pub(super) tls: Tls,
    /// How long one batch may take.
    pub(super) patience: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    Http,
}

/// Where it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// `http://` or `https://`.
    Web(Uri),
    /// A socket's path. Only gRPC is spoken there.
    Socket(String),
}

/// Files of `OTEL_EXPORTER_OTLP_CERTIFICATE` and its like, as PEM.
#[derive(Clone, Default)]
pub(super) struct Tls {
    /// Who may vouch for the collector; without it those the system trusts.
    pub(super) authorities: Option<Vec<u8>>,
    /// Our certificate and its key.
    pub(super) identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Address {
    pub(super) fn is_https(&self) -> bool {
        matches!(self, Address::Web(uri) if uri.scheme_str() == Some("https"))
    }

    /// On this machine: no proxy leads there.
    pub(super) fn is_local(&self) -> bool {
        let Address::Web(uri) = self else {
            return true;
        };
        let host = uri.host().unwrap_or_default();
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Web(uri) => uri.fmt(f),
            Address::Socket(path) => write!(f, "unix://{path}"),
        }
    }
}

/// What is said of the exporter: a variable for traces wins over the one for everything.
struct Said<'a>(&'a BTreeMap<String, String>);

impl<'a> Said<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        let value = self.0.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }

    fn of_traces(&self, name: &str) -> Option<&'a str> {
        self.get(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
    }

    fn of_exporter(&self, name: &str) -> Option<&'a str> {
        let shared = || self.get(&format!("OTEL_EXPORTER_OTLP_{name}"));
        self.of_traces(name).or_else(shared)
    }
}

impl Collector {
    /// From variables whose names begin with `OTEL_`; `None` when they name no collector. Reads the files of
    /// certificates they name.
    pub fn of(variables: &BTreeMap<String, String>) -> Result<Option<Collector>, Error> {
        let said = Said(variables);
        let exporter = said.get("OTEL_TRACES_EXPORTER");
        if exporter == Some("none") || said.get("OTEL_SDK_DISABLED") == Some("true") {
            return Ok(None);
        }
        if said.of_exporter("ENDPOINT").is_none() && exporter != Some("otlp") {
            return match exporter {
                None => Ok(None),
                Some(other) => Err(Error::NotYet(format!("OTEL_TRACES_EXPORTER={other}"))),
            };
        }
        if let Some(kind @ "gzip") = said.of_exporter("COMPRESSION") {
            let what = format!("OTEL_EXPORTER_OTLP_COMPRESSION={kind}");
            return Err(Error::NotYet(what));
        }
        let protocol = match said.of_exporter("PROTOCOL") {
            None | Some("grpc") => Protocol::Grpc,
            Some("http/protobuf") => Protocol::Http,
            Some(other) => {
                return Err(bad(
                    "OTEL_EXPORTER_OTLP_PROTOCOL",
                    other,
                    "is not one of grpc, http/protobuf",
                ));
            }
        };
        let patience = match said.of_exporter("TIMEOUT") {
            None => PATIENCE,
            Some(text) => milliseconds(text)?,
        };
        Ok(Some(Collector {
            protocol,
            address: address(&said, protocol)?,
            headers: headers(said.of_exporter("HEADERS").unwrap_or_default())?,
            tls: tls(&said)?,
            patience,
        }))
    }
}

fn bad(setting: &'static str, value: &str, problem: &str) -> Error {
    Error::BadSetting {
        setting,
        value: value.to_owned(),
        problem: problem.to_owned(),
    }
}

fn milliseconds(text: &str) -> Result<Duration, Error> {
    match text.parse() {
        Ok(number @ 1..) => Ok(Duration::from_millis(number)),
        _ => Err(bad(
            "OTEL_EXPORTER_OTLP_TIMEOUT",
            text,
            "is not a number of milliseconds",
        )),
    }
}

fn address(said: &Said<'_>, protocol: Protocol) -> Result<Address, Error> {
    let text = match (said.of_traces("ENDPOINT"), said.get(ENDPOINT), protocol) {
        (Some(own), ..) => own.to_owned(),
        (None, Some(shared), Protocol::Grpc) => shared.to_owned(),
        (None, Some(shared), Protocol::Http) => {
            format!("{}/v1/traces", shared.trim_end_matches('/'))
        }
        (None, None, Protocol::Grpc) => "http://localhost:4317".to_owned(),
        (None, None, Protocol::Http) => "http://localhost:4318/v1/traces".to_owned(),
    };
    const LIKE: &str = "is not like http://host:port";
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return match protocol {
            Protocol::Grpc if path.starts_with('/') => Ok(Address::Socket(path.to_owned())),
            Protocol::Grpc => Err(bad(ENDPOINT, &text, "is not like unix:///path")),
            Protocol::Http => Err(bad(ENDPOINT, &text, LIKE)),
        };
    }
    let whole = match text.contains("://") {
        true => text.clone(),
        false => format!("http://{text}"),
    };
    match whole.parse::<Uri>() {
        Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() => {
            Ok(Address::Web(uri))
        }
        _ => Err(bad(ENDPOINT, &text, LIKE)),
    }
}

fn tls(said: &Said<'_>) -> Result<Tls, Error> {
    const CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE";
    const KEY: &str = "OTEL_EXPORTER_OTLP_CLIENT_KEY";
    let read = |setting: &'static str, path: &str| {
        let bad = |error: std::io::Error| bad(setting, path, &format!("cannot be read: {error}"));
        std::fs::read(path).map_err(bad)
    };
    let authorities = said
        .of_exporter("CERTIFICATE")
        .map(|path| read("OTEL_EXPORTER_OTLP_CERTIFICATE", path))
        .transpose()?;
    let certificate = said.of_exporter("CLIENT_CERTIFICATE");
    let identity = match (certificate, said.of_exporter("CLIENT_KEY")) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((read(CERTIFICATE, certificate)?, read(KEY, key)?)),
        (Some(certificate), None) => {
            return Err(bad(CERTIFICATE, certificate, "has no key beside it"));
        }
        (None, Some(key)) => return Err(bad(KEY, key, "has no certificate beside it")),
    };
    Ok(Tls {
        authorities,
        identity,
    })
}

/// `key=value,…`, with what is special written as `%20`.
fn headers(text: &str) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    let list = text.split(',').map(str::trim).filter(|one| !one.is_empty());
    for one in list {
        let pair = one.split_once('=').and_then(|(key, value)| {
            let value = stdx::text::percent_decoded(value.trim());
            let key = HeaderName::try_from(key.trim()).ok()?;
            Some((key, HeaderValue::try_from(value).ok()?))
        });
        let Some((key, value)) = pair else {
            return Err(bad(
                "OTEL_EXPORTER_OTLP_HEADERS",
                one,
                "is not like key=value",
            ));
        };
        headers.insert(key, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<String>, String> {
        let pairs = variables
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let found = Collector::of(&pairs.collect()).map_err(|error| error.to_string())?;
        Ok(found.map(|it| format!("{:?} {} {:?}", it.protocol, it.address, it.headers)))
    }

    /// Rows: D33
    #[test]
    fn the_environment_names_a_collector_as_for_every_program() {
        let endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let protocol = "OTEL_EXPORTER_OTLP_PROTOCOL";
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(
            of(&[(endpoint, "http://c:1"), ("OTEL_TRACES_EXPORTER", "none")]),
            Ok(None)
        );
        assert_eq!(
            of(&[(endpoint, "http://c:1"), ("OTEL_SDK_DISABLED", "true")]),
            Ok(None)
        );
        let some = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(of(&[(endpoint, "c:4317")]), some("Grpc http://c:4317/ {}"));
        assert_eq!(
            of(&[("OTEL_TRACES_EXPORTER", "otlp")]),
            some("Grpc http://localhost:4317/ {}")
        );
        assert_eq!(
            of(&[(endpoint, "https://c:4317")]),
            some("Grpc https://c:4317/ {}")
        );
        // What steps are told to use.
        assert_eq!(
            of(&[(endpoint, "unix:///dev/otel-grpc.sock")]),
            some("Grpc unix:///dev/otel-grpc.sock {}")
        );
        let http = (protocol, "http/protobuf");
        assert_eq!(
            of(&[(endpoint, "http://c/x/"), http]),
            some("Http http://c/x/v1/traces {}")
        );
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t/y");
        let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "Key=a%20b, x=1");
        assert_eq!(
            of(&[(endpoint, "http://c"), own, http, headers]),
            some(r#"Http http://t/y {"key": "a b", "x": "1"}"#)
        );
        for (variables, wrong) in [
            (
                [
                    (endpoint, "https://c"),
                    ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
                ],
                "not supported yet: OTEL_EXPORTER_OTLP_COMPRESSION=gzip",
            ),
            (
                [(endpoint, "c"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "2s")],
                "is not a number of milliseconds",
            ),
            (
                [
                    (endpoint, "c"),
                    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such"),
                ],
                "cannot be read",
            ),
            (
                [(endpoint, "c"), ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/k")],
                "has no certificate beside it",
            ),
            (
                [(endpoint, "ftp://c"), ("OTEL_TRACES_EXPORTER", "otlp")],
                "is not like http://host:port",
            ),
            (
                [
                    (endpoint, "unix://c"),
                    ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                ],
                "is not like unix:///path",
            ),
            (
                [(endpoint, "http://c"), (protocol, "http/json")],
                "is not one of grpc",
            ),
            (
                [(endpoint, "unix:///c"), http],
                "is not like http://host:port",
            ),
            (
                [(endpoint, "http://c"), (headers.0, "x")],
                "is not like key=value",
            ),
            (
                [("OTEL_TRACES_EXPORTER", "zipkin"), http],
                "OTEL_TRACES_EXPORTER=zipkin",
            ),
        ] {
            let error = of(&variables).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }
}
