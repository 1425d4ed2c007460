//! The digests in `tests/golden/*/preimages.json` over the context beside them.

use std::path::{Path, PathBuf};

use contenthash::{Contents, Selector};
use stdx::sys::{FileKind, Root};

use super::temp;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

/// Copies the context as BuildKit receives it: owners zero, modes as documented,
/// and without what `.dockerignore` names.
fn context(into: &Root) -> Contents {
    let from = Root::open(golden().join("ctx")).unwrap();
    let mut contents = Contents::of_sent_files();
    send(&from, Path::new(""), into, &mut contents);
    contents
}

fn send(from: &Root, dir: &Path, into: &Root, contents: &mut Contents) {
    for entry in from.read_dir_sorted(dir).unwrap() {
        let path = dir.join(&entry.name);
        if ["a.log", "tmp"]
            .iter()
            .any(|ignored| path == Path::new(ignored))
        {
            continue;
        }
        let mut header = contenthash::Header::of(from, path.as_os_str()).unwrap();
        (header.uid, header.gid) = (0, 0);
        header.xattrs.clear();
        if path == Path::new("web/conf") {
            // A link in the build; the vectors carry it as a file with the target in it.
            header.kind = FileKind::Symlink;
            header.size = 0;
            header.link = std::fs::read(golden().join("ctx/web/conf")).unwrap();
        }
        let start = path == Path::new("start.sh");
        header.mode = if header.kind == FileKind::Dir || start {
            0o755
        } else {
            0o644
        };
        let mut hasher = header.hasher();
        if header.kind == FileKind::Dir {
            into.mkdir(&path, 0o755).unwrap();
        } else if header.kind == FileKind::Symlink {
            let target = String::from_utf8(header.link.clone()).unwrap();
            into.symlink(target, &path).unwrap();
        } else {
            let bytes = std::fs::read(golden().join("ctx").join(&path)).unwrap();
            hasher.update(&bytes);
            std::fs::write(golden_copy(into, &path), bytes).unwrap();
            into.chmod(&path, header.mode).unwrap();
        }
        contents.put(&path, &header, hasher.finish());
        if header.kind == FileKind::Dir {
            send(from, &path, into, contents);
        }
    }
}

fn golden_copy(into: &Root, path: &Path) -> PathBuf {
    use std::os::fd::{AsFd, AsRawFd};
    Path::new("/proc/self/fd")
        .join(into.as_fd().as_raw_fd().to_string())
        .join(path)
}

fn selector(path: &str, include: &[&str], exclude: &[&str]) -> Selector {
    Selector {
        path: path.into(),
        wildcard: true,
        follow_links: true,
        include: include.iter().map(|&text| text.into()).collect(),
        exclude: exclude.iter().map(|&text| text.into()).collect(),
    }
}

/// What each COPY of the golden Dockerfiles selects, and the start of its digest.
const SELECTED: [(&str, &[&str], &[&str], &str); 10] = [
    ("/app", &[], &[], "114af45d"),
    ("/app/main.py", &[], &[], "aa655225"),
    ("/cfg", &[], &[], "c968ea4e"),
    ("/", &[], &[], "aaded5ae"),
    ("/*.log", &[], &[], "0660fb50"),
    ("/web/*.html", &[], &[], "b1b27b93"),
    ("/app", &["lib/*.py"], &[], "aaa33cac"),
    ("/", &["web/img"], &[], "9b51e072"),
    ("/app", &[], &["*.md", "lib/x.py"], "0fdea85d"),
    ("/site.tgz", &[], &[], "2935ac64"),
];

/// Rows: C07
#[test]
fn digests_of_the_golden_context_are_buildkits() {
    let (_dir, root) = temp();
    let mut sent = context(&root);
    for (path, include, exclude, wanted) in SELECTED {
        let found = sent
            .digest(&root, &selector(path, include, exclude))
            .unwrap();
        assert!(
            found.hex().starts_with(wanted),
            "{path} {include:?}: {found}, not {wanted}"
        );
        assert_in_preimages(&found.to_string());
    }
}

fn assert_in_preimages(digest: &str) {
    let found = std::fs::read_dir(golden()).unwrap().any(|case| {
        let file = case.unwrap().path().join("preimages.json");
        std::fs::read(file).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(digest))
    });
    assert!(found, "{digest} is in no golden file");
}

/// The same tree read from disk: everything but the top directory's own header.
///
/// Rows: C07
#[test]
fn privileged_a_tree_on_disk_gives_the_same_digests() {
    if !rustix::process::geteuid().is_root() {
        // Owners of the files would not be zero.
        return;
    }
    let (_dir, root) = temp();
    let mut sent = context(&root);
    let mut read = Contents::new();
    for (path, include, exclude, _) in SELECTED {
        if path == "/" && include.is_empty() {
            continue;
        }
        let selector = selector(path, include, exclude);
        let found = read.digest(&root, &selector).unwrap();
        assert_eq!(found, sent.digest(&root, &selector).unwrap(), "{path}");
    }
}
