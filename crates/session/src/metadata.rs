//! Headers of calls between daemon and client. Header values are ASCII, so a value
//! that is not travels escaped, and a second header `<key>-encoded: 1` says so.

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tonic::metadata::{MetadataKey, MetadataMap};

use crate::{Error, Result};

/// Adds values under a key.
pub(crate) fn add(map: &mut MetadataMap, key: &str, values: &[String]) -> Result<()> {
    let bad = |_| Error::Protocol(format!("{key:?} is no header"));
    let escape = values
        .iter()
        .any(|v| !v.chars().all(|c| c == ' ' || c.is_ascii_graphic()));
    for value in values {
        let text = match escape {
            true => utf8_percent_encode(value, NON_ALPHANUMERIC).to_string(),
            false => value.clone(),
        };
        let name = MetadataKey::from_bytes(key.as_bytes()).map_err(bad)?;
        let text = text
            .parse()
            .map_err(|_| Error::Protocol(format!("{text:?} is no header value")))?;
        map.append(name, text);
    }
    if escape {
        let name = MetadataKey::from_bytes(format!("{key}-encoded").as_bytes()).map_err(bad)?;
        map.insert(name, tonic::metadata::MetadataValue::from_static("1"));
    }
    Ok(())
}

/// All values under a key.
pub(crate) fn all(map: &MetadataMap, key: &str) -> Vec<String> {
    let escaped = map.get(format!("{key}-encoded").as_str()).is_some();
    map.get_all(key)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .map(|text| match escaped {
            // Go writes a space as `+` here.
            true => percent_decode_str(&text.replace('+', " "))
                .decode_utf8_lossy()
                .into_owned(),
            false => text.to_owned(),
        })
        .collect()
}

/// The first value under a key.
pub(crate) fn first(map: &MetadataMap, key: &str) -> Option<String> {
    all(map, key).into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: N03
    #[test]
    fn values_survive() {
        for values in [
            vec!["a b".to_owned(), "100%+1".into()],
            vec!["naïve +1 %".into(), "x".into()],
        ] {
            let mut map = MetadataMap::new();
            add(&mut map, "dir-name", &values).unwrap();
            assert_eq!(all(&map, "dir-name"), values);
        }
        let mut map = MetadataMap::new();
        map.insert("k", "a+b%C3%A9".parse().unwrap());
        assert_eq!(first(&map, "k").unwrap(), "a+b%C3%A9");
        map.insert("k-encoded", "1".parse().unwrap());
        assert_eq!(first(&map, "k").unwrap(), "a bé");
        assert!(add(&mut map, "no key", &["x".into()]).is_err());
    }
}
