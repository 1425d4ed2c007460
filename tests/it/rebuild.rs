//! Build, push, build again: what did not change is not made again.

use std::fs::{self, File, FileTimes};
use std::time::{Duration, SystemTime};

use crate::harness::{BaseImage, Daemon, Layout, Place, Ran, Real, json};

/// Two stages, two files, five steps.
fn write_app(place: &Place) {
    let base = BaseImage::name();
    place.write("ctx/tool.txt", "tool 1\n");
    place.write("ctx/page.txt", "page 1\n");
    place.context(&format!(
        "FROM {base} AS tool\n\
         COPY tool.txt /tool.txt\n\
         RUN tr a-z A-Z < /tool.txt > /out\n\
         FROM {base}\n\
         COPY page.txt /page.txt\n\
         RUN wc -c < /page.txt > /size\n\
         COPY --from=tool /out /out\n"
    ));
}

fn digest(place: &Place) -> String {
    let metadata = json(&fs::read(place.path("metadata.json")).expect("metadata"));
    let digest = metadata["containerimage.digest"].as_str();
    digest.expect("the image's digest").to_owned()
}

#[track_caller]
fn made(ran: &Ran, expected: &[&str]) {
    let names = ran.made();
    let mut ends: Vec<&str> = names
        .iter()
        .map(|name| name.split_once("] ").map_or(&**name, |(_, rest)| rest))
        .collect();
    ends.sort_unstable();
    assert_eq!(ends, expected, "{ran}");
}

/// Rows: C02, C03, D22, E02, E03, F20, F24, S01, S19
#[test]
fn a_pushed_build_is_found_after_a_restart_and_after_touching() {
    let place = Place::new();
    let registry = Real::start(&place);
    write_app(&place);
    let image = format!("{}/team/app:1", registry.host());
    let metadata = place.path("metadata.json");
    let metadata = metadata.to_str().expect("text").to_owned();
    let args = ["--push", "-t", &image, "--metadata-file", &metadata];

    let daemon = Daemon::start(&place, "");
    let first = daemon.build(&args).ok();
    let all = [
        "COPY --from=tool /out /out",
        "COPY page.txt /page.txt",
        "COPY tool.txt /tool.txt",
        "RUN tr a-z A-Z < /tool.txt > /out",
        "RUN wc -c < /page.txt > /size",
    ];
    made(&first, &all);
    let first = digest(&place);

    made(&daemon.build(&args).ok(), &[]);
    assert_eq!(digest(&place), first, "the same cache gives the same image");

    daemon.stop();
    let daemon = Daemon::start(&place, "");
    made(&daemon.build(&args).ok(), &[]);
    assert_eq!(digest(&place), first, "after a restart too");

    let later = SystemTime::now() + Duration::from_secs(100);
    for file in ["ctx/page.txt", "ctx/tool.txt"] {
        let file = File::options()
            .write(true)
            .open(place.path(file))
            .expect("ours");
        let times = FileTimes::new().set_modified(later);
        file.set_times(times).expect("it is ours");
    }
    made(&daemon.build(&args).ok(), &[]);
    assert_eq!(digest(&place), first, "times say nothing about contents");

    place.write("ctx/page.txt", "page 2, longer\n");
    let changed = daemon.build(&args).ok();
    made(
        &changed,
        &[
            "COPY --from=tool /out /out",
            "COPY page.txt /page.txt",
            "RUN wc -c < /page.txt > /size",
        ],
    );
    assert_ne!(digest(&place), first);

    place.write("ctx/page.txt", "page 1\n");
    made(&daemon.build(&args).ok(), &[]);
    assert_eq!(digest(&place), first, "the old contents are still known");
    daemon.stop();
    place.assert_nothing_left();
}

/// Rows: C05, R01, S01
#[test]
fn another_machine_builds_on_what_was_pushed() {
    let place = Place::new();
    let registry = Real::start(&place);
    write_app(&place);
    let image = format!("{}/team/app:1", registry.host());
    let cache = format!("type=registry,ref={}/team/cache,mode=max", registry.host());
    place
        .build(&["--push", "-t", &image, "--cache-to", &cache])
        .ok();

    let other = Place::new();
    write_app(&other);
    let cache = format!("{}/team/cache", registry.host());
    let tar = other.path("image.tar");
    let output = format!("type=oci,dest={}", tar.display());
    let ran = other.build(&["--cache-from", &cache, "-o", &output]).ok();
    made(&ran, &[]);
    let files = Layout::of_tar(&fs::read(&tar).expect("the image")).image_files();
    assert_eq!((&*files["out"], &*files["size"]), ("TOOL 1\n", "7\n"));

    other.write(
        "ctx/Dockerfile",
        format!("FROM {image}\nRUN cat /out /size > /both\n"),
    );
    other.build(&["-o", &output]).ok();
    let files = Layout::of_tar(&fs::read(&tar).expect("the image")).image_files();
    assert_eq!(files["both"], "TOOL 1\n7\n");
    place.assert_nothing_left();
    other.assert_nothing_left();
}

/// The README's way where Docker Hub is out of reach.
///
/// Rows: E02, F22, F24, O04
#[test]
fn a_base_image_is_made_of_nothing_but_busybox() {
    if !std::path::Path::new("/bin/busybox").exists() {
        use std::io::Write as _;
        let _ = writeln!(
            std::io::stderr(),
            "skipped: no /bin/busybox on this machine"
        );
        return;
    }
    let place = Place::new();
    let registry = Real::start(&place);
    place.write("ctx/busybox", fs::read("/bin/busybox").expect("busybox"));
    place.context(
        "FROM scratch\n\
         COPY --chmod=755 busybox /bin/busybox\n\
         RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
         CMD [\"/bin/sh\"]\n",
    );
    let base = format!("{}/base:1", registry.host());
    place.build(&["--push", "-t", &base]).ok();
    place.context(&format!(
        "FROM {base}\nRUN echo built on $(hostname) > /made\n"
    ));
    let ran = place.build(&["--network=none"]).ok();
    assert!(ran.step("RUN echo").done, "{ran}");
    place.assert_nothing_left();
}

/// Rows: C06, F22
#[test]
fn no_cache_makes_everything_again() {
    let place = Place::new();
    write_app(&place);
    place.build(&[]).ok();
    assert_eq!(place.build(&["--no-cache"]).ok().made().len(), 5);
    // What copies the tool's file finds it unchanged.
    assert_eq!(
        place.build(&["--no-cache-filter=tool"]).ok().made().len(),
        2
    );
    made(&place.build(&[]).ok(), &[]);
}

/// Steps nobody reads are not run, nor are their files sent.
///
/// Rows: C01, F04, F20
#[test]
fn a_stage_nobody_needs_is_not_built() {
    let place = Place::new();
    let base = BaseImage::name();
    place.context(&format!(
        "FROM {base} AS unused\nRUN false\nFROM 127.0.0.1:1/not/there AS unreachable\n\
         FROM {base} AS good\nRUN echo good > /g\nFROM good AS last\nRUN false\n"
    ));
    let ran = place.build(&["--target=good"]).ok();
    assert!(!ran.stderr.contains("RUN false"), "{ran}");
}
