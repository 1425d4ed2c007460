//! Transfers between two ends in memory, and against senders and receivers that lie.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use prost::Message as _;

use super::*;
use crate::patterns::Patterns;
use crate::{Observer, Summary};

fn root(path: &Path) -> stdx::sys::Root {
    stdx::sys::Root::open(path).unwrap()
}

fn write(dir: &Path, path: &str, text: &str) {
    let path = dir.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

async fn sync(from: &Path, to: &Path, filter: Filter, options: Receive) -> Result<Summary> {
    let (here, there) = Link::pair();
    let (sent, received) = tokio::join!(
        send(here, root(from), filter, |_| true, None),
        receive(there, root(to), options)
    );
    let (received, _) = received?;
    sent?;
    Ok(received)
}

fn mirror() -> Receive {
    Receive {
        delete: true,
        ..Receive::default()
    }
}

/// Every name below `dir` with its kind, mode and content.
fn tree(dir: &Path) -> Vec<String> {
    fn add(dir: &Path, name: &Path, found: &mut Vec<String>) {
        let mut names: Vec<_> = std::fs::read_dir(dir.join(name))
            .unwrap()
            .map(|e| name.join(e.unwrap().file_name()))
            .collect();
        names.sort();
        for name in names {
            let path = dir.join(&name);
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let mode = meta.permissions().mode() & 0o7777;
            let shown = name.display();
            if meta.is_dir() {
                found.push(format!("{shown}/ {mode:o}"));
                add(dir, &name, found);
            } else if meta.is_symlink() {
                found.push(format!(
                    "{shown} -> {}",
                    std::fs::read_link(&path).unwrap().display()
                ));
            } else {
                let text = String::from_utf8(std::fs::read(&path).unwrap()).unwrap();
                found.push(format!("{shown} {mode:o} {} {text}", meta.nlink()));
            }
        }
    }
    let mut found = Vec::new();
    add(dir, Path::new(""), &mut found);
    found
}

/// Rows: N03, N04
#[tokio::test]
async fn a_tree_arrives_as_it_is_and_only_changes_travel_again() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (from, to) = (from.path(), to.path());
    write(from, "a/b/c", "deep");
    write(from, "a.txt", "text");
    write(from, "run.sh", "x");
    std::fs::set_permissions(from.join("run.sh"), PermissionsExt::from_mode(0o4755)).unwrap();
    write(from, "empty", "");
    std::fs::create_dir(from.join("dir")).unwrap();
    std::fs::set_permissions(from.join("dir"), PermissionsExt::from_mode(0o700)).unwrap();
    std::os::unix::fs::symlink("../outside", from.join("a/link")).unwrap();
    std::fs::hard_link(from.join("a.txt"), from.join("z.txt")).unwrap();
    let big = "0123456789".repeat(20_000);
    write(from, "big", &big);
    // What is in the way goes.
    write(to, "a.txt/was-a-dir", "x");
    write(to, "stale/x", "x");
    write(to, "dir", "was a file");

    let first = sync(from, to, Filter::default(), mirror()).await.unwrap();
    assert_eq!(tree(to), tree(from));
    assert_eq!((first.files, first.removed), (5, 1));
    assert_eq!(first.bytes, 4 + 4 + 1 + big.len() as u64);
    let time = |dir: &Path| {
        std::fs::metadata(dir.join("a/b"))
            .unwrap()
            .modified()
            .unwrap()
    };
    assert_eq!(time(from), time(to));

    let again = sync(from, to, Filter::default(), mirror()).await.unwrap();
    assert_eq!((again.files, again.bytes, again.removed), (0, 0, 0));

    write(from, "a/b/c", "other");
    std::fs::remove_file(from.join("empty")).unwrap();
    let third = sync(from, to, Filter::default(), mirror()).await.unwrap();
    assert_eq!((third.files, third.bytes, third.removed), (1, 5, 1));
    assert_eq!(tree(to), tree(from));

    let all = sync(
        from,
        to,
        Filter::default(),
        Receive {
            all: true,
            ..mirror()
        },
    )
    .await
    .unwrap();
    assert_eq!(all.files, 4);
}

/// Results of builds are linked to what is here (`refs::Ref::lend`), so nothing that comes may be
/// written into a file that is here, nor described on it.
///
/// Rows: Q4
#[tokio::test]
async fn what_comes_replaces_files_and_never_changes_them() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let elsewhere = tempfile::tempdir().unwrap();
    let (from, to) = (from.path(), to.path());
    let names = [
        "text", "mode", "time", "grown", "linked", "link", "gone", "same",
    ];
    for name in names {
        write(from, name, "old");
    }
    sync(from, to, Filter::default(), mirror()).await.unwrap();
    for name in names {
        std::fs::hard_link(to.join(name), elsewhere.path().join(name)).unwrap();
    }
    let seen = || {
        let seen = names.map(|name| {
            let path = elsewhere.path().join(name);
            let meta = std::fs::metadata(&path).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            (text, meta.mode(), meta.modified().unwrap(), meta.uid())
        });
        seen.to_vec()
    };
    let before = seen();
    write(from, "text", "new");
    write(from, "grown", "longer than before");
    std::fs::set_permissions(from.join("mode"), PermissionsExt::from_mode(0o600)).unwrap();
    let time = std::fs::File::options()
        .write(true)
        .open(from.join("time"))
        .unwrap();
    time.set_modified(std::time::UNIX_EPOCH).unwrap();
    std::fs::remove_file(from.join("link")).unwrap();
    std::fs::remove_file(from.join("linked")).unwrap();
    std::fs::hard_link(from.join("same"), from.join("sane")).unwrap();
    std::fs::remove_file(from.join("gone")).unwrap();
    for all in [false, true] {
        let options = Receive { all, ..mirror() };
        sync(from, to, Filter::default(), options).await.unwrap();
        assert_eq!(seen(), before, "all: {all}");
        assert_eq!(tree_without_links(to), tree_without_links(from));
    }
}

/// The tree, but for how many names files have elsewhere.
fn tree_without_links(dir: &Path) -> Vec<String> {
    let lines = tree(dir).into_iter();
    let words = lines.map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    words
        .map(|mut words| {
            words.truncate(4);
            if words.len() > 2 {
                words.remove(2);
            }
            words.join(" ")
        })
        .collect()
}

/// Deeper than directories are held open, on either side.
///
/// Rows: N04
#[tokio::test]
async fn deep_trees_arrive() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut path = String::new();
    for depth in 0..150 {
        write(from.path(), &format!("{path}a"), &depth.to_string());
        write(from.path(), &format!("{path}z"), &depth.to_string());
        path.push_str("d/");
    }
    let summary = sync(from.path(), to.path(), Filter::default(), mirror())
        .await
        .unwrap();
    assert_eq!(summary.files, 300);
    assert_eq!(tree(to.path()), tree(from.path()));
    let again = sync(from.path(), to.path(), Filter::default(), mirror())
        .await
        .unwrap();
    assert_eq!((again.files, again.removed), (0, 0));
}

/// Both sides count packets, as BuildKit does, not only what is in files: a directory of which nothing
/// had to come was looked through all the same.
///
/// Rows: N04
#[tokio::test]
async fn packets_are_counted() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(from.path(), "sub/a", "hello");
    let transfer = async || {
        let told = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
        let observers = told.clone().map(|told| -> Observer {
            Arc::new(move |bytes| told.store(bytes, Ordering::Relaxed))
        });
        let [sending, receiving] = observers;
        let (here, mut there) = Link::pair();
        let passed = Arc::new(Mutex::new(Vec::new()));
        let passing = passed.clone();
        let look = move |batch: &Result<Batch>| {
            let sizes = batch
                .iter()
                .flatten()
                .map(|p| (p.r#type(), p.encoded_len()));
            passing.lock().unwrap().extend(sizes);
        };
        there.incoming = there.incoming.inspect(look).boxed();
        let options = Receive {
            observer: Some(receiving),
            ..mirror()
        };
        let filter = Filter::default();
        let (sent, received) = tokio::join!(
            send(here, root(from.path()), filter, |_| true, Some(sending)),
            receive(there, root(to.path()), options)
        );
        sent.unwrap();
        let passed = passed.lock().unwrap().clone();
        let told = told.map(|told| told.load(Ordering::Relaxed));
        (passed, told, received.unwrap().0)
    };
    let sum = |passed: &[(PacketType, usize)], of: &[PacketType]| -> u64 {
        let counted = passed.iter().filter(|(kind, _)| of.contains(kind));
        counted.map(|(_, size)| *size as u64).sum()
    };
    let (stat, data, fin) = (
        PacketType::PacketStat,
        PacketType::PacketData,
        PacketType::PacketFin,
    );
    let (passed, [sent, received], summary) = transfer().await;
    // The sender does not count the packet that ends a file.
    let end = 4;
    assert_eq!(sent, sum(&passed, &[stat, data]) - end);
    assert_eq!(received, sum(&passed, &[stat, data]));
    assert_eq!(summary.wire_bytes, sum(&passed, &[stat, data, fin]));
    assert_eq!(summary.bytes, 5);

    let (passed, [sent, received], summary) = transfer().await;
    assert_eq!((summary.files, summary.bytes), (0, 0));
    assert!(sent > 0, "names were sent");
    assert_eq!([sent, received], [sum(&passed, &[stat]); 2]);
    assert_eq!(summary.wire_bytes, sum(&passed, &[stat, fin]));
}

/// Rows: N03
#[tokio::test]
async fn patterns_say_what_travels() {
    let from = tempfile::tempdir().unwrap();
    for path in [
        "a/1.go",
        "a/1.md",
        "a/sub/2.go",
        "b/3.md",
        "node/x",
        "node/keep/y",
        "top.go",
    ] {
        write(from.path(), path, "");
    }
    let names = async |include: &[&str], exclude: &[&str], follow: &[&str]| {
        let to = tempfile::tempdir().unwrap();
        let filter = Filter::new(include, exclude, follow).unwrap();
        sync(from.path(), to.path(), filter, mirror())
            .await
            .unwrap();
        let lines = tree(to.path());
        let files: Vec<_> = lines.iter().filter(|line| !line.contains("/ ")).collect();
        files
            .iter()
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        names(&["**/*.go"], &[], &[]).await,
        "a/1.go a/sub/2.go top.go"
    );
    assert_eq!(names(&["a"], &["**/*.md"], &[]).await, "a/1.go a/sub/2.go");
    assert_eq!(names(&[], &["*", "!a/sub"], &[]).await, "a/sub/2.go");
    assert_eq!(
        names(&[], &["node", "!node/keep"], &[]).await,
        "a/1.go a/1.md a/sub/2.go b/3.md node/keep/y top.go"
    );
    assert_eq!(
        names(&[], &["**/*.md", "node"], &[]).await,
        "a/1.go a/sub/2.go top.go"
    );

    // A directory on the way only comes when something in it does.
    let to = tempfile::tempdir().unwrap();
    sync(
        from.path(),
        to.path(),
        Filter::new(&["a/sub/*"], &[], &[]).unwrap(),
        mirror(),
    )
    .await
    .unwrap();
    assert_eq!(tree(to.path()).len(), 3);

    std::os::unix::fs::symlink("a/sub", from.path().join("l1")).unwrap();
    std::os::unix::fs::symlink("/l1/2.go", from.path().join("l2")).unwrap();
    assert_eq!(names(&[], &[], &["l2"]).await, "a/sub/2.go l1 l2");
    assert_eq!(names(&[], &[], &["top.*"]).await, "top.go");
    std::os::unix::fs::symlink("loop", from.path().join("loop")).unwrap();
    assert_eq!(names(&[], &[], &["loop"]).await, "loop");
}

/// Rows: N04
#[tokio::test]
async fn names_only() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(from.path(), "a/with", "1234");
    write(from.path(), "b/without", "1234");
    let except = Some(Patterns::new(["a/*"]).unwrap());
    let done = sync(
        from.path(),
        to.path(),
        Filter::default(),
        Receive {
            metadata_only: except,
            ..mirror()
        },
    );
    assert_eq!(done.await.unwrap().files, 1);
    assert!(to.path().join("a/with").exists() && !to.path().join("b").exists());
    let told = std::fs::read(to.path().join(".fsutil-metadata")).unwrap();
    assert!(String::from_utf8_lossy(&told).contains("b/without"));
}

/// Rows: N04
#[tokio::test]
async fn ten_thousand_files() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for n in 0..10_000 {
        if n % 100 == 0 {
            std::fs::create_dir(from.path().join(format!("{}", n / 100))).unwrap();
        }
        std::fs::write(from.path().join(format!("{}/{n}", n / 100)), "x").unwrap();
    }
    let begin = std::time::Instant::now();
    let done = sync(from.path(), to.path(), Filter::default(), mirror())
        .await
        .unwrap();
    assert_eq!((done.files, done.entries), (10_000, 10_100));
    assert!(
        begin.elapsed() < std::time::Duration::from_secs(30),
        "{:?}",
        begin.elapsed()
    );
}

fn told(path: &str, mode: u32, link: &str) -> Packet {
    let stat = Stat {
        path: Bytes::copy_from_slice(path.as_bytes()),
        mode,
        linkname: Bytes::copy_from_slice(link.as_bytes()),
        ..Stat::default()
    };
    Packet {
        stat: Some(stat),
        ..packet(PacketType::PacketStat)
    }
}

const DIR: u32 = 1 << 31 | 0o755;
const LINK: u32 = 1 << 27 | 0o777;

/// Rows: N04
#[tokio::test]
async fn a_sender_cannot_reach_outside() {
    let end = || packet(PacketType::PacketStat);
    let data = |id, text: &str| Packet {
        id,
        data: Bytes::copy_from_slice(text.as_bytes()),
        ..packet(PacketType::PacketData)
    };
    for (packets, kind) in [
        (vec![told("../secret", 0o644, "")], "path"),
        (vec![told("a/../../secret", 0o644, "")], "path"),
        (vec![told("a//b", 0o644, "")], "path"),
        (vec![told("", DIR, "")], "path"),
        (vec![told(".", DIR, "")], "path"),
        (vec![told("a\0b", 0o644, "")], "path"),
        // Through a link that leads out.
        (
            vec![told("l", LINK, ".."), told("l/secret", 0o644, "")],
            "not told",
        ),
        (vec![told("x", 0o644, "../secret")], "path"),
        (vec![told("x", 0o644, "y")], "comes later"),
        (
            vec![told("l", LINK, "../secret"), told("m", 0o644, "l")],
            "no file",
        ),
        (
            vec![told("b", 0o644, ""), told("a", 0o644, "")],
            "out of order",
        ),
        (
            vec![told("a", 0o644, ""), told("a", 0o644, "")],
            "out of order",
        ),
        (vec![told("a/b", 0o644, "")], "not told"),
        (vec![data(7, "x")], "not asked for"),
        (vec![told("a", DIR, ""), end(), data(0, "x")], ""),
        (vec![told("a", 1 << 19, "")], "kind"),
        (vec![packet(PacketType::PacketReq)], "request"),
        (vec![packet(PacketType::PacketFin)], "end"),
        // Gone in the middle of a file.
        (vec![told("a", 0o644, ""), end(), data(0, "half")], "left"),
    ] {
        let shown = format!("{packets:?}");
        let outcome =
            tokio::time::timeout(std::time::Duration::from_secs(10), receive_these(packets)).await;
        let (result, to) = outcome.expect("nobody waits for ever");
        match (result, kind) {
            // A directory needs nothing more; the data after the end comes too late.
            (Ok(()), "") => {}
            (Ok(()), _) => panic!("{shown} was taken"),
            (Err(error), kind) => assert!(error.to_string().contains(kind), "{shown}: {error}"),
        }
        assert_eq!(
            std::fs::read_to_string(to.path().join("secret")).unwrap(),
            "mine",
            "{shown}"
        );
        assert_eq!(
            std::fs::symlink_metadata(to.path().join("secret"))
                .unwrap()
                .nlink(),
            1,
            "{shown}"
        );
    }
}

/// What a receiver makes of these packets from a sender that then leaves.
async fn receive_these(packets: Vec<Packet>) -> (Result<()>, tempfile::TempDir) {
    let to = tempfile::tempdir().unwrap();
    std::fs::create_dir(to.path().join("root")).unwrap();
    std::fs::write(to.path().join("secret"), "mine").unwrap();
    let (here, there) = Link::pair();
    let talk = async move {
        for packet in packets {
            if here.out.send(vec![packet]).await.is_err() {
                break;
            }
        }
    };
    let target = root(&to.path().join("root"));
    let (_, result) = tokio::join!(talk, receive(there, target, mirror()));
    (result.map(drop), to)
}

/// Rows: N04
#[tokio::test]
async fn what_the_other_side_says_is_passed_on() {
    let trouble = Packet {
        data: "disk on fire".into(),
        ..packet(PacketType::PacketErr)
    };
    let (result, _to) = receive_these(vec![trouble.clone()]).await;
    assert_eq!(result.unwrap_err().to_string(), "disk on fire");

    let from = tempfile::tempdir().unwrap();
    let (here, there) = Link::pair();
    there.out.send(vec![trouble]).await.unwrap();
    let error = send(here, root(from.path()), Filter::default(), |_| true, None)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "disk on fire");
}

/// The other side says why it ends, and its line breaks at once.
///
/// Rows: N04
#[tokio::test]
async fn the_reason_counts_more_than_the_broken_line() {
    let trouble = Packet {
        data: "disk on fire".into(),
        ..packet(PacketType::PacketErr)
    };
    for (said, expected) in [(vec![vec![trouble]], "disk on fire"), (vec![], "a tooth")] {
        let to = tempfile::tempdir().unwrap();
        let (out, _outgoing) = Link::outgoing();
        let broken = Err(Error::Lost("a tooth".into()));
        let heard = said.into_iter().map(Ok).chain([broken]);
        let link = Link {
            out,
            incoming: futures::stream::iter(heard).boxed(),
        };
        let error = receive(link, root(to.path()), mirror()).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// Rows: N04
#[tokio::test]
async fn a_batch_is_full_when_its_bytes_are_many() {
    let data = |size: usize| Packet {
        data: vec![0; size].into(),
        ..packet(PacketType::PacketData)
    };
    let sizes = [0, 1, 1 << 15, 1 << 15, 1 << 15, 1 << 15, 1 << 24, 1 << 24];
    let packets = sizes.map(|size| Ok(data(size)));
    let (out, _outgoing) = Link::outgoing();
    let link = Link::new(out, futures::stream::iter(packets));
    let batches: Vec<Vec<usize>> = link
        .incoming
        .map(|batch| batch.unwrap().iter().map(|it| it.data.len()).collect())
        .collect()
        .await;
    let expected = [
        &[0, 1, 1 << 15, 1 << 15][..],
        &[1 << 15, 1 << 15],
        &[1 << 24],
        &[1 << 24],
    ];
    assert_eq!(batches, expected);
}

/// Who receives goes away while a file is written: the directory is held until that is done, and
/// nothing is written afterwards.
///
/// Rows: N04, S19
#[tokio::test]
async fn a_directory_is_held_until_nothing_is_written_any_more() {
    let to = tempfile::tempdir().unwrap();
    let (here, there) = Link::pair();
    let (written, mut writes) = tokio::sync::mpsc::unbounded_channel();
    let (go_on, may) = std::sync::mpsc::channel::<()>();
    let may = std::sync::Mutex::new(may);
    let observer: Observer = Arc::new(move |_| {
        let _ = written.send(());
        let _ = may.lock().unwrap().recv();
    });
    let hold: Arc<dyn Send + Sync> = Arc::new(());
    let held = Arc::downgrade(&hold);
    let options = Receive {
        observer: Some(observer),
        hold: Some(hold),
        ..mirror()
    };
    let stat = |path: &'static str| Packet {
        stat: Some(proto::fsutil::types::Stat {
            path: path.into(),
            mode: 0o644,
            size: 1,
            ..Default::default()
        }),
        ..packet(PacketType::PacketStat)
    };
    let data = |id| Packet {
        id,
        data: "x".into(),
        ..packet(PacketType::PacketData)
    };
    let told = vec![stat("a"), stat("b"), packet(PacketType::PacketStat)];
    here.out.send(told).await.unwrap();
    let receiving = stdx::task::spawn("receive", receive(there, root(to.path()), options));
    here.out.send(vec![data(0), data(1)]).await.unwrap();
    writes.recv().await.unwrap();
    drop(receiving);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert!(held.upgrade().is_some(), "it is being written to");
    drop(go_on);
    while held.upgrade().is_some() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert_eq!(writes.recv().await, None, "nothing more was written");
}

/// Rows: N04
#[tokio::test]
async fn who_asks_for_too_much_is_told_at_once() {
    let from = tempfile::tempdir().unwrap();
    write(from.path(), "a", &"x".repeat(8 << 20));
    let (here, mut there) = Link::pair();
    let ask = |id| Packet {
        id,
        ..packet(PacketType::PacketReq)
    };
    let asking = async move {
        let mut bytes = 0;
        while let Some(Ok(batch)) = there.incoming.next().await {
            for message in batch {
                match message.r#type() {
                    PacketType::PacketStat if message.stat.is_none() => {
                        there.out.send(vec![ask(0), ask(0)]).await.unwrap();
                    }
                    PacketType::PacketErr => return bytes,
                    _ => bytes += message.data.len(),
                }
            }
        }
        panic!("nothing was said")
    };
    let sending = send(here, root(from.path()), Filter::default(), |_| true, None);
    let (bytes, sent) = tokio::join!(asking, sending);
    sent.unwrap_err();
    assert!(bytes < 8 << 20, "not when the first one has been sent");
}

/// Rows: N04
#[tokio::test]
async fn a_receiver_gets_only_what_was_told() {
    let from = tempfile::tempdir().unwrap();
    write(from.path(), "a", "x");
    std::os::unix::fs::symlink("a", from.path().join("l")).unwrap();
    for ask in [vec![9], vec![0, 0], vec![1]] {
        let (here, mut there) = Link::pair();
        let asking = async move {
            // Everything is told first, then asked for.
            while let Some(Ok(batch)) = there.incoming.next().await {
                if batch.iter().any(|message| message.stat.is_none()) {
                    break;
                }
            }
            for id in ask {
                let _ = there
                    .out
                    .send(vec![Packet {
                        id,
                        ..packet(PacketType::PacketReq)
                    }])
                    .await;
            }
            while there.incoming.next().await.is_some() {}
        };
        let sending = send(here, root(from.path()), Filter::default(), |_| true, None);
        let (_, sent) = tokio::join!(asking, sending);
        assert!(
            sent.unwrap_err()
                .to_string()
                .contains("cannot be asked for")
        );
    }
    // A receiver that leaves is no reason to wait.
    let (here, there) = Link::pair();
    drop(there);
    assert!(
        send(here, root(from.path()), Filter::default(), |_| true, None)
            .await
            .is_err()
    );
}
