//! Times as Go writes them (RFC 3339 with as many nanosecond digits as there are). The first
//! moment of the year 1 is Go's "no time": BuildKit writes it into inline caches.

use solver::Created;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// No time, older than any.
const NONE: (Created, &str) = (Created(i64::MIN), "0001-01-01T00:00:00Z");

/// `2026-11-20T19:28:38.9Z`.
pub(crate) fn text(created: Created) -> String {
    if created == NONE.0 {
        return NONE.1.to_owned();
    }
    let Ok(at) = OffsetDateTime::from_unix_timestamp_nanos(i128::from(created.0)) else {
        return "1970-01-01T00:00:00Z".to_owned();
    };
    let (date, time) = (at.date(), at.time());
    let mut text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    );
    if time.nanosecond() != 0 {
        let digits = format!("{:09}", time.nanosecond());
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Reads such a time; nothing for another text, or a later time than our counting reaches. All
/// that is older than it reaches is no time.
pub(crate) fn read(text: &str) -> Option<Created> {
    let nanos = OffsetDateTime::parse(text, &Rfc3339)
        .ok()?
        .unix_timestamp_nanos();
    match i64::try_from(nanos) {
        Ok(nanos) => Some(Created(nanos)),
        Err(_) if nanos < 0 => Some(NONE.0),
        Err(_) => None,
    }
}

pub(crate) fn from_system(time: std::time::SystemTime) -> Created {
    let nanos = OffsetDateTime::from(time).unix_timestamp_nanos();
    Created(i64::try_from(nanos).unwrap_or_default())
}

/// The same as the system has it; nothing for no time.
pub(crate) fn to_system(created: Created) -> Option<std::time::SystemTime> {
    if created == NONE.0 {
        return None;
    }
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(created.0)).ok()?;
    Some(at.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_as_they_were() {
        for text_in in [
            "2026-11-20T19:28:38.908036167Z",
            "2026-11-20T19:28:38.9Z",
            "1970-01-01T00:00:00Z",
            "1969-12-31T23:59:59.5Z",
            "0001-01-01T00:00:00Z",
        ] {
            assert_eq!(text(read(text_in).unwrap()), text_in);
        }
        assert_eq!(
            text(read("2026-11-20T21:28:38+02:00").unwrap()),
            "2026-11-20T19:28:38Z"
        );
        assert_eq!(to_system(read("0001-01-01T00:00:00Z").unwrap()), None);
        assert_eq!(read("yesterday"), None);
        assert_eq!(read("9999-01-01T00:00:00Z"), None);
    }
}
