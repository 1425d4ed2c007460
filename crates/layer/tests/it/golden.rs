//! Layers BuildKit made: unpacked and packed again they must be the same bytes.

use std::io::Read;
use std::path::{Path, PathBuf};

use layer::{ApplyOptions, Whiteouts, apply, clamp_times, decompress, diff};
use stdx::sys::Root;

use super::{is_root, temp};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

fn base_layer() -> Vec<u8> {
    let blobs = golden().join("base/blobs/sha256");
    let largest = std::fs::read_dir(blobs)
        .unwrap()
        .map(|entry| entry.unwrap())
        .max_by_key(|entry| entry.metadata().unwrap().len());
    std::fs::read(largest.unwrap().path()).unwrap()
}

fn plain(path: &Path) -> Vec<u8> {
    let file = std::fs::File::open(path).unwrap();
    let mut tar = Vec::new();
    decompress(file).unwrap().0.read_to_end(&mut tar).unwrap();
    tar
}

fn flatten(tar: &[u8], onto: &Root) {
    let options = ApplyOptions {
        whiteouts: Whiteouts::Remove,
        ..ApplyOptions::default()
    };
    apply(tar, onto, &options).unwrap();
}

/// The layers of one case in order: each with whether it lies on the base image.
fn layers(case: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(case)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".tar.gz"))
        .collect();
    found.sort();
    found
}

/// Rows: B18, B19, W23, B19
#[test]
fn privileged_every_golden_layer_comes_back_byte_for_byte() {
    if !is_root() {
        return;
    }
    let base = base_layer();
    let mut seen = 0;
    for case in std::fs::read_dir(golden()).unwrap() {
        let case = case.unwrap().path();
        if !case.join("layers.json").exists() {
            continue;
        }
        let (_below_dir, below) = temp();
        let layers = layers(&case);
        if layers
            .first()
            .is_some_and(|first| !first.ends_with("layer-0.tar.gz"))
        {
            flatten(&base, &below);
        }
        for path in layers {
            let tar = plain(&path);
            let (_upper_dir, upper) = temp();
            let applied = apply(&tar[..], &upper, &ApplyOptions::default()).unwrap();
            assert_eq!(applied.implied, Vec::<PathBuf>::new(), "{}", path.display());
            let again = diff(&upper, Some(&below), Vec::new()).unwrap();
            assert!(
                again == tar,
                "{} differs\n{}",
                path.display(),
                explain(&tar, &again)
            );
            let clamped = clamp_times(&tar[..], Vec::new(), 1_700_000_000).unwrap();
            assert!(clamped == tar, "{}: nothing to clamp", path.display());
            flatten(&tar, &below);
            seen += 1;
        }
    }
    assert!(seen > 50, "only {seen} layers found");
}

/// The entries of both, for a reader of the failure.
fn explain(wanted: &[u8], got: &[u8]) -> String {
    let names = |tar: &[u8]| {
        let mut reader = layer::tar::Reader::new(tar);
        let mut names = Vec::new();
        while let Some(entry) = reader.entry().unwrap() {
            names.push(format!(
                "{:?} {:o} {:?}",
                entry.display(),
                entry.mode,
                entry.mtime
            ));
        }
        names.join("\n")
    };
    format!("wanted:\n{}\ngot:\n{}", names(wanted), names(got))
}

/// Times that are later than the epoch, in every place a tar has for them, are set back.
///
/// Rows: W20, W23
#[test]
fn clamping_changes_times_and_nothing_else() {
    use layer::tar::{Entry, Kind, Reader, Writer};
    use stdx::sys::Time;

    let mut writer = Writer::new(Vec::new());
    let long = vec![b'n'; 180];
    for (name, seconds, nanos) in [
        (&b"old"[..], 5, 0),
        (b"new", 2000, 0),
        (b"part", 1999, 5),
        (&long, 2000, 7),
    ] {
        let mut entry = Entry::new(name, Kind::File);
        entry.mtime = Time { seconds, nanos };
        entry.size = 3;
        writer.entry(&entry).unwrap();
        std::io::Write::write_all(&mut writer, b"abc").unwrap();
    }
    let tar = writer.finish().unwrap();
    let clamped = clamp_times(&tar[..], Vec::new(), 1000).unwrap();
    let mut reader = Reader::new(&clamped[..]);
    let mut times = Vec::new();
    while let Some(entry) = reader.entry().unwrap() {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
        times.push((entry.path.len(), entry.mtime));
    }
    let epoch = Time::from_seconds(1000);
    assert_eq!(
        times,
        [
            (3, Time::from_seconds(5)),
            (3, epoch),
            (4, epoch),
            (180, epoch)
        ]
    );
    assert_eq!(
        clamp_times(&clamped[..], Vec::new(), 1000).unwrap(),
        clamped
    );
    assert_eq!(clamp_times(&tar[..], Vec::new(), 5000).unwrap(), tar);
}
