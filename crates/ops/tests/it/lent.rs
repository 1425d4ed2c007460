//! COPY of a client's directory: results share its files, and nobody can tell.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use llb::{Action, ActionKind, Chown, Copy, File, Rm};
use ops::Output;
use progress::StepProgress;
use session::Attachables;
use session::local::Dirs;
use source::{Identifier, Source};
use stdx::sys::Root;

use crate::setup::{Client, World, found, sh};

/// A client with a directory, and another daemon's worth of the same directory, from which files
/// can only be copied: what it gives is what the first has to give.
struct Lending {
    world: World,
    client: Client,
    dir: tempfile::TempDir,
}

/// What can be seen of a file, and which inode it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    what: String,
    ino: u64,
}

type Listing = BTreeMap<String, Seen>;

impl Lending {
    async fn new() -> Option<Lending> {
        let world = World::new().await?;
        let dir = tempfile::tempdir().unwrap();
        let offers = Attachables::new().with_dirs(
            Dirs::new()
                .with("context", dir.path())
                .with("copied", dir.path()),
        );
        let client = world.client(offers, false);
        let lending = Lending { world, client, dir };
        Some(lending)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn fill(&self) {
        for path in ["a", "sub/b", "sub/deep/c", "sub/empty/.keep", "tool"] {
            self.write(path, path);
        }
        let at = |path: &str| self.dir.path().join(path);
        std::fs::set_permissions(at("tool"), PermissionsExt::from_mode(0o4755)).unwrap();
        std::fs::hard_link(at("sub/b"), at("sub/deep/b-too")).unwrap();
        std::os::unix::fs::symlink("b", at("sub/link")).unwrap();
    }

    async fn fetch(&self, name: &str) -> Output {
        let id = Identifier::parse(&format!("local://{name}"), &Default::default()).unwrap();
        let source = Source::new(&self.world.parts.sources, id, &self.world.parts.platform);
        let step = StepProgress::none();
        let context = self.client.deeds.build.source_context(&step);
        Output(source.fetch(&context).await.unwrap())
    }

    /// A directory of the client that lends nothing for `to`: it lent all to another place, to a
    /// result nobody has removed.
    async fn fetch_unlent(&self, to: &str) -> Output {
        let fetched = self.fetch("copied").await;
        let files = found(&fetched);
        let lend = |to: &str| {
            let borrower = self.world.refs.begin(None, Default::default()).unwrap();
            let lent = files.lend(Path::new(""), Path::new(to), &borrower).unwrap();
            lent.map(|_| borrower.commit().unwrap())
        };
        assert!(lend("nowhere else").is_some());
        assert!(lend(to).is_none());
        fetched
    }

    async fn copy(&self, actions: Vec<Action>, onto: &Output, from: &Output) -> Output {
        let op = self.client.file_op(File { actions }, 2).unwrap();
        self.client.run_op(&*op, &[onto, from]).await.output()
    }

    async fn seen(&self, output: &Output) -> Listing {
        let build = &self.client.deeds.build;
        let tree = output.tree(build, &StepProgress::none()).await.unwrap();
        let mut listing = Listing::new();
        list(tree.unwrap().root(), Path::new(""), &mut listing);
        listing
    }
}

fn list(root: &Root, dir: &Path, listing: &mut Listing) {
    let here = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    for entry in root.read_dir(here).unwrap() {
        let path = dir.join(&entry.name);
        let stat = root.lstat(&path).unwrap();
        let mut what = format!(
            "{:?} {:o} {}:{} {:?}",
            stat.kind,
            stat.mode,
            stat.uid,
            stat.gid,
            root.xattrs(&path).unwrap()
        );
        // The top of what is copied has its time from our own top, which no client sends.
        if path != Path::new("app") {
            what.push_str(&format!(" {:?}", stat.mtime));
        }
        if stat.is_dir() {
            list(root, &path, listing);
        } else if stat.is_symlink() {
            what.push_str(&format!(" -> {:?}", root.read_link(&path).unwrap()));
        } else {
            let mut bytes = Vec::new();
            let file = root.open_file(&path).unwrap();
            file.take(1000).read_to_end(&mut bytes).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            what.push_str(&format!(" {text:?}"));
        }
        let seen = Seen {
            what,
            ino: stat.ino,
        };
        listing.insert(path.display().to_string(), seen);
    }
}

/// What there is, without which inodes, but with which names share one.
fn told(listing: &Listing) -> Vec<String> {
    let mut first = BTreeMap::new();
    let lines = listing.iter().map(|(path, seen)| {
        let name: &mut String = first.entry(seen.ino).or_insert_with(|| path.clone());
        format!("{path}: {} (as {name})", seen.what)
    });
    lines.collect()
}

/// The same as an image has it, whose times are in whole seconds.
fn in_seconds(told: Vec<String>) -> Vec<String> {
    let whole = |line: String| match line.split_once(", nanos: ") {
        Some((before, after)) => format!("{before}{}", after.trim_start_matches(char::is_numeric)),
        None => line,
    };
    told.into_iter().map(whole).collect()
}

/// Regular files below `to` that are the very files of the directory.
fn shared<'a>(result: &'a Listing, directory: &Listing, to: &str) -> Vec<&'a str> {
    let mut shared = Vec::new();
    for (path, seen) in result {
        let Some(from) = path.strip_prefix(to) else {
            continue;
        };
        let from = directory.get(from.trim_start_matches('/'));
        if seen.what.starts_with("File") && from.is_some_and(|from| from.ino == seen.ino) {
            shared.push(path.as_str());
        }
    }
    shared
}

fn copy_to(dest: &str) -> Copy {
    Copy {
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..Copy::new("/", dest)
    }
}

fn action(kind: ActionKind) -> Action {
    Action {
        input: Some(0),
        secondary: matches!(kind, ActionKind::Copy(_)).then_some(1),
        output: Some(0),
        kind,
    }
}

fn only(copy: Copy) -> Vec<Action> {
    vec![action(ActionKind::Copy(copy))]
}

/// The same as a copy gives, into directories and over files that are there; and the files are
/// the directory's own.
///
/// Rows: Q4, Q8
#[tokio::test]
async fn privileged_what_is_shared_looks_like_a_copy() {
    let Some(lending) = Lending::new().await else {
        return;
    };
    lending.fill();
    let parent = lending.world.tree(&[
        ("app/a", "covered"),
        ("app/own", "own"),
        ("app/sub/b", "covered"),
        ("app/sub/deep/", ""),
    ]);
    let (lent, unlent) = (
        lending.fetch("context").await,
        lending.fetch_unlent("app").await,
    );
    let by_sharing = lending.copy(only(copy_to("/app")), &parent, &lent).await;
    let by_copying = lending.copy(only(copy_to("/app")), &parent, &unlent).await;
    let (by_sharing, by_copying) = (
        lending.seen(&by_sharing).await,
        lending.seen(&by_copying).await,
    );
    assert_eq!(told(&by_sharing), told(&by_copying));
    assert!(by_sharing["app/own"].what.ends_with("\"own\""));
    let directory = lending.seen(&lent).await;
    // What covers something is a copy, and so is what is linked to it.
    assert_eq!(
        shared(&by_sharing, &directory, "app"),
        ["app/sub/deep/c", "app/sub/empty/.keep", "app/tool"]
    );
    assert!(shared(&by_copying, &directory, "app").is_empty());
}

/// Rows: Q4, Q8
#[tokio::test]
async fn privileged_all_of_a_directory_is_shared_with_an_empty_tree() {
    let Some(lending) = Lending::new().await else {
        return;
    };
    lending.fill();
    let lent = lending.fetch("context").await;
    let copied = lending.copy(only(copy_to("/")), &Output(None), &lent).await;
    let (result, directory) = (lending.seen(&copied).await, lending.seen(&lent).await);
    assert_eq!(shared(&result, &directory, "").len(), 6);
    assert_eq!(told(&result), told(&directory));
}

/// A result stays what it was when the directory changes, and the next result has the changes;
/// what did not change is shared by both.
///
/// Rows: Q4, S19
#[tokio::test]
async fn privileged_results_stay_as_the_directory_changes() {
    let Some(lending) = Lending::new().await else {
        return;
    };
    lending.fill();
    let at = |path: &str| lending.dir.path().join(path);
    let first = lending.fetch("context").await;
    let first_copy = lending
        .copy(only(copy_to("/app")), &Output(None), &first)
        .await;
    let before = lending.seen(&first_copy).await;
    drop(first); // so that the next build takes the directory back

    lending.write("a", "A"); // as long as before
    std::fs::set_permissions(at("sub/deep/c"), PermissionsExt::from_mode(0o600)).unwrap();
    let touched = std::fs::File::options()
        .write(true)
        .open(at("sub/empty/.keep"))
        .unwrap();
    touched.set_modified(std::time::UNIX_EPOCH).unwrap();
    std::fs::remove_file(at("tool")).unwrap();
    std::fs::create_dir(at("tool")).unwrap();
    lending.write("tool/in", "in");
    let second = lending.fetch("context").await;
    let second_copy = lending
        .copy(only(copy_to("/app")), &Output(None), &second)
        .await;

    assert_eq!(lending.seen(&first_copy).await, before);
    let after = lending.seen(&second_copy).await;
    let unlent = lending.fetch_unlent("app").await;
    let by_copying = lending
        .copy(only(copy_to("/app")), &Output(None), &unlent)
        .await;
    assert_eq!(told(&after), told(&lending.seen(&by_copying).await));
    let same: Vec<_> = after
        .iter()
        .filter(|(path, seen)| {
            seen.what.starts_with("File") && before.get(*path).is_some_and(|b| b.ino == seen.ino)
        })
        .map(|(path, _)| path.as_str())
        .collect();
    assert_eq!(same, ["app/sub/b", "app/sub/deep/b-too"]);
}

/// What is to be other than it is in the directory cannot be shared.
///
/// Rows: Q8, L10
#[tokio::test]
async fn privileged_what_is_to_be_other_is_copied() {
    let Some(lending) = Lending::new().await else {
        return;
    };
    lending.fill();
    let lent = lending.fetch("context").await;
    let directory = lending.seen(&lent).await;
    let owner = Chown {
        user: Some(llb::User::Id(7)),
        group: Some(llb::User::Id(8)),
    };
    let owned = Copy {
        owner: Some(owner),
        ..copy_to("/app")
    };
    let stamped = Copy {
        timestamp: Some(5_000_000_000),
        ..copy_to("/app")
    };
    let moded = Copy {
        mode: llb::Mode::Bits(0o600),
        ..copy_to("/app")
    };
    for (wanted, told) in [
        (owned, "7:8"),
        (stamped, "seconds: 5,"),
        (moded, "File 600"),
    ] {
        let copied = lending.copy(only(wanted), &Output(None), &lent).await;
        let result = lending.seen(&copied).await;
        assert!(
            result["app/sub/b"].what.contains(told),
            "{:?}",
            result["app/sub/b"]
        );
        assert!(shared(&result, &directory, "app").is_empty(), "{told}");
    }
    assert_eq!(lending.seen(&lent).await, directory);
}

/// No tree shows one file at two places: they would be taken for links to each other.
///
/// Rows: Q8
#[tokio::test]
async fn privileged_a_second_place_gets_copies() {
    let Some(lending) = Lending::new().await else {
        return;
    };
    lending.fill();
    let lent = lending.fetch("context").await;
    let directory = lending.seen(&lent).await;
    let one = lending
        .copy(only(copy_to("/one")), &Output(None), &lent)
        .await;
    let two = lending.copy(only(copy_to("/two")), &one, &lent).await;
    let three = lending.copy(only(copy_to("/one")), &two, &lent).await;
    let result = lending.seen(&three).await;
    assert_eq!(
        shared(&result, &directory, "one").len(),
        0,
        "all of it is covered"
    );
    assert_eq!(shared(&result, &directory, "two").len(), 0);
    for (path, seen) in &result {
        let other = path.replacen("one", "two", 1);
        assert!(other == *path || result[&other].ino != seen.ino, "{path}");
    }
}

/// A step that changes shared files changes its own copies.
///
/// Rows: Q8, X01
#[tokio::test]
async fn privileged_steps_cannot_reach_what_is_shared() {
    let Some(lending) = Lending::new().await else {
        return;
    };
    lending.fill();
    let lent = lending.fetch("context").await;
    let directory = lending.seen(&lent).await;
    let copied = lending
        .copy(only(copy_to("/app")), &lending.world.busybox(), &lent)
        .await;
    let before = lending.seen(&copied).await;
    assert_eq!(shared(&before, &directory, "app").len(), 6);
    let script = "cd /app && echo more >>a && touch tool && rm sub/b && echo x >sub/deep/c";
    let changed = lending.client.run(sh(script), &[&copied]).await.output();
    assert!(lending.seen(&changed).await["app/a"].what.contains("amore"));
    assert_eq!(lending.seen(&copied).await, before);
    assert_eq!(lending.seen(&lent).await, directory);
}

/// An earlier action of the same op may have taken away what a file is put in the place of.
///
/// Rows: L09
#[tokio::test]
async fn privileged_what_was_removed_before_is_replaced() {
    let Some(lending) = Lending::new().await else {
        return;
    };
    lending.fill();
    let parent = lending
        .world
        .tree(&[("app/a", "old"), ("app/sub/b", "old"), ("app/x", "x")]);
    let (lent, unlent) = (
        lending.fetch("context").await,
        lending.fetch_unlent("app").await,
    );
    let actions = || {
        let rm = |path: &str| Rm {
            path: path.into(),
            allow_not_found: false,
            allow_wildcard: false,
        };
        let mut actions = vec![
            action(ActionKind::Rm(rm("/app/a"))),
            action(ActionKind::Rm(rm("/app/sub"))),
            action(ActionKind::Copy(copy_to("/app"))),
        ];
        (actions[0].output, actions[1].output) = (None, None);
        (actions[1].input, actions[2].input) = (Some(2), Some(3));
        actions
    };
    let by_sharing = lending.copy(actions(), &parent, &lent).await;
    let by_copying = lending.copy(actions(), &parent, &unlent).await;
    let (by_sharing, by_copying) = (
        lending.seen(&by_sharing).await,
        lending.seen(&by_copying).await,
    );
    assert_eq!(told(&by_sharing), told(&by_copying));
    assert!(by_sharing["app/a"].what.ends_with("\"a\""));
    assert!(shared(&by_sharing, &lending.seen(&lent).await, "app").contains(&"app/sub/b"));
}

/// Two builds copy the same directory at the same time.
///
/// Rows: Q4
#[tokio::test]
async fn privileged_two_builds_share_at_once() {
    let Some(lending) = Lending::new().await else {
        return;
    };
    lending.fill();
    let lent = lending.fetch("context").await;
    let (one, two) = tokio::join!(
        lending.copy(only(copy_to("/app")), &Output(None), &lent),
        lending.copy(only(copy_to("/app")), &Output(None), &lent),
    );
    let (one, two) = (lending.seen(&one).await, lending.seen(&two).await);
    assert_eq!(told(&one), told(&two));
    let directory = lending.seen(&lent).await;
    assert_eq!(shared(&one, &directory, "app").len(), 6);
    assert_eq!(shared(&two, &directory, "app").len(), 6);
}

/// No tree shows one file under two names, also where it shows the directory itself: what is built
/// on it, or merged with it, has copies.
///
/// Rows: Q8, L13
#[tokio::test]
async fn privileged_the_directory_is_a_place_too() {
    let Some(lending) = Lending::new().await else {
        return;
    };
    lending.fill();
    let lent = lending.fetch("context").await;
    let directory = told(&lending.seen(&lent).await);
    let lines = directory.len();

    let within = lending.copy(only(copy_to("/app")), &lent, &lent).await;
    let result = lending.seen(&within).await;
    assert!(shared(&result, &lending.seen(&lent).await, "app").is_empty());

    let in_app = lending
        .copy(only(copy_to("/app")), &Output(None), &lent)
        .await;
    let borrowed = lending.seen(&in_app).await;
    assert_eq!(
        shared(&borrowed, &lending.seen(&lent).await, "app").len(),
        6
    );
    for order in [[&lent, &in_app], [&in_app, &lent]] {
        let refs = order.map(|output| found(output).clone());
        let merged = Output(Some(lending.world.refs.merge(refs.into()).unwrap()));
        let merged = lending.seen(&merged).await;
        assert_eq!(merged.len(), 2 * lines + 1);
        let of_app: Listing = merged
            .iter()
            .filter(|(path, _)| path.starts_with("app"))
            .map(|(path, seen)| (path.clone(), seen.clone()))
            .collect();
        assert_eq!(in_seconds(told(&of_app)), in_seconds(told(&borrowed)));
        assert!(shared(&merged, &merged, "app").is_empty());
    }

    let in_place = lending.copy(only(copy_to("/")), &lent, &lent).await;
    assert_eq!(told(&lending.seen(&in_place).await), directory);
}

/// A place is free again when the copy failed, and when no result has files there any more.
///
/// Rows: Q4
#[tokio::test]
async fn privileged_places_nobody_uses_are_forgotten() {
    let Some(lending) = Lending::new().await else {
        return;
    };
    lending.fill();
    let lent = lending.fetch("context").await;
    let refs = &lending.world.refs;
    let failed = refs.begin(None, Default::default()).unwrap();
    let lend_to = |to: &str| found(&lent).lend(Path::new(""), Path::new(to), &failed);
    assert!(lend_to("gone").unwrap().is_some());
    assert!(lend_to("app").unwrap().is_none());
    drop(failed);

    let app = lending
        .copy(only(copy_to("/app")), &Output(None), &lent)
        .await;
    let directory = lending.seen(&lent).await;
    assert_eq!(
        shared(&lending.seen(&app).await, &directory, "app").len(),
        6
    );
    let srv = || async {
        let srv = lending.copy(only(copy_to("/srv")), &Output(None), &lent);
        shared(&lending.seen(&srv.await).await, &directory, "srv").len()
    };
    assert_eq!(srv().await, 0);
    drop(app);
    refs.prune(&[refs::PrunePolicy::default()], &[]).unwrap();
    assert_eq!(srv().await, 6);
}
