//! The life of a daemon as its owner sees it.

use std::fs;

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
    build.wait_for("with agent");
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
