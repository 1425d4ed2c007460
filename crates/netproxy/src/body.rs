//! An answer's body on its way to the client, hashed as it passes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use oci::Hasher;

use crate::seen::{BODY, End, Record};

/// An answer's body. What became of it is taken down before the client has the last of it: it
/// may end then.
pub(crate) struct Told {
    body: Incoming,
    length: Option<u64>,
    passed: u64,
    hasher: Hasher,
    note: Option<Note>,
}

struct Note {
    record: Arc<Record>,
    number: u64,
    fate: Fate,
}

/// What becomes of a body that is received whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is known by its digest.
    Material,
    /// It brings nothing in.
    Nothing,
    /// It is no material, whole or not.
    Never(&'static str),
    /// The same, but that it is not whole says more.
    Not(&'static str),
}

impl Told {
    /// `number` is the record's, if it knows the answer.
    pub(crate) fn new(
        body: Incoming,
        record: Arc<Record>,
        number: Option<u64>,
        fate: Fate,
    ) -> Told {
        let note = number.map(|number| Note {
            record,
            number,
            fate,
        });
        let mut told = Told {
            length: body.size_hint().exact(),
            body,
            passed: 0,
            hasher: Hasher::default(),
            note,
        };
        if told.body.is_end_stream() {
            told.end(true);
        }
        told
    }

    fn is_to_be_known(&self) -> bool {
        let note = self.note.as_ref();
        note.is_some_and(|note| note.fate == Fate::Material)
    }

    fn end(&mut self, whole: bool) {
        let Some(note) = self.note.take() else {
            return;
        };
        let end = match (note.fate, whole) {
            (Fate::Never(reason), _) | (Fate::Not(reason), true) => End::Incomplete(reason),
            (_, false) => End::Incomplete(BODY),
            (Fate::Nothing, true) => End::Nothing,
            (Fate::Material, true) => End::Whole(std::mem::take(&mut self.hasher).finish()),
        };
        note.record.end(note.number, end);
    }
}

impl Body for Told {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    let this = &mut *self;
                    if this.is_to_be_known() {
                        this.hasher.update(bytes);
                    }
                    this.passed += bytes.len() as u64;
                    if this.length == Some(this.passed) || this.body.is_end_stream() {
                        this.end(true);
                    }
                }
            }
            Some(Err(_)) => self.end(false),
            None => self.end(true),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.end(false);
    }
}
