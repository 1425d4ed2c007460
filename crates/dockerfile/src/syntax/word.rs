//! Splitting what follows a keyword, by each instruction's own rules.

use super::{Arguments, Pair};
use crate::Error;

/// White space inside a line, as instructions count it. A line feed cannot occur.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// `a b  c` as words. Text without any word gives none.
pub(super) fn blank_separated(text: &str) -> Arguments {
    let words: Vec<String> = text
        .split(is_blank)
        .filter(|w| !w.is_empty())
        .map(str::to_owned)
        .collect();
    if words.is_empty() {
        Arguments::None
    } else {
        Arguments::Words(words)
    }
}

/// The text as it is.
pub(super) fn text(text: &str) -> Arguments {
    if text.is_empty() {
        Arguments::None
    } else {
        Arguments::Text(text.to_owned())
    }
}

/// A JSON array of strings, or what `otherwise` makes of the text.
pub(super) fn json_or(text: &str, otherwise: fn(&str) -> Arguments) -> Result<Arguments, Error> {
    if !text.starts_with('[') {
        return Ok(otherwise(text));
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else {
        return Ok(otherwise(text));
    };
    let strings = values.into_iter().map(|value| match value {
        serde_json::Value::String(text) => Ok(text),
        _ => Err(Error::JsonNotStrings),
    });
    Ok(Arguments::Json(strings.collect::<Result<_, _>>()?))
}

/// Words divided by white space; quotes and escapes hold them together and stay.
pub(super) fn quoted_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut has_quotes = false;
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if has_quotes || !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            has_quotes = false;
            continue;
        }
        if c == escape && quote != Some('\'') {
            // An escape at the very end means nothing.
            if let Some(escaped) = chars.next() {
                word.extend([c, escaped]);
            }
            continue;
        }
        match quote {
            Some(open) if open == c => quote = None,
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                has_quotes = true;
            }
            _ => {}
        }
        word.push(c);
    }
    if has_quotes || !word.is_empty() {
        words.push(word);
    }
    words
}

/// `ENV` and `LABEL`: `key=value …`, or `key value` in the old form.
pub(super) fn pairs(keyword: &str, text: &str, escape: char) -> Result<Arguments, Error> {
    let words = quoted_words(text, escape);
    let Some(first) = words.first() else {
        return Ok(Arguments::None);
    };
    if !first.contains('=') {
        let Some((key, value)) = text.split_once(is_blank) else {
            return Err(Error::NeedsTwoArguments {
                instruction: keyword.to_uppercase(),
            });
        };
        let value = value.trim_start_matches(is_blank).to_owned();
        return Ok(Arguments::Pairs(vec![Pair {
            key: key.to_owned(),
            value,
            legacy: true,
        }]));
    }
    let pairs = words.into_iter().map(|word| match word.split_once('=') {
        Some((key, value)) => Ok(Pair {
            key: key.to_owned(),
            value: value.to_owned(),
            legacy: false,
        }),
        None => Err(Error::NoEqualsSign { word }),
    });
    Ok(Arguments::Pairs(pairs.collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: &str, value: &str, legacy: bool) -> Pair {
        Pair {
            key: key.into(),
            value: value.into(),
            legacy,
        }
    }

    /// Rows: F27
    #[test]
    fn pairs_in_the_new_and_the_old_form() {
        let read = |text| pairs("env", text, '\\').unwrap();
        assert_eq!(
            read(r#"a=1 b="x y" c=x\ y"#),
            Arguments::Pairs(vec![
                pair("a", "1", false),
                pair("b", "\"x y\"", false),
                pair("c", "x\\ y", false)
            ])
        );
        assert_eq!(
            read("a  b c"),
            Arguments::Pairs(vec![pair("a", "b c", true)])
        );
        assert!(matches!(
            pairs("env", "a=1 b", '\\'),
            Err(Error::NoEqualsSign { .. })
        ));
        assert!(matches!(
            pairs("env", "a", '\\'),
            Err(Error::NeedsTwoArguments { .. })
        ));
    }

    #[test]
    fn json_is_taken_when_it_is_json() {
        assert_eq!(
            json_or("[\"a\"]", text).unwrap(),
            Arguments::Json(vec!["a".into()])
        );
        assert_eq!(
            json_or("[ -d x ]", text).unwrap(),
            Arguments::Text("[ -d x ]".into())
        );
        assert!(matches!(json_or("[1]", text), Err(Error::JsonNotStrings)));
        // No stack is deep enough for some; it is then no JSON.
        let deep = "[".repeat(200_000);
        assert!(matches!(json_or(&deep, text).unwrap(), Arguments::Text(_)));
    }
}
