//! One 512-byte header block: where the fields are and how numbers are written.

use std::ops::Range;

pub(crate) const SIZE: usize = 512;
/// A header block.
pub(crate) type Block = [u8; SIZE];

pub(crate) const NAME: Range<usize> = 0..100;
pub(crate) const MODE: Range<usize> = 100..108;
pub(crate) const UID: Range<usize> = 108..116;
pub(crate) const GID: Range<usize> = 116..124;
pub(crate) const LENGTH: Range<usize> = 124..136;
pub(crate) const MTIME: Range<usize> = 136..148;
pub(crate) const CHECKSUM: Range<usize> = 148..156;
pub(crate) const TYPE: usize = 156;
pub(crate) const LINK: Range<usize> = 157..257;
pub(crate) const MAGIC: Range<usize> = 257..265;
pub(crate) const MAJOR: Range<usize> = 329..337;
pub(crate) const MINOR: Range<usize> = 337..345;
pub(crate) const PREFIX: Range<usize> = 345..500;
pub(crate) const GNU_ATIME: Range<usize> = 345..357;
pub(crate) const GNU_CTIME: Range<usize> = 357..369;
pub(crate) const GNU_SPARSE: Range<usize> = 386..482;
pub(crate) const GNU_EXTENDED: usize = 482;
pub(crate) const GNU_REAL_SIZE: Range<usize> = 483..495;
/// In a block that continues a sparse map.
pub(crate) const MORE_SPARSE: Range<usize> = 0..504;
pub(crate) const MORE_EXTENDED: usize = 504;

pub(crate) const USTAR: &[u8; 8] = b"ustar\x0000";
pub(crate) const GNU: &[u8; 8] = b"ustar  \0";

/// Which dialect a header block speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    V7,
    Ustar,
    Gnu,
}

pub(crate) fn dialect(block: &Block) -> Dialect {
    match &block[MAGIC] {
        magic if magic == GNU => Dialect::Gnu,
        magic if magic.starts_with(b"ustar\0") => Dialect::Ustar,
        _ => Dialect::V7,
    }
}

/// The text of a field, up to the first NUL.
pub(crate) fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    &field[..end]
}

/// A number in octal or in base 256. `None` when it is neither or too large.
pub(crate) fn number(field: &[u8]) -> Option<i64> {
    if field.first().is_some_and(|b| b & 0x80 != 0) {
        return base256(field);
    }
    let digits: &[u8] = {
        let start = field
            .iter()
            .position(|b| *b != b' ' && *b != 0)
            .unwrap_or(field.len());
        let rest = &field[start..];
        let end = rest
            .iter()
            .position(|b| *b == b' ' || *b == 0)
            .unwrap_or(rest.len());
        &rest[..end]
    };
    digits.iter().try_fold(0_i64, |sum, digit| match digit {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// Two's complement, big endian, with the top bit of the first byte as the mark.
fn base256(field: &[u8]) -> Option<i64> {
    let negative = field[0] & 0x40 != 0;
    let fill = if negative { 0xff } else { 0 };
    let mut wide = [fill; 16];
    let start = wide.len().checked_sub(field.len())?;
    wide[start..].copy_from_slice(field);
    // The mark itself is no part of the number.
    wide[start] = if negative {
        wide[start] | 0x80
    } else {
        wide[start] & 0x7f
    };
    i64::try_from(i128::from_be_bytes(wide)).ok()
}

/// Whether `value` can be written in octal into a field of `width` bytes.
pub(crate) fn fits_octal(value: i64, width: usize) -> bool {
    value >= 0 && ((width - 1) * 3 >= 63 || value < 1 << ((width - 1) * 3))
}

/// Writes zero-padded octal with a NUL at the end; what does not fit becomes zero.
pub(crate) fn put_octal(field: &mut [u8], value: i64) {
    let value = if fits_octal(value, field.len()) {
        value
    } else {
        0
    };
    let width = field.len() - 1;
    let digits = format!("{value:0width$o}");
    field[..width].copy_from_slice(digits.as_bytes());
    field[width] = 0;
}

/// Writes as much of `text` as fits.
pub(crate) fn put_text(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
    // A cut-off name that ends in a slash would read as a directory.
    if text.len() > field.len() && field[field.len() - 1] == b'/' {
        let kept = field[..field.len() - 1]
            .iter()
            .rposition(|b| *b != b'/')
            .map_or(0, |i| i + 1);
        field[kept] = 0;
    }
}

/// The sum of all bytes with the checksum field read as spaces, unsigned and signed.
pub(crate) fn sums(block: &Block) -> (i64, i64) {
    let (mut unsigned, mut signed) = (0, 0);
    for (at, byte) in block.iter().enumerate() {
        let byte = if CHECKSUM.contains(&at) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    (unsigned, signed)
}

/// Whether the checksum is right in either reading.
pub(crate) fn checksum_holds(block: &Block) -> bool {
    let (unsigned, signed) = sums(block);
    number(&block[CHECKSUM]).is_some_and(|found| found == unsigned || found == signed)
}

/// Computes and writes the checksum.
pub(crate) fn seal(block: &mut Block) {
    let (sum, _) = sums(block);
    put_octal(&mut block[148..155], sum);
    block[155] = b' ';
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_octal_and_base_256() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"0000648\0"), None);
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x01\0\0\0\0"), Some(1 << 32));
        assert_eq!(
            number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            Some(-1)
        );
        assert_eq!(
            number(b"\x80\x01\0\0\0\0\0\0\0\0\0\0"),
            None,
            "more than 63 bits"
        );
        assert_eq!(number(b"\xc0\x01\0\0\0\0\0\0\0\0\0\0"), None);
    }
}
