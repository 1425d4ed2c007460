//! Where printed output is kept: small amounts in memory, the rest in one
//! unlinked file per build.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use oci::Digest;

use crate::event::{Event, Log, Status, Step, Stream, Warning};

/// Output kept in memory per build before it goes to the file.
const IN_MEMORY: usize = 1024 * 1024;

/// One build's printed output.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    in_memory: usize,
    file: Option<Arc<File>>,
    written: u64,
    /// The file could not be made or written: output is kept no longer.
    broken: bool,
}

/// An event as it is kept: as [`Event`], but a log may lie in the spool.
#[derive(Clone, Debug)]
pub(crate) enum Kept {
    Step(Arc<Step>),
    Status(Arc<Status>),
    Log(KeptLog),
    Warning(Arc<Warning>),
}

/// A log whose bytes may lie in a file.
#[derive(Clone, Debug)]
pub(crate) struct KeptLog {
    step: Digest,
    stream: Stream,
    at: std::time::SystemTime,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Memory(Bytes),
    File {
        file: Arc<File>,
        offset: u64,
        len: usize,
    },
    Lost,
}

impl Spool {
    pub(crate) fn new(dir: Option<PathBuf>) -> Spool {
        Spool {
            dir,
            state: Mutex::default(),
        }
    }

    /// Takes an event into keeping.
    pub(crate) fn keep(&self, event: Event) -> Kept {
        match event {
            Event::Step(step) => Kept::Step(Arc::new(step)),
            Event::Status(status) => Kept::Status(Arc::new(status)),
            Event::Warning(warning) => Kept::Warning(Arc::new(warning)),
            Event::Log(Log {
                step,
                stream,
                data,
                at,
            }) => Kept::Log(KeptLog {
                step,
                stream,
                at,
                place: self.place(data),
            }),
        }
    }

    fn place(&self, data: Bytes) -> Place {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.in_memory + data.len() <= IN_MEMORY {
            state.in_memory += data.len();
            // A slice of a large buffer would keep the whole buffer.
            return Place::Memory(Bytes::copy_from_slice(&data));
        }
        if state.broken {
            return Place::Lost;
        }
        match self.append(&mut state, &data) {
            Ok(place) => place,
            Err(_) => {
                state.broken = true;
                Place::Lost
            }
        }
    }

    fn append(&self, state: &mut State, data: &[u8]) -> std::io::Result<Place> {
        let file = match &state.file {
            Some(file) => file.clone(),
            None => {
                let file = match &self.dir {
                    Some(dir) => tempfile::tempfile_in(dir)?,
                    None => tempfile::tempfile()?,
                };
                state.file.insert(Arc::new(file)).clone()
            }
        };
        let offset = state.written;
        file.write_all_at(data, offset)?;
        state.written += data.len() as u64;
        Ok(Place::File {
            file,
            offset,
            len: data.len(),
        })
    }
}

impl Kept {
    /// The event again. Output that could not be kept reads as a notice.
    pub(crate) fn event(&self) -> Event {
        match self {
            Kept::Step(step) => Event::Step(Step::clone(step)),
            Kept::Status(status) => Event::Status(Status::clone(status)),
            Kept::Warning(warning) => Event::Warning(Warning::clone(warning)),
            Kept::Log(log) => Event::Log(Log {
                step: log.step,
                stream: log.stream,
                at: log.at,
                data: log.place.bytes(),
            }),
        }
    }
}

impl Place {
    fn bytes(&self) -> Bytes {
        const LOST: &[u8] = b"\n[output lost: no room to keep it]\n";
        match self {
            Place::Memory(bytes) => bytes.clone(),
            Place::Lost => Bytes::from_static(LOST),
            Place::File { file, offset, len } => {
                let mut bytes = vec![0; *len];
                match file.read_exact_at(&mut bytes, *offset) {
                    Ok(()) => Bytes::from(bytes),
                    Err(_) => Bytes::from_static(LOST),
                }
            }
        }
    }
}
