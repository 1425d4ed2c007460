//! Cache mounts: directories that steps share and keep.

use std::time::Duration;

use llb::{CacheMount, Exec, Mount, MountKind, Sharing};
use refs::{Filter, RecordType};
use session::Attachables;
use tokio::time::timeout;

use crate::setup::{World, mount, sh};

fn cache(target: &str, id: &str, sharing: Sharing) -> Mount {
    mount(
        target,
        MountKind::Cache(CacheMount {
            id: id.into(),
            sharing,
        }),
    )
}

fn with(script: &str, mounts: impl IntoIterator<Item = Mount>) -> Exec {
    let mut exec = sh(script);
    exec.mounts.extend(mounts);
    exec
}

/// Rows: X03, C06
#[tokio::test]
async fn privileged_a_cache_mount_is_kept_between_steps() {
    let Some(world) = World::new().await else {
        return;
    };
    let (base, client) = (world.busybox(), world.plain());
    let one = |script| with(script, [cache("/c", "id", Sharing::Shared)]);
    let output = client
        .run(one("echo 1 > /c/f; echo root > /r"), &[&base])
        .await
        .output();
    let files = world.listing(&output).await;
    assert!(files.contains_key("r") && !files.keys().any(|path| path.starts_with("c/")));
    client
        .run(one("test $(cat /c/f) = 1"), &[&base])
        .await
        .output();
    let other = with("test ! -e /c/f", [cache("/c", "other", Sharing::Shared)]);
    client.run(other, &[&base]).await.output();

    let records = world.refs.usage(&Filter::default()).unwrap();
    let kept: Vec<_> = records
        .iter()
        .filter(|record| record.record_type == RecordType::CacheMount)
        .collect();
    assert_eq!(kept.len(), 2);
    assert!(kept.iter().any(|record| {
        record
            .description
            .contains("cached mount /c from exec /bin/sh")
    }));

    // Failing keeps what was written; not wanting caches begins with an empty one.
    assert!(
        client
            .run(one("echo 2 > /c/g; false"), &[&base])
            .await
            .outputs
            .is_err()
    );
    client
        .run(one("test -e /c/f && test -e /c/g"), &[&base])
        .await
        .output();
    let anew = llb::Meta::default().ignore_cache(true);
    let op = client
        .op_with(one("test ! -e /c/f"), 1, None, anew)
        .unwrap();
    client.run_op(&*op, &[&base]).await.output();
}

/// Rows: X03, C06
#[tokio::test]
async fn privileged_a_graph_that_is_refused_empties_no_cache_mount() {
    let Some(world) = World::new().await else {
        return;
    };
    let (base, client) = (world.busybox(), world.plain());
    let one = |script| with(script, [cache("/c", "id", Sharing::Shared)]);
    client.run(one("echo 1 > /c/f"), &[&base]).await.output();
    let mut builder = llb::Builder::new();
    let anew = llb::Meta::default().ignore_cache(true);
    let mounts = || {
        let mut mount = llb::MountSpec::root(None);
        mount.target = "/c".to_owned();
        mount.kind = cache("/c", "id", Sharing::Shared).kind;
        vec![llb::MountSpec::root(None), mount]
    };
    let first = builder.run(Exec::new(["/first"]), mounts(), None, anew);
    let mut second = Exec::new(["/second"]);
    second.network = llb::Network::Host;
    let on = vec![llb::MountSpec::root(first.outputs.get("/").copied())];
    let second = builder.run(second, on, None, llb::Meta::default());
    let definition = builder.definition(second.outputs.get("/"));
    let refused = client.vertices(&llb::Graph::load(&definition).unwrap());
    let error = refused.err().expect("it may not have the network");
    assert_eq!(error.kind(), stdx::Kind::Denied, "{error}");
    client
        .run(one("test $(cat /c/f) = 1"), &[&base])
        .await
        .output();
}

/// A cache mount can begin as something, of which a part is mounted.
/// Rows: X03, L05
#[tokio::test]
async fn privileged_a_cache_mount_begins_as_its_input() {
    let Some(world) = World::new().await else {
        return;
    };
    let (base, client) = (world.busybox(), world.plain());
    let (first, second) = (world.tree(&[("sub/f", "1")]), world.tree(&[("sub/f", "2")]));
    let on_input = |script| {
        let mut mount = cache("/c", "id", Sharing::Locked);
        (mount.input, mount.selector) = (Some(1), "sub".into());
        with(script, [mount])
    };
    client
        .run(
            on_input("cat /c/f; test $(cat /c/f) = 1; echo new > /c/f"),
            &[&base, &first],
        )
        .await
        .output();
    client
        .run(on_input("test $(cat /c/f) = new"), &[&base, &first])
        .await
        .output();
    client
        .run(on_input("test $(cat /c/f) = 2"), &[&base, &second])
        .await
        .output();
    assert_eq!(world.read(&first, "sub/f").await.unwrap(), "1");
}

/// Two at one time: both in one, one after the other, or each alone.
/// Rows: X03
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn privileged_cache_mounts_are_shared_as_asked() {
    let Some(world) = World::new().await else {
        return;
    };
    let (base, client) = (world.busybox(), world.plain());
    let both = async |one: Exec, two: Exec| {
        let inputs = [&base];
        let runs = async { tokio::join!(client.run(one, &inputs), client.run(two, &inputs)) };
        let (one, two) = timeout(Duration::from_secs(30), runs)
            .await
            .expect("they end");
        one.output();
        two.output();
    };
    let meet = |me: &str, you: &str| {
        let script = format!("touch /c/{me}; until test -e /c/{you}; do sleep 0.05; done");
        with(&script, [cache("/c", "shared", Sharing::Shared)])
    };
    both(meet("a", "b"), meet("b", "a")).await;

    let alone = |sharing| {
        let script = "test ! -e /c/busy && touch /c/busy && sleep 0.3 && rm /c/busy";
        with(script, [cache("/c", &format!("{sharing:?}"), sharing)])
    };
    both(alone(Sharing::Locked), alone(Sharing::Locked)).await;
    both(alone(Sharing::Private), alone(Sharing::Private)).await;

    // Two locked ones, asked for in two orders; one of them twice.
    let crossed = |order: [&str; 2]| {
        let mut mounts = order
            .map(|id| cache(&format!("/{id}"), id, Sharing::Locked))
            .to_vec();
        mounts.push(cache("/again", order[0], Sharing::Locked));
        with(
            &format!("touch /{}/x && test -e /again/x && sleep 0.2", order[0]),
            mounts,
        )
    };
    both(crossed(["a", "b"]), crossed(["b", "a"])).await;
}

/// A step nobody waits for any more is killed, and lets go once it is dead.
/// Rows: X03, X17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn privileged_dropping_a_step_kills_it() {
    let Some(world) = World::new().await else {
        return;
    };
    let base = world.busybox();
    let client = world.client(Attachables::new(), false);
    let signs = || cache("/signs", "signs", Sharing::Shared);
    let script =
        "touch /signs/up; trap '' TERM; while true; do echo alive > /c/alive; sleep 0.02; done";
    let long = with(script, [signs(), cache("/c", "locked", Sharing::Locked)]);
    let inputs = [&base];
    let up = async {
        let seen = with("until test -e /signs/up; do sleep 0.05; done", [signs()]);
        client.run(seen, &inputs).await.output();
    };
    tokio::select! {
        done = client.run(long, &inputs) => panic!("it does not end by itself: {done:?}"),
        () = up => {}
    }
    let after = with(
        "rm /c/alive; sleep 0.3; test ! -e /c/alive",
        [cache("/c", "locked", Sharing::Locked)],
    );
    let done = timeout(Duration::from_secs(30), client.run(after, &inputs)).await;
    done.expect("the lock is free").output();
}
