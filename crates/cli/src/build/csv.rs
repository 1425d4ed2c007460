//! One line of comma-separated fields with quotes, as Go's `encoding/csv` reads it:
//! the form of `--output`, `--cache-to`, `--secret` and others.

use std::collections::BTreeMap;

use crate::Error;

/// Splits a line into fields. A field may be quoted with `"`, doubled inside.
pub(crate) fn fields(flag: &'static str, line: &str) -> Result<Vec<String>, Error> {
    let wrong = |problem: &str| Error::BadFlag {
        flag,
        value: line.to_owned(),
        problem: problem.to_owned(),
    };
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let field = if let Some(quoted) = rest.strip_prefix('"') {
            let (field, after) = unquote(quoted).ok_or_else(|| wrong("a quote is not closed"))?;
            rest = after;
            field
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let field = &rest[..end];
            if field.contains('"') {
                return Err(wrong("a quote must begin a field"));
            }
            rest = &rest[end..];
            field.to_owned()
        };
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.is_empty() => return Ok(fields),
            None => return Err(wrong("only a comma may follow a quoted field")),
        }
    }
}

/// The text up to the closing quote, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"')?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return Some((field, rest)),
        }
    }
}

/// Fields as `key=value` pairs; keys in lower case. A field without `=` is refused.
pub(crate) fn pairs(flag: &'static str, line: &str) -> Result<BTreeMap<String, String>, Error> {
    let mut pairs = BTreeMap::new();
    for field in fields(flag, line)? {
        let Some((key, value)) = field.split_once('=') else {
            let problem = format!("{field:?} is not like key=value");
            return Err(Error::BadFlag {
                flag,
                value: line.to_owned(),
                problem,
            });
        };
        pairs.insert(key.trim().to_ascii_lowercase(), value.to_owned());
    }
    Ok(pairs)
}

/// Fields joined to one line, quoted where needed.
pub(crate) fn join<'a>(fields: impl IntoIterator<Item = &'a str>) -> String {
    let quote = |field: &str| {
        if field.contains([',', '"', '\n']) {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field.to_owned()
        }
    };
    fields.into_iter().map(quote).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_may_be_quoted() {
        assert_eq!(
            fields("-o", r#"type=image,"name=a,b","x=""q""""#).unwrap(),
            ["type=image", "name=a,b", "x=\"q\""]
        );
        assert_eq!(fields("-o", "").unwrap(), [""]);
        for wrong in ["\"a", "a\"b", "\"a\"b"] {
            assert!(fields("-o", wrong).is_err(), "{wrong}");
        }
        assert_eq!(join(["a", "b,c", "d\"e"]), "a,\"b,c\",\"d\"\"e\"");
        assert_eq!(
            fields("-o", &join(["a", "b,c", "d\"e"])).unwrap(),
            ["a", "b,c", "d\"e"]
        );
    }
}
