//! Containers of frontends, with real processes in them.

use std::time::Duration;

use bytes::Bytes;
use frontend::{
    Container as _, FailedPart, NewContainer, NewProcess, ProcessExit, StartedProcess, TerminalSize,
};
use futures::FutureExt as _;
use llb::{MountKind, Network, Security};
use ops::{Container, Output};
use refs::Filter;
use session::Attachables;
use stdx::Kind;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use crate::setup::{Client, World, mount, sh};

const LONG: Duration = Duration::from_secs(20);

/// A container of these trees, writable, at these places.
async fn container(client: &Client, trees: &[(&str, &Output)]) -> ops::Result<Container> {
    let mut wanted = NewContainer::default();
    for (number, (target, _)) in (0..).zip(trees) {
        let mut tree = mount(target, MountKind::Bind);
        tree.input = Some(number);
        wanted.mounts.push(tree);
    }
    let inputs: Vec<Output> = trees.iter().map(|(_, tree)| (*tree).clone()).collect();
    Container::prepare(client.deeds.clone(), wanted, &inputs).await
}

fn script(script: &str) -> NewProcess {
    NewProcess {
        args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        stdout: true,
        ..NewProcess::default()
    }
}

async fn all(mut from: Receiver<Bytes>) -> String {
    let mut text = Vec::new();
    while let Some(bytes) = from.recv().await {
        text.extend_from_slice(&bytes);
    }
    String::from_utf8_lossy(&text).into_owned()
}

async fn first_words(from: &mut Option<Receiver<Bytes>>) -> String {
    let words = timeout(LONG, from.as_mut().unwrap().recv()).await.unwrap();
    String::from_utf8_lossy(&words.unwrap()).into_owned()
}

/// What a process said, and its code.
async fn ended(process: StartedProcess) -> (String, ProcessExit) {
    let StartedProcess {
        stdin,
        stdout,
        ended,
        control,
        ..
    } = process;
    drop(stdin);
    let said = async {
        match stdout {
            Some(stdout) => all(stdout).await,
            None => String::new(),
        }
    };
    let (said, exit) = timeout(LONG, async { tokio::join!(said, ended) })
        .await
        .unwrap();
    drop(control);
    (said, exit.unwrap())
}

async fn run(container: &Container, process: NewProcess) -> (String, i32) {
    let (said, exit) = ended(container.start(process).await.unwrap()).await;
    (said, exit.code)
}

/// Rows: G09, G05
#[tokio::test]
async fn privileged_processes_share_a_container_and_its_files() {
    let Some(world) = World::new().await else {
        return;
    };
    let (base, data) = (world.busybox(), world.tree(&[("in/f", "before\n")]));
    let client = world.plain();
    let container = container(&client, &[("/", &base), ("/data", &data)])
        .await
        .unwrap();
    let mut process = script("echo $$ > /first; cat; exit 3");
    process.stdin = true;
    process.env = vec!["A=1".into()];
    let mut first = container.start(process).await.unwrap();
    let stdin = first.stdin.take().unwrap();
    stdin.send("hello\n".into()).await.unwrap();
    assert_eq!(first_words(&mut first.stdout).await, "hello\n");
    // The second one sees the first one's files and processes, and has an environment of its own.
    let mut second =
        script("cat /first; test -d /proc/1 && echo $A/$B in $(pwd); echo new > /data/in/f");
    second.env = vec!["B=2".into()];
    second.cwd = "/tmp".into();
    assert_eq!(run(&container, second).await, ("1\n/2 in /tmp\n".into(), 0));
    // So do we, by the number of the mount.
    let read = |mount, path: &'static str| container.read_file(mount, path, None);
    assert_eq!(read(0, "/first").await.unwrap(), "1\n");
    assert_eq!(read(1, "in/f").await.unwrap(), "new\n");
    let names = container.read_dir(1, "/in", None).await.unwrap();
    assert_eq!(
        names
            .iter()
            .map(|one| one.path.as_str())
            .collect::<Vec<_>>(),
        ["f"]
    );
    assert_eq!(container.stat_file(1, "/in/f").await.unwrap().size, 4);
    assert_eq!(read(1, "/none").await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(
        read(2, "/first").await.unwrap_err().kind(),
        Kind::InvalidInput
    );
    drop(stdin);
    let (_, exit) = ended(first).await;
    assert_eq!(exit.code, 3);
    let error = ended_badly(&container, script("true")).await;
    assert!(
        error.contains("the first process has ended") || error.contains("first process has ended"),
        "{error}"
    );
    container.release().await;
    // What was written is nobody's.
    assert_eq!(world.read(&data, "in/f").await.unwrap(), "before\n");
}

async fn ended_badly(container: &Container, process: NewProcess) -> String {
    let started = container.start(process).await.unwrap();
    let error = timeout(LONG, started.ended).await.unwrap().unwrap_err();
    let mut text = error.to_string();
    let mut next = std::error::Error::source(&error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Rows: G09
#[tokio::test]
async fn privileged_terminals_signals_and_programs_that_are_not_there() {
    let Some(world) = World::new().await else {
        return;
    };
    let (base, client) = (world.busybox(), world.plain());
    let container = container(&client, &[("/", &base)]).await.unwrap();
    let absent = NewProcess {
        args: vec!["/bin/absent".into()],
        ..NewProcess::default()
    };
    let exit = ended(container.start(absent).await.unwrap()).await.1;
    assert_eq!(exit.code, 127);
    assert!(exit.why.unwrap().contains("/bin/absent"));
    // A start that failed has used nothing up. The trap stands before it says a word: process 1
    // does not get signals it has no trap for.
    let mut terminal = script(
        "trap 'echo bye; exit 9' USR1; test -t 1 && echo $TERM; while true; do sleep 0.05; done",
    );
    terminal.tty = true;
    let mut process = container.start(terminal).await.unwrap();
    process.control.resize(TerminalSize { rows: 40, cols: 90 });
    assert_eq!(first_words(&mut process.stdout).await, "xterm\r\n");
    process.control.signal(10).await;
    let (said, exit) = ended(process).await;
    assert_eq!((said.as_str(), exit.code), ("bye\r\n", 9));
    container.release().await;
}

/// Rows: G09
#[tokio::test]
async fn privileged_a_container_let_go_is_gone() {
    let Some(world) = World::new().await else {
        return;
    };
    let (base, client) = (world.busybox(), world.plain());
    let before = world.refs.usage(&Filter::default()).unwrap().len();
    for dropped in [false, true] {
        let container = container(&client, &[("/", &base)]).await.unwrap();
        let sleeping = container
            .start(script("echo up; sleep 1000"))
            .await
            .unwrap();
        let joined = container.start(script("sleep 1000")).await.unwrap();
        if dropped {
            drop(container);
        } else {
            timeout(LONG, container.release()).await.unwrap();
            let error = container.start(script("true")).await.err().unwrap();
            assert_eq!(error.kind(), Kind::InvalidInput);
        }
        for process in [sleeping, joined] {
            let end = timeout(LONG, process.ended).await.unwrap();
            assert!(end.is_err(), "it was killed: {end:?}");
        }
    }
    // A process whose holder leaves is killed too.
    let container = container(&client, &[("/", &base)]).await.unwrap();
    let StartedProcess { control, ended, .. } =
        container.start(script("sleep 1000")).await.unwrap();
    drop(control);
    assert!(timeout(LONG, ended).await.unwrap().is_err());
    container.release().await;
    assert_eq!(world.refs.usage(&Filter::default()).unwrap().len(), before);
}

/// Somebody stops waiting for a start, sooner and later: what was started is killed, and the
/// container is as good as before.
/// Rows: G09
#[tokio::test]
async fn privileged_a_start_nobody_waits_for_leaves_nothing_running() {
    let Some(world) = World::new().await else {
        return;
    };
    let (base, client) = (world.busybox(), world.plain());
    let mut containers = Vec::new();
    for patience in 0..20 {
        let container = container(&client, &[("/", &base)]).await.unwrap();
        let start = container.start(script("while true; do echo >> /log; sleep 0.01; done"));
        let started = timeout(Duration::from_millis(patience), start).await;
        containers.push((container, started.is_ok()));
    }
    let written = async || {
        let sizes = containers.iter().map(async |(container, _)| {
            let log = container.stat_file(0, "/log").await;
            log.map_or(0, |log| log.size)
        });
        futures::future::join_all(sizes).await
    };
    let still = async {
        let mut before = written().await;
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            match written().await {
                now if now == before => break,
                now => before = now,
            }
        }
    };
    timeout(LONG, still).await.expect("nothing writes any more");
    for (container, started) in &containers {
        if !started {
            let up = container.start(script("echo up; sleep 1000")).await;
            let mut up = up.unwrap();
            assert_eq!(first_words(&mut up.stdout).await, "up\n");
            assert_eq!(run(container, script("echo in")).await, ("in\n".into(), 0));
        }
        timeout(LONG, container.release()).await.unwrap();
    }
    assert!(
        containers.iter().any(|(_, started)| !started),
        "one was too slow"
    );
}

/// Rows: G09, X15
#[tokio::test]
async fn privileged_what_is_not_allowed_is_refused() {
    let Some(world) = World::new().await else {
        return;
    };
    let base = world.busybox();
    for allowed in [false, true] {
        let client = world.client(Attachables::new(), allowed);
        let mut root = mount("/", MountKind::Bind);
        root.input = Some(0);
        let wanted = NewContainer {
            mounts: vec![root],
            network: Network::Host,
            ..NewContainer::default()
        };
        let made =
            Container::prepare(client.deeds.clone(), wanted, std::slice::from_ref(&base)).await;
        assert_eq!(made.is_ok(), allowed);
        if let Err(error) = made {
            assert_eq!(error.kind(), Kind::Denied);
        }
        let container = container(&client, &[("/", &base)]).await.unwrap();
        let mut insecure = script("true");
        insecure.security = Security::Insecure;
        match container.start(insecure).await {
            Ok(process) if allowed => assert_eq!(ended(process).await.1.code, 0),
            Err(error) if !allowed => assert_eq!(error.kind(), Kind::Denied),
            _ => panic!("insecure is allowed or it is not"),
        }
        container.release().await;
    }
    let client = world.plain();
    let nothing = Container::prepare(client.deeds.clone(), NewContainer::default(), &[]).await;
    assert_eq!(nothing.err().unwrap().kind(), Kind::InvalidInput);
}

/// Rows: A16
#[tokio::test]
async fn privileged_a_failed_step_leaves_what_it_saw_and_made() {
    let Some(world) = World::new().await else {
        return;
    };
    let (base, client) = (world.busybox(), world.plain());
    let before = world.refs.usage(&Filter::default()).unwrap().len();
    let mut exec = sh("echo made > /made; echo more > /w/more; exit 4");
    exec.mounts.push(mount("/w", MountKind::Bind));
    let failed = client.run(exec.clone(), &[&base]).await;
    let remains = failed.remains();
    assert_eq!(
        (remains.part, remains.places),
        (FailedPart::Process, 2),
        "{}",
        failed.why()
    );
    assert_eq!(remains.inputs, [Some(base.clone()), None]);
    assert_eq!(remains.written().collect::<Vec<_>>(), [0, 1]);
    // Who only begins to look takes nothing from those who look after it.
    let _ = remains.output(0).now_or_never();
    let root = remains.output(0).await.unwrap();
    assert_eq!(world.read(&root, "made").await.unwrap(), "made\n");
    assert_eq!(world.read(&base, "made").await, None);
    let other = remains.output(1).await.unwrap();
    assert_eq!(world.read(&other, "more").await.unwrap(), "more\n");
    // When nobody looks, nothing stays.
    drop((remains, root, other, failed));
    let looked_at = world.refs.usage(&Filter::default()).unwrap().len();
    drop(client.run(exec, &[&base]).await);
    assert_eq!(
        world.refs.usage(&Filter::default()).unwrap().len(),
        looked_at
    );
    assert_eq!(looked_at, before + 2);
}
