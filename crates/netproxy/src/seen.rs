//! What went through a proxy.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use oci::Digest;

/// Text that is remembered of one container's requests.
const MOST_TEXT: usize = 8 << 20;
/// What a short address costs to remember.
const LEAST_TEXT: usize = 64;

/// Reasons that clients of BuildKit know.
pub(crate) const METHOD: &str = "method_not_materializable";
pub(crate) const PARTIAL: &str = "partial_response";
pub(crate) const BODY: &str = "body_read_failed";
pub(crate) const STATUS: &str = "unsuccessful_response";
pub(crate) const UPSTREAM: &str = "upstream_error";
/// One of ours: more was asked for than is remembered.
const TOO_MANY: &str = "too_many_requests";

/// What went through a proxy. Addresses are without logins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// All requests in the order of their answers.
    pub requests: Vec<Request>,
    /// What was received as a whole, by address.
    pub materials: Vec<Material>,
    /// What was asked for and is not known as a whole.
    pub incomplete: Vec<Incomplete>,
    /// Requests beyond those that are remembered.
    pub untold: usize,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, …
    pub method: String,
    /// Of what; for a `CONNECT` a host and a port.
    pub url: String,
    /// The answer's status.
    pub status: u16,
    /// Where the answer sends the client.
    pub redirect: Option<String>,
    /// Why the answer is the proxy's own.
    pub why: Option<String>,
}

/// Something received as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Material {
    /// Where from.
    pub url: String,
    /// What.
    pub digest: Digest,
}

/// Something that may have gone in, and of which it is not known what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incomplete {
    /// How it was asked for.
    pub method: String,
    /// Where from.
    pub url: String,
    /// Why it is not known, in one of the words clients of BuildKit know.
    pub reason: &'static str,
}

impl Seen {
    /// The materials, and by which other addresses they were come by: those that only sent the
    /// client on.
    pub fn all_materials(&self) -> Vec<Material> {
        let mut known: HashMap<&str, Digest> = HashMap::new();
        for material in &self.materials {
            known.entry(&material.url).or_insert(material.digest);
        }
        let mut from: HashMap<&str, Vec<&str>> = HashMap::new();
        for request in &self.requests {
            if let Some(to) = &request.redirect {
                from.entry(to).or_default().push(&request.url);
            }
        }
        let mut all = self.materials.clone();
        let mut todo: Vec<&str> = self.materials.iter().map(|one| one.url.as_str()).collect();
        while let Some(to) = todo.pop() {
            let digest = known[to];
            for url in from.remove(to).unwrap_or_default() {
                if !known.contains_key(url) {
                    known.insert(url, digest);
                    let url_owned = url.to_owned();
                    all.push(Material {
                        url: url_owned,
                        digest,
                    });
                    todo.push(url);
                }
            }
        }
        all
    }

    /// The requests for a person to read; empty if there were none.
    pub fn summary(&self) -> String {
        if self.requests.is_empty() && self.untold == 0 {
            return String::new();
        }
        let mut text = "proxy network requests:\n".to_owned();
        for request in &self.requests {
            let Request {
                method,
                url,
                status,
                ..
            } = request;
            let why = request.why.as_ref().map(|why| format!(" ({why})"));
            let why = why.unwrap_or_default();
            let _infallible = writeln!(text, "- {method} {url} -> {status}{why}");
        }
        if self.untold > 0 {
            let _infallible = writeln!(text, "- and {} more", self.untold);
        }
        text
    }
}

/// Takes it down. Answers that are on their way are known by numbers.
#[derive(Default)]
pub(crate) struct Record(Mutex<State>);

#[derive(Default)]
struct State {
    seen: Seen,
    open: BTreeMap<u64, (String, String)>,
    /// Handshakes that no request came of yet and requests without answer, as what they are if none
    /// ever comes.
    begun: BTreeMap<u64, (Request, Option<&'static str>)>,
    numbers: u64,
    text: usize,
}

/// What became of an answer.
pub(crate) enum End {
    /// All of it was received.
    Whole(Digest),
    /// It is not known as a whole.
    Incomplete(&'static str),
    /// It brought nothing in.
    Nothing,
}

impl Record {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request that has an answer; the number is for [`Record::end`].
    pub(crate) fn answered(&self, request: Request) -> Option<u64> {
        let mut state = self.lock();
        let (method, url) = (request.method.clone(), request.url.clone());
        if !state.remember(request) {
            return None;
        }
        state.numbers += 1;
        let number = state.numbers;
        state.open.insert(number, (method, url));
        Some(number)
    }

    /// A handshake or a request begins; if nothing ever comes of it, `request` is what is told, and
    /// `reason` why it is not known what went in.
    pub(crate) fn begun(&self, request: Request, reason: Option<&'static str>) -> u64 {
        let mut state = self.lock();
        state.numbers += 1;
        let number = state.numbers;
        state.begun.insert(number, (request, reason));
        number
    }

    /// Something came of it, which is told by itself, or why nothing will. Only the first word counts.
    pub(crate) fn settled(&self, number: u64, why: Option<String>) {
        let mut state = self.lock();
        let begun = state.begun.remove(&number);
        if let (Some((mut request, reason)), Some(why)) = (begun, why) {
            request.why = Some(why);
            state.failed(request, reason);
        }
    }

    /// A request that was not passed on, or had no answer.
    pub(crate) fn failed(&self, request: Request, reason: Option<&'static str>) {
        self.lock().failed(request, reason);
    }

    pub(crate) fn end(&self, number: u64, end: End) {
        let mut state = self.lock();
        let Some((method, url)) = state.open.remove(&number) else {
            return;
        };
        match end {
            End::Nothing => {}
            End::Whole(digest) => state.seen.materials.push(Material { url, digest }),
            End::Incomplete(reason) => state.seen.incomplete.push(Incomplete {
                method,
                url,
                reason,
            }),
        }
    }

    pub(crate) fn seen(&self) -> Seen {
        let mut state = self.lock();
        // The client may have ended before we have heard what it had to say to us.
        for (request, reason) in std::mem::take(&mut state.begun).into_values() {
            state.failed(request, reason);
        }
        let open = std::mem::take(&mut state.open);
        for (method, url) in open.into_values() {
            state.seen.incomplete.push(Incomplete {
                method,
                url,
                reason: BODY,
            });
        }
        state.seen.clone()
    }
}

impl State {
    fn failed(&mut self, request: Request, reason: Option<&'static str>) {
        let incomplete = reason.map(|reason| Incomplete {
            method: request.method.clone(),
            url: request.url.clone(),
            reason,
        });
        if self.remember(request) {
            self.seen.incomplete.extend(incomplete);
        }
    }

    /// Whether there is room for it.
    fn remember(&mut self, request: Request) -> bool {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let size = request.method.len() + 3 * request.url.len();
        let size = LEAST_TEXT + size + text(&request.redirect) + text(&request.why);
        if self.text + size <= MOST_TEXT {
            self.text += size;
            self.seen.requests.push(request);
            return true;
        }
        if self.seen.untold == 0 {
            self.seen.incomplete.push(Incomplete {
                method: request.method,
                url: String::new(),
                reason: TOO_MANY,
            });
        }
        self.seen.untold += 1;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(url: &str, redirect: Option<&str>) -> Request {
        Request {
            method: "GET".into(),
            url: url.into(),
            status: 200,
            redirect: redirect.map(str::to_owned),
            why: None,
        }
    }

    /// Rows: X08
    #[test]
    fn what_sends_on_to_a_material_is_one_too() {
        let digest = Digest::of("file");
        let material = |url: &str| Material {
            url: url.into(),
            digest,
        };
        let seen = Seen {
            requests: vec![
                request("a", Some("b")),
                request("b", Some("c")),
                request("c", None),
                request("x", Some("y")),
                request("c", Some("a")),
            ],
            materials: vec![material("c")],
            ..Seen::default()
        };
        assert_eq!(
            seen.all_materials(),
            [material("c"), material("b"), material("a")]
        );
    }

    /// Rows: X08
    #[test]
    fn what_is_remembered_is_bounded() {
        let record = Record::default();
        let url = "u".repeat(60_000);
        for _ in 0..1000 {
            if let Some(number) = record.answered(request(&url, None)) {
                record.end(number, End::Nothing);
            }
        }
        let seen = record.seen();
        assert!(seen.requests.len() < 50, "{}", seen.requests.len());
        assert_eq!(seen.requests.len() + seen.untold, 1000);
        let [incomplete] = &seen.incomplete[..] else {
            panic!("one says that there is more");
        };
        assert_eq!(incomplete.reason, TOO_MANY);
        let last = format!("- and {} more\n", seen.untold);
        assert!(seen.summary().ends_with(&last));
    }

    /// Rows: X08
    #[test]
    fn an_answer_on_its_way_is_never_known_as_a_whole() {
        let record = Record::default();
        let number = record.answered(request("a", None)).unwrap();
        assert_eq!(record.seen().incomplete[0].reason, BODY);
        record.end(number, End::Whole(Digest::of("late")));
        assert_eq!(record.seen().materials, []);
    }
}
