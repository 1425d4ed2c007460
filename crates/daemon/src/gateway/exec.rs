//! Processes in a frontend's containers: one stream of messages carries any number of
//! them, each with its input, output, signals and end (row G09).

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use frontend::{ProcessControl, ProcessExit, StartedProcess, TerminalSize};
use futures::Stream;
use proto::details::{self, Detail};
use proto::google::rpc;
use proto::moby::buildkit::v1::frontend as wire;
use proto::moby::buildkit::v1::frontend::exec_message::Input as Message;
use stdx::task::{Task, spawn};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use super::{OpenBuild, signals};
use crate::streamed::{Gone, Sending, Streamed};
use crate::{from_proto, to_proto};

/// The code of a process of which no code is known.
const UNKNOWN_CODE: u32 = 255;

/// Answers one stream. Its processes are killed when it ends.
pub(super) fn serve(
    build: Arc<OpenBuild>,
    incoming: Streaming<wire::ExecMessage>,
) -> impl Stream<Item = Result<wire::ExecMessage, Status>> {
    Streamed::new("exec-process", move |out| async move {
        let exchange = Exchange {
            build,
            out: Arc::new(out),
            processes: HashMap::new(),
        };
        exchange.run(incoming).await
    })
}

/// One stream of messages.
struct Exchange {
    build: Arc<OpenBuild>,
    out: Arc<Sending<wire::ExecMessage>>,
    /// Those that were started on it, also when they have ended: a client may not know yet.
    processes: HashMap<String, Process>,
}

/// A process of the stream.
struct Process {
    stdin: Option<mpsc::Sender<Bytes>>,
    control: Box<dyn ProcessControl>,
    telling: Task<()>,
}

impl Exchange {
    async fn run(mut self, mut incoming: Streaming<wire::ExecMessage>) -> Result<(), Status> {
        while let Some(message) = incoming.message().await? {
            let id = message.process_id;
            if id.is_empty() {
                return Err(Status::invalid_argument("ProcessID required"));
            }
            match message.input {
                Some(Message::Init(init)) => self.start(id, init).await?,
                Some(Message::File(file)) => self.write(&id, file).await?,
                Some(Message::Resize(size)) => {
                    let side = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
                    self.known(&id)?.control.resize(TerminalSize {
                        rows: side(size.rows),
                        cols: side(size.cols),
                    });
                }
                Some(Message::Signal(signal)) => {
                    let process = self.known(&id)?;
                    let number = signals::number(&signal.name).ok_or_else(|| {
                        Status::invalid_argument(format!("Unknown signal {}", signal.name))
                    })?;
                    process.control.signal(number).await;
                }
                Some(Message::Started(_) | Message::Exit(_) | Message::Done(_)) | None => {
                    return Err(Status::invalid_argument(
                        "a client sends init, file, resize and signal messages",
                    ));
                }
            }
        }
        // The client has nothing more to say; what runs may still have.
        for (_, process) in self.processes {
            let Process {
                stdin,
                control,
                telling,
            } = process;
            drop(stdin);
            telling.await;
            drop(control);
        }
        Ok(())
    }

    fn known(&mut self, id: &str) -> Result<&mut Process, Status> {
        let unknown = || Status::not_found(format!("IO for process {id:?} not found"));
        self.processes.get_mut(id).ok_or_else(unknown)
    }

    async fn start(&mut self, id: String, init: wire::InitMessage) -> Result<(), Status> {
        if self.processes.contains_key(&id) {
            return Err(Status::already_exists(format!(
                "Process {id} already exists"
            )));
        }
        let container = self.build.containers.get(&init.container_id)?;
        let wanted = from_proto::process(init)?;
        let started = container.start(wanted).await;
        let started = started.map_err(|error| self.build.asked(&error))?;
        let StartedProcess {
            stdin,
            stdout,
            stderr,
            control,
            ended,
        } = started;
        let line = Outgoing {
            id: id.clone(),
            out: self.out.clone(),
        };
        // Before any output can be on its way.
        if line
            .send(Message::Started(wire::StartedMessage {}))
            .await
            .is_err()
        {
            return Ok(());
        }
        let build = self.build.clone();
        let telling = async move {
            let (_, _, ended) = tokio::join!(line.copy(1, stdout), line.copy(2, stderr), ended);
            let exit = exit_message(ended.map_err(|error| build.asked(&error)));
            let told = line.send(Message::Exit(exit)).await;
            if told.is_ok() {
                // A client that is gone does not miss it.
                let _ = line.send(Message::Done(wire::DoneMessage {})).await;
            }
        };
        let process = Process {
            stdin,
            control,
            telling: spawn("exec-output", telling),
        };
        self.processes.insert(id, process);
        Ok(())
    }

    async fn write(&mut self, id: &str, file: wire::FdMessage) -> Result<(), Status> {
        let process = self.known(id)?;
        let closed = || {
            let number = file.fd;
            Status::out_of_range(format!("fd {number} unavailable to write"))
        };
        if file.fd != 0 {
            return Err(closed());
        }
        let Some(stdin) = &process.stdin else {
            // Clients close the input of a process that has ended in the meantime.
            return match file.eof && file.data.is_empty() || process.telling.is_finished() {
                true => Ok(()),
                false => Err(closed()),
            };
        };
        if !file.data.is_empty() && stdin.send(file.data).await.is_err() {
            // It reads no more: what a pipe nobody reads from does is the process's matter.
            process.stdin = None;
        }
        if file.eof {
            process.stdin = None;
        }
        Ok(())
    }
}

/// Messages about one process, on their way out.
struct Outgoing {
    id: String,
    out: Arc<Sending<wire::ExecMessage>>,
}

impl Outgoing {
    async fn send(&self, message: Message) -> Result<(), Gone> {
        self.out
            .send(wire::ExecMessage {
                process_id: self.id.clone(),
                input: Some(message),
            })
            .await
    }

    /// What a process writes, to its end.
    async fn copy(&self, fd: u32, from: Option<mpsc::Receiver<Bytes>>) {
        let Some(mut from) = from else { return };
        let message = |data, eof| Message::File(wire::FdMessage { fd, eof, data });
        while let Some(data) = from.recv().await {
            if self.send(message(data, false)).await.is_err() {
                return;
            }
        }
        // Whether anybody hears of the end is all the same.
        let _ = self.send(message(Bytes::new(), true)).await;
    }
}

/// A process's end as clients want it: a code other than 0 comes with an error.
fn exit_message(ended: Result<ProcessExit, Status>) -> wire::ExitMessage {
    let exit = match ended {
        Ok(exit) => exit,
        Err(status) => {
            return wire::ExitMessage {
                code: UNKNOWN_CODE,
                error: Some(to_proto::rpc_from_status(&status)),
            };
        }
    };
    let code = u32::try_from(exit.code).unwrap_or(UNKNOWN_CODE);
    let message = match (exit.why, exit.oom) {
        (Some(why), _) => format!("exit code: {code}: {why}"),
        (None, true) => format!("exit code: {code}: killed for lack of memory"),
        (None, false) => format!("exit code: {code}"),
    };
    let error = (code != 0).then(|| rpc::Status {
        code: Code::Unknown as i32,
        message,
        details: vec![Detail::Exit(details::Exit { code }).to_any()],
    });
    wire::ExitMessage { code, error }
}
