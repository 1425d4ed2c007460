//! Links, wildcards, filters, changes, storing.

use std::ffi::OsStr;
use std::path::Path;

use contenthash::{Contents, Error, Header, Selector};
use stdx::Kind;

use super::{temp, write};

fn digest(root: &stdx::sys::Root, selector: &Selector) -> String {
    Contents::new().digest(root, selector).unwrap().to_string()
}

/// Rows: C07
#[test]
fn times_do_not_count_but_names_modes_and_bytes_do() {
    let (_dir, root) = temp();
    write(&root, "d/a", "text");
    let all = Selector::path("d");
    let first = digest(&root, &all);
    root.set_times(
        "d/a",
        stdx::sys::Time::from_seconds(1),
        stdx::sys::Time::from_seconds(1),
    )
    .unwrap();
    assert_eq!(digest(&root, &all), first);
    root.chmod("d/a", 0o600).unwrap();
    let second = digest(&root, &all);
    assert_ne!(second, first);
    root.rename("d/a", "d/b").unwrap();
    let third = digest(&root, &all);
    assert_ne!(third, second);
    write(&root, "d/b", "test");
    assert_ne!(digest(&root, &all), third);
    root.set_xattr("d/b", OsStr::new("user.x"), b"1").unwrap();
    let fourth = digest(&root, &all);
    root.set_xattr("d/b", OsStr::new("user.x"), b"2").unwrap();
    assert_ne!(digest(&root, &all), fourth);
}

/// Rows: C07
#[test]
fn links_are_followed_inside_the_tree_only() {
    let (_dir, root) = temp();
    write(&root, "real/file", "x");
    root.symlink("/real", "abs").unwrap();
    root.symlink("../../../real", "climb").unwrap();
    root.symlink("loop", "loop").unwrap();
    root.symlink("nowhere", "dangling").unwrap();
    let file = digest(&root, &Selector::path("real/file"));
    for path in [
        "abs/file",
        "/climb/file",
        "abs/../real/./file",
        "../real/file",
    ] {
        assert_eq!(digest(&root, &Selector::path(path)), file, "{path}");
    }
    assert_eq!(
        digest(&root, &Selector::path("abs")),
        digest(&root, &Selector::path("real"))
    );
    let link = Selector {
        follow_links: false,
        ..Selector::path("abs")
    };
    assert_ne!(digest(&root, &link), digest(&root, &Selector::path("abs")));
    let fails = |path| {
        Contents::new()
            .digest(&root, &Selector::path(path))
            .unwrap_err()
    };
    assert!(matches!(fails("loop"), Error::TooManyLinks(_)));
    for path in ["missing", "dangling", "real/file/x", "missing/deeper"] {
        assert_eq!(fails(path).kind(), Kind::NotFound, "{path}");
    }
}

/// Rows: C07
#[test]
fn wildcards_and_filters_see_only_what_they_name() {
    let (_dir, root) = temp();
    for path in [
        "src/a.c",
        "src/b.c",
        "src/doc/c.md",
        "src/doc/deep/d.c",
        "other/e.c",
    ] {
        write(&root, path, path);
    }
    let select = |path: &str, include: &[&str], exclude: &[&str]| Selector {
        path: path.into(),
        wildcard: true,
        follow_links: true,
        include: include.iter().map(|&text| text.into()).collect(),
        exclude: exclude.iter().map(|&text| text.into()).collect(),
    };
    let checks = [
        select("s*/*.c", &[], &[]),
        select("src", &["**/*.c"], &[]),
        select("src", &[], &["doc"]),
        select("src/", &[], &["**/*.md"]),
        select("*", &[], &["doc", "!doc/deep", "other"]),
        // Included by its directory, and taken back from what is excluded.
        select("src", &["doc"], &["doc/deep", "!doc/deep/d.c", "**/*.md"]),
    ];
    let before: Vec<String> = checks.iter().map(|one| digest(&root, one)).collect();
    write(&root, "src/doc/c.md", "changed");
    let middle: Vec<String> = checks.iter().map(|one| digest(&root, one)).collect();
    assert_eq!(before, middle, "none of them reads the .md file");
    write(&root, "src/doc/deep/d.c", "changed");
    let changed: Vec<bool> = checks
        .iter()
        .zip(&before)
        .map(|(one, before)| digest(&root, one) != *before)
        .collect();
    assert_eq!(changed, [false, true, false, true, true, true]);
    let nothing = digest(&root, &select("nope*", &[], &[]));
    assert!(nothing.ends_with("7852b855"), "the digest of nothing");
    let bad = Contents::new()
        .digest(&root, &select("src/[", &[], &[]))
        .unwrap_err();
    assert_eq!(bad.to_string(), "syntax error in pattern `src/[`");
}

/// Patterns are about what is in a directory, as they are where COPY walks: what matches the top
/// itself says nothing of what is in it, and nothing of a file that is copied alone.
///
/// Rows: C07, L12
#[test]
fn patterns_do_not_hide_what_is_copied() {
    let (_dir, root) = temp();
    write(&root, "dir/file", "before");
    let select = |path: &str, exclude: &str| Selector {
        path: path.into(),
        follow_links: true,
        exclude: vec![exclude.into()],
        ..Selector::default()
    };
    let checks = [select("dir", "/"), select("dir/file", "*")];
    let digests = || checks.each_ref().map(|one| digest(&root, one));
    let before = digests();
    write(&root, "dir/file", "after");
    let after = digests();
    for (at, check) in checks.iter().enumerate() {
        assert_ne!(before[at], after[at], "{check:?}");
    }
}

/// Rows: C07
#[test]
fn changes_and_storing_give_what_a_fresh_look_gives() {
    let (_dir, root) = temp();
    for path in ["a/b/c", "a/b/d", "a/e", "f"] {
        write(&root, path, path);
    }
    let all = Selector::path("/");
    let mut kept = Contents::new();
    kept.digest(&root, &all).unwrap();
    let mut kept = Contents::decode(&kept.encode()).unwrap();

    write(&root, "a/b/c", "changed");
    kept.refresh(&root, Path::new("a/b/c")).unwrap();
    write(&root, "a/new/file", "new");
    kept.refresh(&root, Path::new("a/new")).unwrap();
    root.remove_tree("f").unwrap();
    kept.remove(Path::new("f"));
    root.unlink("a/e").unwrap();
    write(&root, "a/e/now-a-directory", "x");
    kept.refresh(&root, Path::new("a/e")).unwrap();
    let header = Header::of(&root.open_dir("a/b").unwrap(), OsStr::new("d")).unwrap();
    let mut hasher = header.hasher();
    hasher.update(b"a/b/d");
    kept.put(Path::new("a/b/d"), &header, hasher.finish());
    assert_eq!(
        kept.digest(&root, &all).unwrap().to_string(),
        digest(&root, &all)
    );
    assert_eq!(Contents::decode(&kept.encode()).unwrap(), kept);

    let stored = kept.encode();
    for cut in 0..stored.len() {
        assert!(matches!(
            Contents::decode(&stored[..cut]),
            Err(Error::Stored)
        ));
    }
}

/// A change in a directory nobody looked into says nothing of what else is in it.
///
/// Rows: C07
#[test]
fn changes_where_nobody_looked_are_found_later() {
    let (_dir, root) = temp();
    for path in ["a/b/c", "a/b/d", "a/e", "f"] {
        write(&root, path, path);
    }
    let all = Selector::path("/");
    let wanted = digest(&root, &all);
    let header = Header::of(&root.open_dir("a/b").unwrap(), OsStr::new("c")).unwrap();
    let mut hasher = header.hasher();
    hasher.update(b"a/b/c");
    let file = hasher.finish();

    // Knows nothing, only the names at the top, or one of them more.
    for looked_at in [None, Some("f"), Some("a/e"), Some("a/b/d")] {
        let known = || {
            let mut known = Contents::new();
            if let Some(path) = looked_at {
                known.digest(&root, &Selector::path(path)).unwrap();
            }
            known
        };
        for path in ["a/b/c", "a/e", "f"] {
            let mut refreshed = known();
            refreshed.refresh(&root, Path::new(path)).unwrap();
            let found = refreshed.digest(&root, &all).unwrap().to_string();
            assert_eq!(found, wanted, "{looked_at:?} refresh {path}");
        }
        let mut put = known();
        put.put(Path::new("a/b/c"), &header, file);
        let found = put.digest(&root, &all).unwrap().to_string();
        assert_eq!(found, wanted, "{looked_at:?} put");
        let mut removed = known();
        removed.remove(Path::new("a/b/gone"));
        removed.refresh(&root, Path::new("a/gone/deeper")).unwrap();
        let found = removed.digest(&root, &all).unwrap().to_string();
        assert_eq!(found, wanted, "{looked_at:?} remove");
    }
}

/// Rows: C07
#[test]
fn only_news_is_saved() {
    let (_dir, root) = temp();
    write(&root, "d/a", "1");
    write(&root, "d/b", "1");
    let mut known = Contents::new();
    assert!(known.unsaved().is_none());
    let ask = |known: &mut Contents, selector: &Selector| {
        known.digest(&root, selector).unwrap();
        known.unsaved().is_some()
    };
    let wild = Selector {
        wildcard: true,
        include: vec!["b".into()],
        ..Selector::path("d*")
    };
    for selector in [Selector::path("d/a"), wild, Selector::path("/")] {
        assert!(ask(&mut known, &selector), "{selector:?}");
        assert!(!ask(&mut known, &selector), "{selector:?}");
    }
    let mut known = Contents::decode(&known.encode()).unwrap();
    assert!(!ask(&mut known, &Selector::path("/")));

    let header = Header::of(&root.open_dir("d").unwrap(), OsStr::new("a")).unwrap();
    let digest = |text: &[u8]| {
        let mut hasher = header.hasher();
        hasher.update(text);
        hasher.finish()
    };
    assert!(!known.put(Path::new("d/a"), &header, digest(b"1")));
    known.put_link(Path::new("d/b"), Path::new("d/a"));
    assert!(known.unsaved().is_none(), "the same as before");
    assert!(known.put(Path::new("d/a"), &header, digest(b"2")));
    known.put_link(Path::new("d/c"), Path::new("d/a"));
    assert!(known.unsaved().is_some());
    let linked = known.digest(&root, &Selector::path("d/c")).unwrap();
    assert_eq!(linked, digest(b"2"));
}

/// Many files: the threads must agree with one thread, and it must not take long.
///
/// Rows: C07
#[test]
fn many_files_hash_alike_in_parallel() {
    let (_dir, root) = temp();
    for number in 0..3000 {
        write(
            &root,
            &format!("d{}/f{number}", number % 70),
            &number.to_string(),
        );
    }
    let all = digest(&root, &Selector::path("/"));
    let mut one_by_one = Contents::new();
    for number in 0..3000 {
        let path = format!("d{}/f{number}", number % 70);
        one_by_one.digest(&root, &Selector::path(path)).unwrap();
    }
    assert_eq!(
        one_by_one
            .digest(&root, &Selector::path("/"))
            .unwrap()
            .to_string(),
        all
    );
}

/// What a digest is made of, name by name; too many names are one.
///
/// Rows: K4
#[test]
fn a_part_is_listed_by_what_its_digest_is_made_of() {
    let dir = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    for (path, text) in [
        ("d/a.txt", "a"),
        ("d/e/b.txt", "b"),
        ("d/e/c", "c"),
        ("f", "f"),
    ] {
        write(path, text);
    }
    let root = stdx::sys::Root::open(dir.path()).unwrap();
    let list = |selector: &contenthash::Selector, limit: usize| {
        let mut contents = contenthash::Contents::new();
        let listed = contents.list(&root, selector, limit).unwrap();
        listed
            .into_iter()
            .map(|one| {
                let tail = if one.whole {
                    "/**"
                } else if one.dir {
                    "/"
                } else {
                    ""
                };
                (format!("{}{tail}", one.path.display()), one.digest)
            })
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let names = |selector: &contenthash::Selector, limit: usize| {
        list(selector, limit).into_keys().collect::<Vec<_>>()
    };
    let whole = contenthash::Selector::path("/d");
    assert_eq!(
        names(&whole, 100),
        ["d/", "d/a.txt", "d/e/", "d/e/b.txt", "d/e/c"]
    );
    assert_eq!(names(&whole, 4), ["d/", "d/a.txt", "d/e/**"]);
    assert_eq!(names(&contenthash::Selector::path("f"), 4), ["f"]);
    let wild = contenthash::Selector {
        path: "/d/*".into(),
        wildcard: true,
        include: vec!["**/*.txt".into(), "*.txt".into()],
        ..contenthash::Selector::default()
    };
    let picked = names(&wild, 100);
    assert!(picked.contains(&"d/e/b.txt".to_owned()), "{picked:?}");
    assert!(!picked.contains(&"d/e/c".to_owned()), "{picked:?}");
    let before = list(&whole, 100);
    write("d/e/c", "other");
    let after = list(&whole, 100);
    let changed: Vec<_> = after
        .iter()
        .filter(|(name, digest)| before[*name] != **digest)
        .collect();
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].0, "d/e/c");
}

/// What is known is told without a tree to look at, and nothing else is.
///
/// Rows: C07
#[test]
fn only_what_is_known_is_told_without_the_tree() {
    let (_dir, root) = temp();
    for path in ["d/a", "d/b.txt", "d/deep/c.txt", "other"] {
        write(&root, path, path);
    }
    root.symlink("d/a", "link").unwrap();
    let wild = Selector::path("d/*.txt");
    let wild = Selector {
        wildcard: true,
        ..wild
    };
    let some = Selector {
        include: vec!["deep".into()],
        ..Selector::path("d")
    };
    let linked = Selector {
        follow_links: true,
        ..Selector::path("link")
    };
    for selector in [Selector::path("d"), Selector::path("/"), wild, some, linked] {
        let mut contents = Contents::new();
        assert_eq!(contents.known(&selector).unwrap(), None, "{selector:?}");
        let digest = contents.digest(&root, &selector).unwrap();
        assert_eq!(contents.known(&selector).unwrap(), Some(digest));
        let mut stored = Contents::decode(&contents.encode()).unwrap();
        assert_eq!(
            stored.known(&selector).unwrap(),
            Some(digest),
            "{selector:?}"
        );
    }
    let mut contents = Contents::new();
    contents.digest(&root, &Selector::path("d/a")).unwrap();
    assert_eq!(contents.known(&Selector::path("d/b.txt")).unwrap(), None);
    let missing = contents.known(&Selector::path("d/nothing")).unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    contents.digest(&root, &Selector::path("d")).unwrap();
    write(&root, "d/deep/c.txt", "changed");
    contents.refresh(&root, Path::new("d/deep/c.txt")).unwrap();
    assert_eq!(contents.known(&Selector::path("d")).unwrap(), None);
    assert!(contents.known(&Selector::path("d/a")).unwrap().is_some());
}
