//! What is copied where.

use std::io::{Seek, SeekFrom, Write};

use llb::{Copy, Mode};
use stdx::Kind;
use stdx::sys::FileKind;

use super::*;

fn copied(from: &[&str], to: &[&str], src: &str, dest: &str) -> Vec<String> {
    let (from, to) = (place(from), place(to));
    run(&from, &to, &wanted(src, dest)).unwrap();
    to.lines()
}

fn refused(from: &[&str], to: &[&str], wanted: &Copy) -> (Kind, String) {
    let (from, to) = (place(from), place(to));
    let error = run(&from, &to, wanted).unwrap_err();
    to.lines();
    (error.kind(), crate::Error::to_string(&error))
}

const SOURCE: &[&str] = &["app/a = 1", "app/lib/b = 2", "top = 3"];

/// Rows: L10, F24
#[test]
fn the_slash_at_the_end_says_whether_it_is_a_directory() {
    assert_eq!(copied(SOURCE, &[], "/top", "/x"), ["x = 3"]);
    assert_eq!(copied(SOURCE, &[], "/top", "/x/"), ["x/", "x/top = 3"]);
    assert_eq!(copied(SOURCE, &[], "/top", "x/y"), ["x/", "x/y = 3"]);
    assert_eq!(copied(SOURCE, &["x/"], "/top", "/x"), ["x/", "x/top = 3"]);
    assert_eq!(copied(SOURCE, &["x = old"], "/top", "/x"), ["x = 3"]);
    assert_eq!(
        copied(SOURCE, &["other/x = 1", "x -> other"], "/top", "/x"),
        ["other/", "other/top = 3", "other/x = 1", "x -> other"]
    );
    assert_eq!(copied(SOURCE, &[], "/top", "/"), ["top = 3"]);
    assert_eq!(copied(SOURCE, &[], "/top", ""), ["top = 3"]);
}

/// Rows: L10
#[test]
fn a_directory_gives_what_is_in_it_or_itself() {
    let all = ["x/", "x/a = 1", "x/lib/", "x/lib/b = 2"];
    assert_eq!(copied(SOURCE, &[], "/app", "/x"), all);
    assert_eq!(copied(SOURCE, &["x/"], "/app/", "/x/"), all);
    let (from, to) = (place(SOURCE), place(&["x/"]));
    let itself = Copy {
        dir_copy_contents: false,
        ..wanted("/app", "/x")
    };
    run(&from, &to, &itself).unwrap();
    assert_eq!(
        to.lines(),
        [
            "x/",
            "x/app/",
            "x/app/a = 1",
            "x/app/lib/",
            "x/app/lib/b = 2"
        ]
    );
    let to = place(&[]);
    run(&from, &to, &itself).unwrap();
    assert_eq!(to.lines(), all, "where nothing is, it gets the name");
    let to = place(&["x/"]);
    run(
        &from,
        &to,
        &Copy {
            src: "/app/.".into(),
            allow_wildcard: false,
            ..itself
        },
    )
    .unwrap();
    assert_eq!(to.lines(), all);
}

/// Rows: L10
#[test]
fn directories_merge_and_never_replace_files_by_themselves() {
    assert_eq!(
        copied(SOURCE, &["x/a = old", "x/lib/c = kept"], "/app", "/x"),
        ["x/", "x/a = 1", "x/lib/", "x/lib/b = 2", "x/lib/c = kept"]
    );
    let (kind, text) = refused(SOURCE, &["x = file"], &wanted("/app", "/x"));
    assert_eq!((kind, text.as_str()), (Kind::Internal, "copying to /x"));
    assert!(
        refused(SOURCE, &["x/lib = file"], &wanted("/app", "/x"))
            .1
            .contains("/x/lib")
    );
    assert!(
        refused(SOURCE, &["x/a/"], &wanted("/app", "/x"))
            .1
            .contains("/x/a")
    );
    assert!(
        refused(SOURCE, &["x/lib -> ../y", "y/"], &wanted("/app", "/x"))
            .1
            .contains("/x/lib")
    );
    let replace = Copy {
        always_replace: true,
        ..wanted("/app", "/x")
    };
    let (from, to) = (
        place(SOURCE),
        place(&["x/a/deep/b = 1", "x/lib -> ../../victim"]),
    );
    run(&from, &to, &replace).unwrap();
    assert_eq!(to.lines(), ["x/", "x/a = 1", "x/lib/", "x/lib/b = 2"]);
}

/// Rows: L10, L12
#[test]
fn what_is_missing_is_named() {
    let (kind, text) = refused(SOURCE, &[], &wanted("/nope", "/x"));
    assert_eq!(
        (kind, text.as_str()),
        (Kind::NotFound, "/nope: no such file or directory")
    );
    let strict = Copy {
        allow_empty_wildcard: false,
        ..wanted("/*.none", "/x")
    };
    assert_eq!(
        refused(SOURCE, &[], &strict),
        (Kind::NotFound, "no file matches /*.none".into())
    );
    assert_eq!(copied(SOURCE, &[], "/*.none", "/x/"), [""; 0]);
    assert_eq!(
        refused(SOURCE, &[], &wanted("/none/*", "/x/")).0,
        Kind::NotFound
    );
    assert_eq!(
        refused(SOURCE, &[], &wanted("/[", "/x/")).0,
        Kind::InvalidInput
    );
    let required = Copy {
        required_paths: vec!["/app/gone".into()],
        include: vec!["app".into()],
        ..wanted("/", "/x")
    };
    assert_eq!(
        refused(SOURCE, &[], &required),
        (
            Kind::NotFound,
            "/app/gone: no such file or directory".into()
        )
    );
    let no_parent = Copy {
        create_dest_path: false,
        ..wanted("/top", "/x/y")
    };
    assert_eq!(refused(SOURCE, &[], &no_parent).0, Kind::NotFound);
}

/// Rows: L10, F24
#[test]
fn wildcards_name_several() {
    let from = &[
        "a.txt = 1",
        "b.txt = 2",
        "c.md = 3",
        "d/e.txt = 4",
        "f/e.txt = 5",
        "s -> d",
    ];
    assert_eq!(
        copied(from, &[], "/*.txt", "/x/"),
        ["x/", "x/a.txt = 1", "x/b.txt = 2"]
    );
    assert_eq!(
        copied(from, &[], "/?/*.txt", "/x/"),
        ["x/", "x/e.txt = 5"],
        "the link is not walked"
    );
    assert_eq!(copied(from, &[], "/s/*.txt", "/x/"), ["x/", "x/e.txt = 4"]);
    assert_eq!(copied(from, &[], "/[ac].*", "/"), ["a.txt = 1", "c.md = 3"]);
    let literal = &["a[1] = x"];
    let (source, to) = (place(literal), place(&[]));
    run(
        &source,
        &to,
        &Copy {
            allow_wildcard: false,
            ..wanted("/a[1]", "/x")
        },
    )
    .unwrap();
    assert_eq!(to.lines(), ["x = x"]);
}

/// Rows: L10
#[test]
fn links_are_followed_at_the_source_only_when_asked() {
    let from = &["real = 1", "l -> /real", "dir/x = 2", "d -> dir"];
    assert_eq!(copied(from, &[], "/l", "/x/"), ["x/", "x/l = 1"]);
    assert_eq!(copied(from, &[], "/d", "/x/"), ["x/", "x/x = 2"]);
    let (source, to) = (place(from), place(&[]));
    run(
        &source,
        &to,
        &Copy {
            follow_symlink: false,
            ..wanted("/l", "/x/")
        },
    )
    .unwrap();
    assert_eq!(to.lines(), ["x/", "x/l -> /real"]);
    assert_eq!(
        copied(from, &[], "/", "/"),
        ["d -> dir", "dir/", "dir/x = 2", "l -> /real", "real = 1"]
    );
}

/// Rows: L10
#[test]
fn hostile_links_lead_nowhere() {
    let evil = &[
        "up -> ../victim",
        "abs -> /victim",
        "dir -> ../..",
        "loop -> loop",
        "etc/x = 1",
    ];
    // At the source.
    for path in ["/up", "/abs", "/dir/victim", "/../victim", "/loop/x"] {
        assert!(
            run(&place(evil), &place(&[]), &wanted(path, "/x")).is_err(),
            "{path}"
        );
    }
    // At the destination: what is written goes beneath the root or nowhere.
    let to = place(evil);
    run(&place(SOURCE), &to, &wanted("/top", "/up")).unwrap();
    assert!(to.lines().contains(&"victim = 3".to_owned()));
    let to = place(evil);
    run(&place(SOURCE), &to, &wanted("/top", "/dir/sub/")).unwrap();
    assert!(to.lines().contains(&"sub/top = 3".to_owned()));
    assert!(run(&place(SOURCE), &place(evil), &wanted("/top", "/loop")).is_err());
    // A link on the way of what is copied.
    let (from, to) = (place(&["d/victim = gotcha"]), place(&["x/d -> ../.."]));
    assert!(run(&from, &to, &wanted("/", "/x")).is_err());
    to.lines();
    // A link in place of a file is replaced, not written through.
    let (from, to) = (place(&["d/f = new"]), place(&["d/f -> ../../victim"]));
    run(&from, &to, &wanted("/", "/")).unwrap();
    assert_eq!(to.lines(), ["d/", "d/f = new"]);
}

/// Rows: L10, F24
#[test]
fn patterns_take_and_leave_out() {
    let from = &[
        "a/b/c.py = 1",
        "a/b/d.md = 2",
        "a/e/ = ",
        "a/f.py = 3",
        "g/h.md = 4",
        "g/i/j.py = 5",
    ];
    let from = place(
        &from
            .iter()
            .copied()
            .filter(|line| !line.contains("/ ="))
            .chain(["a/e"])
            .collect::<Vec<_>>(),
    );
    let take = |include: &[&str], exclude: &[&str]| {
        let to = place(&[]);
        let texts = |list: &[&str]| {
            list.iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        run(
            &from,
            &to,
            &Copy {
                include: texts(include),
                exclude: texts(exclude),
                ..wanted("/", "/")
            },
        )
        .unwrap();
        to.lines()
    };
    assert_eq!(
        take(&["**/*.py"], &[]),
        [
            "a/",
            "a/b/",
            "a/b/c.py = 1",
            "a/f.py = 3",
            "g/",
            "g/i/",
            "g/i/j.py = 5"
        ]
    );
    assert_eq!(
        take(&["a/b"], &[]),
        ["a/", "a/b/", "a/b/c.py = 1", "a/b/d.md = 2"]
    );
    assert_eq!(
        take(&["a"], &["a/b", "!a/b/d.md"]),
        ["a/", "a/b/", "a/b/d.md = 2", "a/e/", "a/f.py = 3"]
    );
    assert_eq!(take(&[], &["**/*.md", "a"]), ["g/", "g/i/", "g/i/j.py = 5"]);
    assert_eq!(take(&["none"], &[]), [""; 0]);
    let bad = Copy {
        include: vec!["[".into()],
        ..wanted("/", "/")
    };
    assert_eq!(
        run(&from, &place(&[]), &bad).unwrap_err().kind(),
        Kind::InvalidInput
    );
}

/// Rows: L10, L11
#[test]
fn privileged_owner_mode_and_times_are_kept_or_set() {
    if !is_root() {
        return;
    }
    let from = place(&["d/f = 1", "d/l -> f"]);
    from.root.chown("d/f", 5, 6).unwrap();
    from.root.chmod("d/f", 0o6711).unwrap();
    from.root.chmod("d", 0o1777).unwrap();
    from.root
        .set_xattr("d/f", "user.kiln".as_ref(), b"x")
        .unwrap();
    from.root.set_xattr("d", "user.dir".as_ref(), b"y").unwrap();
    ["d/f", "d/l", "d"]
        .iter()
        .for_each(|path| set_time(&from.root, path, 1_000));
    let to = place(&[]);
    run(
        &from,
        &to,
        &Copy {
            dir_copy_contents: false,
            ..wanted("/d", "/new/e")
        },
    )
    .unwrap();
    let made = |path: &str| {
        let stat = to.root.lstat(path).unwrap();
        (stat.mode, stat.uid, stat.gid, stat.mtime.seconds)
    };
    assert_eq!(made("new/e/f"), (0o6711, 5, 6, 1_000));
    assert_eq!(made("new/e/l"), (0o777, 0, 0, 1_000));
    assert_eq!(made("new/e"), (0o1777, 0, 0, 1_000));
    assert_eq!(attributes(&to.root, "new/e/f")["user.kiln"], b"x");
    assert_eq!(attributes(&to.root, "new/e")["user.dir"], b"y");
    assert_eq!(to.root.lstat("new").unwrap().mode, 0o755);
    assert!(mtime(&to.root, "new") > 1_000_000);

    let to = place(&[]);
    let all = Copy {
        mode: Mode::Bits(0o750),
        timestamp: Some(7_000_000_000),
        ..wanted("/d", "/new/e")
    };
    owned(&from, &to, &all, Some((11, 12))).unwrap();
    for (path, mode) in [
        ("new", 0o750),
        ("new/e", 0o750),
        ("new/e/f", 0o750),
        ("new/e/l", 0o777),
    ] {
        let stat = to.root.lstat(path).unwrap();
        assert_eq!(
            (stat.mode, stat.uid, stat.gid, stat.mtime.seconds),
            (mode, 11, 12, 7),
            "{path}"
        );
    }
    let to = place(&["e/"]);
    to.root.chmod("e", 0o700).unwrap();
    run(&from, &to, &wanted("/d", "/e")).unwrap();
    assert_eq!(
        to.root.lstat("e").unwrap().mode,
        0o700,
        "a directory that is copied into stays as it is"
    );
    assert_eq!(mtime(&to.root, "e"), 1_000);
    let (from, to) = (place(&["s/e/f = 1"]), place(&["e/"]));
    from.root.chmod("s/e", 0o711).unwrap();
    run(&from, &to, &wanted("/s", "/")).unwrap();
    assert_eq!(
        to.root.lstat("e").unwrap().mode,
        0o711,
        "one that is met on the way becomes like the source"
    );
}

/// Rows: L10
#[test]
fn privileged_directories_that_pass_on_their_group_do_not_to_copies() {
    if !is_root() {
        return;
    }
    let (from, to) = (place(&["f = 1", "d/g = 2"]), place(&["x/"]));
    to.root.chown("x", 0, 77).unwrap();
    to.root.chmod("x", 0o2755).unwrap();
    run(&from, &to, &wanted("/", "/x/")).unwrap();
    for path in ["x/f", "x/d", "x/d/g"] {
        assert_eq!(to.root.lstat(path).unwrap().gid, 0, "{path}");
    }
}

/// Rows: L10
#[test]
fn privileged_everything_that_is_no_file_is_copied_too() {
    if !is_root() {
        return;
    }
    let (from, to) = (place(&["d/f = 1"]), place(&[]));
    from.root
        .mknod("d/null", FileKind::CharDevice, 0o666, (1, 3))
        .unwrap();
    from.root
        .mknod("d/pipe", FileKind::Fifo, 0o640, (0, 0))
        .unwrap();
    from.root
        .mknod("d/sock", FileKind::Socket, 0o600, (0, 0))
        .unwrap();
    run(&from, &to, &wanted("/d", "/x")).unwrap();
    assert_eq!(
        to.lines(),
        [
            "x/",
            "x/f = 1",
            "x/null: CharDevice",
            "x/pipe: Fifo",
            "x/sock = "
        ]
    );
    let null = to.root.lstat("x/null").unwrap();
    assert_eq!((null.device(), null.mode), ((1, 3), 0o666));
    run(&from, &to, &wanted("/d/pipe", "/x/f")).unwrap();
    assert!(to.lines().contains(&"x/f: Fifo".to_owned()));
}

/// Rows: L10
#[test]
fn names_of_one_file_stay_names_of_one_file() {
    let (from, to) = (place(&["d/a = 1", "d/sub"]), place(&["x/sub/c = old"]));
    from.root.link("d/a", "d/b").unwrap();
    from.root.link("d/a", "d/sub/c").unwrap();
    run(&from, &to, &wanted("/d", "/x")).unwrap();
    let inode = |path: &str| to.root.lstat(path).unwrap().ino;
    assert_eq!(inode("x/a"), inode("x/b"));
    assert_eq!(inode("x/a"), inode("x/sub/c"));
    assert_eq!(text(&to.root, "x/sub/c"), "1");
}

/// Rows: L10
#[test]
fn holes_and_large_files_are_copied() {
    let (from, to) = (place(&[]), place(&[]));
    let mut file = from.root.create_file("f", 0o644).unwrap();
    file.seek(SeekFrom::Start(8 << 20)).unwrap();
    file.write_all(b"end").unwrap();
    run(&from, &to, &wanted("/f", "/g")).unwrap();
    let (old, new) = (from.root.lstat("f").unwrap(), to.root.lstat("g").unwrap());
    assert_eq!(new.size, old.size);
    assert!(
        new.allocated <= old.allocated.max(1 << 20),
        "holes stay holes"
    );
    assert!(text(&to.root, "g").ends_with("\0end"));
    for size in [0, 1, (64 << 10) - 1, 64 << 10, (64 << 10) + 1] {
        let (from, to) = (place(&[]), place(&[]));
        let bytes = "x".repeat(size);
        from.root
            .create_file("f", 0o644)
            .unwrap()
            .write_all(bytes.as_bytes())
            .unwrap();
        run(&from, &to, &wanted("/f", "/f")).unwrap();
        assert_eq!(text(&to.root, "f"), bytes);
    }
}

#[test]
fn deep_trees_fail_and_do_not_crash() {
    let from = place(&[]);
    let mut dir = from.root.try_clone().unwrap();
    for _ in 0..400 {
        dir.mkdir("d", 0o755).unwrap();
        dir = dir.open_dir_nofollow("d").unwrap();
    }
    let to = place(&[]);
    run(&from, &to, &wanted("/", "/")).unwrap();
    assert_eq!(
        std::iter::successors(Some(to.root), |dir| dir.open_dir_nofollow("d").ok()).count(),
        401
    );
}

#[test]
fn a_copy_nobody_waits_for_stops() {
    let (from, to) = (place(SOURCE), place(&[]));
    let cancelled = Cancelled::default();
    drop(cancelled.when_dropped());
    let stopped = copy::copy(
        &from.root,
        &to.root,
        &wanted("/app", "/x"),
        None,
        None,
        &cancelled,
    );
    assert!(stopped.is_err());
    assert_eq!(to.lines(), ["x/"]);
}

fn archive(from: &Place, compression: layer::Algorithm) -> Vec<u8> {
    let packed = layer::pack(compression.into(), Vec::new(), |tar| {
        layer::diff(&from.root, None, tar).map(drop)
    });
    packed.unwrap().1
}

/// Rows: F26, L10
#[test]
fn archives_are_unpacked_where_they_are_added() {
    let content = place(&["d/f = 1", "d/.wh.gone = literal"]);
    for compression in [
        layer::Algorithm::Uncompressed,
        layer::Algorithm::Gzip,
        layer::Algorithm::Zstd,
    ] {
        let from = place(&["text = not an archive"]);
        let bytes = archive(&content, compression);
        from.root
            .create_file("a.tar", 0o600)
            .unwrap()
            .write_all(&bytes)
            .unwrap();
        let to = place(&["d/gone = kept", "d/f -> ../../victim"]);
        let add = |src: &str, dest: &str| Copy {
            attempt_unpack: true,
            ..wanted(src, dest)
        };
        run(&from, &to, &add("/a.tar", "/")).unwrap();
        assert_eq!(
            to.lines(),
            ["d/", "d/.wh.gone = literal", "d/f = 1", "d/gone = kept"]
        );
        run(&from, &to, &add("/text", "/new/")).unwrap();
        assert!(to.lines().contains(&"new/text = not an archive".to_owned()));
        let to = place(&[]);
        run(&from, &to, &wanted("/a.tar", "/")).unwrap();
        assert_eq!(
            to.root.lstat("a.tar").unwrap().size,
            bytes.len() as u64,
            "copied, not added"
        );
    }
}

/// Rows: F26
#[test]
fn half_an_archive_is_an_error() {
    let content = place(&["a = 1"]);
    let mut noise = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        noise = noise
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (noise >> 56) as u8
    })
    .take(1 << 20)
    .collect();
    content
        .root
        .create_file("b", 0o644)
        .unwrap()
        .write_all(&noise)
        .unwrap();
    let bytes = archive(&content, layer::Algorithm::Gzip);
    let from = place(&[]);
    from.root
        .create_file("a.tgz", 0o600)
        .unwrap()
        .write_all(&bytes[..bytes.len() / 2])
        .unwrap();
    let add = Copy {
        attempt_unpack: true,
        ..wanted("/a.tgz", "/x/")
    };
    let error = run(&from, &place(&[]), &add).unwrap_err();
    assert_eq!(error.to_string(), "failed to unpack /a.tgz");
}
