//! Bundles before and after a run, whatever the step did.

use std::os::unix::fs::{MetadataExt as _, symlink};

use super::*;

const CA: &str = "-----BEGIN CERTIFICATE-----\nb3Vy\ncw==\n-----END CERTIFICATE-----\n";
const OTHER: &str = "-----BEGIN CERTIFICATE-----\ndGhlaXJz\n-----END CERTIFICATE-----\n";

/// A root with a bundle, and a link to it as some distributions have it.
fn root(bundle: &str) -> (tempfile::TempDir, Process) {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    std::fs::create_dir_all(at("etc/ssl/certs")).unwrap();
    std::fs::create_dir_all(at("etc/pki/tls/certs")).unwrap();
    std::fs::write(at("etc/ssl/certs/ca-certificates.crt"), bundle).unwrap();
    symlink("certs/ca-certificates.crt", at("etc/ssl/cert.pem")).unwrap();
    symlink("nowhere", at("etc/pki/tls/certs/ca-bundle.crt")).unwrap();
    let tree = Arc::new(Tree::open(dir.path()).unwrap());
    (dir, Process::new(tree, ["true"]))
}

/// What one sees of the bundle and its directory, but for the number of the file.
fn seen(dir: &tempfile::TempDir) -> Vec<(u32, u32, i64, i64, Vec<u8>)> {
    let look = |path: &str| {
        let path = dir.path().join(path);
        let stat = std::fs::metadata(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap_or_default();
        let times = (stat.mtime(), stat.mtime_nsec());
        (stat.mode(), stat.uid(), times.0, times.1, bytes)
    };
    [
        "etc/ssl/certs/ca-certificates.crt",
        "etc/ssl/certs",
        "etc/ssl",
    ]
    .map(look)
    .to_vec()
}

fn bundle(dir: &tempfile::TempDir) -> String {
    std::fs::read_to_string(dir.path().join("etc/ssl/cert.pem")).unwrap()
}

/// Rows: X08
#[test]
fn the_authority_comes_once_and_goes_without_a_trace() {
    for original in [OTHER, "no newline at its end", ""] {
        let (dir, process) = root(original);
        let before = seen(&dir);
        std::thread::sleep(std::time::Duration::from_millis(15));
        let mut bundles = Bundles::trust(&process, CA).unwrap();
        assert_eq!(bundle(&dir).matches(CA).count(), 1);
        assert!(bundle(&dir).starts_with(original));
        bundles.restore().unwrap();
        assert_eq!(seen(&dir), before);
        let names = std::fs::read_dir(dir.path().join("etc/ssl/certs")).unwrap();
        assert_eq!(names.count(), 1, "nothing lies about");
    }
}

/// A step that updates the bundle keeps its update, whatever it made of ours.
///
/// Rows: X08
#[test]
fn what_a_step_makes_of_the_bundle_stays() {
    type Step = fn(&Path, &str);
    let cases: [(Step, String); 6] = [
        // Another file in its place.
        (
            |path, _| {
                std::fs::write(path.with_extension("new"), "fresh").unwrap();
                std::fs::rename(path.with_extension("new"), path).unwrap();
            },
            "fresh".into(),
        ),
        // One more at the end.
        (
            |path, now| std::fs::write(path, format!("{now}{CA}more\n")).unwrap(),
            format!("{OTHER}more\n"),
        ),
        // The certificates alone, in lines of its own.
        (
            |path, _| {
                let ours = CA.replace("b3Vy\ncw==", "b3Vycw==");
                std::fs::write(path, format!("{ours}{OTHER}")).unwrap();
            },
            OTHER.into(),
        ),
        // The begin of one that has no end.
        (
            |path, now| std::fs::write(path, format!("{now}-----BEGIN CERTIFICATE-----")).unwrap(),
            format!("{OTHER}-----BEGIN CERTIFICATE-----"),
        ),
        // Many of them.
        (
            |path, now| std::fs::write(path, now.repeat(3000)).unwrap(),
            OTHER.repeat(3000),
        ),
        // Moved, with a link in its place.
        (
            |path, _| {
                std::fs::rename(path, path.with_extension("moved")).unwrap();
                symlink("ca-certificates.moved", path).unwrap();
            },
            OTHER.into(),
        ),
    ];
    for (step, after) in cases {
        let (dir, process) = root(OTHER);
        let mut bundles = Bundles::trust(&process, CA).unwrap();
        step(
            &dir.path().join("etc/ssl/certs/ca-certificates.crt"),
            &bundle(&dir),
        );
        bundles.restore().unwrap();
        assert_eq!(bundle(&dir), after);
    }
}

/// Rows: X08
#[test]
fn what_is_no_bundle_any_more_is_left_alone() {
    let steps: [fn(&Path); 3] = [
        |path| std::fs::remove_file(path).unwrap(),
        |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
        },
        |path| {
            std::fs::remove_file(path).unwrap();
            let fifo = rustix::fs::FileType::Fifo;
            let mode = rustix::fs::Mode::RWXU;
            rustix::fs::mknodat(rustix::fs::CWD, path, fifo, mode, 0).unwrap();
        },
    ];
    for step in steps {
        let (dir, process) = root(OTHER);
        let mut bundles = Bundles::trust(&process, CA).unwrap();
        step(&dir.path().join("etc/ssl/certs/ca-certificates.crt"));
        bundles.restore().unwrap();
    }
    // Without bundles nothing is made.
    let dir = tempfile::tempdir().unwrap();
    let process = Process::new(Arc::new(Tree::open(dir.path()).unwrap()), ["true"]);
    Bundles::trust(&process, CA).unwrap().restore().unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Mode and times that a step gave the bundle are the step's.
///
/// Rows: X08
#[test]
fn a_mode_that_a_step_sets_stays() {
    let (dir, process) = root(OTHER);
    let path = dir.path().join("etc/ssl/certs/ca-certificates.crt");
    let mut bundles = Bundles::trust(&process, CA).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, mode).unwrap();
    bundles.restore().unwrap();
    assert_eq!(bundle(&dir), OTHER);
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

/// Rows: X08
#[test]
fn a_root_that_is_not_written_is_shown_another_bundle() {
    let (dir, mut process) = root(OTHER);
    process.readonly_root = true;
    let bundles = Bundles::trust(&process, CA).unwrap();
    let [shown] = &bundles.shown[..] else {
        panic!("one bundle by several names");
    };
    assert_eq!(shown.target, "/etc/ssl/certs/ca-certificates.crt");
    assert!(shown.content.ends_with(END.as_bytes()));
    assert_eq!(bundle(&dir), OTHER);
}

/// Rows: X08
#[test]
fn a_bundle_that_is_no_bundle_by_its_size_is_refused() {
    let (dir, process) = root(OTHER);
    let path = dir.path().join("etc/ssl/certs/ca-certificates.crt");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(MOST_BYTES + 1).unwrap();
    let error = Bundles::trust(&process, CA).err().unwrap();
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "it is larger than 10 MiB");
}
