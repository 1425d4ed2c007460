//! Results: images, archives, folders, tars.

use std::fs;

use serde_json::Value;

use super::{Stop, Who, both_ok};
use crate::harness::{Layout, docker, entries, json};

const APP: &str = "\
FROM BASE AS one
ARG WORD=none
RUN echo word $WORD > /word
FROM one AS two
COPY file.txt /file
RUN mkdir /d && echo x > /d/x && ln /d/x /d/hard && ln -s x /d/soft && chown 5:6 /d/x && chmod 4755 /d/x && rm /word
ENV A=b
USER 5
WORKDIR /w
EXPOSE 80/tcp
CMD [\"cat\", \"/file\"]
";

fn app(stop: &Stop) {
    stop.write("ctx/file.txt", "file\n");
    stop.dockerfile(APP);
}

/// Digests and sizes of gzip differ; so does who tells of the build.
fn plain(document: &Value) -> String {
    let mut document = document.clone();
    hide(&mut document);
    serde_json::to_string_pretty(&document).expect("JSON")
}

fn hide(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match key.as_str() {
                    "digest"
                    | "size"
                    | "containerimage.digest"
                    | "containerimage.config.digest"
                    | "buildx.build.ref" => *value = Value::Null,
                    // Their writer leaves the colon of a port as it is.
                    "uri" => {
                        let text = value.as_str().unwrap_or_default().replace("%3A", ":");
                        *value = text.into();
                    }
                    _ => hide(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        _ => {}
    }
}

/// The created times of what steps did are ours and theirs; everything else is the same.
#[track_caller]
fn same_images(theirs: &Layout, ours: &Layout) {
    let tars = |layout: &Layout| -> Vec<Vec<String>> {
        let layers = layout.layers();
        // Theirs says when; with other clocks these are other times.
        let untimed = |line: String| line.split(" @").next().unwrap_or_default().to_owned();
        let list = |tar: &Vec<u8>| entries(tar).into_iter().map(untimed).collect();
        layers.iter().map(list).collect()
    };
    assert_eq!(tars(ours), tars(theirs));
    assert_eq!(
        plain(&json(ours.manifest())),
        plain(&json(theirs.manifest()))
    );
    let config = |layout: &Layout| {
        let mut config = json(layout.config());
        let first = config["rootfs"]["diff_ids"][0].take();
        let layers = config["rootfs"]["diff_ids"].as_array().map(Vec::len);
        config["rootfs"].take();
        (first, layers, config)
    };
    assert_eq!(config(ours), config(theirs));
}

/// Rows: E01, E04, E05, E06, E09, A03, N05, W61
#[test]
fn archives_are_the_same_and_metadata_has_the_same_keys() {
    let Some(stop) = Stop::at("archives") else {
        return;
    };
    app(&stop);
    let args = [
        "--output=type=oci,dest=OUT/oci.tar,name=h.example/app:1",
        // Which media types are the default depends on the version.
        "--output=type=docker,dest=OUT/docker.tar,oci-mediatypes=true",
        "--output=type=local,dest=OUT/files",
        "--output=type=tar,dest=OUT/files.tar",
        "--metadata-file=OUT/metadata.json",
        "--label=from=outside",
        "--build-arg=WORD=yes",
        "ctx",
    ];
    both_ok(stop.builds(&args));
    let [theirs, ours] = stop.outs("oci.tar").map(|tar| Layout::of_tar(&tar));
    same_images(&theirs, &ours);
    assert_eq!(plain(&ours.index()), plain(&theirs.index()));
    let [theirs, ours] = stop.outs("docker.tar").map(|tar| Layout::of_tar(&tar));
    same_images(&theirs, &ours);
    let tags = |layout: &Layout| json(layout.file("manifest.json"))[0]["RepoTags"].clone();
    assert_eq!(tags(&ours), tags(&theirs));
    // All times are the epoch: these are the same byte for byte.
    let [theirs, ours] = stop.outs("files.tar");
    assert_eq!(entries(&ours), entries(&theirs));
    assert_eq!(stop.same("files/file"), "file\n");
    let times = Who::BOTH.map(|who| {
        let file = fs::metadata(stop.path(who.folder()).join("files/d/x")).expect("a file");
        file.modified().expect("a time")
    });
    assert_eq!(times[0], times[1]);
    let [theirs, ours] = stop.outs("metadata.json").map(|bytes| json(&bytes));
    assert_eq!(plain(&ours), plain(&theirs));
    assert!(ours["buildx.build.provenance"]["materials"][0]["digest"]["sha256"].is_string());
    let image = "--output=type=oci,dest=OUT/oci.tar,name=h.example/app:1";
    both_ok(stop.builds(&[image, "--iidfile=OUT/iid", "--build-arg=WORD=yes", "ctx"]));
    let [_, iid] = stop.outs("iid");
    let iid = String::from_utf8_lossy(&iid).into_owned();
    let [_, tar] = stop.outs("oci.tar");
    let image = Layout::of_tar(&tar);
    let digests =
        [image.config(), image.manifest()].map(|bytes| oci::Digest::of(bytes).to_string());
    assert!(digests.contains(&iid), "{iid} {digests:?}");
}

/// Rows: E04, E05
#[test]
fn results_go_to_standard_output_and_to_docker() {
    let Some(stop) = Stop::at("output") else {
        return;
    };
    app(&stop);
    for (kind, file) in [
        ("tar", "file"),
        ("oci", "index.json"),
        ("docker", "manifest.json"),
    ] {
        let ran = both_ok(stop.builds(&[&format!("--output=type={kind},dest=-"), "ctx"]));
        for ran in ran {
            let names = entries(&ran.stdout);
            assert!(
                names
                    .iter()
                    .any(|name| name.starts_with(&format!("{file} "))),
                "{names:?}"
            );
        }
    }
    // What kiln makes is loaded into Docker by the client.
    stop.build(
        Who::Kiln,
        &["--load", "--tag=loaded:1", "--provenance=false", "ctx"],
    )
    .ok();
    let image = "type=docker,name=loaded:2";
    stop.build(Who::Kiln, &["--output", image, "--provenance=false", "ctx"])
        .ok();
    for name in ["loaded:1", "loaded:2"] {
        let inspect = docker(&stop.rig.place, stop.rig.peers, &["image", "inspect", name]);
        let shown = stop.start(inspect).wait().ok().stdout;
        assert_eq!(json(&shown)[0]["Config"]["WorkingDir"], "/w");
    }
}

/// Rows: E07, F31
#[test]
fn several_platforms_and_annotations_make_the_same_index() {
    let Some(stop) = Stop::at("platforms") else {
        return;
    };
    stop.write("ctx/a", "a\n");
    stop.dockerfile("FROM scratch\nARG TARGETPLATFORM\nCOPY a /a\nLABEL p=$TARGETPLATFORM\n");
    let args = [
        "--platform=linux/amd64,linux/arm64/v8",
        "--annotation=index:x=1",
        "--annotation=manifest[linux/arm64]:y=2",
        "--annotation=manifest-descriptor:z=3",
        "--annotation=plain=4",
        "--provenance=false",
        "--output=type=oci,dest=OUT/i.tar",
        "--output=type=local,dest=OUT/files",
        "--metadata-file=OUT/metadata.json",
        "ctx",
    ];
    both_ok(stop.builds(&args));
    let documents = |layout: &Layout| {
        let index = json(
            layout.blob(
                layout.index()["manifests"][0]["digest"]
                    .as_str()
                    .expect("a digest"),
            ),
        );
        let manifests = index["manifests"].as_array().expect("manifests").clone();
        let blob = |at: &Value| json(layout.blob(at["digest"].as_str().expect("a digest")));
        let mut all = vec![plain(&index)];
        for manifest in manifests {
            let manifest = blob(&manifest);
            all.push(plain(&manifest));
            let mut config = blob(&manifest["config"]);
            config["rootfs"].take();
            all.push(plain(&config));
        }
        all
    };
    let [theirs, ours] = stop.outs("i.tar").map(|tar| Layout::of_tar(&tar));
    assert_eq!(documents(&ours), documents(&theirs));
    assert_eq!(plain(&ours.index()), plain(&theirs.index()));
    stop.same("files/linux_arm64/a");
    let [theirs, ours] = stop.outs("metadata.json").map(|bytes| json(&bytes));
    // Theirs has no provenance of several platforms under one key; ours is asked the same way.
    let keys = |value: &Value| -> Vec<String> {
        value
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect()
    };
    assert_eq!(keys(&ours), keys(&theirs));
}

/// Rows: E02, E03, P02, P03
#[test]
fn what_is_pushed_has_the_same_shape() {
    let Some(stop) = Stop::at("pushed") else {
        return;
    };
    app(&stop);
    let host = stop.rig.registry.host();
    let name = |who: Who| format!("{host}/{}/app:1", who.folder());
    let tag = format!("--tag={host}/OUT/app:1");
    let attest = "--attest=type=provenance,mode=max,version=v0.2";
    both_ok(stop.builds(&["--push", &tag, attest, "ctx"]));
    let raw = Who::BOTH.map(|who| {
        let shown = stop
            .run(who, &["imagetools", "inspect", "--raw", &name(who)])
            .ok();
        plain(&json(&shown.stdout))
    });
    let unreferenced = |text: &String| -> String {
        let lines = text
            .lines()
            .filter(|line| !line.contains("vnd.docker.reference.digest"));
        lines.collect()
    };
    assert_eq!(unreferenced(&raw[1]), unreferenced(&raw[0]));
    let told = Who::BOTH.map(|who| {
        let format = "--format={{json .Provenance}}";
        json(
            &stop
                .run(who, &["imagetools", "inspect", format, &name(who)])
                .ok()
                .stdout,
        )
    });
    let keys = |value: &Value| -> Vec<String> {
        let slsa = value["SLSA"].as_object().expect("a statement");
        let mut keys: Vec<String> = slsa.keys().cloned().collect();
        for part in ["invocation", "metadata", "buildConfig"] {
            let part = slsa[part].as_object().expect(part).keys();
            keys.extend(part.cloned());
        }
        keys.sort();
        keys
    };
    assert_eq!(keys(&told[1]), keys(&told[0]));
    // Another name for it, made by the client from what kiln pushed.
    let other = format!("{host}/kiln/app:2");
    let create = ["imagetools", "create", "--tag", &other, &name(Who::Kiln)];
    stop.run(Who::Kiln, &create).ok();
    // The client writes annotations, the lines that are furthest in, in any order.
    let shown = |name: &str| {
        let ran = stop.run(Who::Kiln, &["imagetools", "inspect", name]).ok();
        let text = ran.text().replace("app:2", "app:1");
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let annotation = |line: &String| line.starts_with("    ");
        for lines in lines.chunk_by_mut(|a, b| annotation(a) && annotation(b)) {
            lines.sort();
        }
        lines
    };
    assert_eq!(shown(&other), shown(&name(Who::Kiln)));
}
