//! Directories kept between builds.

use std::time::Duration;

use refs::{MutableRef, RecordMeta, RecordType, Ref, Refs, Sharing};
use snapshot::testing::{listing, write};

use crate::setup::{Outside, files, names, open, state, step};

fn meta() -> RecordMeta {
    RecordMeta {
        description: "cache".into(),
        record_type: RecordType::CacheMount,
    }
}

async fn named(refs: &Refs, key: &str, parent: Option<&Ref>, sharing: Sharing) -> MutableRef {
    refs.named(key, parent, sharing, meta()).await.unwrap()
}

/// Rows: X03
#[tokio::test(flavor = "multi_thread")]
async fn privileged_cache_mounts_stay_and_are_shared() {
    let Some(state) = state() else { return };
    let a = named(&state.refs, "go", None, Sharing::Shared).await;
    let b = named(&state.refs, "go", None, Sharing::Shared).await;
    write(a.tree().root(), "file", "text");
    assert_eq!(listing(&b.tree())["file"], "text");
    assert!(
        listing(
            &named(&state.refs, "other", None, Sharing::Shared)
                .await
                .tree()
        )
        .is_empty()
    );
    drop((a, b));
    let dir = state.dir.unwrap();
    drop(state.refs);
    let refs = open(dir.path());
    assert_eq!(
        listing(&named(&refs, "go", None, Sharing::Shared).await.tree())["file"],
        "text"
    );
    // A second process may share it too.
    let second = open(dir.path());
    let a = named(&refs, "go", None, Sharing::Shared).await;
    let b = named(&second, "go", None, Sharing::Shared).await;
    write(a.tree().root(), "more", "text");
    assert_eq!(listing(&b.tree()).len(), 2);
}

/// Rows: X03
#[tokio::test(flavor = "multi_thread")]
async fn privileged_private_ones_get_another_and_locked_ones_wait() {
    let Some(state) = state() else { return };
    let other_process = open(state.dir.as_ref().unwrap().path());
    for second in [&state.refs, &other_process] {
        let a = named(&state.refs, "private", None, Sharing::Private).await;
        let b = named(second, "private", None, Sharing::Private).await;
        assert_ne!(a.kept_id(), b.kept_id());
        drop((a, b));
        let a = named(&state.refs, "locked", None, Sharing::Locked).await;
        write(a.tree().root(), "by", "a");
        let waiting = second.named("locked", None, Sharing::Locked, meta());
        tokio::pin!(waiting);
        let early = tokio::time::timeout(Duration::from_millis(250), &mut waiting).await;
        assert!(early.is_err(), "it must wait");
        drop(a);
        assert_eq!(listing(&waiting.await.unwrap().tree())["by"], "a");
    }
    let private = refs::Filter::parse(&["description==cache"]).unwrap();
    assert_eq!(
        state.refs.usage(&private).unwrap().len(),
        3,
        "two private, one locked"
    );
}

/// Rows: X03
#[tokio::test(flavor = "multi_thread")]
async fn privileged_initial_contents_come_from_a_ref() {
    let Some(state) = state() else { return };
    let outside = Outside::default();
    let from = step(
        &state.refs,
        None,
        &outside,
        &[("seed", Some("s")), ("gone", Some("g"))],
    )
    .await;
    let cache = named(&state.refs, "seeded", Some(&from), Sharing::Shared).await;
    cache.tree().root().unlink("gone").unwrap();
    write(cache.tree().root(), "own", "o");
    drop(cache);
    let cache = named(&state.refs, "seeded", Some(&from), Sharing::Shared).await;
    assert_eq!(names(&listing(&cache.tree())), ["own", "seed"]);
    assert!(
        listing(
            &named(&state.refs, "seeded", None, Sharing::Shared)
                .await
                .tree()
        )
        .is_empty()
    );
}

/// `--no-cache` beside a running user of the same cache mount: it must not see what that one
/// writes, nor take anything from it.
///
/// Rows: C06, X03
#[tokio::test(flavor = "multi_thread")]
async fn privileged_beginning_anew_leaves_users_their_directory() {
    let Some(state) = state() else { return };
    let old = named(&state.refs, "cache", None, Sharing::Shared).await;
    write(old.tree().root(), "before", "1");
    state.refs.begin_anew(["cache"]).unwrap();
    let anew = named(&state.refs, "cache", None, Sharing::Shared).await;
    assert!(listing(&anew.tree()).is_empty());
    write(anew.tree().root(), "after", "2");
    assert_eq!(listing(&old.tree())["before"], "1");
    assert!(!listing(&old.tree()).contains_key("after"));
    drop((old, anew));
    let next = named(&state.refs, "cache", None, Sharing::Locked).await;
    assert_eq!(listing(&next.tree())["after"], "2");
    drop(next);
    // Nobody uses it: it goes at once.
    state.refs.begin_anew(["cache"]).unwrap();
    let empty = named(&state.refs, "cache", None, Sharing::Private).await;
    assert!(listing(&empty.tree()).is_empty());
}

/// A client's folder: sent in part, frozen, thawed by the next build unless someone looks at it.
#[tokio::test(flavor = "multi_thread")]
async fn privileged_local_folders_are_frozen_and_thawed_in_place() {
    let Some(state) = state() else { return };
    let outside = Outside::default();
    let folder = named(&state.refs, "local", None, Sharing::Private).await;
    write(folder.tree().root(), "main.c", "1");
    folder.set_note("seen", b"1").unwrap();
    let shared = named(&state.refs, "cache", None, Sharing::Shared).await;
    assert!(matches!(shared.commit(), Err(refs::Error::CannotFreeze(_))));
    let first = folder.commit().unwrap();
    assert_eq!(first.note("seen").unwrap().as_deref(), Some(&b"1"[..]));
    let values = || {
        let count = "SELECT count(*) FROM refs_note_values";
        let read = |tx: &db::Tx<'_>| tx.row(count, [], |row| row.get::<_, i64>(0));
        state.refs.db().read(read).unwrap().unwrap()
    };
    assert_eq!(values(), 1);
    let other = named(&state.refs, "other", None, Sharing::Private).await;
    other.set_note("seen", b"no").unwrap();
    other.set_note("seen", b"yes").unwrap();
    assert_eq!(other.note("seen").unwrap().as_deref(), Some(&b"yes"[..]));
    drop(other);
    assert_eq!(values(), 2);
    state.refs.forget_named("other").unwrap();
    assert_eq!(values(), 1, "a note goes with what it is about");
    let tree = first
        .tree(&outside, &progress::StepProgress::none())
        .await
        .unwrap();
    assert_eq!(listing(&tree)["main.c"], "1");
    // In use: the next build begins anew beside it.
    let second = named(&state.refs, "local", None, Sharing::Private).await;
    assert!(listing(&second.tree()).is_empty());
    drop(second);
    state.refs.forget_named("local").unwrap();
    assert_eq!(
        files(&first, &outside).await.len(),
        1,
        "what is in use is not forgotten"
    );
    let id = first.id().to_owned();
    drop((tree, first));
    let third = named(&state.refs, "local", None, Sharing::Private).await;
    assert_eq!(
        listing(&third.tree())["main.c"],
        "1",
        "only what changed is sent again"
    );
    assert_eq!(third.note("seen").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(
        state.refs.get(&id).unwrap(),
        None,
        "another state is another result"
    );
    write(third.tree().root(), "main.c", "2");
    let frozen = third.commit().unwrap();
    assert_ne!(frozen.id(), id);
    assert_eq!(files(&frozen, &outside).await["main.c"], "2");
    // Built upon, it can never be thawed.
    let child = step(&state.refs, Some(&frozen), &outside, &[("out", Some("o"))]).await;
    drop(frozen);
    let fourth = named(&state.refs, "local", None, Sharing::Private).await;
    assert!(listing(&fourth.tree()).is_empty());
    assert_eq!(files(&child, &outside).await["main.c"], "2");
}
