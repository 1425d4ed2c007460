//! Ways to misbehave.

use std::time::Duration;

/// What goes wrong with an answer.
#[derive(Clone, Debug)]
pub enum Effect {
    /// This status, headers and body instead of the true answer.
    Status(u16, Vec<(String, String)>, String),
    /// The body ends, and the connection with it, after so many bytes.
    Truncate(u64),
    /// The body ends after so many bytes as if that were all.
    Short(u64),
    /// One byte of the body is another one.
    Flip,
    /// No answer, ever.
    Stall,
    /// The headers come and so many bytes, then nothing.
    StallAfter(u64),
    /// The connection is closed instead of answered.
    Drop,
    /// The body comes in pieces of so many bytes with a pause between.
    Slow(usize, Duration),
    /// `Range` is ignored.
    NoRange,
    /// A mount is answered with 202 and an upload session.
    NoMount,
    /// `Docker-Content-Digest` is left out, as some proxies do.
    NoDigest,
    /// The digest header of another document.
    WrongDigest,
}

/// An effect and when it applies.
#[derive(Clone, Debug)]
pub struct Fault {
    pub(super) method: String,
    pub(super) part: String,
    pub(super) skip: usize,
    pub(super) times: usize,
    pub(super) effect: Effect,
}

impl Fault {
    /// Applies to every request, always.
    pub fn new(effect: Effect) -> Fault {
        Fault {
            method: String::new(),
            part: String::new(),
            skip: 0,
            times: usize::MAX,
            effect,
        }
    }

    /// A status with the body registries send.
    pub fn status(status: u16) -> Fault {
        let body =
            format!(r#"{{"errors":[{{"code":"FAULT","message":"told to answer {status}"}}]}}"#);
        Fault::new(Effect::Status(status, Vec::new(), body))
    }

    /// 429 with `Retry-After`.
    pub fn too_many(seconds: u64) -> Fault {
        let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#.to_owned();
        Fault::new(Effect::Status(
            429,
            vec![("retry-after".into(), seconds.to_string())],
            body,
        ))
    }

    /// Sends the asker to `address`, the path following it.
    pub fn redirect(address: &str) -> Fault {
        Fault::new(Effect::Status(
            307,
            vec![("location".into(), address.into())],
            String::new(),
        ))
    }

    /// Only where the path has this part.
    pub fn on(self, part: &str) -> Fault {
        Fault {
            part: part.into(),
            ..self
        }
    }

    /// Only for this method.
    pub fn method(self, method: &str) -> Fault {
        Fault {
            method: method.into(),
            ..self
        }
    }

    /// Only so many times.
    pub fn times(self, times: usize) -> Fault {
        Fault { times, ..self }
    }

    /// Not for the first so many.
    pub fn after(self, skip: usize) -> Fault {
        Fault { skip, ..self }
    }

    /// Whether this request is hit; counts it.
    pub(super) fn hits(&mut self, method: &str, path: &str) -> bool {
        let meant = (self.method.is_empty() || self.method == method) && path.contains(&self.part);
        if !meant || self.times == 0 {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.times -= 1;
        true
    }
}
