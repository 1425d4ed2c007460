//! `docker buildx` with kiln's daemon behind its remote driver.

use std::fs;

use crate::harness::{BaseImage, Buildx, Daemon, Layout, Peers, Place, Ran, Real, json};

/// A daemon and a buildx that knows it as `k`.
pub(crate) struct Scene<'a> {
    place: &'a Place,
    buildx: Buildx<'a>,
    daemon: Daemon<'a>,
}

impl<'a> Scene<'a> {
    pub(crate) fn new(place: &'a Place) -> Option<Scene<'a>> {
        Peers::get()?;
        let daemon = Daemon::start(place, "insecure-entitlements = [\"network.host\"]\n");
        let buildx = Buildx::with(place, &daemon.address())?;
        Some(Scene {
            place,
            buildx,
            daemon,
        })
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.buildx.run(args)
    }

    /// `docker buildx build --progress=plain ARGS ctx`
    pub(crate) fn build(&self, args: &[&str]) -> Ran {
        self.run(&[&["build", "--progress=plain"], args, &["ctx"]].concat())
    }

    #[track_caller]
    pub(crate) fn stop(self) {
        self.run(&["rm", "k"]).ok();
        self.daemon.stop();
        self.place.assert_nothing_left();
    }
}

fn write(place: &Place) {
    place.write("ctx/file.txt", "file\n");
    place.context(&format!(
        "# syntax is the daemon's own\n\
         ARG WORD=none\n\
         FROM {} AS one\n\
         ARG WORD\n\
         RUN echo word $WORD > /word\n\
         FROM one AS two\n\
         COPY file.txt /file\n\
         RUN cat /file /word > /both\n\
         LABEL made=here\n",
        BaseImage::name()
    ));
}

/// Rows: A01, A03, A04, A05, A07, E04, E09, N01, N03, N05, B06
#[test]
fn it_builds_again_from_cache_and_says_what_it_made() {
    let place = Place::new();
    write(&place);
    let Some(scene) = Scene::new(&place) else {
        return;
    };
    let args = [
        "--build-arg=WORD=yes",
        "--output=type=oci,dest=image.tar",
        "--metadata-file=metadata.json",
        "--iidfile=iid",
        "--provenance=false",
    ];
    let first = scene.build(&args).ok();
    assert_eq!(first.made().len(), 3, "{first}");
    let image = Layout::of_tar(&fs::read(place.path("image.tar")).expect("the image"));
    assert_eq!(image.image_files()["both"], "file\nword yes\n");
    let metadata = json(&fs::read(place.path("metadata.json")).expect("metadata"));
    let config = oci::Digest::of(image.config()).to_string();
    let manifest = oci::Digest::of(image.manifest()).to_string();
    assert_eq!(metadata["containerimage.digest"], manifest);
    assert_eq!(metadata["containerimage.config.digest"], config);
    let iid = fs::read_to_string(place.path("iid")).expect("the id");
    assert!(iid == config || iid == manifest, "{iid}");
    let second = scene.build(&args).ok();
    assert_eq!(second.made(), Vec::<String>::new(), "{second}");
    scene.stop();
}

/// Rows: F01, F20, F21, E05, E04, F07, F33
#[test]
fn it_takes_targets_and_every_kind_of_output() {
    let place = Place::new();
    write(&place);
    let Some(scene) = Scene::new(&place) else {
        return;
    };
    scene
        .build(&["--target=one", "--output=type=local,dest=local"])
        .ok();
    let read = |path: &str| fs::read_to_string(place.path(path)).expect(path);
    assert_eq!(read("local/word"), "word none\n");
    assert!(!place.path("local/file").exists());
    scene.build(&["--output=type=tar,dest=files.tar"]).ok();
    let tar = fs::read(place.path("files.tar")).expect("the tar");
    assert!(
        crate::harness::entries(&tar)
            .iter()
            .any(|line| line.starts_with("both "))
    );
    scene.build(&["--output=type=docker,dest=docker.tar"]).ok();
    let tar = fs::read(place.path("docker.tar")).expect("the tar");
    let names = crate::harness::entries(&tar);
    assert!(
        names.iter().any(|line| line.starts_with("manifest.json ")),
        "{names:?}"
    );
    scene
        .build(&["--output=type=oci,dest=folder,tar=false"])
        .ok();
    let folder = Layout::of_folder(&place.path("folder"));
    assert_eq!(folder.index()["schemaVersion"], 2);
    scene.build(&["--output=type=cacheonly"]).ok();
    let check = scene.run(&["build", "--call=check", "ctx"]).ok().text();
    assert!(check.contains("no warnings"), "{check}");
    let targets = scene.run(&["build", "--call=targets", "ctx"]).ok().text();
    assert!(
        targets.contains("one") && targets.contains("two"),
        "{targets}"
    );
    let outline = scene.run(&["build", "--call=outline", "ctx"]).ok().text();
    assert!(outline.contains("WORD"), "{outline}");
    scene.stop();
}

/// Rows: E02, E03, P02, P03, A15
#[test]
fn it_pushes_with_attestations() {
    let place = Place::new();
    write(&place);
    let registry = Real::start(&place);
    let Some(scene) = Scene::new(&place) else {
        return;
    };
    let image = format!("{}/team/app:1", registry.host());
    scene.build(&["--push", "-t", &image]).ok();
    let shown = scene.run(&["imagetools", "inspect", "--raw", &image]).ok();
    let index = json(&shown.stdout);
    let manifests = index["manifests"].as_array().expect("an index");
    assert_eq!(manifests.len(), 2, "an image and its provenance: {index}");
    scene
        .build(&["--push", "-t", &image, "--provenance=false"])
        .ok();
    let shown = scene.run(&["imagetools", "inspect", "--raw", &image]).ok();
    assert!(json(&shown.stdout)["config"].is_object());
    scene.stop();
}

/// Rows: A16, A04, L17, X17
#[test]
fn a_failing_step_shows_its_lines() {
    let place = Place::new();
    place.context(&format!(
        "FROM {}\nRUN true\nRUN echo about to fail && exit 4\n",
        BaseImage::name()
    ));
    let Some(scene) = Scene::new(&place) else {
        return;
    };
    scene.build(&[]).fails().says(&[
        "Dockerfile:3",
        ">>> RUN echo about to fail",
        "about to fail",
        "exit code: 4",
    ]);
    place.context("FROM scratch\nCOPY nothing /\n");
    scene.build(&[]).fails().says(&["Dockerfile:2", "/nothing"]);
    place.context("FROM scratch\nRUM x\n");
    scene
        .build(&[])
        .fails()
        .says(&["Dockerfile:2", "unknown instruction: RUM"]);
    scene.stop();
}

/// Rows: N07, X05, X11, X12, F06, F03, S18, P11
#[test]
fn secrets_contexts_hosts_and_standard_input_reach_the_build() {
    let place = Place::new();
    place.write("ctx/other/there.txt", "there\n");
    place.write("token", "s3cret");
    place.context(&format!(
        "FROM {}\n\
         COPY --from=more there.txt /there\n\
         RUN --mount=type=secret,id=tok wc -c < /run/secrets/tok > /length\n\
         RUN grep build.example /etc/hosts > /hosts; ulimit -n > /limit\n\
         RUN --network=host true\n",
        BaseImage::name()
    ));
    let Some(scene) = Scene::new(&place) else {
        return;
    };
    scene
        .build(&[
            "--secret=id=tok,src=token",
            "--build-context=more=ctx/other",
            "--add-host=build.example:10.1.2.3",
            "--ulimit=nofile=1000:2000",
            "--allow=network.host",
            "--output=type=local,dest=out",
        ])
        .ok();
    let read = |path: &str| fs::read_to_string(place.path(path)).expect(path);
    assert_eq!(read("out/there"), "there\n");
    assert_eq!(read("out/length").trim(), "6");
    assert!(read("out/hosts").starts_with("10.1.2.3"));
    assert_eq!(read("out/limit"), "1000\n");
    let dockerfile = format!("FROM {}\nRUN echo piped > /piped\n", BaseImage::name());
    place.write("stdin", dockerfile);
    let mut command = scene.buildx.command(&[
        "build",
        "--progress=plain",
        "--output=type=local,dest=out2",
        "-",
    ]);
    command.stdin(fs::File::open(place.path("stdin")).expect("a file"));
    place.start_with_input(command).wait().ok();
    assert_eq!(read("out2/piped"), "piped\n");
    scene.stop();
}

/// Rows: A06, A08, A09, A12, A14, D18, D34
#[test]
fn it_inspects_counts_prunes_and_remembers() {
    let place = Place::new();
    write(&place);
    let Some(scene) = Scene::new(&place) else {
        return;
    };
    let shown = scene.run(&["inspect", "k"]).ok().text();
    for word in [
        "Status:",
        "running",
        "linux/amd64",
        "org.mobyproject.buildkit.worker",
    ] {
        assert!(shown.contains(word), "no {word} in {shown}");
    }
    scene.build(&[]).ok();
    let used = scene.run(&["du"]).ok().text();
    assert!(used.contains("Reclaimable:"), "{used}");
    let history = scene.run(&["history", "ls"]).ok().text();
    assert!(history.contains("Completed"), "{history}");
    scene.run(&["prune", "--all", "--force"]).ok();
    let used = scene.run(&["du"]).ok().text();
    assert!(used.contains("Total:\t\t0B"), "{used}");
    assert_eq!(scene.build(&[]).ok().made().len(), 3);
    scene.stop();
}

/// Rows: C01, F01, A01
#[test]
fn bake_builds_several_targets_at_once() {
    let place = Place::new();
    write(&place);
    place.write(
        "bake.hcl",
        "group \"default\" { targets = [\"one\", \"two\"] }\n\
         target \"one\" {\n context = \"ctx\"\n target = \"one\"\n args = { WORD = \"bake\" }\n output = [\"type=local,dest=one\"]\n}\n\
         target \"two\" {\n context = \"ctx\"\n target = \"two\"\n args = { WORD = \"bake\" }\n output = [\"type=local,dest=two\"]\n}\n",
    );
    let Some(scene) = Scene::new(&place) else {
        return;
    };
    let args = ["bake", "--progress=plain", "--allow=fs=*", "-f", "bake.hcl"];
    scene.run(&args).ok();
    let read = |path: &str| fs::read_to_string(place.path(path)).expect(path);
    assert_eq!(read("one/word"), "word bake\n");
    assert_eq!(read("two/both"), "file\nword bake\n");
    scene.stop();
}

/// Rows: R01, R02, R03, C08, C09
#[test]
fn caches_go_out_and_come_in() {
    let place = Place::new();
    write(&place);
    let registry = Real::start(&place);
    let Some(scene) = Scene::new(&place) else {
        return;
    };
    let reference = format!("{}/team/cache:1", registry.host());
    let image = format!("{}/team/app:1", registry.host());
    let kinds: [(String, String, &[&str]); 3] = [
        (
            "type=local,dest=cache,mode=max".into(),
            "type=local,src=cache".into(),
            &[],
        ),
        (
            format!("type=registry,ref={reference},mode=max"),
            format!("type=registry,ref={reference}"),
            &[],
        ),
        (
            "type=inline".into(),
            format!("type=registry,ref={image}"),
            &["--push", "-t"],
        ),
    ];
    for (to, from, push) in kinds {
        let push: Vec<&str> = match push {
            [] => Vec::new(),
            push => [push, &[&*image]].concat(),
        };
        scene
            .build(&[&["--cache-to", &*to], &push[..]].concat())
            .ok();
        scene.run(&["prune", "--all", "--force"]).ok();
        let ran = scene.build(&["--cache-from", &from]).ok();
        assert_eq!(ran.made(), Vec::<String>::new(), "{from}: {ran}");
        scene.run(&["prune", "--all", "--force"]).ok();
    }
    scene
        .build(&["--cache-from=type=registry,ref=127.0.0.1:1/none"])
        .ok();
    scene.stop();
}

/// What the frontend warns of is shown with the lines it is about.
///
/// Rows: F33, G10
#[test]
fn warnings_come_with_their_lines() {
    let place = Place::new();
    let base = BaseImage::name();
    place.context(&format!("FROM {base} as one\nRUN true\n"));
    let Some(scene) = Scene::new(&place) else {
        return;
    };
    let args = [
        "docker",
        "--debug",
        "buildx",
        "build",
        "--progress=plain",
        "ctx",
    ];
    let ran = place.start(scene.buildx.program(&args)).wait();
    ran.ok().says(&[
        "FromAsCasing",
        "Dockerfile:1",
        &format!("1 | >>> FROM {base} as one"),
    ]);
    scene.stop();
}
