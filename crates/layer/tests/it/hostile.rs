//! Tars made to hurt: each is refused or stays inside its directory.

use std::io::Write;

use layer::tar::{Entry, Kind, Writer};
use layer::{ApplyOptions, Devices, Error, Whiteouts, apply, settle};
use stdx::Kind as ErrorKind;
use stdx::sys::Root;

use super::{is_root, listing, temp};

/// Entries and their contents.
fn tar(entries: &[(Entry, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, text) in entries {
        let mut entry = entry.clone();
        entry.size = text.len() as u64;
        writer.entry(&entry).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

fn file(path: &str) -> Entry {
    Entry {
        mode: 0o644,
        ..Entry::new(path, Kind::File)
    }
}

fn dir(path: &str) -> Entry {
    Entry {
        mode: 0o755,
        ..Entry::new(path, Kind::Dir)
    }
}

fn link(path: &str, kind: Kind, target: &str) -> Entry {
    Entry {
        link: target.into(),
        ..Entry::new(path, kind)
    }
}

fn ours() -> ApplyOptions {
    ApplyOptions {
        keep_our_owner: !rustix::process::geteuid().is_root(),
        ..Default::default()
    }
}

fn unpack(entries: &[(Entry, &str)]) -> Result<String, Error> {
    let (outer, _) = temp();
    std::fs::create_dir(outer.path().join("in")).unwrap();
    std::fs::write(outer.path().join("secret"), "untouched").unwrap();
    let root = Root::open(outer.path().join("in")).unwrap();
    let result = apply(&tar(entries)[..], &root, &ours());
    let secret = std::fs::read_to_string(outer.path().join("secret")).unwrap();
    assert_eq!(secret, "untouched");
    assert_eq!(
        std::fs::read_dir(outer.path()).unwrap().count(),
        2,
        "something came out"
    );
    result.map(|_| listing(&root))
}

/// Rows: B19
#[test]
fn names_that_climb_out_are_refused() {
    for name in ["../secret", "a/../../secret", "/../secret", ".."] {
        let error = unpack(&[(file(name), "x")]).unwrap_err();
        assert!(matches!(error, Error::Escape { .. }), "{name}: {error}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let error = unpack(&[(link("l", Kind::HardLink, name), "")]).unwrap_err();
        assert!(matches!(error, Error::Escape { .. }), "{name}: {error}");
    }
}

/// Rows: B19
#[test]
fn links_and_absolute_names_stay_inside() {
    let tree = unpack(&[
        (file("/secret"), "mine"),
        (link("up", Kind::Symlink, "../"), ""),
        (link("abs", Kind::Symlink, "/"), ""),
        (file("up/secret2"), "two"),
        (file("abs/secret3"), "three"),
        (link("hard", Kind::HardLink, "/up/secret"), ""),
        (link("dangling", Kind::Symlink, "/nowhere/at/all"), ""),
        (link("tosecret", Kind::Symlink, "../secret"), ""),
        (file("tosecret"), "replaced, not followed"),
    ])
    .unwrap();
    expect_test::expect![[r#"
        abs Symlink 777 -> /
        dangling Symlink 777 -> /nowhere/at/all
        hard File 644 "mine"
        secret File 644 "mine"
        secret2 File 644 "two"
        secret3 File 644 "three"
        tosecret File 644 "replaced, not followed"
        up Symlink 777 -> ../
    "#]]
    .assert_eq(&tree);
}

/// Rows: B19
#[test]
fn later_entries_replace_earlier_ones() {
    let tree = unpack(&[
        (file("a"), "first"),
        (file("a"), "second, longer"),
        (dir("d"), ""),
        (file("d/inside"), "x"),
        (file("d"), "now a file"),
        (link("s", Kind::Symlink, "d"), ""),
        (dir("s"), ""),
        (file("s/x"), "in a real directory"),
        (dir("s"), ""),
    ])
    .unwrap();
    expect_test::expect![[r#"
        a File 644 "second, longer"
        d File 644 "now a file"
        s Dir 755  opaque
        s/x File 644 "in a real directory"
    "#]]
    .assert_eq(&tree);
}

/// Rows: B18, B19
#[test]
fn privileged_whiteouts_take_overlay_form() {
    if !is_root() {
        return;
    }
    let tree = unpack(&[
        (file("gone/.wh.file"), ""),
        (dir("opaque"), ""),
        (file("opaque/.wh..wh..opq"), ""),
        (file("opaque/kept"), "k"),
        (file(".wh.both"), ""),
        (dir("both"), ""),
        (file("both/x"), "x"),
        (dir("after"), ""),
        (file(".wh.after"), ""),
        (file(".wh.through"), ""),
        (file("through/x"), "x"),
        (file(".wh..wh.plnk"), "aufs"),
    ])
    .unwrap();
    expect_test::expect![[r#"
        after Dir 755  opaque
        both Dir 755  opaque
        both/x File 644 "x"
        gone Dir 755 
        gone/file CharDevice 0 (0, 0)
        opaque Dir 755  opaque
        opaque/kept File 644 "k"
        through Dir 755  opaque
        through/x File 644 "x"
    "#]]
    .assert_eq(&tree);
    for bad in [".wh.", ".wh..", ".wh..."] {
        let error = unpack(&[(file(bad), "")]).unwrap_err();
        assert!(matches!(error, Error::Whiteout { .. }), "{bad}: {error}");
    }
}

/// Rows: B18
#[test]
fn whiteouts_remove_what_lies_below_but_not_what_comes_with_them() {
    let (_dir, root) = temp();
    let options = ApplyOptions {
        whiteouts: Whiteouts::Remove,
        ..ours()
    };
    let below = [
        (dir("d"), ""),
        (file("d/old"), "old"),
        (file("d/stays"), "old"),
        (dir("o"), ""),
        (file("o/old"), "old"),
        (file("gone"), "old"),
    ];
    apply(&tar(&below)[..], &root, &options).unwrap();
    let change = [
        (file("o/new"), "new"),
        (file("o/.wh..wh..opq"), ""),
        (file(".wh.gone"), ""),
        (file("d/.wh.old"), ""),
        (file("d/.wh.never-was"), ""),
    ];
    apply(&tar(&change)[..], &root, &options).unwrap();
    expect_test::expect![[r#"
        d Dir 755 
        d/stays File 644 "old"
        o Dir 755 
        o/new File 644 "new"
    "#]]
    .assert_eq(&listing(&root));
}

/// Rows: B19
#[test]
fn devices_follow_the_policy() {
    let device = Entry {
        device: (1, 3),
        mode: 0o666,
        ..Entry::new("null", Kind::CharDevice)
    };
    let bytes = tar(&[(device, ""), (file("f"), "f")]);
    for (devices, works, count) in [
        (Devices::Refuse, false, 0),
        (Devices::Skip, true, 1),
        (Devices::Create, true, 2),
    ] {
        if devices == Devices::Create && !is_root() {
            continue;
        }
        let (_dir, root) = temp();
        let result = apply(&bytes[..], &root, &ApplyOptions { devices, ..ours() });
        assert_eq!(result.is_ok(), works);
        assert_eq!(root.read_dir("").unwrap().len(), count);
    }
}

/// Notes of overlayfs in a tar would let it point anywhere in the layers below.
///
/// Rows: B19
#[test]
fn privileged_overlay_attributes_are_not_taken_from_a_tar() {
    if !is_root() {
        return;
    }
    let (_dir, root) = temp();
    let mut entry = dir("d");
    for (key, value) in [
        ("trusted.overlay.redirect", "/etc"),
        ("trusted.overlay.opaque", "y"),
        ("user.overlay.opaque", "y"),
        ("user.kept", "v"),
    ] {
        entry.xattrs.insert(key.into(), value.into());
    }
    apply(&tar(&[(entry, "")])[..], &root, &ApplyOptions::default()).unwrap();
    let names: Vec<_> = root
        .xattrs("d")
        .unwrap()
        .into_iter()
        .map(|pair| pair.0)
        .collect();
    assert_eq!(names, ["user.kept"]);
}

/// A GNU sparse header that promises ten gigabytes with one block of data.
fn sparse(real: u64, offset: u64, length: u64) -> Vec<u8> {
    let mut block = [0_u8; 512];
    let mut put = |at: usize, text: String| {
        block[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, "big".into());
    for at in [100, 108, 116] {
        put(at, "0000644".into());
    }
    put(124, format!("{length:011o}"));
    put(136, "00000000000".into());
    put(156, "S".into());
    put(257, "ustar  ".into());
    put(386, format!("{offset:011o}"));
    put(398, format!("{length:011o}"));
    put(483, format!("{real:011o}"));
    put(148, "        ".into());
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut out = block.to_vec();
    out.resize(512 + (length as usize).next_multiple_of(512), b'x');
    out.resize(out.len() + 1024, 0);
    out
}

/// Rows: B19
#[test]
fn a_ten_gigabyte_sparse_header_takes_no_ten_gigabytes() {
    const TEN: u64 = 10 << 30;
    const BELOW_OCTAL_LIMIT: u64 = 7 << 30;
    let (_dir, root) = temp();
    let applied = apply(&sparse(BELOW_OCTAL_LIMIT, 1 << 30, 512)[..], &root, &ours()).unwrap();
    let stat = root.lstat("big").unwrap();
    assert_eq!((applied.entries, stat.size), (1, BELOW_OCTAL_LIMIT));
    assert!(stat.allocated < 1 << 20, "{} bytes on disk", stat.allocated);
    // The same through PAX, whose numbers have no limit.
    let mut bytes = Vec::new();
    let data = format!(
        "{}{}{}",
        record("GNU.sparse.map", "0,512"),
        record("GNU.sparse.size", &TEN.to_string()),
        record("GNU.sparse.name", "pax"),
    );
    let mut extension = tar(&[(file("ext"), &data)]);
    extension.truncate(extension.len() - 1024);
    retype(&mut extension, b'x');
    bytes.extend(extension);
    bytes.extend(tar(&[(file("GNUSparseFile.0/pax"), &"y".repeat(512))]));
    apply(&bytes[..], &root, &ours()).unwrap();
    let stat = root.lstat("pax").unwrap();
    assert_eq!(stat.size, TEN);
    assert!(stat.allocated < 1 << 20);
    // Maps that lie.
    for (real, offset) in [(100, 0), (1 << 20, 1 << 20)] {
        let error = apply(&sparse(real, offset, 512)[..], &root, &ours()).unwrap_err();
        assert!(matches!(error, Error::Tar { .. }), "{error}");
    }
}

fn record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let length = (1..).find(|n| rest + n.to_string().len() == *n).unwrap();
    format!("{length} {key}={value}\n")
}

/// Changes the type of the first entry.
fn retype(tar: &mut [u8], flag: u8) {
    tar[156] = flag;
    tar[148..156].fill(b' ');
    let sum: u32 = tar[..512].iter().map(|byte| u32::from(*byte)).sum();
    tar[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

/// Rows: B19
#[test]
fn broken_bytes_are_errors_with_a_place() {
    let good = tar(&[(file("a"), &"text".repeat(1000))]);
    let (_dir, root) = temp();
    for cut in [1, 100, 511, 513, 2000, good.len() - 1500] {
        let error = apply(&good[..cut], &root, &ours()).unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::InvalidInput,
            "cut at {cut}: {error}"
        );
    }
    let mut wrong_sum = good.clone();
    wrong_sum[0] ^= 1;
    assert!(matches!(
        apply(&wrong_sum[..], &root, &ours()),
        Err(Error::Tar { offset: 512, .. })
    ));
    let mut unknown = good.clone();
    retype(&mut unknown, b'?');
    assert!(matches!(
        apply(&unknown[..], &root, &ours()),
        Err(Error::EntryType { flag: '?', .. })
    ));
    // A long name of four gigabytes.
    let mut huge = tar(&[(file("a"), "")]);
    huge[124..136].copy_from_slice(b"37777777777\0");
    retype(&mut huge, b'L');
    assert!(matches!(
        apply(&huge[..], &root, &ours()),
        Err(Error::Tar { .. })
    ));
    // Compressed garbage.
    let error = apply(&[0x1f, 0x8b, 8, 1, 2, 3, 4, 5][..], &root, &ours()).unwrap_err();
    assert!(error.kind() != ErrorKind::Unavailable, "{error}");
    // Nothing at all is an empty layer.
    assert_eq!(apply(&b""[..], &root, &ours()).unwrap().entries, 0);
}

/// What the layer could not know by itself is set right from the layers below.
///
/// Rows: B18
#[test]
fn privileged_implied_directories_and_foreign_links_settle() {
    if !is_root() {
        return;
    }
    let (_below_dir, below) = temp();
    let mut lib = dir("lib");
    (lib.mode, lib.uid) = (0o2750, 7);
    let below_entries = [
        (lib, ""),
        (file("lib/shared"), "shared"),
        (dir("lib/sub"), ""),
    ];
    apply(&tar(&below_entries)[..], &below, &ApplyOptions::default()).unwrap();
    let (_dir, root) = temp();
    let entries = [
        (file("lib/sub/new"), "new"),
        (link("lib/twin", Kind::HardLink, "lib/shared"), ""),
        (file("other/x"), "x"),
    ];
    let applied = apply(&tar(&entries)[..], &root, &ApplyOptions::default()).unwrap();
    assert_eq!(applied.implied.len(), 3);
    assert!(applied.depends_on_below());
    settle(&root, &applied, Some(&below)).unwrap();
    let stat = root.lstat("lib").unwrap();
    assert_eq!((stat.mode, stat.uid), (0o2750, 7));
    assert_eq!(
        root.lstat("lib/twin").unwrap().ino,
        root.lstat("lib/shared").unwrap().ino
    );
    let missing = [(link("twin", Kind::HardLink, "nowhere"), "")];
    let applied = apply(&tar(&missing)[..], &root, &ApplyOptions::default()).unwrap();
    let error = settle(&root, &applied, Some(&below)).unwrap_err();
    assert!(matches!(error, Error::LinkTarget { .. }), "{error}");
}
