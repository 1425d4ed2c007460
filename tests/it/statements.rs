//! Statements beside images: lists of what is in them, made by an image that looks.

use std::fs;

use serde_json::Value;

use crate::buildx::Scene;
use crate::harness::{BaseImage, Daemon, Layout, Memory, Place, Real, json};

/// A scanner as small as can be: it lists regular files, of each target in a document of its own.
const SCANNER: &str = r#"#!/bin/sh
set -e
scan() {
  files=$(cd $1; find . -type f | sort | sed 's|^\./||;s/.*/{"fileName":"&"}/' | tr '\n' ',')
  cat > $BUILDKIT_SCAN_DESTINATION/$(basename $1).spdx.json <<EOF
{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://spdx.dev/Document",
 "predicate":{"spdxVersion":"SPDX-2.3","name":"$(basename $1)","dataLicense":"$BUILDKIT_SCAN_WORD",
 "creationInfo":{"creators":["Tool: tiny"]},"files":[${files%,}]}}
EOF
}
scan $BUILDKIT_SCAN_SOURCE
for extra in $BUILDKIT_SCAN_SOURCE_EXTRAS/*; do
  [ -d "$extra" ] && scan $extra
done
touch $BUILDKIT_SCAN_SOURCE/x 2>/dev/null && exit 9
exit 0
"#;

/// Puts the scanner into a registry.
fn scanner(place: &Place, host: &str) -> String {
    place.write("ctx/scan", SCANNER);
    place.context(&format!(
        "FROM {}\nCOPY --chmod=755 scan /scan\nENTRYPOINT [\"/scan\"]\nCMD []\n",
        BaseImage::name()
    ));
    let name = format!("{host}/scanner:1");
    place.build(&["--push", "-t", &name]).ok();
    fs::remove_file(place.path("ctx/scan")).expect("it was there");
    place.context(&format!(
        "FROM {0} AS tools\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nRUN echo tool > /tool\n\
         FROM {0}\nCOPY --from=tools /tool /copied\nRUN echo made > /made\n",
        BaseImage::name()
    ));
    name
}

/// The statements of the index that `layout` holds, by the names of their documents.
#[track_caller]
fn statements(layout: &Layout, of: &Value) -> Vec<Value> {
    let entries = of["manifests"].as_array().expect("an index");
    let kind = |entry: &&Value| {
        entry["annotations"]["vnd.docker.reference.type"] == "attestation-manifest"
    };
    let entry = entries.iter().find(kind).expect("an attestation manifest");
    let blob = |at: &Value| json(layout.blob(at.as_str().expect("a digest")));
    let manifest = blob(&entry["digest"]);
    let layers = manifest["layers"].as_array().expect("layers").iter();
    layers.map(|layer| blob(&layer["digest"])).collect()
}

fn file<'a>(document: &'a Value, name: &str) -> &'a Value {
    let files = document["files"].as_array().expect("files").iter();
    let mut found = files.filter(|file| file["fileName"] == name);
    found
        .next()
        .unwrap_or_else(|| panic!("no {name}: {document}"))
}

/// Rows: P01, P03, P04, W49, W50, W54
#[test]
fn a_scanner_lists_what_is_in_an_image() {
    let (registry, place) = (Memory::start(), Place::new());
    let scanner = scanner(&place, &registry.host());
    let sbom = format!("--sbom=generator={scanner},WORD=said");
    let image = ["--output=type=oci,dest=image.tar", "-t=app:1", &sbom];
    place.build(&image).ok().says(&["generating sbom using"]);
    let layout = Layout::of_tar(&fs::read(place.path("image.tar")).expect("the image"));
    let index = json(
        layout.blob(
            layout.index()["manifests"][0]["digest"]
                .as_str()
                .expect("a digest"),
        ),
    );
    let all = statements(&layout, &index);
    let names: Vec<&str> = all
        .iter()
        .map(|one| one["predicate"]["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(names, ["sbom", "sbom-tools"]);
    let manifest = json(layout.manifest());
    let core = &all[0]["predicate"];
    assert_eq!(core["dataLicense"], "said");
    let layer = |at: usize| {
        format!(
            "layerID: {}",
            manifest["layers"][at]["digest"].as_str().unwrap()
        )
    };
    assert_eq!(file(core, "made")["comment"], layer(2));
    assert_eq!(file(core, "copied")["comment"], layer(1));
    assert_eq!(file(core, "bin/busybox")["comment"], layer(0));
    let creators = core["creationInfo"]["creators"]
        .as_array()
        .expect("creators");
    assert!(creators[1].as_str().unwrap().starts_with("Tool: buildkit-"));
    let subject = &all[0]["subject"][0];
    assert!(
        subject["name"]
            .as_str()
            .unwrap()
            .starts_with("pkg:docker/app@1")
    );
    let own = index["manifests"][0]["digest"].as_str().unwrap();
    assert_eq!(
        format!("sha256:{}", subject["digest"]["sha256"].as_str().unwrap()),
        own
    );
    let tools = &all[1]["predicate"];
    assert!(file(tools, "tool").get("comment").is_none(), "{tools}");
    // A second time nothing is looked at again.
    let again = place.build(&image).ok();
    assert_eq!(again.made(), Vec::<String>::new(), "{again}");

    let local = "--output=type=local,dest=out,attestation-prefix=my-";
    place.build(&[local, &sbom]).ok();
    let listed = json(&fs::read(place.path("out/my-sbom.spdx.json")).expect("a statement"));
    assert_eq!(listed["predicate"]["name"], "sbom");
    let subjects = listed["subject"].as_array().expect("subjects");
    assert!(subjects.iter().any(|one| one["name"] == "made"), "{listed}");
    assert!(place.path("out/my-sbom-tools.spdx.json").exists());
    place.assert_nothing_left();
}

/// What the builder's owner says of the place it runs in is told in the provenance, of builds
/// without a daemon too; what nobody may say keeps it from starting.
///
/// Rows: D04, P02
#[test]
fn the_builders_owner_is_heard_in_the_provenance() {
    let place = Place::new();
    place.write("env/10.json", r#"{"runner":{"id":7}}"#);
    let settings = format!("provenanceEnvDir = {:?}\n", place.path("env"));
    let config = place.write("kiln.toml", settings).display().to_string();
    place.context("FROM scratch\nCOPY Dockerfile /\n");
    let local = "--output=type=local,dest=out";
    let args = ["--config", &config, local, "--provenance=mode=min"];
    place.build(&args).ok();
    let told = json(&fs::read(place.path("out/provenance.json")).expect("a statement"));
    let told = &told["predicate"]["buildDefinition"]["internalParameters"];
    assert_eq!(told["runner"]["id"], 7);
    assert!(told["builderPlatform"].is_string(), "{told}");
    place.write("env/20.json", r#"{"platform":"x"}"#);
    let refused = place.build(&args).fails();
    refused.says(&["20.json: key \"platform\" is builtin"]);
    place.assert_nothing_left();
}

/// Rows: P01
#[test]
fn a_scanner_that_fails_fails_the_build() {
    let (registry, place) = (Memory::start(), Place::new());
    let name = scanner(&place, &registry.host());
    let usual = place.build(&["--sbom=generator=127.0.0.1:1/none"]).fails();
    usual.says(&["127.0.0.1:1"]);
    place.write(
        "ctx/scan",
        "#!/bin/sh\necho broken > $BUILDKIT_SCAN_DESTINATION/a\n",
    );
    let kept = fs::read_to_string(place.path("ctx/Dockerfile")).expect("the Dockerfile");
    place.context(&format!(
        "FROM {}\nCOPY --chmod=755 scan /scan\nENTRYPOINT [\"/scan\"]\n",
        BaseImage::name()
    ));
    place.build(&["--push", "-t", &name]).ok();
    place.context(&kept);
    place
        .build(&[&format!("--sbom=generator={name}")])
        .fails()
        .says(&["cannot decode in-toto statement a"]);
    place.assert_nothing_left();
}

/// Rows: P01, P03
#[test]
fn buildx_sees_the_list() {
    let place = Place::new();
    let registry = Real::start(&place);
    let scanner = scanner(&place, &registry.host());
    let Some(scene) = Scene::new(&place) else {
        return;
    };
    let image = format!("{}/team/app:1", registry.host());
    let sbom = format!("--sbom=generator={scanner}");
    scene
        .build(&["--push", "-t", &image, &sbom])
        .ok()
        .says(&["generating sbom using"]);
    let shown = scene.run(&["imagetools", "inspect", "--format={{json .SBOM}}", &image]);
    let shown = json(&shown.ok().stdout);
    assert_eq!(shown["SPDX"]["name"], "sbom", "{shown}");
    let comment = file(&shown["SPDX"], "made")["comment"].as_str();
    assert!(comment.is_some_and(|text| text.starts_with("layerID: sha256:")));
    let provenance = "--format={{json .Provenance.SLSA}}";
    let shown = scene
        .run(&["imagetools", "inspect", provenance, &image])
        .ok();
    // The scanner is among what went in.
    assert!(shown.text().contains("scanner"), "{shown}");
    scene.stop();
}

/// What steps used of the machine is told beside them if somebody asks, with a daemon and without.
///
/// Rows: P02, X16
#[test]
fn what_steps_used_is_told() {
    let place = Place::new();
    let base = BaseImage::name();
    let provenance = |more: &str| format!("--attest=type=provenance,mode=max{more}");
    let told = |name: &str| {
        let file = place.path(&format!("{name}/provenance.json"));
        json(&fs::read(file).expect("a statement"))["predicate"].clone()
    };
    let steps = |predicate: &Value| {
        let internal = &predicate["buildDefinition"]["internalParameters"];
        let steps = internal["buildConfig"]["llbDefinition"].as_array();
        steps.expect("steps").clone()
    };
    let context = |word: &str| {
        let step = format!("FROM {base}\nRUN echo {word} && sleep 5\nRUN true\n");
        place.context(&step);
    };
    let check = |name: &str| {
        let predicate = told(name);
        let used: Vec<Value> = steps(&predicate)
            .into_iter()
            .filter_map(|mut step| Some(step.get_mut("resourceUsage")?.take()))
            .collect();
        let [long, short] = &used[..] else {
            panic!("{used:?}")
        };
        let samples = |of: &Value| of["samples"].as_array().expect("samples").len();
        // One every two seconds and one at the end.
        let (long_ones, short_ones) = (samples(long), samples(short));
        assert!(
            (1..long_ones).contains(&short_ones) && long_ones >= 2,
            "{used:?}"
        );
        let cpu = long["samples"][1]["cpuStat"]["usageNanos"].as_u64();
        assert!(cpu > Some(0), "{long}");
        assert!(long["sysCPUStat"]["idle"].is_number(), "{long}");
        let metadata = &predicate["runDetails"]["metadata"]["buildkit_metadata"];
        let system = metadata["sysUsage"].as_array().expect("the machine");
        assert!(system.len() >= 2, "{metadata}");
        assert!(system[0]["memoryStat"]["total"].as_u64() > Some(0));
    };
    context("alone");
    let usage = provenance(",capture-usage=true");
    place
        .build(&["--output=type=local,dest=alone", &usage])
        .ok();
    check("alone");
    // What is cached used nothing, and nobody is told who did not ask.
    place
        .build(&["--output=type=local,dest=cached", &usage])
        .ok();
    let cached = told("cached");
    assert!(
        steps(&cached)
            .iter()
            .all(|step| step.get("resourceUsage").is_none())
    );
    let plain = ["--output=type=local,dest=plain", &provenance("")];
    place.build(&plain).ok();
    let metadata = &told("plain")["runDetails"]["metadata"]["buildkit_metadata"];
    assert!(metadata.get("sysUsage").is_none(), "{metadata}");

    let daemon = Daemon::start(&place, "");
    context("daemon");
    daemon
        .build(&["--output=type=local,dest=served", &usage])
        .ok();
    check("served");
    daemon.stop();
    place.assert_nothing_left();
}
