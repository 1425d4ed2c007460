//! PAX records: `length key=value\n`, and times in them.

use stdx::sys::Time;

pub(crate) const PATH: &[u8] = b"path";
pub(crate) const LINKPATH: &[u8] = b"linkpath";
pub(crate) const SIZE: &[u8] = b"size";
pub(crate) const UID: &[u8] = b"uid";
pub(crate) const GID: &[u8] = b"gid";
pub(crate) const MTIME: &[u8] = b"mtime";
pub(crate) const ATIME: &[u8] = b"atime";
pub(crate) const CTIME: &[u8] = b"ctime";
pub(crate) const XATTR: &[u8] = b"SCHILY.xattr.";

/// Key and value.
pub(crate) type Record<'a> = (&'a [u8], &'a [u8]);

/// Splits the first record off; `None` when it is malformed.
pub(crate) fn split(data: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let space = data.iter().take(20).position(|b| *b == b' ')?;
    let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
    let record = data.get(space + 1..length)?;
    let record = record.strip_suffix(b"\n")?;
    let equals = record.iter().position(|b| *b == b'=')?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    let text = key == PATH || key == LINKPATH || key == b"uname" || key == b"gname";
    if key.is_empty() || key.contains(&0) || (text && value.contains(&0)) {
        return None;
    }
    Some(((key, value), &data[length..]))
}

/// Appends one record.
pub(crate) fn push(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + digits(rest);
    if digits(length) != digits(rest) {
        length = rest + digits(length);
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

/// Reads `seconds[.fraction]`, possibly negative; digits after the ninth are dropped.
pub(crate) fn time(text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9.9}").parse().ok()?;
    if whole.starts_with('-') && nanos != 0 {
        return Some(Time {
            seconds: seconds.checked_sub(1)?,
            nanos: 1_000_000_000 - nanos,
        });
    }
    Some(Time { seconds, nanos })
}

/// Writes a time as Go does: no fraction when it is whole, no trailing zeros.
pub(crate) fn put_time(time: Time) -> Vec<u8> {
    if time.nanos == 0 {
        return time.seconds.to_string().into_bytes();
    }
    let (sign, seconds, nanos) = if time.seconds < 0 {
        ("-", -(time.seconds + 1), 1_000_000_000 - time.nanos)
    } else {
        ("", time.seconds, time.nanos)
    };
    let text = format!("{sign}{seconds}.{nanos:09}");
    text.trim_end_matches('0').as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for length in [1, 5, 85, 86, 87, 88, 89, 90, 985, 986, 990] {
            let mut out = Vec::new();
            push(&mut out, b"path", &vec![b'x'; length]);
            let ((key, value), rest) = split(&out).unwrap();
            assert_eq!((key, value.len(), rest.len()), (PATH, length, 0));
        }
        for bad in [
            "", "6", "6 a=b", "5 a=b\n", "99 a=b\n", "x a=b\n", "6 =bc\n", "0 \n",
        ] {
            assert!(split(bad.as_bytes()).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn times_read_back() {
        for (text, seconds, nanos) in [
            ("12", 12, 0),
            ("12.5", 12, 500_000_000),
            ("-1.25", -2, 750_000_000),
            ("-0.5", -1, 500_000_000),
        ] {
            let time = time(text.as_bytes()).unwrap();
            assert_eq!(time, Time { seconds, nanos });
            assert_eq!(put_time(time), text.as_bytes());
        }
        assert_eq!(
            time(b"1.0000000019"),
            Some(Time {
                seconds: 1,
                nanos: 1
            })
        );
        assert_eq!(time(b"1.x"), None);
    }
}
