//! File transfers: packets of a client that sends a directory, and of one that asks for files.

use prost::Message as _;
use proto::fsutil::types::packet::PacketType;
use proto::fsutil::types::{Packet, Stat};
use session::fsutil::{Filter, Link, Owner, Receive, receive, send};

use super::{Fenced, Target, to_the_end};
use crate::mutate::{Shape, join, split};

pub(super) const TARGET: Target = Target {
    name: "fsutil",
    run,
    seeds,
    shape: Shape::Pieces(1),
    words: &[
        "a",
        "a/b",
        "../kiln-fuzz-escaped",
        "/kiln-fuzz-escaped",
        "..",
        ".",
        "",
        "up",
        "up/kiln-fuzz-escaped",
        "tmp/kiln-fuzz-escaped",
        "d/f",
        "d//f",
        "d/./f",
        "security.capability",
        "user.a",
        "trusted.overlay.opaque",
        ".wh.a",
        "\0",
    ],
    longest: 8 << 10,
    memory: 32 << 20,
};

/// The first byte chooses who we are and how; each piece is a packet.
fn run(input: &[u8]) {
    let Some((choice, packets)) = input.split_first() else {
        return;
    };
    let packets = split(packets);
    let fenced = Fenced::new();
    let dir = fenced.path();
    std::os::unix::fs::symlink("..", dir.join("up")).expect("a link");
    std::os::unix::fs::symlink("/tmp", dir.join("tmp")).expect("a link");
    std::fs::create_dir(dir.join("d")).expect("a directory");
    std::fs::write(dir.join("d/f"), "f").expect("a file");
    let incoming = futures::stream::iter(packets.into_iter().map(|bytes| {
        Packet::decode(&bytes[..]).map_err(|error| session::Error::Protocol(error.to_string()))
    }));
    let (out, mut told) = tokio::sync::mpsc::channel(64);
    let link = Link::new(out, incoming);
    let ended = to_the_end(async {
        let drain = async { while told.recv().await.is_some() {} };
        let work = async {
            if choice & 0x80 != 0 {
                send(link, fenced.root(), Filter::default(), |_| true, None).await
            } else {
                receive(link, fenced.root(), options(*choice))
                    .await
                    .map(|_| ())
            }
        };
        tokio::join!(work, drain).0
    });
    fenced.check();
    if let Err(error) = ended {
        assert!(!error.to_string().is_empty());
    }
}

fn options(choice: u8) -> Receive {
    let only = session::patterns::Patterns::new(["d"]).expect("a pattern");
    Receive {
        owner: if choice & 1 == 0 {
            Owner::Ours
        } else {
            Owner::AsSaid
        },
        delete: choice & 2 != 0,
        all: choice & 4 != 0,
        metadata_only: (choice & 8 != 0).then_some(only),
        known: (choice & 16 != 0).then(contenthash::Contents::of_sent_files),
        observer: None,
        hold: None,
    }
}

fn packet(kind: PacketType, id: u32, data: &'static [u8]) -> Packet {
    Packet {
        r#type: kind.into(),
        id,
        data: data.into(),
        ..Packet::default()
    }
}

fn stat(path: &'static str, mode: u32, size: i64, link: &'static str) -> Packet {
    let stat = Stat {
        path: path.into(),
        mode,
        size,
        linkname: link.into(),
        mod_time: 1_700_000_000_000_000_000,
        ..Stat::default()
    };
    Packet {
        stat: Some(stat),
        ..packet(PacketType::PacketStat, 0, b"")
    }
}

fn seeds() -> Vec<Vec<u8>> {
    const DIR: u32 = 1 << 31;
    const SYMLINK: u32 = 1 << 27;
    let transfer = [
        stat("a", DIR | 0o755, 0, ""),
        stat("a/b", 0o644, 3, ""),
        stat("a/c", 0o644, 0, ""),
        stat("h", 0o644, 3, "a/b"),
        stat("l", SYMLINK | 0o777, 3, "a/b"),
        packet(PacketType::PacketStat, 0, b""),
        packet(PacketType::PacketData, 1, b"abc"),
        packet(PacketType::PacketData, 1, b""),
        packet(PacketType::PacketData, 2, b""),
        packet(PacketType::PacketFin, 0, b""),
    ];
    let hostile = [
        stat("up", DIR | 0o755, 0, ""),
        stat("up/kiln-fuzz-escaped", 0o644, 1, ""),
        stat("x", 0o644, 1, "../secret"),
        packet(PacketType::PacketData, 0, b"x"),
    ];
    let asks = [
        packet(PacketType::PacketReq, 1, b""),
        packet(PacketType::PacketReq, 2, b""),
        packet(PacketType::PacketReq, 2, b""),
        packet(PacketType::PacketFin, 0, b""),
    ];
    let mut seeds = Vec::new();
    for choice in [0, 1, 2, 7, 8, 16, 23] {
        for packets in [&transfer[..], &hostile] {
            seeds.push(join(&[choice], &encoded(packets)));
        }
    }
    seeds.push(join(&[0x80], &encoded(&asks)));
    seeds
}

fn encoded(packets: &[Packet]) -> Vec<Vec<u8>> {
    packets
        .iter()
        .map(|packet| packet.encode_to_vec())
        .collect()
}
