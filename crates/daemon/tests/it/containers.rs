//! A frontend's containers over gRPC, with containers that only pretend.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use frontend::{
    Container, FileRange, FileStat, NewContainer, NewProcess, ProcessControl, ProcessExit,
    StartedProcess, TerminalSize,
};
use proto::details::Detail;
use proto::moby::buildkit::v1::control_client::ControlClient;
use proto::moby::buildkit::v1::frontend as wire;
use proto::moby::buildkit::v1::frontend::exec_message::Input;
use proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use proto::pb;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::pretender::{daemon, for_build, solve};

/// Runs nothing: its processes are small talk.
struct Pretend {
    /// How many `cat`s have ended.
    cats: watch::Sender<usize>,
}

/// A container, unless its host name says that there is none.
pub(crate) fn pretend(wanted: &NewContainer) -> frontend::Result<Arc<dyn Container>> {
    match wanted.hostname.as_str() {
        "nowhere" => Err(frontend::Error::NoRef("r9".into())),
        _ => Ok(Arc::new(Pretend {
            cats: watch::Sender::new(0),
        })),
    }
}

/// Tells what is done with a process on its standard error.
struct Told {
    stderr: Mutex<Option<mpsc::Sender<Bytes>>>,
    end: Mutex<Option<oneshot::Sender<ProcessExit>>>,
    /// Input that is never looked at.
    _unread: Option<mpsc::Receiver<Bytes>>,
}

#[async_trait]
impl ProcessControl for Told {
    async fn signal(&self, signal: i32) {
        let exit = ProcessExit {
            code: 128 + signal,
            oom: false,
            why: None,
        };
        drop(self.stderr.lock().unwrap().take());
        if let Some(end) = self.end.lock().unwrap().take() {
            end.send(exit).unwrap();
        }
    }

    fn resize(&self, size: TerminalSize) {
        let text = format!("{}x{}", size.cols, size.rows);
        if let Some(stderr) = &*self.stderr.lock().unwrap() {
            stderr.try_send(text.into()).unwrap();
        }
    }
}

#[async_trait]
impl Container for Pretend {
    /// `refused` may not start, `cat` says what it hears and ends with its input, `wait` ends by a signal, so does `deaf`,
    /// which never reads its input, `last` ends after a `cat`, anything else is not there.
    async fn start(&self, process: NewProcess) -> frontend::Result<StartedProcess> {
        if process.args[0] == "refused" {
            return Err(frontend::Error::UnknownFrontend("refused".into()));
        }
        let (stdin, mut heard) = mpsc::channel::<Bytes>(1);
        let (say, stdout) = mpsc::channel(1);
        let (complain, stderr) = mpsc::channel(4);
        let (end, ended) = oneshot::channel();
        let exit = |code, why| ProcessExit {
            code,
            oom: false,
            why,
        };
        let mut control = Told {
            stderr: Mutex::new(Some(complain)),
            end: Mutex::default(),
            _unread: None,
        };
        let cats = self.cats.clone();
        match process.args[0].as_str() {
            "cat" => {
                drop(control.stderr.lock().unwrap().take());
                let copying = async move {
                    while let Some(bytes) = heard.recv().await {
                        say.send(bytes).await.unwrap();
                    }
                    cats.send_modify(|ended| *ended += 1);
                    end.send(exit(0, None)).unwrap();
                };
                stdx::task::spawn("cat", copying).detach();
            }
            "last" => {
                drop(control.stderr.lock().unwrap().take());
                let waiting = async move {
                    cats.subscribe().wait_for(|ended| *ended > 0).await.unwrap();
                    end.send(exit(0, None)).unwrap();
                };
                stdx::task::spawn("last", waiting).detach();
            }
            "deaf" => {
                control.end = Mutex::new(Some(end));
                control._unread = Some(heard);
            }
            "wait" => control.end = Mutex::new(Some(end)),
            _ => {
                drop(control.stderr.lock().unwrap().take());
                end.send(exit(127, Some("no such program".into()))).unwrap();
            }
        }
        Ok(StartedProcess {
            stdin: process.stdin.then_some(stdin),
            stdout: process.stdout.then_some(stdout),
            stderr: process.stderr.then_some(stderr),
            control: Box::new(control),
            ended: Box::pin(async move { Ok(ended.await.unwrap()) }),
        })
    }

    async fn read_file(
        &self,
        mount: usize,
        path: &str,
        range: Option<FileRange>,
    ) -> frontend::Result<Bytes> {
        let length = range.map_or(0, |range| range.length);
        Ok(format!("{mount} {path} {length}").into())
    }

    async fn read_dir(
        &self,
        _: usize,
        path: &str,
        _: Option<&str>,
    ) -> frontend::Result<Vec<FileStat>> {
        Err(frontend::Error::NoFile { path: path.into() })
    }

    async fn stat_file(&self, _: usize, path: &str) -> frontend::Result<FileStat> {
        Err(frontend::Error::NoFile { path: path.into() })
    }

    async fn release(&self) -> bool {
        false
    }
}

/// A build that waits for its client's frontend.
struct Open {
    bridge: LlbBridgeClient<Channel>,
    _building: stdx::task::Task<()>,
    _daemon: stdx::task::Task<()>,
}

async fn open() -> Open {
    let (channel, daemon) = daemon("").await;
    let mut control = ControlClient::new(channel.clone());
    let building = async move {
        let _ended = control.solve(solve("b", "")).await;
    };
    let bridge = LlbBridgeClient::new(channel).max_decoding_message_size(proto::MAX_MESSAGE_SIZE);
    Open {
        bridge,
        _building: stdx::task::spawn("building", building),
        _daemon: daemon,
    }
}

fn init(container: &str, command: &str) -> wire::InitMessage {
    wire::InitMessage {
        container_id: container.into(),
        meta: Some(pb::Meta {
            args: vec![command.into()],
            ..pb::Meta::default()
        }),
        fds: vec![0, 1, 2],
        ..wire::InitMessage::default()
    }
}

fn message(id: &str, input: Input) -> wire::ExecMessage {
    wire::ExecMessage {
        process_id: id.into(),
        input: Some(input),
    }
}

fn input(data: &'static str, eof: bool) -> Input {
    Input::File(wire::FdMessage {
        fd: 0,
        eof,
        data: data.into(),
    })
}

impl Open {
    async fn container(&mut self, id: &str) -> Result<(), tonic::Status> {
        let request = wire::NewContainerRequest {
            container_id: id.into(),
            ..wire::NewContainerRequest::default()
        };
        let made = self.bridge.new_container(for_build("b", request)).await;
        made.map(drop)
    }

    async fn exec(
        &mut self,
    ) -> (
        mpsc::Sender<wire::ExecMessage>,
        Streaming<wire::ExecMessage>,
    ) {
        let (say, said) = mpsc::channel(16);
        let said = tokio_stream::wrappers::ReceiverStream::new(said);
        let heard = self.bridge.exec_process(for_build("b", said)).await;
        (say, heard.unwrap().into_inner())
    }

    /// What becomes of a stream on which `messages` are sent.
    async fn refused(&mut self, messages: Vec<wire::ExecMessage>) -> (Code, String) {
        let (say, mut heard) = self.exec().await;
        for message in messages {
            say.send(message).await.unwrap();
        }
        loop {
            match heard.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended well"),
                Err(status) => return (status.code(), status.message().to_owned()),
            }
        }
    }
}

async fn timely<T>(wait: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(Duration::from_secs(10), wait);
    waited.await.expect("a message in time")
}

/// All that is said about a process, in order: `started`, `1:text`, `1:eof`, `exit 0`, `done`.
async fn until_done(heard: &mut Streaming<wire::ExecMessage>, id: &str) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let message = timely(heard.message()).await.unwrap().unwrap();
        assert_eq!(message.process_id, id);
        all.push(match message.input.unwrap() {
            Input::Started(_) => "started".to_owned(),
            Input::File(file) if file.eof => format!("{}:eof", file.fd),
            Input::File(file) => format!("{}:{}", file.fd, String::from_utf8_lossy(&file.data)),
            Input::Exit(exit) => {
                let error = exit.error.map(|status| {
                    let details = status.details.iter().map(Detail::from_any);
                    let codes = details.map(|detail| match detail {
                        Detail::Exit(exit) => exit.code.to_string(),
                        other => format!("{other:?}"),
                    });
                    format!(
                        " {} ({})",
                        status.message,
                        codes.collect::<Vec<_>>().join(",")
                    )
                });
                format!("exit {}{}", exit.code, error.unwrap_or_default())
            }
            Input::Done(_) => {
                all.push("done".to_owned());
                return all;
            }
            other => panic!("{other:?}"),
        });
    }
}

/// Rows: G09
#[tokio::test]
async fn a_process_hears_says_and_ends_over_the_stream() {
    let mut open = open().await;
    open.container("c").await.unwrap();
    let (say, mut heard) = open.exec().await;
    say.send(message("p", Input::Init(init("c", "cat"))))
        .await
        .unwrap();
    say.send(message("p", input("hello", false))).await.unwrap();
    say.send(message("p", input("", true))).await.unwrap();
    let mut all = until_done(&mut heard, "p").await;
    // The two streams end in either order.
    all[1..4].sort();
    assert_eq!(
        all,
        ["started", "1:eof", "1:hello", "2:eof", "exit 0", "done"]
    );
    // Another one on the same stream: sizes and signals reach it, and its code comes with an error.
    say.send(message("q", Input::Init(init("c", "wait"))))
        .await
        .unwrap();
    let size = wire::ResizeMessage {
        rows: 40,
        cols: 100_000,
    };
    say.send(message("q", Input::Resize(size))).await.unwrap();
    let signal = wire::SignalMessage {
        name: "TERM".into(),
    };
    say.send(message("q", Input::Signal(signal))).await.unwrap();
    let mut all = until_done(&mut heard, "q").await;
    all[1..4].sort();
    assert_eq!(
        all,
        [
            "started",
            "1:eof",
            "2:65535x40",
            "2:eof",
            "exit 143 exit code: 143 (143)",
            "done"
        ]
    );
    // One that may not start has ended at once, and the stream goes on.
    say.send(message("x", Input::Init(init("c", "refused"))))
        .await
        .unwrap();
    let all = until_done(&mut heard, "x").await;
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(all[0] == "started" && all[1].contains("refused"), "{all:?}");
    // One that ended may still be written to by a client that has not heard yet.
    say.send(message("q", input("late", false))).await.unwrap();
    say.send(message("q", input("", true))).await.unwrap();
    say.send(message("r", Input::Init(init("c", "nothing"))))
        .await
        .unwrap();
    let all = until_done(&mut heard, "r").await;
    assert_eq!(
        all.last_chunk::<2>().unwrap(),
        &[
            "exit 127 exit code: 127: no such program (127)".to_owned(),
            "done".to_owned()
        ]
    );
    drop(say);
    assert!(heard.message().await.unwrap().is_none());
}

/// When the client has said all, one process may wait for the end of another's input.
/// Rows: G09
#[tokio::test]
async fn inputs_end_before_any_process_is_waited_for() {
    let mut open = open().await;
    open.container("c").await.unwrap();
    let (say, mut heard) = open.exec().await;
    for (id, command) in (0..10).zip(["cat"].into_iter().chain(std::iter::repeat("last"))) {
        let start = message(&id.to_string(), Input::Init(init("c", command)));
        say.send(start).await.unwrap();
    }
    say.send(message("0", input("hello", false))).await.unwrap();
    drop(say);
    let mut done = 0;
    while let Some(message) = timely(heard.message()).await.unwrap() {
        done += usize::from(matches!(message.input, Some(Input::Done(_))));
    }
    assert_eq!(done, 10);
}

/// Rows: G09
#[tokio::test]
async fn a_process_that_does_not_read_holds_up_no_other() {
    let mut open = open().await;
    open.container("c").await.unwrap();
    let (say, mut heard) = open.exec().await;
    let start = |id: &str, command| message(id, Input::Init(init("c", command)));
    say.send(start("p", "deaf")).await.unwrap();
    for _ in 0..50 {
        say.send(message("p", input("hello", false))).await.unwrap();
    }
    let term = wire::SignalMessage {
        name: "TERM".into(),
    };
    say.send(message("p", Input::Signal(term))).await.unwrap();
    let said = until_done(&mut heard, "p").await;
    assert_eq!(said[said.len() - 2], "exit 143 exit code: 143 (143)");
    // Its name is free again.
    say.send(start("p", "cat")).await.unwrap();
    say.send(message("p", input("again", true))).await.unwrap();
    let said = until_done(&mut heard, "p").await;
    assert!(said.contains(&"1:again".to_owned()), "{said:?}");
}

/// Rows: G09
#[tokio::test]
async fn nonsense_about_processes_is_refused_with_a_sentence() {
    let mut open = open().await;
    open.container("c").await.unwrap();
    let started = || message("p", Input::Init(init("c", "wait")));
    let signal = |name: &str| Input::Signal(wire::SignalMessage { name: name.into() });
    let size = Input::Resize(wire::ResizeMessage { rows: 1, cols: 1 });
    let output = wire::FdMessage {
        fd: 1,
        ..wire::FdMessage::default()
    };
    let mut far = init("c", "wait");
    far.fds.push(3);
    let mut bare = init("c", "wait");
    bare.meta = None;
    let mut sealed = init("c", "wait");
    sealed.security = 7;
    for (messages, code, says) in [
        (
            vec![message("", input("", true))],
            Code::InvalidArgument,
            "ProcessID required",
        ),
        (
            vec![message(&"p".repeat(257), Input::Init(init("c", "wait")))],
            Code::InvalidArgument,
            "257 bytes",
        ),
        (
            vec![message("p", input("x", false))],
            Code::NotFound,
            "\"p\" not found",
        ),
        (vec![message("p", size)], Code::NotFound, "\"p\" not found"),
        (
            vec![message("p", signal("KILL"))],
            Code::NotFound,
            "\"p\" not found",
        ),
        (
            vec![started(), started()],
            Code::AlreadyExists,
            "Process p already exists",
        ),
        (
            vec![started(), message("p", signal("HELLO"))],
            Code::InvalidArgument,
            "Unknown signal HELLO",
        ),
        (
            vec![started(), message("p", Input::File(output))],
            Code::OutOfRange,
            "fd 1 unavailable",
        ),
        (
            vec![message("p", Input::Init(init("gone", "wait")))],
            Code::NotFound,
            "container \"gone\" previously released or not created",
        ),
        (
            vec![message("p", Input::Init(far))],
            Code::InvalidArgument,
            "fd 3",
        ),
        (
            vec![message("p", Input::Init(bare))],
            Code::InvalidArgument,
            "no command",
        ),
        (
            vec![message("p", Input::Init(sealed))],
            Code::InvalidArgument,
            "security mode 7",
        ),
        (
            vec![message("p", Input::Done(wire::DoneMessage {}))],
            Code::InvalidArgument,
            "a client sends",
        ),
        (
            vec![wire::ExecMessage {
                process_id: "p".into(),
                input: None,
            }],
            Code::InvalidArgument,
            "a client sends",
        ),
    ] {
        let (found, sentence) = open.refused(messages).await;
        assert_eq!(found, code, "{sentence}");
        assert!(sentence.contains(says), "{sentence} should have {says}");
    }
    // The build has lived through all of it.
    open.container("d").await.unwrap();
}

/// Rows: G05, G09
#[tokio::test]
async fn containers_have_names_and_files() {
    let mut open = open().await;
    let refused = |made: Result<(), tonic::Status>| {
        let status = made.unwrap_err();
        (status.code(), status.message().to_owned())
    };
    open.container("c").await.unwrap();
    let (code, says) = refused(open.container("c").await);
    assert_eq!(
        (code, says.as_str()),
        (Code::AlreadyExists, "Container c already exists")
    );
    assert_eq!(refused(open.container("").await).0, Code::InvalidArgument);
    let odd = |change: fn(&mut wire::NewContainerRequest)| {
        let mut request = wire::NewContainerRequest {
            container_id: "odd".into(),
            ..wire::NewContainerRequest::default()
        };
        change(&mut request);
        for_build("b", request)
    };
    for (request, code, says) in [
        (
            odd(|c| c.network = 9),
            Code::InvalidArgument,
            "network mode 9",
        ),
        (
            odd(|c| c.hostname = "nowhere".into()),
            Code::NotFound,
            "no result r9",
        ),
        (
            odd(|c| {
                c.mounts = vec![pb::Mount {
                    mount_type: 42,
                    ..pb::Mount::default()
                }];
            }),
            Code::InvalidArgument,
            "unknown mount type 42",
        ),
        (
            odd(|c| {
                c.constraints = Some(pb::WorkerConstraints {
                    filter: vec!["id==x".into()],
                });
            }),
            Code::Unimplemented,
            "id==x",
        ),
    ] {
        let status = open.bridge.new_container(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(says), "{status}");
    }

    let read = |index| wire::ReadFileRequest {
        r#ref: "c".into(),
        file_path: "/etc/x".into(),
        range: Some(wire::FileRange {
            offset: 0,
            length: 5,
        }),
        mount_index: index,
    };
    let data = open
        .bridge
        .read_file_container(for_build("b", read(2)))
        .await;
    assert_eq!(data.unwrap().into_inner().data, "2 /etc/x 5");
    let status = open
        .bridge
        .read_file_container(for_build("b", read(-1)))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let dir = wire::ReadDirRequest {
        r#ref: "c".into(),
        dir_path: "/no".into(),
        ..wire::ReadDirRequest::default()
    };
    let status = open
        .bridge
        .read_dir_container(for_build("b", dir))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let stat = wire::StatFileRequest {
        r#ref: "c".into(),
        path: "/no".into(),
        mount_index: 0,
    };
    let status = open
        .bridge
        .stat_file_container(for_build("b", stat))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);

    let release = || {
        for_build(
            "b",
            wire::ReleaseContainerRequest {
                container_id: "c".into(),
            },
        )
    };
    open.bridge.release_container(release()).await.unwrap();
    assert_eq!(
        open.bridge
            .release_container(release())
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
    let status = open
        .bridge
        .read_file_container(for_build("b", read(0)))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    open.container("c").await.unwrap();
}
