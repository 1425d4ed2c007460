//! Layer tars from registries, archives from anywhere.

use std::path::Path;

use layer::{ApplyOptions, Devices, Namespace, Whiteouts, apply, diff};
use stdx::sys::Root;
use testkit::tar::{Entry, tar};

use super::{Fenced, Target};
use crate::mutate::Shape;

pub(super) const TARGET: Target = Target {
    name: "layer",
    run,
    seeds,
    shape: Shape::Bytes,
    words: &[
        ".wh.",
        ".wh..wh..opq",
        ".wh..wh.plnk",
        "../",
        "/",
        "../../../../../../../../kiln-fuzz-escaped",
        "ustar\0",
        "ustar  \0",
        "././@LongLink",
        "00000000001",
        "77777777777",
        "1 a=b\n",
        "30 path=../../kiln-fuzz-escaped\n",
        "SCHILY.xattr.user.a=",
        "GNU.sparse.major=1",
        "linkpath=",
        "size=99999999999\n",
        "mtime=1.5\n",
        "\x1f",
        "\0\0\0\0\0\0\0\0",
    ],
    longest: 12 << 10,
    memory: 192 << 20,
};

/// The first byte chooses what whiteouts and devices become; what follows is a tar.
fn run(input: &[u8]) {
    let Some((choice, tar)) = input.split_first() else {
        return;
    };
    let root = rustix::process::geteuid().is_root();
    let whiteouts = match choice % 3 {
        0 if root => Whiteouts::Overlay(Namespace::Trusted),
        0 => Whiteouts::Overlay(Namespace::User),
        1 => Whiteouts::Remove,
        _ => Whiteouts::Literal,
    };
    let devices = match choice / 3 % 3 {
        0 if root => Devices::Create,
        1 => Devices::Refuse,
        _ => Devices::Skip,
    };
    let options = ApplyOptions {
        whiteouts,
        devices,
        owner: None,
        keep_our_owner: !root,
    };
    // Checksums of headers made right, or few changes would be looked at.
    let mut tar = tar.to_vec();
    if choice & 0x80 == 0 {
        mend(&mut tar);
    }
    let fenced = Fenced::new();
    if choice & 0x40 != 0 {
        before(&fenced.path());
    }
    let applied = apply(&tar[..], &fenced.root(), &options);
    fenced.check();
    match applied {
        Ok(applied) => again(&fenced, &applied, &options),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A tree that has a link out of itself.
fn before(dir: &Path) {
    std::os::unix::fs::symlink("..", dir.join("up")).expect("a link");
    std::os::unix::fs::symlink("/tmp", dir.join("tmp")).expect("a link");
    std::fs::create_dir(dir.join("d")).expect("a directory");
    std::fs::write(dir.join("d/f"), "f").expect("a file");
}

/// What lies there now is a layer: written, applied and written again it is the same.
fn again(fenced: &Fenced, applied: &layer::Applied, options: &ApplyOptions) {
    if applied.depends_on_below() || !matches!(options.whiteouts, Whiteouts::Overlay(_)) {
        return;
    }
    let write = |root: &Root| diff(root, None, Vec::new());
    let Ok(first) = write(&fenced.root()) else {
        return;
    };
    let other = Fenced::new();
    apply(&first[..], &other.root(), options).expect("what was written can be applied");
    let second = write(&other.root()).expect("what was written can be written again");
    assert!(
        first == second,
        "written, applied and written again it is another"
    );
}

/// Sets the checksum of whatever lies where a header could.
fn mend(tar: &mut [u8]) {
    for header in tar.chunks_exact_mut(512) {
        if header.get(257..262) != Some(b"ustar") {
            continue;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let long = "long/".repeat(40) + "name";
    let plain = tar(&[
        Entry::folder("d/"),
        Entry::file("d/f", "content"),
        Entry::symlink("l", "d/f"),
        Entry::hard_link("h", "d/f"),
        Entry::device("c", b'3', 1, 3),
        Entry::file(long, "x"),
    ]);
    let hostile = tar(&[
        Entry::file("../../../../kiln-fuzz-escaped", "x"),
        Entry::symlink("up", ".."),
        Entry::file("up/kiln-fuzz-escaped", "x"),
        Entry::hard_link("s", "../secret"),
    ]);
    let white = tar(&[
        Entry::folder("d/"),
        Entry::file("d/.wh..wh..opq", ""),
        Entry::file(".wh.gone", ""),
        Entry::file("a/b/c/deep", "x"),
    ]);
    let mut seeds = Vec::new();
    for tar in [plain, hostile, white] {
        for choice in [0, 1, 2, 0x40, 0x41, 0x42] {
            let mut seed = vec![choice];
            seed.extend(&tar);
            seeds.push(seed);
        }
    }
    for algorithm in [layer::Algorithm::Gzip, layer::Algorithm::Zstd] {
        use std::io::Write as _;
        let compression = layer::Compression {
            algorithm,
            level: None,
        };
        let mut packer = layer::Packer::new(compression, Vec::new()).expect("a packer");
        packer.write_all(&seeds[0][1..]).expect("memory");
        let (_, packed) = packer.finish().expect("memory");
        seeds.push([&[0x80][..], &packed].concat());
    }
    seeds
}
