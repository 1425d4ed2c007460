//! Where a build is in a trace of its client, so that programs in its steps can go on with that
//! trace: in the words of W3C Trace Context, by which they are told in their environment.

use std::fmt;

use oci::Digest;
use stdx::text::hex;

/// A build's place in a trace.
#[derive(Clone, PartialEq, Eq)]
pub struct Trace {
    /// The trace.
    pub id: [u8; 16],
    /// Whether anybody wants its spans.
    pub sampled: bool,
    /// What others on the way said of it (`tracestate`); empty if nobody did.
    pub state: String,
    /// What makes the steps of this build other spans than those of any other build.
    pub salt: String,
}

impl Trace {
    /// The id of a step's span.
    pub fn span(&self, step: &Digest) -> [u8; 8] {
        Trace::id_of(&format!("{step} {}", self.salt))
    }

    /// An id made of a text.
    pub fn id_of(text: &str) -> [u8; 8] {
        let hex = Digest::of(text).hex();
        std::array::from_fn(|at| {
            let digits = &hex[at * 2..at * 2 + 2];
            u8::from_str_radix(digits, 16).expect("a digest is hexadecimal, and long enough")
        })
    }

    /// The environment by which programs in a step know that they are part of its span.
    pub fn environment(&self, step: &Digest) -> Vec<String> {
        let (id, span) = (hex(&self.id), hex(&self.span(step)));
        let flags = u8::from(self.sampled);
        let mut environment = vec![format!("TRACEPARENT=00-{id}-{span}-{flags:02x}")];
        if !self.state.is_empty() {
            environment.push(format!("TRACESTATE={}", self.state));
        }
        environment
    }
}

/// The salt says nothing to anybody.
impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace")
            .field("id", &self.id)
            .field("sampled", &self.sampled)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: D33
    #[test]
    fn a_step_is_told_where_it_is_in_a_trace() {
        let mut trace = Trace {
            id: [0x1f; 16],
            sampled: true,
            state: String::new(),
            salt: "build".to_owned(),
        };
        let step = Digest::of("step");
        let span = "1f".repeat(16);
        let [parent] = &trace.environment(&step)[..] else {
            panic!("{:?}", trace.environment(&step))
        };
        let rest = parent.strip_prefix(&format!("TRACEPARENT=00-{span}-"));
        let (id, flags) = rest.unwrap().split_once('-').unwrap();
        assert_eq!((id.len(), flags), (16, "01"));
        assert_eq!(
            u64::from_str_radix(id, 16).unwrap().to_be_bytes(),
            trace.span(&step)
        );
        assert_ne!(trace.span(&step), trace.span(&Digest::of("other")));
        (trace.sampled, trace.state) = (false, "vendor=1".to_owned());
        let environment = trace.environment(&step);
        assert!(environment[0].ends_with("-00"), "{environment:?}");
        assert_eq!(environment[1], "TRACESTATE=vendor=1");
    }
}
