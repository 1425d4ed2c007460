//! Usage and its end: when all is pruned, nothing is counted and nothing is on disk.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::harness::{BaseImage, Daemon, Place};

/// The files below `dir`, with the bytes they take.
fn files(dir: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let metadata = fs::symlink_metadata(&path).expect("it is there");
        if metadata.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.display().to_string(), metadata.blocks() * 512));
        }
    }
    found
}

fn write(place: &Place) {
    let base = BaseImage::name();
    place.write("ctx/file", "x".repeat(100_000));
    place.context(&format!(
        "FROM {base} AS a\n\
         RUN dd if=/dev/urandom of=/big bs=1M count=3 2>/dev/null\n\
         RUN --mount=type=cache,target=/c dd if=/dev/urandom of=/c/kept bs=1M count=2 2>/dev/null\n\
         FROM {base}\n\
         COPY file /file\n\
         COPY --from=a /big /big\n"
    ));
}

/// Rows: A08, A09, A10, B03
#[test]
fn pruned_to_nothing_nothing_is_left() {
    let place = Place::new();
    write(&place);
    let output = format!("type=oci,dest={}", place.path("image.tar").display());
    place.build(&["-o", &output]).ok();
    let before = place.run(&["du", "--verbose"]).ok().text();
    for kind in ["regular", "exec.cachemount", "source.local"] {
        assert!(before.contains(kind), "no {kind} in {before}");
    }
    let freed = place.run(&["prune", "--all", "--force"]).ok().text();
    assert!(!freed.contains("Total: 0B"), "{freed}");
    let after = place.run(&["du"]).ok().text();
    assert!(after.contains("Total:       0B"), "{after}");
    assert_eq!(after.lines().count(), 3, "no records: {after}");
    let large: Vec<_> = files(&place.path("state"))
        .into_iter()
        .filter(|(name, bytes)| *bytes > 16 << 10 && !name.contains("kiln.db"))
        .collect();
    assert_eq!(large, [], "only settings and the database stay");
    // What builds said is kept for two days (row D11), whatever becomes of their results.
    let blobs: u64 = files(&place.path("state/content"))
        .iter()
        .map(|(_, bytes)| bytes)
        .sum();
    assert!(blobs < 64 << 10, "{blobs} bytes of blobs are left");
    assert_eq!(
        files(&place.path("state/snapshots/overlayfs/layers")),
        [],
        "no layers"
    );

    let again = place.build(&["-o", &output]).ok();
    assert_eq!(again.made().len(), 4, "nothing is cached: {again}");
    place.assert_nothing_left();
}

/// Rows: A09, A11, D34
#[test]
fn a_filter_prunes_what_it_names_and_the_daemon_goes_on() {
    let place = Place::new();
    write(&place);
    let daemon = Daemon::start(&place, "");
    daemon.build(&[]).ok();
    let pruned = daemon
        .run(&[
            "prune",
            "--all",
            "--force",
            "--verbose",
            "--filter",
            "type==exec.cachemount",
        ])
        .ok()
        .text();
    assert_eq!(
        pruned.lines().count(),
        2,
        "one record and the sum: {pruned}"
    );
    assert_eq!(
        daemon.build(&[]).ok().made().len(),
        0,
        "steps are still cached"
    );
    daemon.run(&["prune", "--all", "--force"]).ok();
    let after = daemon.run(&["du"]).ok().text();
    assert!(after.contains("Total:       0B"), "{after}");
    assert_eq!(daemon.build(&[]).ok().made().len(), 4);
    daemon.stop();
    place.assert_nothing_left();
}
