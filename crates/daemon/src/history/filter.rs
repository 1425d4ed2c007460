//! Which records a listener wants (row A12).
//!
//! A filter is conditions with commas between, all of which must hold; of several filters
//! one must. `status==error`, `ref~=^abc`, `startedAt>1h` (began within the last hour),
//! `completedAt<2026-01-01T00:00:00Z`, `duration>=30s`.

use std::time::{Duration, SystemTime};

use proto::moby::buildkit::v1::BuildHistoryRecord as Record;
use regex::Regex;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tonic::Status;

use crate::to_proto;

/// Filters of which one must hold; none lets everything pass.
#[derive(Debug, Default)]
pub(crate) struct Filters(Vec<Vec<Condition>>);

#[derive(Debug)]
enum Condition {
    Text {
        key: Text,
        test: Test,
    },
    Moment {
        completed: bool,
        order: Order,
        at: i64,
    },
    Duration {
        order: Order,
        nanos: i128,
    },
}

#[derive(Clone, Copy, Debug)]
enum Text {
    Ref,
    Repository,
    Status,
}

#[derive(Debug)]
enum Test {
    There,
    Is(String),
    IsNot(String),
    Matches(Regex),
}

#[derive(Clone, Copy, Debug)]
enum Order {
    AtLeast,
    AtMost,
    More,
    Less,
}

impl Order {
    fn holds<T: PartialOrd>(self, left: T, right: T) -> bool {
        match self {
            Order::AtLeast => left >= right,
            Order::AtMost => left <= right,
            Order::More => left > right,
            Order::Less => left < right,
        }
    }
}

fn refuse(text: &str, problem: &str) -> Status {
    Status::invalid_argument(format!("history filter {text:?}: {problem}"))
}

impl Filters {
    /// Reads filters as a client gives them.
    pub(crate) fn parse(texts: &[String], now: SystemTime) -> Result<Filters, Status> {
        let texts = texts.iter().filter(|text| !text.is_empty());
        let all = texts.map(|text| split(text).iter().map(|one| condition(one, now)).collect());
        Ok(Filters(all.collect::<Result<_, Status>>()?))
    }

    /// Whether a record is wanted.
    pub(crate) fn match_record(&self, record: &Record) -> bool {
        self.0.is_empty()
            || self
                .0
                .iter()
                .any(|all| all.iter().all(|one| one.holds(record)))
    }
}

/// Splits at commas that no quotes hold.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            ',' if !quoted => parts.push(String::new()),
            _ => {
                quoted ^= c == '"';
                let last = parts.len() - 1;
                parts[last].push(c);
            }
        }
    }
    parts
}

fn condition(text: &str, now: SystemTime) -> Result<Condition, Status> {
    const ORDERS: [(&str, Order); 4] = [
        (">=", Order::AtLeast),
        ("<=", Order::AtMost),
        (">", Order::More),
        ("<", Order::Less),
    ];
    let ordered = ORDERS.iter().find_map(|(sign, order)| {
        let (key, value) = text.split_once(sign)?;
        matches!(key, "startedAt" | "completedAt" | "duration").then_some((key, *order, value))
    });
    if let Some((key, order, value)) = ordered {
        return match key {
            "duration" => {
                let span = span(value).ok_or_else(|| refuse(text, "this is no duration"))?;
                Ok(Condition::Duration {
                    order,
                    nanos: i128::try_from(span.as_nanos()).unwrap_or(i128::MAX),
                })
            }
            key => {
                let at = moment(value, now)
                    .ok_or_else(|| refuse(text, "this is neither a duration nor a time"))?;
                Ok(Condition::Moment {
                    completed: key == "completedAt",
                    order,
                    at,
                })
            }
        };
    }
    let signs = ["==", "!=", "~="]
        .into_iter()
        .filter_map(|sign| Some((text.find(sign)?, sign)));
    let (name, test) = match signs.min() {
        None => (text, Test::There),
        Some((at, sign)) => {
            let value = text[at + 2..].trim_matches('"').to_owned();
            let test = match sign {
                "==" => Test::Is(value),
                "!=" => Test::IsNot(value),
                _ => Test::Matches(
                    Regex::new(&value).map_err(|error| refuse(text, &error.to_string()))?,
                ),
            };
            (&text[..at], test)
        }
    };
    let key = match name {
        "ref" => Text::Ref,
        "repository" => Text::Repository,
        "status" => Text::Status,
        _ => {
            return Err(refuse(
                text,
                "the key is not one of ref, repository, status, startedAt, completedAt, duration",
            ));
        }
    };
    Ok(Condition::Text { key, test })
}

fn span(value: &str) -> Option<Duration> {
    value.parse::<crate::config::space::Span>().ok()?.duration()
}

/// So long before now, or a time, in seconds since 1970.
fn moment(value: &str, now: SystemTime) -> Option<i64> {
    match span(value) {
        Some(span) => Some(
            now.checked_sub(span)
                .map_or(0, |at| to_proto::timestamp(at).seconds),
        ),
        None => Some(
            OffsetDateTime::parse(value, &Rfc3339)
                .ok()?
                .unix_timestamp(),
        ),
    }
}

impl Condition {
    fn holds(&self, record: &Record) -> bool {
        let seconds = |at: &Option<prost_types::Timestamp>| at.as_ref().map_or(0, |at| at.seconds);
        let nanos = |at: &prost_types::Timestamp| {
            i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos)
        };
        match self {
            Condition::Text { key, test } => {
                let value = key.of(record);
                match test {
                    Test::There => value.is_some(),
                    Test::Is(wanted) => value.is_some_and(|value| value == *wanted),
                    Test::IsNot(unwanted) => value.is_none_or(|value| value != *unwanted),
                    Test::Matches(pattern) => value.is_some_and(|value| pattern.is_match(&value)),
                }
            }
            Condition::Moment {
                completed: true,
                order,
                at,
            } => order.holds(seconds(&record.completed_at), *at),
            Condition::Moment { order, at, .. } => order.holds(seconds(&record.created_at), *at),
            Condition::Duration {
                order,
                nanos: wanted,
            } => {
                let took = match (&record.created_at, &record.completed_at) {
                    (Some(started), Some(completed)) => nanos(completed) - nanos(started),
                    _ => 0,
                };
                order.holds(took, *wanted)
            }
        }
    }
}

impl Text {
    fn of(self, record: &Record) -> Option<String> {
        let attr = |name: &str| record.frontend_attrs.get(name).cloned();
        match self {
            Text::Ref => Some(record.r#ref.clone()).filter(|id| !id.is_empty()),
            Text::Repository => attr("vcs:source")
                .or_else(|| attr("context").and_then(|context| repository(&context))),
            Text::Status => Some(status(record).to_owned()),
        }
    }
}

/// The repository of a context that is one: without `#ref:subdir`.
fn repository(context: &str) -> Option<String> {
    let remote = context
        .split_once('#')
        .map_or(context, |(remote, _)| remote);
    let git = ["git://", "ssh://", "git@"]
        .iter()
        .any(|start| remote.starts_with(start))
        || (remote.starts_with("http") && remote.ends_with(".git"));
    git.then(|| remote.to_owned())
}

/// How a build stands, in one word.
pub(crate) fn status(record: &Record) -> &'static str {
    match (&record.completed_at, &record.error) {
        (None, _) => "running",
        (Some(_), None) => "completed",
        (Some(_), Some(error)) if error.message.contains(progress::CANCELED) => "canceled",
        (Some(_), Some(_)) => "error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            r#ref: "abc".into(),
            frontend_attrs: [(
                "context".to_owned(),
                "https://example.com/a.git#main".to_owned(),
            )]
            .into(),
            created_at: Some(prost_types::Timestamp {
                seconds: 1000,
                nanos: 0,
            }),
            completed_at: Some(prost_types::Timestamp {
                seconds: 1030,
                nanos: 0,
            }),
            ..Record::default()
        }
    }

    /// Rows: A12
    #[test]
    fn filters_choose_records() {
        let now = std::time::UNIX_EPOCH + Duration::from_secs(2000);
        for (filters, expected) in [
            (&["status==completed"][..], true),
            (&["status!=completed"], false),
            (&["status==error", "ref==abc"], true),
            (&["status==error,ref==abc"], false),
            (&["ref~=^a.c$,status==completed"], true),
            (&["ref~=^b"], false),
            (&["repository==https://example.com/a.git"], true),
            (&["startedAt>20m"], true),
            (&["startedAt>10m"], false),
            (&["startedAt<10m,duration>=30s"], true),
            (&["duration>30s"], false),
            (&["completedAt<=1970-01-01T00:17:10Z"], true),
            (&["completedAt<1970-01-01T00:17:10Z"], false),
            (&["", ""], true),
        ] {
            let texts: Vec<String> = filters.iter().map(|text| (*text).to_owned()).collect();
            let found = Filters::parse(&texts, now).unwrap().match_record(&record());
            assert_eq!(found, expected, "{filters:?}");
        }
        for wrong in [
            "color==red",
            "ref>1h",
            "duration==1h",
            "startedAt>soon",
            "ref~=(",
            "duration>x",
        ] {
            assert!(Filters::parse(&[wrong.to_owned()], now).is_err(), "{wrong}");
        }
    }

    /// Rows: A12
    #[test]
    fn a_canceled_build_is_no_error() {
        let mut record = record();
        record.error = Some(proto::google::rpc::Status {
            code: 1,
            message: "context canceled".into(),
            ..Default::default()
        });
        assert_eq!(status(&record), "canceled");
        record.completed_at = None;
        assert_eq!(status(&record), "running");
    }
}
