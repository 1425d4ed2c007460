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
