//! What a build must not cost: memory that grows with what is built, and files made again that
//! did not change.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::harness::{BaseImage, Daemon, Layout, Place};

/// Inodes of files whose names begin with `file`, below a directory.
fn inodes(dir: &Path, found: &mut BTreeSet<u64>) {
    for entry in fs::read_dir(dir).expect("a folder").flatten() {
        let Ok(meta) = entry.path().symlink_metadata() else {
            continue;
        };
        if meta.is_dir() {
            inodes(&entry.path(), found);
        } else if entry.file_name().to_string_lossy().starts_with("file") {
            found.insert(meta.ino());
        }
    }
}

/// However often one file of a context changes: all others are on the disk once, results have
/// what was in the context when they were made, and what steps wrote is in no other result.
///
/// Rows: Q4, Q8, C07, S19
#[test]
fn what_did_not_change_is_kept_once() {
    const FILES: usize = 1_000;
    let place = Place::new();
    for number in 0..FILES {
        place.write(
            &format!("ctx/dir{}/file{number}", number / 100),
            format!("{number}\n"),
        );
    }
    let base = BaseImage::name();
    place.context(&format!(
        "FROM {base}\n\
         COPY . /app\n\
         RUN cat /app/dir0/file7 > /seen && echo more >> /app/dir0/file8 && rm /app/dir0/file9\n"
    ));
    let daemon = Daemon::start(&place, "");
    let tar = place.path("image.tar");
    let output = format!("type=oci,dest={}", tar.display());
    for build in 0..5 {
        place.write("ctx/dir0/file7", format!("in build {build}\n"));
        daemon.build(&["--output", &output]).ok();
        let image = Layout::of_tar(&fs::read(&tar).expect("an archive"));
        let files = image.image_files();
        assert_eq!(files["seen"], format!("in build {build}\n"));
        assert_eq!(files["app/dir0/file7"], files["seen"]);
        assert_eq!(files["app/dir0/file8"], "8\nmore\n");
        assert_eq!(files["app/dir9/file999"], "999\n");
        assert!(!files.contains_key("app/dir0/file9"));
        let layers = image.layers();
        let copied = layers.iter().rev().nth(1).expect("the layer of COPY");
        let entries = crate::harness::entries(copied);
        let links = entries
            .iter()
            .filter(|entry| entry.contains(" Link "))
            .count();
        assert_eq!(
            links, 0,
            "no file of the context is another's link: {entries:?}"
        );
    }
    let mut found = BTreeSet::new();
    inodes(&place.path("state/snapshots"), &mut found);
    // Each build changed one and wrote two of its own.
    let most = FILES + 5 * 4;
    assert!(
        found.len() <= most,
        "{} inodes for {FILES} files",
        found.len()
    );
}

/// The daemon's memory has a bound that knows nothing of how large layers are, nor how often one
/// builds.
///
/// Rows: Q1, Z7
#[test]
fn memory_does_not_grow_with_what_is_built() {
    const MOST: u64 = 200 << 20;
    let place = Place::new();
    let mut large = vec![0; 256 << 20];
    let mut seed = 1_u32;
    for byte in &mut large {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (seed >> 28) as u8;
    }
    place.write("ctx/large", &large);
    drop(large);
    for number in 0..3_000 {
        place.write(
            &format!("ctx/dir{}/file{number}", number / 100),
            format!("{number}\n"),
        );
    }
    place.context("FROM scratch\nCOPY . /\n");
    let daemon = Daemon::start(&place, "");
    let tar = place.path("image.tar");
    let output = format!("type=oci,dest={}", tar.display());
    daemon.build(&["--output", &output]).ok();
    assert!(fs::metadata(&tar).expect("an archive").len() > 100 << 20);
    for build in 0..10 {
        place.write("ctx/dir0/file7", format!("in build {build}\n"));
        daemon.build(&[]).ok();
    }
    let peak = daemon.peak_memory();
    assert!(peak > 10 << 20, "{peak} bytes: this is not the daemon");
    assert!(peak < MOST, "{} MiB", peak >> 20);
}
