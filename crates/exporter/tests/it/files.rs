//! Files taken out: as a tar, and into a directory.

use std::io::Read;

use exporter::files::{FilesOptions, copy_into, parts, tar as tar_stream};
use futures::TryStreamExt as _;
use stdx::sys::Root;

use super::setup::{attrs, source, state, tar};

/// Rows: E05
#[tokio::test]
async fn privileged_files_come_out_as_tar_and_into_a_directory() {
    let Some(state) = state() else { return };
    let result = state.on(None, &tar(&[("dir/a", "one"), ("b", "two")]));
    let source = source(Some(result), &[]);
    let split = FilesOptions::parse(&attrs(&[("platform-split", "true")])).unwrap();
    let stream = tar_stream(parts(&source, &split, &state.cx).await.unwrap(), &state.cx);
    let bytes = stream.try_collect::<Vec<_>>().await.unwrap().concat();
    let mut reader = layer::tar::Reader::new(&bytes[..]);
    let mut names = Vec::new();
    while let Some(entry) = reader.entry().unwrap() {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        names.push(format!("{}={text}", entry.display()));
    }
    let prefix = names[0].trim_end_matches("/=").to_owned();
    assert!(prefix.starts_with("linux_"), "{prefix}");
    assert_eq!(names.len(), 4);
    assert!(names.contains(&format!("{prefix}/dir/a=one")), "{names:?}");

    let out = tempfile::tempdir().unwrap();
    let target = Root::open(out.path()).unwrap();
    // What is there stays, links in the way are replaced and not followed.
    std::fs::write(out.path().join("kept"), "kept").unwrap();
    target.symlink("/etc", "b").unwrap();
    let plain = FilesOptions::default();
    let made = parts(&source, &plain, &state.cx).await.unwrap();
    copy_into(made, target.try_clone().unwrap(), true, false)
        .await
        .unwrap();
    let read = |name: &str| std::fs::read_to_string(out.path().join(name)).unwrap();
    assert_eq!(
        [read("dir/a"), read("b"), read("kept")],
        ["one", "two", "kept"]
    );
    let made = parts(&source, &plain, &state.cx).await.unwrap();
    copy_into(made, target, true, true).await.unwrap();
    assert!(!out.path().join("kept").exists());
    let error = FilesOptions::parse(&attrs(&[("platform-split", "perhaps")])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "non-bool value specified for platform-split"
    );
}

/// Statements about files name each file, and lie beside them.
///
/// Rows: P02, P04, W51
#[tokio::test]
async fn privileged_statements_become_files_that_name_the_others() {
    let Some(state) = state() else { return };
    let result = state.on(None, &tar(&[("dir/a", "one"), ("b", "two"), ("dir.x", "")]));
    let statement = |name: &str, inline_only| exporter::Statement {
        predicate_type: "https://slsa.dev/provenance/v1".to_owned(),
        predicate: (&b"{\"a\":\"<>\"}"[..]).into(),
        file_name: name.to_owned(),
        inline_only,
        ..exporter::Statement::default()
    };
    let mut source = source(Some(result), &[]);
    source.results[0].statements = vec![
        statement("provenance.json", false),
        statement("inline.json", true),
    ];
    let options = attrs(&[("attestation-prefix", "my-")]);
    let options = FilesOptions::parse(&options).unwrap();
    let made = parts(&source, &options, &state.cx).await.unwrap();
    let [(name, bytes)] = &made[0].statements[..] else {
        panic!("one statement")
    };
    assert_eq!(name, "my-provenance.json");
    expect_test::expect![[r#"
        {
          "_type": "https://in-toto.io/Statement/v1",
          "predicateType": "https://slsa.dev/provenance/v1",
          "subject": [
            {
              "name": "b",
              "digest": {
                "sha256": "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"
              }
            },
            {
              "name": "dir/a",
              "digest": {
                "sha256": "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
              }
            },
            {
              "name": "dir.x",
              "digest": {
                "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
              }
            }
          ],
          "predicate": {
            "a": "\u003c\u003e"
          }
        }"#]]
    .assert_eq(&String::from_utf8_lossy(bytes));

    source.multi_platform = true;
    let together = attrs(&[("platform-split", "false")]);
    let together = FilesOptions::parse(&together).unwrap();
    let made = parts(&source, &together, &state.cx).await.unwrap();
    let name = &made[0].statements[0].0;
    assert!(name.starts_with("provenance.linux_") && name.ends_with(".json"));
    source.results[0].statements[1].inline_only = false;
    source.results[0].statements[1].file_name = "provenance.json".to_owned();
    let error = parts(&source, &together, &state.cx).await.err().unwrap();
    assert!(error.to_string().starts_with("duplicate attestation path"));
}

/// A platform's directory has the name the frontend gave the platform.
///
/// Rows: E05
#[tokio::test]
async fn privileged_platforms_have_directories_of_their_own() {
    let Some(state) = state() else { return };
    let made = async |ids: &[&str]| {
        let listed = ids.iter().map(|id| {
            format!(r#"{{"ID":"{id}","Platform":{{"architecture":"amd64","os":"windows"}}}}"#)
        });
        let listed = listed.collect::<Vec<_>>().join(",");
        let listed = format!(r#"{{"Platforms":[{listed}]}}"#);
        let metadata = [("refs.platforms".to_owned(), listed.into())].into();
        let results = ids.iter().map(|id| ((*id).to_owned(), None)).collect();
        let source = exporter::Source::new(None, results, &metadata).unwrap();
        let made = parts(&source, &FilesOptions::default(), &state.cx).await;
        made.map(|parts| {
            let prefixes = parts.into_iter().map(|part| part.prefix);
            prefixes
                .map(|one| one.display().to_string())
                .collect::<Vec<_>>()
        })
    };
    let versions = made(&["windows(1.2.3)/amd64", "windows(1.2.4)/amd64"]).await;
    assert_eq!(
        versions.unwrap(),
        ["windows(1.2.3)_amd64", "windows(1.2.4)_amd64"]
    );
    assert_eq!(
        made(&["linux/amd64", "linux/amd64"]).await.unwrap(),
        ["linux_amd64"]
    );
    for wrong in [&[".."][..], &["."], &["a/b", "a_b"]] {
        let error = made(wrong).await.unwrap_err().to_string();
        assert!(error.contains("cannot have a directory"), "{error}");
    }
}

/// Rows: E05
#[tokio::test]
async fn privileged_platforms_in_one_directory_replace_nothing_of_each_other() {
    let Some(state) = state() else { return };
    let listed = r#"{"Platforms":[
        {"ID":"one","Platform":{"architecture":"arm64","os":"linux"}},
        {"ID":"two","Platform":{"architecture":"amd64","os":"linux"}}]}"#;
    let metadata = [("refs.platforms".to_owned(), listed.into())].into();
    let source = |one: &[u8], two: &[u8]| {
        let results = [("one", one), ("two", two)];
        let results = results.map(|(id, files)| (id.to_owned(), Some(state.on(None, files))));
        exporter::Source::new(None, results.into(), &metadata).unwrap()
    };
    let together = FilesOptions::parse(&attrs(&[("platform-split", "false")])).unwrap();
    let apart = source(&tar(&[("bin/a", "1")]), &tar(&[("bin/b", "2"), ("c", "")]));
    let made = parts(&apart, &together, &state.cx).await.unwrap();
    let stream = tar_stream(made, &state.cx);
    assert!(stream.try_collect::<Vec<_>>().await.is_ok());
    for (one, two, path) in [
        (
            tar(&[("bin/a", "same")]),
            tar(&[("bin/a", "same")]),
            "bin/a",
        ),
        (tar(&[("bin", "file")]), tar(&[("bin/a", "")]), "bin"),
        (tar(&[("bin/a", "")]), tar(&[("bin", "file")]), "bin"),
    ] {
        let both = source(&one, &two);
        let error = parts(&both, &together, &state.cx).await.err().unwrap();
        let wanted =
            format!("cannot overwrite {path} from one with two when split option is disabled");
        assert_eq!(error.to_string(), wanted);
        let usual = FilesOptions::default();
        assert!(parts(&both, &usual, &state.cx).await.is_ok());
    }
}
