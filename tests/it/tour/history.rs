//! Builds that were, and what they left on the disk.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::{Stop, Who, both_ok};
use crate::harness::{Buildx, Daemon, Place, json};

/// Rows: A12, A13, A14, P10, D29
#[test]
fn records_tell_the_same() {
    let Some(stop) = Stop::at("history") else {
        return;
    };
    stop.dockerfile("FROM BASE\nARG WORD\nRUN echo $WORD said\n");
    let output = "--output=type=oci,dest=OUT/i.tar";
    both_ok(stop.builds(&[
        "--build-arg=WORD=w",
        output,
        "--metadata-file=OUT/m.json",
        "ctx",
    ]));
    let ids = stop.outs("m.json").map(|metadata| {
        let metadata = json(&metadata);
        let id = metadata["buildx.build.ref"].as_str().expect("a ref");
        id.rsplit('/').next().expect("an id").to_owned()
    });
    let each = |args: &[&str]| {
        let mut at = ids.iter();
        Who::BOTH.map(|who| {
            let id = at.next().expect("two");
            stop.run(who, &[&["history"], args, &[id.as_str()]].concat())
                .ok()
        })
    };
    let shown = each(&["inspect", "--format=json"]).map(|ran| json(&ran.stdout));
    let plain = |shown: &Value| {
        let mut keys: Vec<String> = shown
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect();
        keys.sort();
        let fields = [
            "Context",
            "Dockerfile",
            "Status",
            "BuildArgs",
            "NumCompletedSteps",
            "NumTotalSteps",
        ];
        let fields = fields.map(|field| shown[field].clone());
        let materials = shown["Materials"].to_string().replace("%3A", ":");
        let kinds: BTreeSet<String> = shown["Attachments"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| {
                one["Type"]
                    .as_str()
                    .unwrap_or_default()
                    .rsplit_once('/')
                    .expect("a type")
                    .0
                    .to_owned()
            })
            .collect();
        (keys, fields, materials, kinds)
    };
    assert_eq!(plain(&shown[1]), plain(&shown[0]));
    for logs in each(&["logs", "--progress=plain"]) {
        assert!(
            logs.stderr.contains("w said") || logs.text().contains("w said"),
            "{logs}"
        );
    }
    let attached = stop.run(
        Who::Kiln,
        &[
            "history",
            "inspect",
            "attachment",
            "--type=provenance",
            &ids[1],
        ],
    );
    let told = json(&attached.ok().stdout);
    assert!(told.to_string().contains("library/base"), "{told}");
    let list = stop
        .run(Who::Kiln, &["history", "ls", "--format=json"])
        .ok()
        .text();
    let line = list
        .lines()
        .find(|line| line.contains(&ids[1]))
        .expect("our build");
    assert_eq!(json(line.as_bytes())["status"], "Completed");
    let filter = [
        "history",
        "ls",
        "--filter=status=error",
        "--format={{.Ref}}",
    ];
    assert!(!stop.run(Who::Kiln, &filter).ok().text().contains(&ids[1]));
    stop.run(
        Who::Kiln,
        &[
            "history",
            "export",
            "--finalize",
            "--output=OUT/one.dockerbuild",
            &ids[1],
        ],
    )
    .ok();
    let bundle = fs::read(stop.path("kiln/one.dockerbuild")).expect("a bundle");
    assert!(bundle.len() > 1000);
    stop.run(Who::Kiln, &["history", "rm", &ids[1]]).ok();
    let gone = stop
        .run(Who::Kiln, &["history", "inspect", &ids[1]])
        .fails();
    assert!(gone.stderr.contains("no record found"), "{gone}");
}

fn blobs(place: &Place) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut todo = vec![place.path("state/content/blobs")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.file_type().expect("a kind").is_dir() {
                true => todo.push(entry.path()),
                false => found.push((
                    entry.file_name().to_string_lossy().into_owned(),
                    entry.metadata().expect("it is there").len(),
                )),
            }
        }
    }
    found
}

/// What is pruned is gone, and what stays is what records of builds name: like BuildKit,
/// they have a life of their own. When they are removed too, the disk is empty.
///
/// Rows: A08, A09, A13, P10
#[test]
fn what_is_pruned_and_forgotten_leaves_nothing() {
    let place = Place::new();
    let daemon = Daemon::start(&place, "");
    let Some(buildx) = Buildx::with(&place, &daemon.address()) else {
        return;
    };
    let buildx = |args: &[&str]| buildx.run(args);
    place.context(&format!(
        "FROM {}\nRUN echo 1 > /1\n",
        crate::harness::BaseImage::name()
    ));
    let output = "--output=type=oci,dest=i.tar";
    buildx(&["build", "--provenance=mode=max", output, "ctx"]).ok();
    buildx(&["build", "--build-arg=A=1", "--load", "ctx"]).fails();
    place.context("FROM scratch\nCOPY none /\n");
    buildx(&["build", "ctx"]).fails();
    let used = buildx(&["du"]).ok().text();
    assert!(!used.contains("Total:\t\t0B"), "{used}");
    buildx(&["prune", "--all", "--force"]).ok();
    let used = buildx(&["du"]).ok().text();
    assert!(used.contains("Total:\t\t0B"), "{used}");
    // Logs, errors, statements, manifests: no layer among them.
    let kept = blobs(&place);
    assert!(
        !kept.is_empty() && kept.iter().all(|(_, size)| *size < 100_000),
        "{kept:?}"
    );
    let records = buildx(&["history", "ls", "--format={{.Ref}}"]).ok().text();
    assert!(records.lines().count() >= 2, "{records}");
    buildx(&["history", "rm", "--all"]).ok();
    assert_eq!(
        buildx(&["history", "ls", "--format={{.Ref}}"])
            .ok()
            .text()
            .trim(),
        ""
    );
    assert_eq!(blobs(&place), []);
    daemon.stop();
    place.assert_nothing_left();
}
