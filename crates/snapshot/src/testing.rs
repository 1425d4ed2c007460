//! What every [`Snapshotter`] promises, as tests. A kind proves itself with
//! `snapshot::suite!(open)`, where `fn open(dir: &Path) -> Option<Arc<dyn Snapshotter>>` gives
//! `None` where the kind cannot work (say why).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use stdx::sys::{FileKind, Root, Time};

use crate::{LayerId, Snapshotter, Tree};

/// Makes a fresh snapshotter in a directory.
pub type Open = fn(&Path) -> Option<Arc<dyn Snapshotter>>;

/// Writes a file with these contents.
pub fn write(root: &Root, path: &str, text: &str) {
    let _ = root.unlink(path);
    if let Some((dir, _)) = path.rsplit_once('/') {
        root.create_dir_all(dir, 0o755).unwrap();
    }
    root.create_file(path, 0o644)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
}

/// Every name in the tree with its contents (`/` for a directory, `-> target` for a link).
pub fn listing(tree: &Tree) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    list(tree.root(), "", &mut found);
    found
}

fn list(root: &Root, dir: &str, found: &mut BTreeMap<String, String>) {
    for entry in root
        .read_dir(if dir.is_empty() { "." } else { dir })
        .unwrap()
    {
        let path = format!("{dir}{}", entry.name.to_string_lossy());
        let stat = root.lstat(&path).unwrap();
        let what = match stat.kind {
            FileKind::Dir => {
                list(root, &format!("{path}/"), found);
                "/".to_owned()
            }
            FileKind::Symlink => format!("-> {}", root.read_link(&path).unwrap().display()),
            FileKind::File => {
                let mut text = String::new();
                root.open_file(&path)
                    .unwrap()
                    .read_to_string(&mut text)
                    .unwrap();
                text
            }
            other => format!("{other:?} {:?}", stat.device()),
        };
        found.insert(path, what);
    }
}

fn expect(tree: &Tree, expected: &[(&str, &str)]) {
    let expected = expected
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    assert_eq!(listing(tree), expected);
}

/// Begins on `lowers`, lets `work` write, commits.
pub fn layer(on: &dyn Snapshotter, lowers: &[LayerId], work: impl FnOnce(&Root)) -> LayerId {
    let active = on.begin(lowers).unwrap();
    work(active.tree().root());
    on.commit(active).unwrap()
}

/// What is committed is seen, and later layers cover earlier ones.
pub fn shows_layers_stacked(on: Arc<dyn Snapshotter>) {
    expect(&on.view(&[]).unwrap(), &[]);
    let a = layer(&*on, &[], |root| {
        write(root, "one", "1");
        write(root, "dir/two", "2");
        write(root, "dir/three", "3");
        root.symlink("one", "link").unwrap();
    });
    let both = [a.clone()];
    let b = layer(&*on, &both, |root| {
        write(root, "one", "uno");
        root.unlink("dir/two").unwrap();
        write(root, "dir/four", "4");
    });
    let below: &[_] = &[
        ("dir", "/"),
        ("dir/three", "3"),
        ("dir/two", "2"),
        ("link", "-> one"),
        ("one", "1"),
    ];
    expect(&on.view(&both).unwrap(), below);
    let above: &[_] = &[
        ("dir", "/"),
        ("dir/four", "4"),
        ("dir/three", "3"),
        ("link", "-> one"),
        ("one", "uno"),
    ];
    let view = on.view(&[a.clone(), b.clone()]).unwrap();
    expect(&view, above);
    assert!(view.is_readonly());
    // The upper layer alone shows what it holds and no marks.
    expect(
        &on.view(&[b]).unwrap(),
        &[("dir", "/"), ("dir/four", "4"), ("one", "uno")],
    );
}

/// A directory removed and made again does not show what was in it.
pub fn a_directory_made_again_is_new(on: Arc<dyn Snapshotter>) {
    let a = layer(&*on, &[], |root| {
        write(root, "dir/old", "old");
        write(root, "dir/sub/older", "older");
        write(root, "file-then-dir", "");
        write(root, "dir-then-file/x", "");
    });
    let b = layer(&*on, std::slice::from_ref(&a), |root| {
        root.remove_tree("dir").unwrap();
        write(root, "dir/sub/new", "new");
        root.unlink("file-then-dir").unwrap();
        write(root, "file-then-dir/y", "y");
        root.remove_tree("dir-then-file").unwrap();
        write(root, "dir-then-file", "z");
    });
    let expected: &[_] = &[
        ("dir", "/"),
        ("dir-then-file", "z"),
        ("dir/sub", "/"),
        ("dir/sub/new", "new"),
        ("file-then-dir", "/"),
        ("file-then-dir/y", "y"),
    ];
    expect(&on.view(&[a.clone(), b.clone()]).unwrap(), expected);
    let c = layer(&*on, &[a.clone(), b.clone()], |root| {
        write(root, "dir/more", "more");
    });
    let tree = on.view(&[a, b, c]).unwrap();
    assert_eq!(listing(&tree).len(), expected.len() + 1);
}

/// Owner, mode, times and extended attributes come through a commit.
pub fn keeps_what_files_are(on: Arc<dyn Snapshotter>) {
    let time = Time {
        seconds: 1_234_567_890,
        nanos: 987_654_321,
    };
    let a = layer(&*on, &[], |root| {
        write(root, "tool", "x");
        root.chmod("tool", 0o4751).unwrap();
        root.set_xattr("tool", "user.note".as_ref(), b"seen")
            .unwrap();
        root.set_times("tool", time, time).unwrap();
        root.link("tool", "second-name").unwrap();
    });
    let b = layer(&*on, std::slice::from_ref(&a), |root| {
        write(root, "other", "y");
    });
    let tree = on.view(&[a, b]).unwrap();
    let stat = tree.root().lstat("tool").unwrap();
    assert_eq!((stat.mode, stat.mtime), (0o4751, time));
    assert!(
        stat.nlink >= 2,
        "a view made of links adds names of its own"
    );
    assert_eq!(stat.ino, tree.root().lstat("second-name").unwrap().ino);
    let note = tree.root().xattr("tool", "user.note".as_ref()).unwrap();
    assert_eq!(note.as_deref(), Some(&b"seen"[..]));
}

/// Writing on top of layers leaves the layers as they are.
pub fn layers_do_not_change(on: Arc<dyn Snapshotter>) {
    let a = layer(&*on, &[], |root| write(root, "file", "before"));
    let lowers = [a];
    let view = on.view(&lowers).unwrap();
    let active = on.begin(&lowers).unwrap();
    let root = active.tree().root();
    let file = root.open_with(
        "file",
        rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::TRUNC,
    );
    std::fs::File::from(file.unwrap())
        .write_all(b"after")
        .unwrap();
    root.chmod("file", 0o600).unwrap();
    expect(active.tree(), &[("file", "after")]);
    expect(&view, &[("file", "before")]);
    expect(&on.view(&lowers).unwrap(), &[("file", "before")]);
    assert_eq!(view.root().lstat("file").unwrap().mode, 0o644);
}

/// Dropped before its commit, a state is gone; so is a removed layer, but not for who has it open.
pub fn leaves_nothing_behind(on: Arc<dyn Snapshotter>) {
    let a = layer(&*on, &[], |root| write(root, "file", "text"));
    let lowers = [a.clone()];
    let active = on.begin(&lowers).unwrap();
    write(active.tree().root(), "file", "never seen");
    drop(active);
    assert_eq!(on.layers().unwrap(), lowers);
    let open = on.view(&lowers).unwrap();
    assert!(on.usage(&a).unwrap().inodes >= 2);
    on.remove(&a).unwrap();
    on.remove(&a).unwrap();
    assert!(!on.contains(&a));
    assert_eq!(on.layers().unwrap(), []);
    assert_eq!(on.view(&lowers).unwrap_err().kind(), stdx::Kind::NotFound);
    assert_eq!(
        on.begin(&lowers).err().unwrap().kind(),
        stdx::Kind::NotFound
    );
    assert_eq!(on.usage(&a).unwrap_err().kind(), stdx::Kind::NotFound);
    drop(open);
    on.settle();
}

/// A kept directory stays, can be opened again, made a layer and thawed.
pub fn keeps_what_is_kept(on: Arc<dyn Snapshotter>) {
    let active = on.begin_kept(&[], false).unwrap();
    let id = active.kept().unwrap().clone();
    write(active.tree().root(), "cache", "1");
    let again = on.open_kept(&id, &[], false).unwrap();
    expect(again.tree(), &[("cache", "1")]);
    assert_eq!(
        on.remove_kept(&id).unwrap_err().kind(),
        stdx::Kind::Unavailable
    );
    assert_eq!(
        on.open_kept(&id, &[], true).err().unwrap().kind(),
        stdx::Kind::Unavailable
    );
    drop((active, again));
    let layer = on.commit(on.open_kept(&id, &[], false).unwrap()).unwrap();
    assert_eq!(on.kept().unwrap(), []);
    expect(
        &on.view(std::slice::from_ref(&layer)).unwrap(),
        &[("cache", "1")],
    );
    let id = on.thaw(&layer).unwrap();
    assert!(!on.contains(&layer));
    expect(
        on.open_kept(&id, &[], false).unwrap().tree(),
        &[("cache", "1")],
    );
    on.remove_kept(&id).unwrap();
    assert_eq!(
        on.open_kept(&id, &[], false).err().unwrap().kind(),
        stdx::Kind::NotFound
    );
}

/// A kept directory with layers under it opens again with its changes.
pub fn keeps_changes_to_layers(on: Arc<dyn Snapshotter>) {
    let a = layer(&*on, &[], |root| {
        write(root, "from", "image");
        write(root, "gone", "");
    });
    let lowers = [a];
    let active = on.begin_kept(&lowers, false).unwrap();
    let id = active.kept().unwrap().clone();
    active.tree().root().unlink("gone").unwrap();
    write(active.tree().root(), "new", "text");
    assert_eq!(
        on.open_kept(&id, &lowers, false).err().unwrap().kind(),
        stdx::Kind::Unavailable
    );
    drop(active);
    for _ in 0..2 {
        let again = on.open_kept(&id, &lowers, false).unwrap();
        expect(again.tree(), &[("from", "image"), ("new", "text")]);
    }
    on.remove_kept(&id).unwrap();
}

/// Runs one promise on a fresh snapshotter and sees that it leaves nothing on disk.
pub fn run(open: Open, promise: fn(Arc<dyn Snapshotter>)) {
    let dir = tempfile::tempdir().unwrap();
    let Some(on) = open(dir.path()) else { return };
    promise(Arc::clone(&on));
    on.sync().unwrap();
    drop(on);
    // Another process opens it: what was committed is there.
    let on = open(dir.path()).expect("opened before");
    for layer in on.layers().unwrap() {
        on.view(std::slice::from_ref(&layer)).unwrap();
        on.remove(&layer).unwrap();
    }
    on.settle();
    drop(on);
    for part in ["layers", "active", "kept", "trash", "owners", "empty"] {
        for found in walk(dir.path(), part) {
            assert_eq!(
                std::fs::read_dir(&found).unwrap().count(),
                0,
                "{}",
                found.display()
            );
        }
    }
}

/// Folders called `part` at most two levels down.
fn walk(dir: &Path, part: &str) -> Vec<std::path::PathBuf> {
    let mut found: Vec<_> = Some(dir.join(part))
        .filter(|path| path.is_dir())
        .into_iter()
        .collect();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        found.extend(Some(entry.path().join(part)).filter(|path| path.is_dir()));
    }
    found
}

/// Makes a test of each promise.
#[macro_export]
macro_rules! suite {
    ($open:path) => {
        $crate::suite!($open: shows_layers_stacked, a_directory_made_again_is_new,
            keeps_what_files_are, layers_do_not_change, leaves_nothing_behind, keeps_what_is_kept,
            keeps_changes_to_layers);
    };
    ($open:path: $($test:ident),*) => {
        $(#[test] fn $test() { $crate::testing::run($open, $crate::testing::$test) })*
    };
}
