//! Amounts of disk and spans of time as the configuration writes them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

/// An amount of disk: bytes (`512MB`, `10_000`), or a share of the disk (`10%`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskSpace {
    /// So many bytes.
    Bytes(u64),
    /// So many percent of the disk the state lies on.
    Percent(u8),
}

impl DiskSpace {
    /// In bytes, on a disk of `disk` bytes.
    pub fn bytes(self, disk: u64) -> u64 {
        match self {
            DiskSpace::Bytes(bytes) => bytes,
            DiskSpace::Percent(percent) => disk / 100 * u64::from(percent),
        }
    }
}

/// The text is no amount or span.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not {1}")]
pub struct Unreadable(String, &'static str);

impl FromStr for DiskSpace {
    type Err = Unreadable;

    /// Units are powers of 1024, as in BuildKit: `k`, `kb`, `kib`, `M`, …
    fn from_str(text: &str) -> Result<DiskSpace, Unreadable> {
        let wrong = || Unreadable(text.to_owned(), "an amount like 512MB, 10737418240 or 10%");
        let trimmed = text.trim();
        if let Some(percent) = trimmed.strip_suffix('%') {
            return match percent.trim().parse() {
                Ok(percent @ 0..=100) => Ok(DiskSpace::Percent(percent)),
                _ => Err(wrong()),
            };
        }
        let digits = trimmed
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let unit = unit.trim().to_ascii_lowercase();
        let power = match unit.trim_end_matches('b').trim_end_matches('i') {
            "" if unit != "i" => 0,
            "k" => 1,
            "m" => 2,
            "g" => 3,
            "t" => 4,
            "p" => 5,
            _ => return Err(wrong()),
        };
        Ok(DiskSpace::Bytes((number * 1024f64.powi(power)) as u64))
    }
}

/// A span of time: seconds as a number, or a Go duration (`48h`, `1h30m`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// So long.
    For(Duration),
    /// A negative span: never.
    Never,
}

impl Span {
    /// The span, `None` for never.
    pub fn duration(self) -> Option<Duration> {
        match self {
            Span::For(duration) => Some(duration),
            Span::Never => None,
        }
    }
}

impl FromStr for Span {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Span, Unreadable> {
        let wrong = || {
            Unreadable(
                text.to_owned(),
                "a time like 48h, 1h30m or a number of seconds",
            )
        };
        let trimmed = text.trim();
        let (negative, mut rest) = match trimmed.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, trimmed),
        };
        if let Ok(seconds) = rest.parse::<u64>() {
            return Ok(if negative {
                Span::Never
            } else {
                Span::For(Duration::from_secs(seconds))
            });
        }
        let mut total = 0f64;
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .ok_or_else(wrong)?;
            let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let letters = rest
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(rest.len());
            total += number
                * match &rest[..letters] {
                    "h" => 3600.0,
                    "m" => 60.0,
                    "s" => 1.0,
                    "ms" => 1e-3,
                    "us" | "µs" => 1e-6,
                    "ns" => 1e-9,
                    _ => return Err(wrong()),
                };
            rest = &rest[letters..];
        }
        match Duration::try_from_secs_f64(total) {
            _ if trimmed.is_empty() => Err(wrong()),
            Ok(_) if negative => Ok(Span::Never),
            Ok(duration) => Ok(Span::For(duration)),
            Err(_) => Err(wrong()),
        }
    }
}

struct TextOrNumber<T>(std::marker::PhantomData<T>, &'static str);

impl<T: FromStr<Err = Unreadable>> Visitor<'_> for TextOrNumber<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<T, E> {
        Err(E::custom(format!(
            "{number} has a fraction; write it as a text with a unit"
        )))
    }
}

impl<'de> Deserialize<'de> for DiskSpace {
    fn deserialize<T: Deserializer<'de>>(from: T) -> Result<DiskSpace, T::Error> {
        from.deserialize_any(TextOrNumber(
            std::marker::PhantomData,
            "bytes, or a text like 512MB or 10%",
        ))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<T: Deserializer<'de>>(from: T) -> Result<Span, T::Error> {
        from.deserialize_any(TextOrNumber(
            std::marker::PhantomData,
            "seconds, or a text like 48h",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: D08
    #[test]
    fn amounts_and_spans_as_buildkit_reads_them() {
        assert_eq!(
            "512MB".parse::<DiskSpace>().unwrap(),
            DiskSpace::Bytes(512 << 20)
        );
        assert_eq!(
            "1.5GiB".parse::<DiskSpace>().unwrap(),
            DiskSpace::Bytes(3 << 29)
        );
        assert_eq!(
            "10000".parse::<DiskSpace>().unwrap(),
            DiskSpace::Bytes(10000)
        );
        assert_eq!("10%".parse::<DiskSpace>().unwrap().bytes(1000), 100);
        for wrong in ["", "MB", "10x", "200%", "-1", "1i"] {
            assert!(wrong.parse::<DiskSpace>().is_err(), "{wrong}");
        }
        assert_eq!(
            "48h".parse::<Span>().unwrap(),
            Span::For(Duration::from_secs(48 * 3600))
        );
        assert_eq!(
            "1h30m".parse::<Span>().unwrap(),
            Span::For(Duration::from_secs(5400))
        );
        assert_eq!(
            "3600".parse::<Span>().unwrap(),
            Span::For(Duration::from_secs(3600))
        );
        assert_eq!("-1".parse::<Span>().unwrap(), Span::Never);
        for wrong in ["", "h", "1d", "1", "1h2"] {
            assert_eq!(wrong.parse::<Span>().is_err(), wrong != "1", "{wrong}");
        }
    }
}
