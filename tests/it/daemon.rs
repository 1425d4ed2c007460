//! The life of a daemon as its owner sees it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{BaseImage, Daemon, Place};

/// An agent socket of a step is in the state directory, where the next start finds it.
///
/// Rows: X06, D21
#[test]
fn a_killed_daemon_leaves_nothing_once_the_next_has_started() {
    let place = Place::new();
    let base = BaseImage::name();
    let agent = place.path("agent.sock");
    let _agent = std::os::unix::net::UnixListener::bind(&agent).expect("a socket");
    place.context(&format!(
        "FROM {base}\nRUN --mount=type=ssh --mount=type=cache,target=/c [ -S $SSH_AUTH_SOCK ] && echo with agent; sleep 30\n"
    ));
    let daemon = Daemon::start(&place, "");
    let ssh = format!("default={}", agent.display());
    let mut build = daemon.start_build(&["--ssh", &ssh]);
    build.wait_for_output("with agent");
    let scratch = fs::read_dir(place.path("state/scratch")).expect("it is there");
    assert!(
        scratch.count() > 0,
        "the agent's socket is in the state directory"
    );
    daemon.kill();
    build.wait();
    let daemon = Daemon::start(&place, "");
    daemon.stop();
    place.assert_nothing_left();
}

/// A socket that systemd opened, and systemd told how we are.
///
/// Rows: D01, D25
#[test]
fn systemd_hands_over_a_socket_and_is_told_when_we_are_ready() {
    let place = Place::new();
    let (socket, notify) = (place.path("given.sock"), place.path("notify"));
    let listener = UnixListener::bind(&socket).expect("a socket");
    let told = UnixDatagram::bind(&notify).expect("a socket");
    told.set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a time");
    let hear = || {
        let mut heard = [0; 64];
        let length = told.recv(&mut heard).expect("the daemon tells");
        String::from_utf8_lossy(&heard[..length]).into_owned()
    };
    // The protocol names the process, which only the shell knows before it is the daemon.
    let daemon = place.kiln(&[]);
    let mut command = std::process::Command::new("sh");
    let script = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";
    command.args(["-c", script, "sh"]).arg(daemon.get_program());
    command
        .args(["daemon", "--addr", "fd://", "--root"])
        .arg(place.path("state"));
    command.current_dir(place.root());
    for (key, value) in daemon.get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    command.env("NOTIFY_SOCKET", &notify);
    command.stdin(std::os::fd::OwnedFd::from(
        listener.try_clone().expect("a copy"),
    ));
    let running = place.start_with_input(command);
    assert_eq!(hear(), "READY=1");
    let mut du = place.kiln(&["du"]);
    du.env("KILN_HOST", format!("unix://{}", socket.display()));
    place.start(du).wait().ok();
    running.signal(Signal::TERM);
    assert_eq!(hear(), "STOPPING=1");
    running.wait().ok();
    assert!(socket.exists(), "the socket is systemd's");
    drop(listener);
    assert!(
        UnixStream::connect(&socket).is_err(),
        "nobody else holds it"
    );
    place.assert_nothing_left();
}

/// Rows: D01, D05, D02, D19, D20
#[test]
fn a_daemon_answers_at_all_its_addresses_and_keeps_its_id() {
    let place = Place::new();
    let base = BaseImage::name();
    let settings = "[log]\nformat = 'json'\n[worker.oci]\nsnapshotter = 'native'\n";
    let second = place.path("second.sock");
    let start = || {
        let address = format!("unix://{}", second.display());
        Daemon::start_at(
            &place,
            settings,
            &["--addr", &address, "--addr", "tcp://127.0.0.1:0"],
        )
    };
    let daemon = start();
    place.context(&format!("FROM {base}\nRUN echo copied > /f\n"));
    daemon.build(&[]).ok();
    let lines: Vec<serde_json::Value> = daemon
        .log()
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect();
    let addresses: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["fields"]["address"].as_str())
        .collect();
    assert_eq!(addresses.len(), 3, "{addresses:?}");
    for address in &addresses {
        let mut du = place.kiln(&["du"]);
        du.env("KILN_HOST", address);
        place.start(du).wait().ok();
    }
    let id = fs::read_to_string(place.path("state/workerid")).expect("it has one");
    assert_eq!(id.len(), 25);
    daemon.stop();
    assert!(!second.exists());
    let daemon = start();
    let kept = fs::read_to_string(place.path("state/workerid")).expect("it has one");
    assert_eq!(kept, id);
    let again = daemon.build(&[]).ok();
    assert_eq!(
        again.made().len(),
        0,
        "what it made is found again: {again}"
    );
    daemon.stop();
    place.assert_nothing_left();
}

/// Spans of builds are sent to the collector the environment names.
///
/// Rows: D33
#[test]
fn spans_go_on_to_a_collector() {
    let place = Place::new();
    let base = BaseImage::name();
    let collector = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", collector.local_addr().expect("it listens"));
    collector.set_nonblocking(true).expect("it can wait");
    let hearing = std::thread::spawn(move || {
        let mut heard = Vec::new();
        // A request each; the build's own spans come last.
        while !String::from_utf8_lossy(&heard).contains("echo spanned") {
            let Ok((mut connection, _)) = collector.accept() else {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            };
            connection.set_nonblocking(false).expect("it can wait");
            connection
                .set_read_timeout(Some(Duration::from_secs(5)))
                .expect("a time");
            heard.extend(request(&mut connection));
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            connection.write_all(answer.as_bytes()).expect("it listens");
        }
        String::from_utf8_lossy(&heard).into_owned()
    });
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", address.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "who=kiln%20itself"),
    ];
    let daemon = Daemon::start_with(&place, "", &variables);
    place.context(&format!("FROM {base}\nRUN echo spanned\n"));
    daemon.build(&[]).ok();
    daemon.stop();
    let stopped = Instant::now();
    while !hearing.is_finished() {
        assert!(stopped.elapsed() < Duration::from_secs(30), "no spans came");
        std::thread::sleep(Duration::from_millis(10));
    }
    let heard = hearing.join().expect("it hears well");
    assert!(heard.contains("POST /v1/traces HTTP/1.1"), "{heard}");
    assert!(
        heard.contains("who: kiln itself") && heard.contains("service.name"),
        "{heard}"
    );
    place.assert_nothing_left();
}

/// Programs in steps are told of the socket for their spans, and reach it whoever they are.
///
/// Rows: D29, D33
#[test]
fn steps_have_a_socket_for_their_spans() {
    let place = Place::new();
    let base = BaseImage::name();
    let socket = place.path("traces.sock");
    let settings = format!("[otel]\nsocketPath = {:?}\n", socket.display().to_string());
    let daemon = Daemon::start_with(&place, &settings, &[]);
    place.context(&format!(
        "FROM {base}\nUSER 1000\n\
         RUN test -S /dev/otel-grpc.sock && test -w /dev/otel-grpc.sock && env | grep -e OTEL_ -e TRACE\n\
         FROM scratch\nCOPY --from=0 /dev /dev\n"
    ));
    let build = daemon.build(&["--output", "type=local,dest=out"]).ok();
    build.says(&[
        "OTEL_TRACES_EXPORTER=otlp",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=unix:///dev/otel-grpc.sock",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc",
        "TRACEPARENT=00-",
    ]);
    // Another trace is no reason to do it again.
    let again = daemon.build(&["--output", "type=local,dest=out"]).ok();
    assert_eq!(again.made(), Vec::<String>::new(), "{again}");
    assert!(place.path("out/dev").exists());
    let left = place.path("out/dev/otel-grpc.sock");
    assert!(!left.exists(), "it is no file of the image");
    daemon.stop();
    assert!(!socket.exists(), "it goes with the daemon");
    place.assert_nothing_left();
}

/// A whole request: head and body.
fn request(connection: &mut std::net::TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = connection.read(&mut buffer).expect("the rest of it");
        assert!(length > 0, "it ended early");
        heard.extend_from_slice(&buffer[..length]);
        let text = String::from_utf8_lossy(&heard).into_owned();
        let Some(head) = text.find("\r\n\r\n") else {
            continue;
        };
        let size = text[..head]
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let size: usize = size.expect("its length").parse().expect("a number");
        if heard.len() >= head + 4 + size {
            return heard;
        }
    }
}
