//! Caches between kiln and BuildKit, both ways, through a real registry, a directory and the
//! image itself.

use std::fs;
use std::io::Write as _;

use oci::Digest;
use serde_json::Value;
use testkit::image::Blob;
use testkit::registry::{Effect, Fault};

use crate::harness::{BaseImage, Buildx, Daemon, Docker, Memory, Place, Ran, Real, json};

/// Stages, files of the context, a copy by link, a mount of another stage, metadata.
fn write(place: &Place) {
    place.write("ctx/one.txt", "one\n");
    place.write("ctx/dir/two.txt", "two\n");
    place.context(&format!(
        "FROM {base} AS tool\n\
         RUN mkdir /out && echo tool > /out/tool\n\
         COPY one.txt /out/\n\
         FROM {base} AS most\n\
         WORKDIR /w\n\
         ARG WORD=none\n\
         RUN echo $WORD > word\n\
         COPY --from=tool /out /out\n\
         COPY --link dir /linked\n\
         RUN --mount=type=bind,from=tool,source=/out,target=/mnt cat /mnt/one.txt > seen\n\
         FROM most\n\
         COPY dir/two.txt .\n\
         RUN cat /out/tool word two.txt /linked/two.txt > all\n\
         ENV A=b\n",
        base = BaseImage::name()
    ));
}

/// Every way a cache can be written, and how it is read again. `IMAGE` is where the image of
/// an inline cache is pushed, `CACHE` where any other lies.
const WAYS: &[(&str, &str)] = &[
    (
        "type=registry,ref=CACHE,mode=max",
        "type=registry,ref=CACHE",
    ),
    (
        "type=registry,ref=CACHE,mode=min",
        "type=registry,ref=CACHE",
    ),
    (
        "type=registry,ref=CACHE,mode=max,image-manifest=false",
        "CACHE",
    ),
    (
        "type=registry,ref=CACHE,mode=max,oci-mediatypes=false,image-manifest=false",
        "type=registry,ref=CACHE",
    ),
    (
        "type=registry,ref=CACHE,mode=max,compression=zstd,force-compression=true",
        "type=registry,ref=CACHE",
    ),
    (
        "type=registry,ref=CACHE,mode=max,compression=uncompressed,ignore-error=true",
        "type=registry,ref=CACHE",
    ),
    ("type=local,dest=folder,mode=max", "type=local,src=folder"),
    (
        "type=local,dest=folder2,mode=max,image-manifest=false,compression=zstd,compression-level=3",
        "type=local,src=folder2",
    ),
    ("type=inline", "type=registry,ref=IMAGE"),
];

struct Way {
    to: String,
    from: String,
    image: Option<String>,
}

impl Way {
    /// What a build is told that reads it again.
    fn read(&self) -> [&str; 3] {
        ["--cache-from", &self.from, "--output=type=local,dest=out"]
    }
}

fn ways(registry: &Real, team: &str) -> Vec<Way> {
    let ways = WAYS.iter().enumerate().map(|(number, (to, from))| {
        let cache = format!("{}/{team}/cache:{number}", registry.host());
        let image = format!("{}/{team}/app:{number}", registry.host());
        let put = |text: &str| text.replace("CACHE", &cache).replace("IMAGE", &image);
        let inline = to.starts_with("type=inline");
        Way {
            to: put(to),
            from: put(from),
            image: inline.then_some(image.clone()),
        }
    });
    ways.collect()
}

/// Nothing had to be made again, the cache was read without a complaint, and the result is
/// the right one.
#[track_caller]
fn assert_hit(place: &Place, ran: Ran, way: &Way) {
    let ran = ran.ok();
    let made = ran.made();
    assert!(made.is_empty(), "{}: {made:?} in {ran}", way.from);
    assert!(
        ran.stderr.contains("importing cache manifest from"),
        "{ran}"
    );
    assert!(!ran.stderr.contains("ERROR"), "{ran}");
    let all = fs::read_to_string(place.path("out/w/all")).expect("a file of the image");
    assert_eq!(all, "tool\nnone\ntwo\ntwo\n", "{}", way.from);
    fs::remove_dir_all(place.path("out")).expect("it is ours");
}

fn forget(place: &Place) {
    fs::remove_dir_all(place.path("state")).expect("our state");
}

fn pushed<'a>(image: &'a Option<String>, option: &'a str) -> Vec<&'a str> {
    match image {
        Some(image) => vec![option, "-t", image],
        None => Vec::new(),
    }
}

/// Rows: C04, C05, R01, R02, R03, I16, I45, K7, K8, K10, K11
#[test]
fn kiln_hits_what_buildkit_wrote() {
    let place = Place::new();
    write(&place);
    let registry = Real::start(&place);
    let Some(docker) = Docker::start(&place) else {
        return;
    };
    for way in ways(&registry, "buildkit") {
        let push = pushed(&way.image, "--push");
        docker
            .build("default", &[&["--cache-to", &*way.to], &push[..]].concat())
            .ok();
        let read = way.read();
        let ran = place.build(&[&["--network=none"], &read[..]].concat());
        assert_hit(&place, ran, &way);
        forget(&place);
        docker.forget();
    }
    docker.stop();
}

/// What BuildKit makes of a cache. Under load it now and then misses one that it hits when it
/// reads the same bytes again, so it may read three times; a fault in what was written stays.
fn buildkit_reads(docker: &Docker<'_>, way: &Way) -> Ran {
    for _ in 0..2 {
        let ran = docker.build("default", &way.read());
        if ran.code() == Some(0) && ran.made().is_empty() {
            return ran;
        }
        // Only who sees the test fail wants to know.
        let _ = writeln!(std::io::stderr(), "not all was hit: {ran}");
        docker.forget();
    }
    docker.build("default", &way.read())
}

/// Rows: C02, C03, R01, R02, R03, core:X38, K7, K8, K10, K11
#[test]
fn buildkit_hits_what_kiln_wrote() {
    let place = Place::new();
    write(&place);
    let registry = Real::start(&place);
    let Some(docker) = Docker::start(&place) else {
        return;
    };
    for way in ways(&registry, "kiln") {
        let push = pushed(&way.image, "--push");
        let written = place
            .build(&[&["--network=none", "--cache-to", &*way.to], &push[..]].concat())
            .ok();
        if way.image.is_some() {
            written.says(&["preparing layers for inline cache"]);
        }
        assert_hit(&place, buildkit_reads(&docker, &way), &way);
        forget(&place);
        docker.forget();
    }
    docker.stop();
}

/// The records of an inline cache name the layers as its image has them.
///
/// Rows: C02, R03
#[test]
fn an_inline_cache_fits_the_compression_of_its_image() {
    let place = Place::new();
    write(&place);
    let registry = Real::start(&place);
    for compression in ["uncompressed", "zstd"] {
        let image = format!("{}/inline/app:{compression}", registry.host());
        let output = format!(
            "type=image,name={image},push=true,compression={compression},force-compression=true"
        );
        let written = ["--network=none", "--cache-to=type=inline", "--output"];
        place.build(&[&written[..], &[&*output]].concat()).ok();
        forget(&place);
        let way = Way {
            to: "type=inline".to_owned(),
            from: format!("type=registry,ref={image}"),
            image: None,
        };
        let ran = place.build(&[&["--network=none"], &way.read()[..]].concat());
        assert_hit(&place, ran, &way);
        forget(&place);
    }
}

/// Rows: C02, C04, R01, R07, A01
#[test]
fn buildx_carries_caches_between_the_two() {
    let place = Place::new();
    write(&place);
    let registry = Real::start(&place);
    let Some(docker) = Docker::start(&place) else {
        return;
    };
    let daemon = Daemon::start(&place, "");
    let Some(buildx) = Buildx::with(&place, &daemon.address()) else {
        return;
    };
    let reference = |name: &str| format!("type=registry,ref={}/both:{name}", registry.host());
    // Two at once.
    let (first, second) = (
        format!("{},mode=max", reference("a")),
        "type=local,dest=both,mode=max",
    );
    docker
        .build("k", &["--cache-to", &first, "--cache-to", second])
        .ok();
    for from in [&*reference("a"), "type=local,src=both"] {
        let ran = docker.build("default", &["--cache-from", from]).ok();
        assert_eq!(ran.made(), Vec::<String>::new(), "{from}: {ran}");
        docker.forget();
    }
    // One that is not there does not keep another one from being used.
    let to = format!("{},mode=max", reference("b"));
    docker
        .build("default", &["--cache-to", &to, "--build-arg=WORD=b"])
        .ok();
    buildx.run(&["prune", "--all", "--force"]).ok();
    let (none, some) = (reference("none"), reference("b"));
    let args = [
        "--cache-from",
        &none,
        "--cache-from",
        &some,
        "--build-arg=WORD=b",
    ];
    let ran = docker.build("k", &args).ok();
    assert_eq!(ran.made(), Vec::<String>::new(), "{ran}");
    assert!(ran.stderr.contains("ERROR"), "{ran}");
    buildx.run(&["rm", "k"]).ok();
    daemon.stop();
    docker.stop();
    place.assert_nothing_left();
}

/// A registry with a cache of two steps on the base image.
struct Cached {
    registry: Memory,
    place: Place,
    from: String,
    to: String,
}

impl Cached {
    fn new() -> Cached {
        let (registry, place) = (Memory::start(), Place::new());
        BaseImage::put(&registry, "base", "1");
        place.write("ctx/file", "file\n");
        place.context(&format!(
            "FROM {}/base:1\nRUN echo one > /one\nCOPY file /\nRUN cat /one /file\n",
            registry.host()
        ));
        let from = format!("type=registry,ref={}/cache:1", registry.host());
        let to = format!("{from},mode=max");
        place.build(&["--cache-to", &to]).ok();
        forget(&place);
        Cached {
            registry,
            place,
            from,
            to,
        }
    }

    fn import(&self) -> Ran {
        let ran = self.place.build(&["--cache-from", &self.from]).ok();
        forget(&self.place);
        ran
    }

    fn manifest(&self) -> Value {
        let (_, bytes) = self.registry.manifest("cache", "1").expect("a cache");
        json(&bytes)
    }

    /// The layers of the steps, bottom first. The manifest has them in another order.
    fn own_layers(&self) -> Vec<Digest> {
        let digest = |value: &Value| value.as_str().expect("text").parse().expect("a digest");
        let config = digest(&self.manifest()["config"]["digest"]);
        let config = self.registry.blob("cache", config).expect("a config");
        let config = json(&config);
        let layers = config["layers"].as_array().expect("layers");
        let above = |parent: i64| {
            let is_above = |layer: &Value| layer["parent"].as_i64().unwrap_or(0) == parent;
            let at = layers.iter().position(is_above)?;
            Some((
                i64::try_from(at).expect("a few"),
                digest(&layers[at]["blob"]),
            ))
        };
        // The first one is the base.
        let (base, _) = above(-1).expect("a base");
        let chain = std::iter::successors(above(base), |(number, _)| above(*number));
        chain.map(|(_, digest)| digest).collect()
    }

    /// Another manifest, under another tag.
    fn put(&self, tag: &str, manifest: &Value) {
        let bytes = serde_json::to_vec(manifest).expect("JSON");
        let blob = Blob::new(oci::media_type::OCI_MANIFEST, bytes);
        self.registry.add_manifest("cache", tag, &blob);
    }
}

/// What does not concern the import's own step goes on as if there were no cache.
///
/// Rows: I6, I7, I46, C08
#[test]
fn a_cache_that_cannot_be_read_is_told_and_is_no_failure() {
    let cached = Cached::new();
    assert_eq!(cached.import().made(), Vec::<String>::new());
    let config = cached.manifest()["config"]["digest"].to_string();
    let config = config.trim_matches('"').to_owned();
    let faults = [
        Fault::status(404).on("/cache/manifests/"),
        Fault::status(401).on("/cache/manifests/"),
        Fault::status(500).on("/cache/manifests/"),
        Fault::new(Effect::Flip)
            .method("GET")
            .on("/cache/manifests/"),
        Fault::new(Effect::Drop).on("/cache/manifests/"),
        Fault::status(404).on(&config),
        Fault::new(Effect::Flip).method("GET").on(&config),
        Fault::new(Effect::Short(3)).method("GET").on(&config),
    ];
    for fault in faults {
        let said = format!("{fault:?}");
        cached.registry.fault(fault);
        let ran = cached.import();
        assert_eq!(ran.made().len(), 3, "{said}: {ran}");
        let told = ran.stderr.lines().filter(|line| line.contains("ERROR:"));
        assert_eq!(told.count(), 1, "{said}: {ran}");
        cached.registry.behave();
    }
    cached.place.assert_nothing_left();
}

/// Documents somebody made to do harm, or broke: each is refused with its own words.
///
/// Rows: I4, I5, I9, I13, I26, I27, I29, I46
#[test]
fn caches_that_make_no_sense_are_refused_in_words() {
    let cached = Cached::new();
    let with_config = |tag: &str, config: String| {
        let config = Blob::new(oci::media_type::CACHE_CONFIG, config.into_bytes());
        cached.registry.add_blob("cache", &config);
        let mut manifest = cached.manifest();
        manifest["config"] = serde_json::to_value(&config.descriptor).expect("JSON");
        cached.put(tag, &manifest);
    };
    let record = |link: usize| {
        let digest = Digest::of("record");
        format!(r#"{{"digest":"{digest}","inputs":[[{{"link":{link}}}]]}}"#)
    };
    let cycle = format!(r#"{{"records":[{},{}]}}"#, record(1), record(0));
    with_config("cycle", cycle);
    with_config("outside", format!(r#"{{"records":[{}]}}"#, record(9)));
    with_config("text", "this is no JSON".to_owned());
    with_config("md5", r#"{"records":[{"digest":"md5:0"}]}"#.to_owned());
    let mut both = cached.manifest();
    both["manifests"] = both["layers"].clone();
    cached.put("both", &both);
    let mut huge = cached.manifest();
    huge["config"]["size"] = (1_u64 << 40).into();
    cached.put("huge", &huge);
    for (tag, says) in [
        ("cycle", "invalid looping record"),
        ("outside", "invalid record ID: 9"),
        ("text", "reading the cache config"),
        ("md5", "failed to add record 0"),
        ("both", "invalid ambiguous manifest and manifest list"),
        ("huge", "is too large (1099511627776 > "),
    ] {
        let from = format!("{}/cache:{tag}", cached.registry.host());
        let ran = cached.place.build(&["--cache-from", &from]).ok();
        assert!(ran.stderr.contains(says), "{tag}: {ran}");
        assert_eq!(ran.made().len(), 3, "{tag}: {ran}");
        forget(&cached.place);
    }
    cached.place.assert_nothing_left();
}

/// A step is made again, and says so, when a layer of its result is gone: its own, or one of
/// those below. The others are found.
///
/// Rows: I41, X3, K11
#[test]
fn layers_that_are_missing_cost_their_steps_and_no_others() {
    let cached = Cached::new();
    let own = cached.own_layers();
    assert_eq!(own.len(), 3, "one for each step");
    let steps = ["RUN echo one", "COPY file", "RUN cat"];
    for (from, digest) in own.iter().enumerate().rev() {
        cached.registry.remove_blob("cache", *digest);
        let ran = cached.import();
        let mut made = ran.made();
        // `[2/4]` comes before `[3/4]`.
        made.sort();
        assert_eq!(made.len(), steps.len() - from, "{ran}");
        for (made, step) in made.iter().zip(&steps[from..]) {
            assert!(made.contains(step), "{made} is not {step}: {ran}");
        }
        assert!(
            ran.stderr.contains("a cached result cannot be loaded: "),
            "{ran}"
        );
        let why = ran.step(steps[from]).why.expect("a reason");
        assert_eq!(why, "its cached result is not there any more");
    }
    cached.place.assert_nothing_left();
}

/// Rows: core:X10, core:X14, core:X15, X37, X9, K3
#[test]
fn an_export_that_fails_fails_the_build_unless_told_otherwise() {
    let cached = Cached::new();
    for (fault, says) in [
        (
            Fault::status(403).method("POST").on("/fresh/"),
            "error writing layer blob",
        ),
        (
            Fault::status(403).method("PUT").on("/fresh/manifests/"),
            "error writing manifest blob",
        ),
    ] {
        cached.registry.fault(fault);
        let fresh = cached.to.replace("/cache:1", "/fresh:1");
        let ran = cached.place.build(&["--cache-to", &fresh]).fails();
        ran.says(&["exporting cache to registry", says, "told to answer 403"]);
        let ignoring = format!("{fresh},ignore-error=true");
        let ran = cached.place.build(&["--cache-to", &ignoring]).ok();
        assert!(ran.stderr.contains(says), "{ran}");
        assert!(cached.registry.manifest("fresh", "1").is_none());
        cached.registry.behave();
    }
    // What stumbles and gets up again is overcome.
    cached
        .registry
        .fault(Fault::status(503).method("POST").on("/fresh/").times(1));
    let fresh = cached.to.replace("/cache:1", "/fresh:1");
    cached.place.build(&["--cache-to", &fresh]).ok();
    assert!(cached.registry.manifest("fresh", "1").is_some());
    cached.place.assert_nothing_left();
}

/// Rows: I10, I43, I49, core:X2, core:X16, core:X9, core:X28, core:X36, core:X41, C04, K6, K9
#[test]
fn nothing_is_moved_that_need_not_be() {
    let cached = Cached::new();
    let manifest = cached.manifest();
    let layers = manifest["layers"].as_array().expect("layers").len();
    cached.registry.forget();
    // A hit nobody looks into stays where it is.
    let ran = cached.place.build(&["--cache-from", &cached.from]).ok();
    assert_eq!(ran.made(), Vec::<String>::new(), "{ran}");
    let fetched = cached.registry.count("GET", "/cache/blobs/");
    assert_eq!(fetched, 1, "the config, and none of {layers} layers");
    // What was hit is ours: it is found without the cache.
    let ran = cached.place.build(&[]).ok();
    assert_eq!(ran.made(), Vec::<String>::new(), "{ran}");
    // The same cache goes out again without a byte of its layers.
    cached.registry.forget();
    let args = [
        "--cache-from",
        &*cached.from,
        "--cache-to",
        &*cached.to,
        "--metadata-file=metadata.json",
    ];
    let ran = cached.place.build(&args).ok();
    let metadata = fs::read(cached.place.path("metadata.json")).expect("metadata");
    let (_, bytes) = cached.registry.manifest("cache", "1").expect("a cache");
    // A text, as buildx writes it: only what is base64 is opened.
    let metadata = json(&metadata);
    let written = metadata["cache.manifest"].as_str().expect("the cache");
    let written = json(written.as_bytes());
    assert_eq!(written["digest"], Digest::of(bytes).to_string());
    let said = [
        "inferred cache manifest type: application/vnd.oci.image.manifest.v1+json",
        "preparing build cache for export",
        "sending cache export",
        "writing layer sha256:",
        "writing config sha256:",
        "writing cache image manifest sha256:",
    ];
    let ran = ran.says(&said);
    assert_eq!(
        cached.registry.count("POST", "/cache/blobs/uploads/"),
        0,
        "{ran}"
    );
    assert_eq!(cached.registry.count("GET", "/cache/blobs/"), 1, "{ran}");
    assert_eq!(cached.manifest(), manifest, "it is the same cache");
    // In another repository of the registry the layers are only named again.
    let other = cached.to.replace("/cache:1", "/other:1");
    cached.registry.forget();
    let ran = cached.place.build(&["--cache-to", &other]).ok();
    let uploads =
        cached.registry.count("PATCH", "/other/") + cached.registry.count("PUT", "/other/blobs/");
    assert!(uploads <= 2, "{uploads} uploads: {ran}");
    cached.place.assert_nothing_left();
}

/// Rows: R04, R05, R06
#[test]
fn caches_elsewhere_are_refused_in_words() {
    let place = Place::new();
    place.context("FROM scratch\nCOPY Dockerfile /\n");
    for kind in ["gha", "s3", "azblob"] {
        let says = format!("cache type {kind} is not supported yet");
        let spec = format!("type={kind},bucket=b,region=r,account_url=u,url=u,token=t");
        place.build(&["--cache-to", &spec]).fails().says(&[&says]);
        // A cache one cannot read is none.
        place.build(&["--cache-from", &spec]).ok().says(&[&says]);
    }
    place.assert_nothing_left();
}
