//! YAML as vendors write it, read into the values of JSON.

use serde_json::{Map, Number, Value};
use yaml_rust2::Event;
use yaml_rust2::parser::Parser;
use yaml_rust2::scanner::TScalarStyle;

/// How deep it may be nested.
const DEPTH: usize = 32;

/// `Err` says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser::new_from_str(text);
    loop {
        match next(&mut parser)? {
            Event::StreamStart | Event::DocumentStart => {}
            Event::StreamEnd => return Err("there is nothing in it".to_string()),
            first => return value(first, &mut parser, 0),
        }
    }
}

fn next(parser: &mut Parser<std::str::Chars<'_>>) -> Result<Event, String> {
    let (event, _) = parser.next_token().map_err(|error| error.to_string())?;
    Ok(event)
}

fn value(
    event: Event,
    parser: &mut Parser<std::str::Chars<'_>>,
    depth: usize,
) -> Result<Value, String> {
    if depth > DEPTH {
        return Err(format!("it is nested deeper than {DEPTH}"));
    }
    match event {
        Event::Scalar(text, TScalarStyle::Plain, _, None) => Ok(plain(text)),
        Event::Scalar(text, ..) => Ok(Value::String(text)),
        Event::SequenceStart(..) => {
            let mut list = Vec::new();
            loop {
                match next(parser)? {
                    Event::SequenceEnd => return Ok(Value::Array(list)),
                    event => list.push(value(event, parser, depth + 1)?),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut map = Map::new();
            loop {
                let key = match next(parser)? {
                    Event::MappingEnd => return Ok(Value::Object(map)),
                    Event::Scalar(text, ..) => text,
                    _ => return Err("a key that is no text".to_string()),
                };
                let event = next(parser)?;
                let value = value(event, parser, depth + 1)?;
                if map.insert(key.clone(), value).is_some() {
                    return Err(format!("the key {key} is there twice"));
                }
            }
        }
        Event::Alias(_) => Err("aliases are not understood".to_string()),
        other => Err(format!("{other:?} where a value should be")),
    }
}

/// What a text without quotes means. Numbers are those of YAML 1.1 too, where a leading
/// zero makes an octal one: file modes are written so.
fn plain(text: String) -> Value {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(&text)),
    };
    let based = |digits: &str, base| {
        // The sign has been taken off already.
        let plain = digits.chars().all(|c| c.is_ascii_alphanumeric());
        plain
            .then(|| i64::from_str_radix(digits, base).ok())
            .flatten()
    };
    let number = if let Some(digits) = digits.strip_prefix("0x") {
        based(digits, 16)
    } else if let Some(digits) = digits.strip_prefix("0o") {
        based(digits, 8)
    } else if digits.len() > 1 && digits.starts_with('0') {
        based(digits, 8)
    } else {
        based(digits, 10)
    };
    if let Some(number) = number {
        return Value::Number(if negative { -number } else { number }.into());
    }
    let looks = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    match text
        .parse::<f64>()
        .ok()
        .filter(|_| looks)
        .and_then(Number::from_f64)
    {
        Some(number) => Value::Number(number),
        None => Value::String(text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_vendors_write_is_understood() {
        let text = "# a comment\n---\ncdiVersion: \"0.6.0\"\nkind: vendor.com/gpu\n\
            on: true\nmode: 0660\nhex: 0x1f\nminus: -7\nversion: 0.5.0\nfloat: 1.5\n\
            nothing:\nlist:\n- a=b\n- 'yes'\n- {x: 1, y: [2, 3]}\nlong: |\n  two\n  lines\n";
        assert_eq!(
            parse(text).unwrap(),
            json!({"cdiVersion": "0.6.0", "kind": "vendor.com/gpu", "on": true, "mode": 0o660,
                "hex": 31, "minus": -7, "version": "0.5.0", "float": 1.5, "nothing": null,
                "list": ["a=b", "yes", {"x": 1, "y": [2, 3]}], "long": "two\nlines\n"})
        );
    }

    #[test]
    fn what_is_no_specification_is_refused() {
        for (text, wrong) in [
            ("", "there is nothing in it"),
            ("a: 1\na: 2\n", "the key a is there twice"),
            ("a: &x [1]\nb: *x\n", "aliases are not understood"),
            ("[1]: 2\n", "a key that is no text"),
            ("a: [1", "while parsing"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(wrong), "{text:?}: {error}");
        }
        let deep = "[".repeat(100) + &"]".repeat(100);
        assert!(parse(&deep).unwrap_err().contains("nested deeper"));
    }
}
