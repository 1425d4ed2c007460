//! Registries that refuse, break off, lie, or ask who one is.

use testkit::image::Image;
use testkit::registry::{Effect, Fault, Login};
use testkit::tar::Entry;

use crate::harness::{BaseImage, Memory, Place, Ran, mirror};

/// A registry with the base image as `base:1`, and a place with a Dockerfile that runs a step on it.
fn scene() -> (Memory, Place) {
    let (registry, place) = (Memory::start(), Place::new());
    BaseImage::put(&registry, "base", "1");
    place.context(&format!(
        "FROM {}/base:1\nRUN echo ran > /ran\n",
        registry.host()
    ));
    (registry, place)
}

/// Misbehaves like this for ever: the build fails with these words; then behaves: it builds.
#[track_caller]
fn fails_until_it_behaves(fault: Fault, words: &[&str]) -> Ran {
    let (registry, place) = scene();
    registry.fault(fault);
    let ran = place.build(&[]).fails().says(words).says(&["Dockerfile:"]);
    place.assert_nothing_left();
    registry.behave();
    place.build(&[]).ok();
    place.assert_nothing_left();
    ran
}

/// Misbehaves like this a few times: the build does not mind.
#[track_caller]
fn is_overcome(fault: Fault) {
    let (registry, place) = scene();
    registry.fault(fault);
    place.build(&[]).ok();
    place.assert_nothing_left();
}

/// Rows: S01, S08
#[test]
fn a_registry_out_of_reach_is_named() {
    let place = Place::new();
    place.context("FROM 127.0.0.1:1/app:1\nRUN true\n");
    place
        .build(&[])
        .fails()
        .says(&["127.0.0.1:1", "Dockerfile:1", "refused"]);
    place.assert_nothing_left();
}

/// Rows: S01
#[test]
fn an_image_that_is_not_there_is_named() {
    fails_until_it_behaves(Fault::status(404).on("/manifests/"), &["base:1", "404"]);
}

/// Rows: S11
#[test]
fn a_registry_that_refuses_says_who_may_come_in() {
    fails_until_it_behaves(Fault::status(401), &["401"]);
    fails_until_it_behaves(Fault::status(403), &["403"]);
}

/// Rows: S08
#[test]
fn too_many_requests_and_server_errors_are_overcome_or_told() {
    is_overcome(Fault::too_many(1).times(1));
    is_overcome(Fault::status(503).on("/blobs/").times(2));
    fails_until_it_behaves(Fault::status(500).on("/blobs/"), &["500"]);
    fails_until_it_behaves(Fault::too_many(1), &["429"]);
}

/// Rows: S08, C05
#[test]
fn a_broken_blob_is_resumed_and_one_that_stays_broken_told() {
    let cut = || {
        Fault::new(Effect::Truncate(100_000))
            .method("GET")
            .on("/blobs/")
    };
    is_overcome(cut().times(2));
    is_overcome(Fault::new(Effect::Drop).on("/blobs/").times(2));
    for bytes in [0, 100] {
        let short = Fault::new(Effect::Short(bytes));
        fails_until_it_behaves(short.method("GET").on("/blobs/"), &["sha256:"]);
    }
}

/// Rows: S01, C05
#[test]
fn bytes_that_are_not_those_of_the_digest_are_never_used() {
    fails_until_it_behaves(
        Fault::new(Effect::Flip).method("GET").on("/blobs/"),
        &["sha256:"],
    );
    fails_until_it_behaves(
        Fault::new(Effect::Flip).method("GET").on("/manifests/"),
        &["base"],
    );
}

/// Rows: S11, N06
#[test]
fn passwords_come_from_dockers_settings_for_pull_and_push() {
    for login in [
        Login::private_token(),
        Login::Basic {
            username: "u".into(),
            password: "p".into(),
        },
    ] {
        let (registry, place) = scene();
        registry.require(login);
        let image = format!("{}/app:1", registry.host());
        place.build(&["--push", "-t", &image]).fails();
        // u:p
        let settings = format!(r#"{{"auths":{{"{}":{{"auth":"dTpw"}}}}}}"#, registry.host());
        place.write("docker/config.json", settings);
        place.build(&["--push", "-t", &image]).ok();
        assert!(registry.manifest("app", "1").is_some());
        place.assert_nothing_left();
    }
}

/// Rows: S01, E02, E03
#[test]
fn layers_no_step_reads_are_not_fetched_and_known_ones_not_pushed() {
    let (registry, place) = scene();
    let image = Image::seeded(7, 3, 5, 10_000);
    registry.add_image("many", "1", &image);
    place.context(&format!(
        "FROM {0}/many:1 AS unread\nFROM {0}/many:1\nENV a=1\nLABEL b=2\n",
        registry.host()
    ));
    let name = format!("{}/derived:1", registry.host());
    place.build(&["--push", "-t", &name]).ok();
    for layer in &image.layers {
        let digest = layer.descriptor.digest.to_string();
        assert_eq!(registry.count("GET", &digest), 0, "{digest} was fetched");
        assert!(registry.blob("derived", layer.descriptor.digest).is_some());
    }
    registry.forget();
    place.build(&["--push", "-t", &name]).ok();
    assert_eq!(
        registry.count("POST", "/uploads"),
        0,
        "everything was there"
    );
    place.assert_nothing_left();
}

/// The person sees what is fetched at `FROM`, though a later step is the first to read it.
///
/// Rows: B39, P6
#[test]
fn pulling_is_shown_at_the_image_it_belongs_to() {
    let (registry, place) = scene();
    let ran = place.build(&[]).ok();
    let (_, manifest) = registry.manifest("base", "1").expect("it is there");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("a manifest");
    let layer = manifest["layers"][0]["digest"].as_str().expect("a digest");
    let step_of = |words: &str| {
        let line = ran.stderr.lines().find(|line| line.contains(words));
        let line = line.unwrap_or_else(|| panic!("no {words}: {ran}"));
        line.split(' ').next().expect("a number").to_owned()
    };
    assert_eq!(step_of(&format!("extracting {layer}")), step_of("] FROM "));
    place.assert_nothing_left();
}

/// Layers of people who mean harm.
///
/// Rows: S01, X02
#[test]
fn hostile_layers_touch_nothing_outside() {
    let place = Place::new();
    let outside = place.path("outside");
    std::fs::create_dir(&outside).expect("a folder");
    place.write("outside/victim", "untouched");
    let up = "../".repeat(30);
    let path = outside.to_str().expect("text").to_owned();
    let layers: Vec<(&str, Vec<Entry>)> = vec![
        ("dots", vec![Entry::file(format!("{up}{path}/evil"), "x")]),
        ("absolute", vec![Entry::file(format!("{path}/evil"), "x")]),
        (
            "symlink",
            vec![
                Entry::symlink("door", &path),
                Entry::file("door/evil", "x"),
                Entry::file("door/victim", "x"),
            ],
        ),
        (
            "dotted-symlink",
            vec![
                Entry::symlink("door", format!("{up}{path}")),
                Entry::folder("door/evil"),
            ],
        ),
        (
            "hardlink",
            vec![
                Entry::hard_link("bin/victim", format!("{up}{path}/victim")),
                Entry::file("bin/victim", "x"),
            ],
        ),
        (
            "hardlink-symlink",
            vec![
                Entry::symlink("door", &path),
                Entry::hard_link("stolen", "door/victim"),
                Entry::file("stolen", "x"),
            ],
        ),
        (
            "whiteout",
            vec![
                Entry::symlink("door", &path),
                Entry::file("door/.wh.victim", ""),
                Entry::file(format!("{up}{path}/.wh.victim"), ""),
            ],
        ),
        (
            "opaque",
            vec![
                Entry::symlink("door", &path),
                Entry::file("door/.wh..wh..opq", ""),
            ],
        ),
        (
            "device",
            vec![
                Entry::device("sda", b'4', 8, 0),
                Entry::device("null", b'3', 1, 3),
            ],
        ),
        (
            "huge",
            vec![Entry {
                claimed_size: Some(10 << 30),
                ..Entry::file("huge", "little")
            }],
        ),
        (
            "sparse",
            vec![Entry::file("s", "x").pax("GNU.sparse.size", (10u64 << 30).to_string())],
        ),
    ];
    let registry = Memory::start();
    for (name, entries) in layers {
        let image = Image::of(vec![entries], "amd64");
        registry.add_image(name, "1", &image);
        // A step that looks at the image has it unpacked.
        place.context(&format!(
            "FROM {}/{name}:1 AS hostile\nFROM {}\nCOPY --from=hostile / /copied\n",
            registry.host(),
            BaseImage::name()
        ));
        let ran = place.build(&[]);
        assert!(ran.code().is_some(), "{name}: {ran}");
        assert!(!ran.stderr.contains("panicked"), "{name}: {ran}");
        if matches!(name, "huge") {
            assert_ne!(ran.code(), Some(0), "{name}: {ran}");
        }
        let names: Vec<_> = std::fs::read_dir(&outside)
            .expect("it is there")
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert_eq!(names, ["victim"], "{name}");
        let victim = std::fs::read_to_string(place.path("outside/victim")).expect("it is there");
        assert_eq!(victim, "untouched", "{name}");
    }
    place.assert_nothing_left();
}

/// A build without a daemon takes a daemon's settings.
///
/// Rows: D15, D09
#[test]
fn a_mirror_comes_from_the_settings_of_a_build_too() {
    let registry = Memory::start();
    BaseImage::put(&registry, "library/base", "1");
    let place = Place::new();
    place.context("FROM base:1\nRUN true\n");
    place.write("kiln.toml", mirror(&registry.host()));
    place.build(&["--config=kiln.toml"]).ok();
    assert!(registry.count("GET", "/library/base/") > 0);
    place.assert_nothing_left();
}

/// An image pushed as of an older release has Docker's documents, and a version nobody knows is
/// refused.
///
/// Rows: A17, E08
#[test]
fn an_image_can_be_pushed_as_it_was_in_older_releases() {
    let (registry, place) = scene();
    let name = format!("{}/app:1", registry.host());
    let build = |version: &str| {
        let args = ["--push", "-t", &name, "--provenance=false"];
        let version = format!("--compatibility-version={version}");
        place.build(&[&args[..], &[&version]].concat())
    };
    for (version, documents) in [
        ("20", "application/vnd.docker.distribution.manifest.v2+json"),
        ("30", "application/vnd.oci.image.manifest.v1+json"),
    ] {
        build(version).ok();
        let (media_type, _) = registry.manifest("app", "1").expect("it was pushed");
        assert_eq!(media_type, documents, "{version}");
    }
    build("25")
        .fails()
        .says(&["unsupported compatibility-version 25"]);
    place.assert_nothing_left();
}
