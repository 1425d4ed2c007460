//! Choosing records by what they are: containerd's filter grammar, as far as records have fields
//! (row A11).
//!
//! `type==regular,inuse` means both; several filters mean any of them. A field alone asks whether
//! it is there (or true), `==` and `!=` compare, `~=` matches a regular expression anywhere.
//! Values may be quoted with `"` (Go escapes), `'`-free words need no quotes.

use regex::Regex;

use crate::{Error, Result, UsageRecord};

/// Filters of which any may match; none match everything.
#[derive(Clone, Debug, Default)]
pub struct Filter(Vec<Vec<Selector>>);

#[derive(Clone, Debug)]
struct Selector {
    field: String,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Filter {
    /// Reads filters as a client gives them.
    pub fn parse<S: AsRef<str>>(filters: &[S]) -> Result<Filter> {
        let read = |text: &S| parse_one(text.as_ref());
        Ok(Filter(filters.iter().map(read).collect::<Result<_>>()?))
    }

    /// Whether a record is meant.
    pub fn matches(&self, record: &UsageRecord) -> bool {
        self.0.is_empty()
            || self
                .0
                .iter()
                .any(|all| all.iter().all(|one| one.matches(record)))
    }
}

impl Selector {
    fn matches(&self, record: &UsageRecord) -> bool {
        let (value, present) = field(record, &self.field);
        match &self.test {
            Test::Present => present,
            Test::Equal(wanted) => present && value == *wanted,
            Test::NotEqual(unwanted) => value != *unwanted,
            Test::Matches(pattern) => present && pattern.is_match(&value),
        }
    }
}

/// A field's value and whether it is there. Yes-or-no fields have no value, only presence.
fn field(record: &UsageRecord, name: &str) -> (String, bool) {
    let text = |text: &str| (text.to_owned(), !text.is_empty());
    let flag = |set: bool| (String::new(), set);
    match name {
        "id" => text(&record.id),
        "parents" => text(&record.parents.join(";")),
        "description" => text(&record.description),
        "type" => text(record.record_type.as_str()),
        "inuse" => flag(record.in_use),
        "mutable" => flag(record.mutable),
        "immutable" => flag(!record.mutable),
        "shared" => flag(record.shared),
        "private" => flag(!record.shared),
        _ => flag(false),
    }
}

fn parse_one(filter: &str) -> Result<Vec<Selector>> {
    // An empty filter asks for nothing, so all have it. Clients send one when none was given.
    if filter.is_empty() {
        return Ok(Vec::new());
    }
    let refuse = |reason: String| Error::Filter {
        filter: filter.to_owned(),
        reason,
    };
    let mut selectors = Vec::new();
    let mut rest = filter;
    loop {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || "_-./".contains(c)));
        let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
        if name.is_empty() {
            return Err(refuse(format!("a field is missing before `{after}`")));
        }
        let (operator, after) = match after.get(..2) {
            Some(operator @ ("==" | "!=" | "~=")) => (operator, &after[2..]),
            _ => ("", after),
        };
        let (test, after) = if operator.is_empty() {
            (Test::Present, after)
        } else {
            let (value, after) = value(after, operator == "~=").map_err(refuse)?;
            let test = match operator {
                "==" => Test::Equal(value),
                "!=" => Test::NotEqual(value),
                _ => Test::Matches(Regex::new(&value).map_err(|error| refuse(error.to_string()))?),
            };
            (test, after)
        };
        selectors.push(Selector {
            field: name.to_owned(),
            test,
        });
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None if after.is_empty() => return Ok(selectors),
            None => return Err(refuse(format!("`{after}` was not expected"))),
        }
    }
}

/// A value and what follows it. Regular expressions may also be quoted with `/` or `|`.
fn value(text: &str, regex: bool) -> Result<(String, &str), String> {
    let quote = text
        .chars()
        .next()
        .filter(|c| *c == '"' || (regex && "/|".contains(*c)));
    let Some(quote) = quote else {
        let end = text.find(',').unwrap_or(text.len());
        return match &text[..end] {
            "" => Err("a value is missing".to_owned()),
            word => Ok((word.to_owned(), &text[end..])),
        };
    };
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            _ if c == quote => return Ok((value, &text[at + c.len_utf8()..])),
            '\\' if quote == '"' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, c @ ('"' | '\\' | '\''))) => value.push(c),
                other => return Err(format!("unknown escape {other:?}")),
            },
            '\\' => match chars.next() {
                Some((_, c)) if c == quote => value.push(c),
                Some((_, c)) => value.extend(['\\', c]),
                None => break,
            },
            c => value.push(c),
        }
    }
    Err(format!("the quote {quote} does not end"))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::RecordType;

    fn record() -> UsageRecord {
        UsageRecord {
            id: "abc".into(),
            mutable: true,
            in_use: false,
            size: 1,
            parents: vec!["p1".into(), "p2".into()],
            created: SystemTime::UNIX_EPOCH,
            last_used: None,
            usage_count: 0,
            description: "RUN make \"all\"".into(),
            record_type: RecordType::CacheMount,
            shared: false,
        }
    }

    /// Rows: A11
    #[test]
    fn selects_as_containerd_does() {
        for (filters, expected) in [
            (&[][..], true),
            (&["type==exec.cachemount"], true),
            (&["type==regular"], false),
            (&["type!=regular"], true),
            (&["mutable"], true),
            (&["immutable"], false),
            (&["inuse"], false),
            (&["private"], true),
            (&["mutable==true"], false),
            (&["type==exec.cachemount,inuse"], false),
            (&["inuse", "id==abc"], true),
            (&["id~=^a.c$"], true),
            (&["id~=/b/"], true),
            (&["description~=make"], true),
            (&["description==\"RUN make \\\"all\\\"\""], true),
            (&["parents~=p2"], true),
            (&["nosuchfield"], false),
        ] {
            let filter = Filter::parse(filters).unwrap();
            assert_eq!(filter.matches(&record()), expected, "{filters:?}");
        }
    }

    /// Rows: A11
    #[test]
    fn says_what_is_wrong() {
        for bad in [
            "==x",
            "id==",
            "id=x",
            "id~=(",
            "id==\"x",
            "id,,type",
            "id==\"x\"y",
            "id~=/x",
        ] {
            let error = Filter::parse(&[bad]).unwrap_err();
            assert_eq!(error.kind(), stdx::Kind::InvalidInput, "{bad}");
        }
        // Clients send an empty filter for none.
        assert!(Filter::parse(&[""]).is_ok());
    }
}
