//! Points in time as image documents write them.

use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A time, written as RFC 3339 with as many digits after the second as it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(OffsetDateTime);

impl Stamp {
    /// Seconds since 1970, within what a date can say.
    pub fn from_epoch(seconds: i64) -> Option<Stamp> {
        OffsetDateTime::from_unix_timestamp(seconds).ok().map(Stamp)
    }

    /// As Go says a time: `2023-02-28 21:21:00 +0000 UTC`.
    pub(crate) fn spoken(self) -> String {
        let utc = self.0.to_offset(time::UtcOffset::UTC);
        format!(
            "{} {:02}:{:02}:{:02} +0000 UTC",
            utc.date(),
            utc.hour(),
            utc.minute(),
            utc.second()
        )
    }

    /// Seconds since 1970.
    pub fn epoch(self) -> i64 {
        self.0.unix_timestamp()
    }
}

impl From<SystemTime> for Stamp {
    fn from(time: SystemTime) -> Stamp {
        Stamp(time.into())
    }
}

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.format(&Rfc3339).map_err(|_| std::fmt::Error)?)
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Stamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = OffsetDateTime::parse(&text, &Rfc3339).map_err(serde::de::Error::custom)?;
        Ok(Stamp(time))
    }
}
