//! Packets: what OpenPGP's bytes consist of.

use crate::bytes::Bytes;

pub(super) const SIGNATURE: u8 = 2;
pub(super) const PUBLIC_KEY: u8 = 6;
pub(super) const USER_ID: u8 = 13;
pub(super) const PUBLIC_SUBKEY: u8 = 14;
pub(super) const USER_ATTRIBUTE: u8 = 17;
/// What keys consist of. Others, known or not, are passed over wherever they lie.
pub(super) const OF_KEYS: [u8; 5] = [
    SIGNATURE,
    PUBLIC_KEY,
    USER_ID,
    PUBLIC_SUBKEY,
    USER_ATTRIBUTE,
];

/// One of them.
#[derive(Clone, Copy)]
pub(super) struct Packet<'a> {
    pub(super) tag: u8,
    pub(super) body: &'a [u8],
}

/// The packets in order; after an error there are no more.
pub(super) fn packets(bytes: &[u8]) -> impl Iterator<Item = Result<Packet<'_>, &'static str>> {
    let mut left = Bytes(bytes);
    std::iter::from_fn(move || {
        if left.is_empty() {
            return None;
        }
        let read = next(&mut left);
        if read.is_err() {
            left = Bytes(&[]);
        }
        Some(read)
    })
}

fn next<'a>(left: &mut Bytes<'a>) -> Result<Packet<'a>, &'static str> {
    const EARLY: &str = "a packet ends early";
    let first = left.u8().ok_or(EARLY)?;
    if first & 0x80 == 0 {
        return Err("there is no packet where one should be");
    }
    let (tag, length) = if first & 0x40 != 0 {
        (first & 0x3f, length(left))
    } else {
        let length = match first & 3 {
            0 => left.u8().map(u32::from),
            1 => left.u16().map(u32::from),
            2 => left.u32(),
            _ => return Err("a packet without a length"),
        };
        ((first >> 2) & 0xf, length)
    };
    let length = length.ok_or("a packet in parts, or one that ends early")?;
    let length = usize::try_from(length).map_err(|_| EARLY)?;
    let body = left.take(length).ok_or(EARLY)?;
    Ok(Packet { tag, body })
}

/// A length of one, two or five bytes; `None` for that of a part.
pub(super) fn length(left: &mut Bytes<'_>) -> Option<u32> {
    match left.u8()? {
        one @ 0..192 => Some(u32::from(one)),
        two @ 192..224 => Some(((u32::from(two) - 192) << 8) + u32::from(left.u8()?) + 192),
        255 => left.u32(),
        224..=254 => None,
    }
}
