//! The tools of others take what we write.

use std::fs;

use crate::harness::{BaseImage, Docker, Peers, Place, Ran, Real, json};

struct Scene<'a> {
    place: &'a Place,
    peers: Peers,
}

impl<'a> Scene<'a> {
    /// None if the tools of others are not wanted.
    fn new(place: &'a Place) -> Option<Scene<'a>> {
        let peers = Peers::get()?;
        write(place);
        Some(Scene { place, peers })
    }

    fn run(&self, args: &[&str]) -> Ran {
        let mut command = self.peers.command(args);
        command
            .current_dir(self.place.root())
            .env("DOCKER_CONFIG", self.place.path("docker"));
        self.place.start(command).wait()
    }
}

/// Owners, links, whiteouts, devices, long names, xattrs of capabilities.
fn write(place: &Place) {
    place.write("ctx/file.txt", "file\n");
    place.context(&format!(
        "FROM {}\n\
         RUN mkdir -p /d/sub && echo gone > /d/gone && echo kept > /d/kept && ln /d/kept /d/hard && ln -s kept /d/soft\n\
         RUN rm /d/gone && rm -r /d/sub && mkdir /d/sub && mkfifo /d/fifo && chown 5:6 /d/kept && chmod 4755 /d/hard\n\
         RUN echo x > /$(printf 'n%.0s' $(seq 200))\n\
         COPY --chown=7:8 file.txt /file\n\
         ENV A=b\nUSER 5\nWORKDIR /w\nCMD [\"cat\", \"/file\"]\n",
        BaseImage::name()
    ));
}

/// Rows: E04, E06, P08, F32
#[test]
fn skopeo_crane_and_umoci_take_every_compression() {
    let place = Place::new();
    let Some(scene) = Scene::new(&place) else {
        return;
    };
    for (number, options) in [
        "compression=gzip",
        "compression=zstd,force-compression=true,oci-mediatypes=true",
        "compression=uncompressed",
        "oci-mediatypes=false,compression=gzip",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("image-{number}");
        let output = format!(
            "type=oci,dest={},name=app:1,{options}",
            place.path(&name).display()
        );
        place.build(&["-o", &output]).ok();
        let shown = scene
            .run(&[
                "skopeo",
                "inspect",
                "--config",
                &format!("oci-archive:{name}"),
            ])
            .ok();
        let config = json(&shown.stdout);
        assert_eq!(config["config"]["User"], "5", "{options}");
        assert_eq!(
            config["rootfs"]["diff_ids"].as_array().map(Vec::len),
            Some(6),
            "{options}"
        );
        let folder = format!("dir-{number}");
        let (from, to) = (format!("oci-archive:{name}"), format!("oci:{folder}:app"));
        scene.run(&["skopeo", "copy", &from, &to]).ok();
        let bundle = format!("bundle-{number}");
        if !options.contains("oci-mediatypes=false") {
            scene
                .run(&[
                    "umoci",
                    "unpack",
                    "--image",
                    &format!("{folder}:app"),
                    &bundle,
                ])
                .ok();
            let root = place.path(&bundle).join("rootfs");
            assert!(!root.join("d/gone").exists(), "{options}");
            assert_eq!(
                fs::read_to_string(root.join("d/soft")).expect("a file"),
                "kept\n"
            );
            assert!(root.join("d/fifo").exists() && !root.join("d/sub/x").exists());
        }
    }
    place.assert_nothing_left();
}

/// `tar=false` gives a layout instead of an archive of one, by its names or as `latest`.
///
/// Rows: E04, B05, S12
#[test]
fn an_image_goes_blob_by_blob_into_a_layout() {
    let place = Place::new();
    let Some(scene) = Scene::new(&place) else {
        return;
    };
    for (names, layout) in [("", "oci:dir:latest"), (",name=app:1", "oci:dir:1")] {
        place
            .build(&["-o", &format!("type=oci,tar=false,dest=dir{names}")])
            .ok();
        let shown = scene.run(&["skopeo", "inspect", "--config", layout]).ok();
        assert_eq!(json(&shown.stdout)["config"]["User"], "5");
    }
    let copied = ["skopeo", "copy", "oci:dir:1", "oci-archive:all.tar"];
    scene.run(&copied).ok();

    // The image of another exporter is not the one in the layout.
    let zstd = "type=oci,dest=other.tar,compression=zstd,force-compression=true";
    let both = ["-o", "type=oci,tar=false,dest=two", "-o", zstd];
    place.build(&both).fails().says(&["another exporter"]);
    assert!(!place.path("two/index.json").exists());

    // And back in, as another context.
    let context = format!("made=oci-layout://{}:1", place.path("dir").display());
    place.context("FROM made\nRUN grep -q file /file\n");
    place.build(&["--build-context", &context]).ok();
    // The layout alone is enough: nothing of it is in a new state.
    fs::remove_dir_all(place.path("state")).expect("the state goes");
    place.build(&["--build-context", &context]).ok();
    place.assert_nothing_left();
}

/// Rows: E02, E03, E08
#[test]
fn crane_finds_a_pushed_image_valid() {
    let place = Place::new();
    let registry = Real::start(&place);
    let Some(scene) = Scene::new(&place) else {
        return;
    };
    let image = format!("{}/app:1", registry.host());
    for options in ["compression=gzip", "oci-mediatypes=false"] {
        let output = format!("type=image,push=true,name={image},{options}");
        place.build(&["-o", &output]).ok();
        scene
            .run(&["crane", "validate", "--insecure", "--remote", &image])
            .ok();
        let files = scene
            .run(&["crane", "export", "--insecure", &image, "all.tar"])
            .ok();
        let tar = fs::read(place.path("all.tar")).expect("the files");
        let names = crate::harness::entries(&tar);
        assert!(
            names.iter().any(|line| line.starts_with("d/kept")),
            "{files} {names:?}"
        );
        assert!(
            !names.iter().any(|line| line.starts_with("d/gone")),
            "{names:?}"
        );
    }
    place.assert_nothing_left();
}

/// Docker loads the archive and sees the image; containers are not run: that is runc's affair.
///
/// Rows: E04, B02
#[test]
fn docker_loads_what_we_write() {
    let place = Place::new();
    let Some(docker) = Docker::start_with(&place, "--storage-driver=vfs") else {
        return;
    };
    write(&place);
    let output = format!(
        "type=docker,dest={},name=kiln/app:1",
        place.path("docker.tar").display()
    );
    place.build(&["-o", &output]).ok();
    docker.run(&["load", "--input", "docker.tar"]).ok();
    let shown = docker.run(&["image", "inspect", "kiln/app:1"]).ok().text();
    let shown = json(shown.as_bytes());
    assert_eq!(shown[0]["Config"]["WorkingDir"], "/w");
    assert_eq!(
        shown[0]["RootFS"]["Layers"].as_array().map(Vec::len),
        Some(6)
    );
    docker.stop();
}
