//! Processes in a frontend's containers: one stream of messages carries any number of
//! them, each with its input, output, signals and end (row G09).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use frontend::{ProcessControl, ProcessExit, StartedProcess, TerminalSize};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, Stream, StreamExt as _};
use proto::details::{self, Detail};
use proto::google::rpc;
use proto::moby::buildkit::v1::frontend as wire;
use proto::moby::buildkit::v1::frontend::exec_message::Input as Message;
use stdx::task::spawn;
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use super::stdin::{self, Stdin};
use super::{OpenBuild, signals};
use crate::streamed::{Gone, Sending, Streamed};
use crate::{from_proto, to_proto};

/// The code of a process of which no code is known.
const UNKNOWN_CODE: u32 = 255;
/// Processes that are remembered when they have ended: a client may not have heard yet.
const ENDED: usize = 1024;
/// Bytes of a process's id. Clients make them up; BuildKit's have 25.
const ID: usize = 256;

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
            ending: FuturesUnordered::new(),
            ended: VecDeque::new(),
        };
        exchange.run(incoming).await
    })
}

/// One stream of messages.
struct Exchange {
    build: Arc<OpenBuild>,
    out: Arc<Sending<wire::ExecMessage>>,
    /// Those that run.
    processes: HashMap<String, Process>,
    /// For each of them, what tells the client of it; gives its id when all is told.
    ending: FuturesUnordered<BoxFuture<'static, String>>,
    /// Those that ended last.
    ended: VecDeque<String>,
}

/// A process of the stream.
struct Process {
    /// `None` once the client has closed it.
    stdin: Option<Stdin>,
    control: Box<dyn ProcessControl>,
}

impl Exchange {
    async fn run(mut self, mut incoming: Streaming<wire::ExecMessage>) -> Result<(), Status> {
        loop {
            let message = tokio::select! {
                // First what has ended: a client that was told so may say what fits that.
                biased;
                Some(id) = self.ending.next() => {
                    self.forget(id);
                    continue;
                }
                message = incoming.next() => message,
            };
            match message {
                Some(message) => self.hear(message?).await?,
                None => break,
            }
        }
        // The client has nothing more to say; what runs may still have. One may wait for
        // another that waits for its input to end.
        for process in self.processes.values_mut() {
            process.stdin = None;
        }
        while let Some(id) = self.ending.next().await {
            self.forget(id);
        }
        Ok(())
    }

    async fn hear(&mut self, message: wire::ExecMessage) -> Result<(), Status> {
        let id = message.process_id;
        if id.is_empty() {
            return Err(Status::invalid_argument("ProcessID required"));
        }
        match message.input {
            Some(Message::Init(init)) => self.start(id, init).await?,
            Some(Message::File(file)) => self.write(&id, file).await?,
            Some(Message::Resize(size)) => {
                let side = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
                if let Some(process) = self.known(&id)? {
                    process.control.resize(TerminalSize {
                        rows: side(size.rows),
                        cols: side(size.cols),
                    });
                }
            }
            Some(Message::Signal(signal)) => {
                let process = self.known(&id)?;
                let number = signals::number(&signal.name).ok_or_else(|| {
                    Status::invalid_argument(format!("Unknown signal {}", signal.name))
                })?;
                if let Some(process) = process {
                    process.control.signal(number).await;
                }
            }
            Some(Message::Started(_) | Message::Exit(_) | Message::Done(_)) | None => {
                return Err(Status::invalid_argument(
                    "a client sends init, file, resize and signal messages",
                ));
            }
        }
        Ok(())
    }

    /// A process that was started here; `None` when it has ended.
    fn known(&mut self, id: &str) -> Result<Option<&mut Process>, Status> {
        let unknown = || Status::not_found(format!("IO for process {id:?} not found"));
        match self.processes.get_mut(id) {
            None if self.ended.iter().any(|ended| ended == id) => Ok(None),
            None => Err(unknown()),
            found => Ok(found),
        }
    }

    fn forget(&mut self, id: String) {
        self.processes.remove(&id);
        if self.ended.len() == ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back(id);
    }

    async fn start(&mut self, id: String, init: wire::InitMessage) -> Result<(), Status> {
        if self.processes.contains_key(&id) {
            return Err(Status::already_exists(format!(
                "Process {id} already exists"
            )));
        }
        if id.len() > ID {
            return Err(Status::invalid_argument(format!(
                "the ProcessID has {} bytes: {ID} are the most",
                id.len()
            )));
        }
        let container = self.build.containers.get(&init.container_id)?;
        let wanted = from_proto::process(init)?;
        let started = container.start(wanted).await;
        let line = Outgoing {
            id: id.clone(),
            out: self.out.clone(),
        };
        let StartedProcess {
            stdin,
            stdout,
            stderr,
            control,
            ended,
        } = match started {
            Ok(started) => started,
            // Clients wait for this process to have begun, and others of the stream go on.
            Err(error) => {
                let exit = exit_message(Err(self.build.asked(&error)));
                let _gone = line.send(Message::Started(wire::StartedMessage {})).await;
                line.end(exit).await;
                self.forget(id);
                return Ok(());
            }
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
        let (stdin, carrying) = stdin.map(stdin::lead).unzip();
        let telling = async move {
            let ended = async {
                let ended = ended.await;
                // Also one that left its input unread.
                drop(carrying);
                ended
            };
            let (_, _, ended) = tokio::join!(line.copy(1, stdout), line.copy(2, stderr), ended);
            let exit = exit_message(ended.map_err(|error| build.asked(&error)));
            line.end(exit).await;
        };
        let telling = spawn("exec-output", telling);
        let told = id.clone();
        self.ending.push(telling.map(|()| told).boxed());
        self.processes.insert(id, Process { stdin, control });
        Ok(())
    }

    async fn write(&mut self, id: &str, file: wire::FdMessage) -> Result<(), Status> {
        let Some(process) = self.known(id)? else {
            return Ok(());
        };
        let closed = || {
            let number = file.fd;
            Status::out_of_range(format!("fd {number} unavailable to write"))
        };
        match &process.stdin {
            _ if file.fd != 0 => return Err(closed()),
            _ if file.data.is_empty() => {}
            Some(stdin) => stdin.write(file.data).await,
            None => return Err(closed()),
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

    /// The last of a process.
    async fn end(&self, exit: wire::ExitMessage) {
        if self.send(Message::Exit(exit)).await.is_ok() {
            // A client that is gone does not miss it.
            let _ = self.send(Message::Done(wire::DoneMessage {})).await;
        }
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
