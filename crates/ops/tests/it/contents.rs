//! What COPY is cached by, as a client's directory changes between builds.

use contenthash::Selector;
use progress::StepProgress;
use session::Attachables;
use session::local::Dirs;
use source::{Identifier, Source};

use crate::setup::{World, found};

/// The keys of one daemon must not be those of what the directory was in the last build.
///
/// Rows: C07, S19
#[tokio::test]
async fn privileged_a_changed_file_changes_the_key_and_its_time_does_not() {
    let Some(world) = World::new().await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::create_dir(path("sub")).unwrap();
    std::fs::write(path("sub/a"), "1").unwrap();
    std::fs::write(path("b"), "1").unwrap();
    let offers = Attachables::new().with_dirs(Dirs::new().with("context", dir.path()));
    let client = world.client(offers, false);
    let build = &client.deeds.build;
    let id = Identifier::parse("local://context", &Default::default()).unwrap();
    let source = Source::new(&world.parts.sources, id, &world.parts.platform);
    let step = StepProgress::none();
    // As often as a build would ask: for all of it, and for files that did not change.
    let keys = async || {
        let fetched = source.fetch(&build.source_context(&step)).await;
        let fetched = fetched.unwrap().unwrap();
        let selectors = ["/", "sub", "sub/a", "b"].map(Selector::path).to_vec();
        let contents = &world.parts.contents;
        let keys = contents.digests(&fetched, selectors.clone(), build, &step);
        let keys = keys.await.unwrap();
        let again = contents.digests(&fetched, selectors, build, &step).await;
        assert_eq!(again.unwrap(), keys);
        keys
    };

    let first = keys().await;
    assert_eq!(keys().await, first);
    std::fs::write(path("sub/a"), "2").unwrap();
    let second = keys().await;
    for changed in [0, 1, 2] {
        assert_ne!(second[changed], first[changed], "{changed}");
    }
    assert_eq!(second[3], first[3]);

    let file = std::fs::File::options()
        .write(true)
        .open(path("sub/a"))
        .unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(keys().await, second);

    std::fs::write(path("sub/a"), "1").unwrap();
    assert_eq!(keys().await, first, "as it was at first");

    let fetched = source.fetch(&build.source_context(&step)).await;
    let fetched = fetched.unwrap().unwrap();
    let parts = ["sub/a", "b", "sub"].map(Selector::path).to_vec();
    let contents = &world.parts.contents;
    let listed = contents.list(&fetched, parts, 2, build, &step);
    let listed = listed.await.unwrap();
    let listed: Vec<_> = listed
        .iter()
        .map(|one| one.path.to_str().unwrap())
        .collect();
    assert_eq!(
        listed,
        ["sub/a", "b"],
        "the limit is for all parts together"
    );
}

/// Keys that are known need no tree: here there is none any more. A build with a thousand cached
/// steps would mount a thousand times.
///
/// Rows: C07
#[tokio::test]
async fn privileged_known_keys_need_no_tree() {
    let Some(world) = World::new().await else {
        return;
    };
    let tree = world.tree(&[("a", "1"), ("sub/b", "2")]);
    let client = world.plain();
    let (build, step) = (&client.deeds.build, StepProgress::none());
    let of = found(&tree);
    let selectors = ["/", "sub", "a"].map(Selector::path).to_vec();
    let ask = async |known: &ops::ContentsCache, selectors: &[Selector]| {
        known.digests(of, selectors.to_vec(), build, &step).await
    };
    let digests = ask(&world.parts.contents, &selectors).await.unwrap();
    for layer in of.unpacked_layers().unwrap() {
        world.refs.snapshots().remove(&layer).unwrap();
    }
    assert_eq!(
        ask(&world.parts.contents, &selectors).await.unwrap(),
        digests
    );
    // So does the next process, from what was written down.
    let next = ops::ContentsCache::default();
    assert_eq!(ask(&next, &selectors).await.unwrap(), digests);
    let unknown = world.tree(&[("a", "1")]);
    let layers = found(&unknown).unpacked_layers().unwrap();
    world.refs.snapshots().remove(&layers[0]).unwrap();
    let asked = next.digests(found(&unknown), selectors, build, &step).await;
    assert!(asked.is_err(), "what was never looked at is not made up");
}
