//! What steps get from the flags of `build`.

use super::{EPOCH, Stop, Who, both_ok};
use crate::harness::Ran;

/// Rows: N07, X05, X11, X12, F21
#[test]
fn a_step_sees_the_same_with_both() {
    let Some(stop) = Stop::at("flags") else {
        return;
    };
    stop.write("sec", "filesec\n");
    stop.dockerfile(
        "FROM BASE AS base\nARG WORD=none\nARG SOURCE_DATE_EPOCH\n\
         RUN --mount=type=secret,id=s1 --mount=type=secret,id=s2,env=S2 \
         ( cat /run/secrets/s1; echo \"$S2 $WORD\"; grep ex.ample /etc/hosts; ulimit -n; \
         df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2; ls /sys/class/net; id -u; hostname; \
         env | grep -v -e HOSTNAME -e PWD | sort; stat -c %a /run/secrets/s1 ) > /out\n\
         FROM scratch\nCOPY --from=base /out /\n",
    );
    let args = [
        "--secret=id=s1,src=sec",
        "--secret=id=s2,env=SECRET_OF_THE_TOUR",
        "--add-host=ex.ample:1.2.3.4",
        "--ulimit=nofile=1024:2048",
        "--shm-size=32m",
        "--build-arg=WORD=said",
        "--cgroup-parent=tour",
        "--pull",
        "--output=OUT",
        "ctx",
    ];
    for who in Who::BOTH {
        let all = [&["build", "--progress=plain", "--network=none"], &args[..]].concat();
        let mut command = stop.command(who, &all);
        command.env("SECRET_OF_THE_TOUR", "envsec");
        stop.start(command).wait().ok();
    }
    let out = stop.same("out");
    for word in [
        "filesec",
        "envsec said",
        "1.2.3.4",
        "1024",
        "32768",
        "buildkitsandbox",
        EPOCH,
    ] {
        assert!(out.contains(word), "no {word} in {out}");
    }
}

/// Rows: N07
#[test]
fn an_ssh_agent_is_passed_on() {
    let Some(stop) = Stop::at("ssh") else {
        return;
    };
    stop.dockerfile("FROM BASE\nRUN --mount=type=ssh,id=k,required test -S \"$SSH_AUTH_SOCK\" && echo yes > /ssh\n");
    // Whoever answers the socket: an agent is looked for first when a key is asked for.
    let socket = stop.path("agent.sock");
    let _agent = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    let ssh = format!("--ssh=k={}", socket.display());
    both_ok(stop.builds(&[&ssh, "--output=OUT", "ctx"]));
    assert_eq!(stop.same("ssh"), "yes\n");
    for ran in stop.builds(&["--no-cache", "--output=OUT", "ctx"]) {
        ran.fails().says(&["unset ssh forward key k"]);
    }
}

/// Rows: C06
#[test]
fn what_is_cached_is_as_the_flags_say() {
    let Some(stop) = Stop::at("cached") else {
        return;
    };
    stop.dockerfile("FROM BASE AS one\nRUN echo 1\nFROM one AS two\nRUN echo 2\nFROM two AS three\nRUN echo 3\n");
    both_ok(stop.builds(&["--output=type=cacheonly", "ctx"]));
    let made = |flags: &[&str]| -> [Vec<String>; 2] {
        let ran = both_ok(stop.builds(&[flags, &["--output=type=cacheonly", "ctx"]].concat()));
        ran.map(|ran: Ran| ran.made())
    };
    let [theirs, ours] = made(&[]);
    assert_eq!((ours.len(), theirs.len()), (0, 0));
    let [theirs, ours] = made(&["--no-cache"]);
    assert_eq!((ours.len(), theirs.len()), (3, 3));
    let [theirs, ours] = made(&["--no-cache-filter=three"]);
    assert_eq!(ours, theirs);
    assert_eq!(ours.len(), 1);
    let [theirs, ours] = made(&["--target=two", "--no-cache-filter=one,two"]);
    assert_eq!(ours, theirs);
    assert_eq!(ours.len(), 2);
}

/// Rows: X07, X09, P11
#[test]
fn what_a_build_may_is_asked_for() {
    let Some(stop) = Stop::at("allow") else {
        return;
    };
    stop.dockerfile("FROM BASE\nRUN --network=host ls /sys/class/net > /net\n");
    let build = |args: &[&str]| {
        let fixed = ["build", "--progress=plain", "--output=OUT"];
        stop.run(Who::Kiln, &[&fixed, args, &["ctx"]].concat())
    };
    let [theirs, ours] = stop.both(&["build", "--progress=plain", "--output=OUT", "ctx"]);
    for ran in [theirs, ours] {
        ran.fails().says(&["network.host is not allowed"]);
    }
    build(&["--allow=network.host"]).ok();
    stop.dockerfile("FROM BASE\nRUN --security=insecure grep CapEff /proc/self/status > /caps\n");
    build(&["--network=none"])
        .fails()
        .says(&["security.insecure is not allowed"]);
    build(&["--network=none", "--allow=security.insecure"]).ok();
    let caps = std::fs::read_to_string(stop.path("kiln/caps")).expect("a file");
    assert!(caps.contains("ffff"), "{caps}");
    build(&["--allow=made.up"]).fails().says(&["made.up"]);
}
