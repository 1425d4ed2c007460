//! Caches between kiln and BuildKit, both ways, through a real registry, a directory and the
//! image itself.

use std::fs;

use crate::harness::{BaseImage, Daemon, Docker, Place, Ran, Real};

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

/// Nothing had to be made again, and the cache was read without a complaint.
#[track_caller]
fn assert_hit(ran: &Ran, way: &Way) {
    assert_eq!(ran.made(), Vec::<String>::new(), "{}: {ran}", way.from);
    assert!(
        ran.stderr.contains("importing cache manifest from"),
        "{ran}"
    );
    assert!(!ran.stderr.contains("ERROR"), "{ran}");
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

/// Rows: C04, C05, R01, R02, R03, I45, K7, K8, K11
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
        let ran = place.build(&[
            "--cache-from",
            &way.from,
            "--network=none",
            "--output=type=local,dest=out",
        ]);
        let ran = ran.ok();
        assert_hit(&ran, &way);
        let all = fs::read_to_string(place.path("out/w/all")).expect("a file of the image");
        assert_eq!(all, "tool\nnone\ntwo\ntwo\n", "{}", way.from);
        forget(&place);
        docker.forget();
    }
    docker.stop();
}

/// Rows: C02, C03, R01, R02, R03, K7, K8, K11
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
        place
            .build(&[&["--network=none", "--cache-to", &*way.to], &push[..]].concat())
            .ok();
        let out = ["--cache-from", &*way.from, "--output=type=local,dest=out"];
        let ran = docker.build("default", &out).ok();
        assert_hit(&ran, &way);
        let all = fs::read_to_string(place.path("out/w/all")).expect("a file of the image");
        assert_eq!(all, "tool\nnone\ntwo\ntwo\n", "{}", way.from);
        forget(&place);
        docker.forget();
    }
    docker.stop();
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
    let address = daemon.address();
    let create = ["buildx", "create", "--name=k", "--driver=remote", &address];
    docker.run(&create).ok();
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
    docker
        .run(&["buildx", "prune", "--builder=k", "--all", "--force"])
        .ok();
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
    docker.run(&["buildx", "rm", "k"]).ok();
    daemon.stop();
    docker.stop();
    place.assert_nothing_left();
}
