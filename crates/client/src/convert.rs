//! Between the wire and plain values.

use std::time::{Duration, SystemTime};

use progress::{Event, Group, Log, Position, Range, Source, Status, Step, Stream, Warning};
use prost::Message as _;
use proto::moby::buildkit::v1 as wire;

use crate::Excerpt;

/// How far the daemon's clock is from ours.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Skew {
    ahead: Duration,
    behind: Duration,
}

impl Skew {
    /// From what the daemon says its time is.
    pub(crate) fn from_header(text: &str, now: SystemTime) -> Option<Skew> {
        use time::format_description::well_known::Rfc3339;
        let theirs = SystemTime::from(time::OffsetDateTime::parse(text, &Rfc3339).ok()?);
        Some(Skew {
            ahead: theirs.duration_since(now).unwrap_or_default(),
            behind: now.duration_since(theirs).unwrap_or_default(),
        })
    }

    fn ours(self, theirs: SystemTime) -> SystemTime {
        let back = theirs.checked_sub(self.ahead).unwrap_or(theirs);
        back.checked_add(self.behind).unwrap_or(back)
    }
}

/// A time of the wire. Go's zero time, which lies long before 1970, is 1970 too.
pub(crate) fn time(stamp: &prost_types::Timestamp) -> SystemTime {
    let seconds = u64::try_from(stamp.seconds).unwrap_or(0);
    let nanos = u64::try_from(stamp.nanos).unwrap_or(0);
    let since = Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos));
    SystemTime::UNIX_EPOCH
        .checked_add(since)
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// What happened, in the order the daemon says it. What names no step is left out.
pub(crate) fn events(message: wire::StatusResponse, skew: Skew) -> Vec<Event> {
    let at = |stamp: Option<&prost_types::Timestamp>| stamp.map(|s| skew.ours(time(s)));
    let mut events = Vec::new();
    for vertex in message.vertexes {
        let Ok(digest) = vertex.digest.parse() else {
            continue;
        };
        events.push(Event::Step(Step {
            digest,
            name: vertex.name,
            inputs: vertex
                .inputs
                .iter()
                .filter_map(|input| input.parse().ok())
                .collect(),
            group: vertex.progress_group.map(|g| Group {
                id: g.id,
                name: g.name,
                weak: g.weak,
            }),
            cached: vertex.cached,
            started: at(vertex.started.as_ref()),
            completed: at(vertex.completed.as_ref()),
            error: vertex.error,
        }));
    }
    for status in message.statuses {
        let Ok(step) = status.vertex.parse() else {
            continue;
        };
        events.push(Event::Status(Status {
            step,
            id: status.id,
            name: status.name,
            current: u64::try_from(status.current).unwrap_or(0),
            total: u64::try_from(status.total).unwrap_or(0),
            at: at(status.timestamp.as_ref()).unwrap_or_else(SystemTime::now),
            started: at(status.started.as_ref()),
            completed: at(status.completed.as_ref()),
        }));
    }
    for log in message.logs {
        let Ok(step) = log.vertex.parse() else {
            continue;
        };
        events.push(Event::Log(Log {
            step,
            stream: Stream::from_number(log.stream),
            data: log.msg,
            at: at(log.timestamp.as_ref()).unwrap_or_else(SystemTime::now),
        }));
    }
    for warning in message.warnings {
        let Ok(step) = warning.vertex.parse() else {
            continue;
        };
        events.push(Event::Warning(Warning {
            step,
            level: u32::try_from(warning.level).unwrap_or(1),
            short: String::from_utf8_lossy(&warning.short).into_owned(),
            detail: warning
                .detail
                .iter()
                .map(|d| String::from_utf8_lossy(d).into_owned())
                .collect(),
            url: warning.url,
            source: warning.info.map(|info| Source {
                filename: info.filename,
                language: info.language,
                data: info.data,
                definition: info
                    .definition
                    .map(|definition| definition.encode_to_vec().into())
                    .unwrap_or_default(),
            }),
            ranges: warning.ranges.iter().map(range).collect(),
        }));
    }
    events
}

fn range(range: &proto::pb::Range) -> Range {
    let position = |p: Option<&proto::pb::Position>| Position {
        line: p.map_or(0, |p| u32::try_from(p.line).unwrap_or(0)),
        character: p.map_or(0, |p| u32::try_from(p.character).unwrap_or(0)),
    };
    Range {
        start: position(range.start.as_ref()),
        end: position(range.end.as_ref()),
    }
}

/// The lines an error came from.
pub(crate) fn excerpt(source: &proto::details::Source) -> Option<Excerpt> {
    let info = source.info.as_ref()?;
    let position = |p: proto::details::Position| Position {
        line: u32::try_from(p.line).unwrap_or(0),
        character: u32::try_from(p.character).unwrap_or(0),
    };
    Some(Excerpt {
        source: Source {
            filename: info.filename.clone(),
            language: info.language.clone(),
            data: info.data.clone(),
            // Only its lines are shown.
            definition: Default::default(),
        },
        ranges: source
            .ranges
            .iter()
            .map(|r| Range {
                start: position(r.start),
                end: position(r.end),
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: A04
    #[test]
    fn times_are_moved_to_our_clock() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let skew = Skew::from_header("1970-01-12T13:46:45.5Z", now).unwrap();
        let theirs = now + Duration::from_millis(5_500);
        assert_eq!(skew.ours(theirs), now);
        assert!(Skew::from_header("soon", now).is_none());
        let stamp = prost_types::Timestamp {
            seconds: i64::MIN,
            nanos: -1,
        };
        assert_eq!(time(&stamp), SystemTime::UNIX_EPOCH);
    }
}
