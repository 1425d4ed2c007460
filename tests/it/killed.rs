//! Killed at any moment: the state opens, what is there is whole, and the next build
//! gives the right image.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use testkit::dice::Dice;

use crate::harness::{BaseImage, Daemon, Layout, Place};

/// How often.
const ROUNDS: usize = 200;
/// After so many rounds the cache is emptied, so that all kinds of work are hit.
const PRUNE_EVERY: usize = 40;

/// Files of a known text, made by every kind of step; `round` makes some of them new.
fn write(place: &Place, round: usize) {
    let base = BaseImage::name();
    for number in 0..20 {
        place.write(
            &format!("ctx/dir/{number}"),
            format!("file {number}\n").repeat(100),
        );
    }
    place.write("ctx/round", format!("{round}\n"));
    place.context(&format!(
        "FROM {base} AS a\n\
         COPY dir /dir\n\
         RUN cat /dir/* | wc -c > /count\n\
         FROM {base} AS b\n\
         COPY round /round\n\
         RUN for i in 1 2 3 4 5 6 7 8; do cat /round; done > /eight\n\
         FROM {base}\n\
         COPY --from=a /count /count\n\
         COPY --from=b /eight /eight\n\
         COPY --from=a /dir /dir\n\
         RUN --mount=type=cache,target=/c echo {round} >> /c/rounds; cat /eight /count > /both\n"
    ));
}

#[track_caller]
fn check(place: &Place, round: usize) {
    let tar = place.path("image.tar");
    let output = format!("type=oci,dest={}", tar.display());
    let ran = place.build(&["-o", &output]);
    assert_eq!(ran.code(), Some(0), "round {round}: {ran}");
    let files = Layout::of_tar(&fs::read(&tar).expect("the image")).image_files();
    let eight = format!("{round}\n").repeat(8);
    let dir: usize = (0..20).map(|n| format!("file {n}\n").len() * 100).sum();
    assert_eq!(files["eight"], eight, "round {round}");
    assert_eq!(files["count"], format!("{dir}\n"), "round {round}");
    assert_eq!(files["both"], format!("{eight}{dir}\n"), "round {round}");
    for number in 0..20 {
        let expected = format!("file {number}\n").repeat(100);
        assert_eq!(files[&format!("dir/{number}")], expected, "round {round}");
    }
}

/// Rows: D21, D22, D23, C12, X17
#[test]
fn killed_at_two_hundred_moments_the_state_opens_and_builds_right() {
    let place = Place::new();
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1);
    let mut dice = Dice::new(seed);
    write(&place, 0);
    check(&place, 0);
    // The moments lie within the time a build takes that has a base image already.
    write(&place, ROUNDS + 1);
    let started = Instant::now();
    check(&place, ROUNDS + 1);
    let whole = u64::try_from(started.elapsed().as_micros()).expect("a short time");
    let mut daemon_rounds = 0;
    for round in 1..=ROUNDS {
        write(&place, round);
        let moment = Duration::from_micros(dice.roll(whole));
        let output = format!("type=oci,dest={}", place.path("lost.tar").display());
        if round % 4 == 0 {
            daemon_rounds += 1;
            let daemon = Daemon::start(&place, "");
            let build = daemon.start_build(&["-o", &output]);
            std::thread::sleep(moment);
            daemon.kill();
            build.wait();
        } else {
            let build = place.start_build(&["-o", &output]);
            std::thread::sleep(moment);
            build.signal(Signal::KILL);
            build.wait();
        }
        // Some rounds only pile up damage, the others look at what is there.
        if round % 2 == 0 {
            check(&place, round);
        }
        if round % PRUNE_EVERY == 0 {
            place.run(&["prune", "--all", "--force"]).ok();
        }
    }
    assert!(daemon_rounds > 0);
    place.run(&["prune", "--all", "--force"]).ok();
    let after = place.run(&["du"]).ok().text();
    assert!(after.contains("Total:       0B"), "{after}");
    check(&place, ROUNDS);
    place.assert_nothing_left();
}
