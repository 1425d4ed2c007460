//! Every event of a run and what was done about it, written so that it can be
//! played again: one JSON object per line. Outputs become empty values, errors
//! their text, so a trace of a real build can be kept and shared.

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::action::Action;
use crate::event::Event;
use crate::state::{Fault, State};

/// An output of which only the fact remains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SomeOutput {}

/// An error of which only the text remains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SomeError(pub String);

impl From<Fault> for SomeError {
    fn from(fault: Fault) -> SomeError {
        SomeError(format!("{fault:?}"))
    }
}

#[derive(Serialize, Deserialize)]
struct Line {
    event: Event<SomeOutput, SomeError>,
    /// The name of each action, with its subject.
    actions: Vec<String>,
}

/// Writes a trace.
pub(crate) struct Recorder(Box<dyn Write + Send>);

impl Recorder {
    pub(crate) fn new(out: Box<dyn Write + Send>) -> Recorder {
        Recorder(out)
    }

    /// A trace that cannot be written is given up silently: it is there to help.
    pub(crate) fn write<O, E>(
        &mut self,
        event: &Event<SomeOutput, SomeError>,
        actions: &[Action<O, E>],
    ) {
        let line = Line {
            event: event.clone(),
            actions: actions.iter().map(name).collect(),
        };
        if let Ok(mut text) = serde_json::to_vec(&line) {
            text.push(b'\n');
            let _ = self.0.write_all(&text).and_then(|()| self.0.flush());
        }
    }
}

/// The event without what only the process knows.
pub(crate) fn strip<O>(event: &Event<O, Error>) -> Event<SomeOutput, SomeError> {
    fn result<T: Clone>(result: &Result<T, Error>) -> Result<T, SomeError> {
        result.clone().map_err(|error| SomeError(error.to_string()))
    }
    match event {
        Event::JobCame { job } => Event::JobCame { job: *job },
        Event::StoreCame { job, store } => Event::StoreCame {
            job: *job,
            store: *store,
        },
        Event::Declared { job, vertices } => Event::Declared {
            job: *job,
            vertices: vertices.clone(),
        },
        Event::Wanted {
            job,
            request,
            vertex,
            output,
            within,
        } => Event::Wanted {
            job: *job,
            request: *request,
            vertex: *vertex,
            output: *output,
            within: *within,
        },
        Event::Withdrawn { request } => Event::Withdrawn { request: *request },
        Event::JobLeft { job } => Event::JobLeft { job: *job },
        Event::MapFound {
            task,
            result: found,
        } => Event::MapFound {
            task: *task,
            result: result(found),
        },
        Event::Probed { task, found } => Event::Probed {
            task: *task,
            found: found.clone(),
        },
        Event::RecordsFound { task, records } => Event::RecordsFound {
            task: *task,
            records: records.clone(),
        },
        Event::Loaded { task, output } => Event::Loaded {
            task: *task,
            output: output.as_ref().map(|_| SomeOutput {}),
        },
        Event::ContentFound {
            task,
            result: found,
        } => Event::ContentFound {
            task: *task,
            result: result(found),
        },
        Event::Ran { task, result } => {
            let result = match result {
                Ok(outputs) => Ok(vec![SomeOutput {}; outputs.len()]),
                Err(error) => Err(SomeError(error.to_string())),
            };
            Event::Ran {
                task: *task,
                result,
            }
        }
    }
}

/// What an action is, in one word and its numbers.
fn name<O, E>(action: &Action<O, E>) -> String {
    match action {
        Action::AskMap {
            task,
            vertex,
            index,
            ..
        } => {
            format!("map {} {} {index}", task.0, vertex.0)
        }
        Action::Probe { task, probes, .. } => format!("probe {} {}", task.0, probes.len()),
        Action::FindRecords { task, keys, .. } => format!("records {} {}", task.0, keys.len()),
        Action::Load {
            task,
            vertex,
            record,
            ..
        } => {
            format!("load {} {} {}", task.0, vertex.0, record.result.0)
        }
        Action::FindContent {
            task,
            vertex,
            input,
            ..
        } => {
            format!("content {} {} {input}", task.0, vertex.0)
        }
        Action::Run { task, vertex, .. } => format!("run {} {}", task.0, vertex.0),
        Action::Save { nodes, keys, .. } => format!("save {} {}", nodes.len(), keys.len()),
        Action::Cancel { task } => format!("cancel {}", task.0),
        Action::Reply { request, result } => format!("reply {} {}", request.0, result.is_ok()),
        Action::ShowCached { vertex } => format!("cached {}", vertex.0),
        Action::Explain { vertex, .. } => format!("explain {}", vertex.0),
        Action::Forget { vertex } => format!("forget {}", vertex.0),
    }
}

/// Where playing a trace went another way than the recording.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// The trace cannot be read.
    #[error("line {line} of the trace cannot be read")]
    Read {
        /// Which line, from 1.
        line: usize,
        /// Why.
        source: std::io::Error,
    },
    /// Another action than recorded.
    #[error("line {line} of the trace: recorded {recorded:?}, now {now:?}")]
    Differs {
        /// Which line, from 1.
        line: usize,
        /// What was done then.
        recorded: Vec<String>,
        /// What is done now.
        now: Vec<String>,
    },
}

/// Plays a trace; gives the number of events. `limit` as when it was recorded.
pub fn play(trace: impl BufRead, limit: Option<usize>) -> Result<usize, PlayError> {
    let mut state: State<SomeOutput, SomeError> = State::new(limit);
    let mut count = 0;
    for (index, line) in trace.lines().enumerate() {
        let number = index + 1;
        let read = |source| PlayError::Read {
            line: number,
            source,
        };
        let line: Line =
            serde_json::from_str(&line.map_err(read)?).map_err(|error| read(error.into()))?;
        let now: Vec<String> = state.apply(line.event).iter().map(name).collect();
        if now != line.actions {
            return Err(PlayError::Differs {
                line: number,
                recorded: line.actions,
                now,
            });
        }
        count = number;
    }
    Ok(count)
}
