//! A daemon for one command of `buildctl`, as `buildctl-daemonless.sh` has it: started in the
//! background, waited for, asked to stop without waiting for its end.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::harness::{BaseImage, Peers, Place, Ran, kiln};

/// What that script does, step for step.
const SCRIPT: &str = r#"
set -eu
tmp=$(mktemp -d "$TMPDIR/daemonless.XXXXXX")
trap 'kill $(cat $tmp/pid) || :; rm -rf $tmp' EXIT
addr=unix:///run/buildkit/buildkitd.sock
$BUILDKITD $BUILDKITD_FLAGS --addr=$addr >$tmp/log 2>&1 &
echo $! >$tmp/pid
try=0
until $BUILDCTL --addr=$addr debug workers >/dev/null 2>&1; do
    if [ $try -gt $TRIES ]; then
        echo >&2 "no daemon at $addr"
        cat >&2 $tmp/log
        exit 1
    fi
    sleep $(awk "BEGIN{print (100 + $try * 20) * 0.001}")
    try=$((try + 1))
done
$BUILDCTL --addr=$addr "$@"
"#;

/// The waits between tries grow: fifty are half a minute, as long as a daemon may need on a machine
/// that is busy. That of the script are [`ITS_TRIES`].
const PATIENT: u32 = 50;

const ITS_TRIES: u32 = 10;

/// It as root, with a `/run` of its own: the address is always the same.
fn daemonless(place: &Place, flags: &str, tries: u32, args: &[&str]) -> Option<Ran> {
    let buildctl = Peers::get()?.buildctl()?;
    let (daemon, tmp) = (place.path("bin/buildkitd"), place.path("tmp"));
    if !daemon.exists() {
        place.write("bin/script.sh", SCRIPT);
        fs::create_dir_all(&tmp).expect("a folder");
        symlink(kiln(), &daemon).expect("a link");
    }
    let state = place.path("state");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c"])
        .arg("mount -t tmpfs tmpfs /run && script=$0 && exec sh $script \"$@\"")
        .arg(place.path("bin/script.sh"))
        .args(args)
        .current_dir(place.root())
        .env("BUILDCTL", buildctl)
        .env("BUILDKITD", daemon)
        .env(
            "BUILDKITD_FLAGS",
            format!("--root={} {flags}", state.display()),
        )
        .env("TRIES", tries.to_string())
        .env("HOME", place.root())
        .env("TMPDIR", tmp)
        .env("NO_COLOR", "1");
    Some(place.start(command).wait())
}

/// Three in a row, on one state directory.
///
/// Rows: B04, D21
#[test]
fn a_daemon_serves_one_command_and_the_next_one_follows_at_once() {
    let place = Place::new();
    place.context(&format!(
        "FROM {}\nRUN echo made > /out\nFROM scratch\nCOPY --from=0 /out /\n",
        BaseImage::name()
    ));
    let build = [
        "build",
        "--progress=plain",
        "--frontend=dockerfile.v0",
        "--local=context=ctx",
        "--local=dockerfile=ctx",
        "--output=type=local,dest=out",
    ];
    let Some(first) = daemonless(&place, "", PATIENT, &build) else {
        return;
    };
    assert_eq!(first.ok().made().len(), 2);
    let out = fs::read_to_string(place.path("out/out")).expect("a file of the image");
    assert_eq!(out, "made\n");
    let again = daemonless(&place, "", PATIENT, &build)
        .expect("as before")
        .ok();
    assert_eq!(again.made(), Vec::<String>::new(), "{again}");
    place.write("ctx/Dockerfile", "FROM scratch\nCOPY nothing /\n");
    let failed = daemonless(&place, "", PATIENT, &build)
        .expect("as before")
        .fails();
    failed.says(&["\"/nothing\": not found"]);
    place.assert_nothing_left();
}

/// Rows: B04, D02
#[test]
fn a_daemon_that_does_not_start_says_why() {
    let place = Place::new();
    let flags = "--no-such-flag";
    let Some(ran) = daemonless(&place, flags, ITS_TRIES, &["debug", "workers"]) else {
        return;
    };
    ran.fails().says(&["no daemon at", "--no-such-flag"]);
    place.assert_nothing_left();
}
