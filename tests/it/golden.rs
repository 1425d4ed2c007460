//! The golden Dockerfiles, whole: what BuildKit made of them we make too, to the byte.
//!
//! `tests/golden/README.md` says what lies there and which of it is stable.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use serde_json::Value;

use crate::harness::{BaseImage, Daemon, Layout, Place, entries, golden, json, unpacked};

/// Makes a test of each folder.
macro_rules! golden {
    ($($test:ident $folder:literal;)*) => {
        $(#[test] fn $test() { check($folder); })*
        const ALL: &[&str] = &[$($folder),*];
    };
}

golden! {
    a01_run_shell "a01-run-shell";
    a02_run_exec "a02-run-exec";
    a03_run_env_dir_user "a03-run-env-dir-user";
    b01_copy_file "b01-copy-file";
    b02_copy_dirs_wild "b02-copy-dirs-wild";
    b03_copy_owner_mode "b03-copy-owner-mode";
    b04_copy_stage "b04-copy-stage";
    b05_copy_link "b05-copy-link";
    b06_copy_parents_exclude "b06-copy-parents-exclude";
    b07_add "b07-add";
    b08_heredoc_copy "b08-heredoc-copy";
    c01_mount_cache "c01-mount-cache";
    c02_mount_bind "c02-mount-bind";
    c03_mount_tmpfs_secret_ssh "c03-mount-tmpfs-secret-ssh";
    c04_network_hostname "c04-network-hostname";
    d01_heredoc_run "d01-heredoc-run";
    d02_shell "d02-shell";
    d03_args "d03-args";
    d04_onbuild "d04-onbuild";
    d05_meta "d05-meta";
    d06_diamond "d06-diamond";
    d07_platform_args "d07-platform-args";
    d08_workdirs "d08-workdirs";
    e01_odd_files "e01-odd-files";
}

/// Its layer has the environment of the tracing BuildKit was run with.
const TRACED: &str = "a03-run-env-dir-user";
/// No step of it makes files, so there is no cache to export.
const WITHOUT_CACHE: &str = "d05-meta";

#[test]
fn every_golden_folder_has_its_test() {
    let mut folders = BTreeSet::new();
    for entry in fs::read_dir(golden()).expect("golden data").flatten() {
        if entry.path().join("manifest.json").exists() {
            folders.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    let tests: BTreeSet<String> = ALL.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(folders, tests);
}

/// Builds one, and compares the image and the exported cache.
///
/// Rows: F20, F22, F24, F25, F26, F27, F28, F29, F32, E04, E06, P07, R02, C02, C09, L06, L12
#[track_caller]
fn check(name: &str) {
    let found = differences(name);
    assert!(found.is_empty(), "{name}:\n{}", found.join("\n"));
}

fn differences(name: &str) -> Vec<String> {
    let place = Place::new();
    let folder = golden().join(name);
    copy(&golden().join("ctx"), &place.path("ctx"));
    let daemon = Daemon::start(&place, &BaseImage::mirror());
    let (image, cache) = (place.path("image.tar"), place.path("cache"));
    let output = format!(
        "type=oci,dest={},compression=uncompressed,rewrite-timestamp=true,oci-mediatypes=true",
        image.display()
    );
    let cache_to = format!("type=local,mode=max,dest={}", cache.display());
    let dockerfile = folder.join("Dockerfile");
    let ran = daemon.build(&[
        "--build-arg=SOURCE_DATE_EPOCH=1700000000",
        "--provenance=false",
        "-f",
        dockerfile.to_str().expect("text"),
        "-o",
        &output,
        "--cache-to",
        &cache_to,
    ]);
    if ran.code() != Some(0) {
        return vec![format!("it does not build: {ran}\n{}", daemon.log())];
    }
    let image = Layout::of_tar(&fs::read(image).expect("the image"));
    let mut found = Vec::new();
    if name == TRACED {
        compare_without_layers(&folder, &image, &mut found);
    } else {
        compare_layers(&folder, &image, &mut found);
        same(&folder, "config.json", image.config(), &mut found);
        same(&folder, "manifest.json", image.manifest(), &mut found);
    }
    if name != WITHOUT_CACHE {
        compare_cache(&folder, &cache, &mut found);
    }
    daemon.stop();
    place.assert_nothing_left();
    found
}

fn same(folder: &Path, file: &str, ours: &[u8], found: &mut Vec<String>) {
    let theirs = fs::read(folder.join(file)).expect("golden data");
    if ours != theirs {
        let (ours, theirs) = (
            String::from_utf8_lossy(ours),
            String::from_utf8_lossy(&theirs),
        );
        found.push(format!("{file}\n  ours:   {ours}\n  theirs: {theirs}"));
    }
}

/// Each layer above the base: its digest, and if that differs, where.
fn compare_layers(folder: &Path, image: &Layout, found: &mut Vec<String>) {
    let theirs = json(&fs::read(folder.join("layers.json")).expect("golden data"));
    let theirs = theirs.as_array().expect("a list");
    let ours = image.layers();
    if ours.len() != theirs.len() {
        found.push(format!("{} layers, theirs {}", ours.len(), theirs.len()));
    }
    for (number, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        let Some(expected) = theirs["diff_id"].as_str() else {
            continue;
        };
        if oci::Digest::of(ours).to_string() == expected {
            continue;
        }
        let at = format!("layer {number}");
        match fs::read(folder.join(format!("layer-{number}.tar.gz"))) {
            Ok(theirs) => found.push(tar_difference(&at, ours, &unpacked(&theirs))),
            Err(_) => found.push(format!(
                "{at} is not {expected}:\n{}",
                entries(ours).join("\n")
            )),
        }
    }
}

fn tar_difference(at: &str, ours: &[u8], theirs: &[u8]) -> String {
    let (our_entries, their_entries) = (entries(ours), entries(theirs));
    let mut text = format!("{at}: {} bytes, theirs {}", ours.len(), theirs.len());
    for line in their_entries
        .iter()
        .filter(|line| !our_entries.contains(line))
    {
        text.push_str(&format!("\n  - {line}"));
    }
    for line in our_entries
        .iter()
        .filter(|line| !their_entries.contains(line))
    {
        text.push_str(&format!("\n  + {line}"));
    }
    if our_entries == their_entries {
        let at = ours.iter().zip(theirs).position(|(a, b)| a != b);
        text.push_str(&format!("\n  equal entries, but not the bytes from {at:?}"));
    }
    text
}

/// All but what depends on the layers' bytes.
fn compare_without_layers(folder: &Path, image: &Layout, found: &mut Vec<String>) {
    let plain = |bytes: &[u8]| {
        let mut config = json(bytes);
        config["rootfs"]["diff_ids"] = Value::Null;
        config
    };
    let ours = plain(image.config());
    let theirs = plain(&fs::read(folder.join("config.json")).expect("golden data"));
    if ours != theirs {
        found.push(format!("config\n  ours:   {ours}\n  theirs: {theirs}"));
    }
}

/// The records of the cache, each written out with all it leads to.
fn compare_cache(folder: &Path, cache: &Path, found: &mut Vec<String>) {
    let theirs = json(&fs::read(folder.join("cache.json")).expect("golden data"));
    let theirs = records(&theirs["config"]);
    let ours = records(&json(Layout::of_folder(cache).config()));
    for record in theirs.difference(&ours) {
        found.push(format!("cache: missing {record}"));
    }
    for record in ours.difference(&theirs) {
        found.push(format!("cache: too much {record}"));
    }
}

fn records(config: &Value) -> BTreeSet<String> {
    let records = config["records"].as_array().expect("records");
    (0..records.len())
        .map(|number| record(config, number))
        .collect()
}

/// `digest(layers deep){input: selector>record, …}`
fn record(config: &Value, number: usize) -> String {
    let this = &config["records"][number];
    let inputs = this["inputs"].as_array().into_iter().flatten();
    let inputs = inputs.map(|links| {
        let links = links.as_array().into_iter().flatten().map(|link| {
            let to = usize::try_from(link["link"].as_u64().unwrap_or(0)).expect("an index");
            let selector = link["selector"].as_str().unwrap_or("");
            format!("{}>{}", short(selector), record(config, to))
        });
        links
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
            .join(" or ")
    });
    let inputs = inputs.collect::<Vec<_>>().join("; ");
    let results = this["layers"].as_array().into_iter().flatten();
    let depths: Vec<String> = results
        .map(|result| depth(config, result["layer"].as_i64().unwrap_or(0)).to_string())
        .collect();
    let chains = this["chains"].as_array().map_or(0, Vec::len);
    let chains = if chains > 0 {
        format!("+{chains}")
    } else {
        String::new()
    };
    let digest = short(this["digest"].as_str().unwrap_or(""));
    format!("{digest}({}{chains}){{{inputs}}}", depths.join(","))
}

/// How many layers a result has.
fn depth(config: &Value, layer: i64) -> usize {
    let Ok(number) = usize::try_from(layer) else {
        return 0;
    };
    // A number that is not there is 0; -1 says "none".
    let parent = config["layers"][number]["parent"].as_i64().unwrap_or(0);
    1 + depth(config, parent)
}

/// Enough of a digest to tell it from others.
fn short(digest: &str) -> &str {
    digest.get(7..19).unwrap_or(digest)
}

/// Copies the context with the modes and times it had.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else if from.ends_with("web/conf") {
            // A symlink when BuildKit saw it; kept as a file with its target in it.
            let target = fs::read_to_string(&from).expect("a file");
            std::os::unix::fs::symlink(target, &to).expect("a symlink");
            set_time(&to);
        } else {
            let mut bytes = Vec::new();
            let mut file = File::open(&from).expect("a file");
            file.read_to_end(&mut bytes).expect("its bytes");
            fs::write(&to, bytes).expect("a file");
            let program = file.metadata().expect("it is there").permissions().mode() & 0o111 != 0;
            seal(&to, if program { 0o755 } else { 0o644 });
        }
    }
    seal(to, 0o755);
}

fn seal(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    set_time(path);
}

fn set_time(path: &Path) {
    let time = Timespec {
        tv_sec: 1_699_999_000,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("it is ours");
}
