//! The options of a frontend: a map of strings on the wire, read here with types.

use std::collections::BTreeMap;

use crate::{Error, Result};

/// What the client asked for. Names are the wire's: `target`, `build-arg:VERSION`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options(BTreeMap<String, String>);

impl Options {
    /// Options from the wire.
    pub fn new(map: BTreeMap<String, String>) -> Options {
        Options(map)
    }

    /// The value, if the option was given at all.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The value; absent and empty are the same.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// A boolean in Go's spellings; `None` when absent or empty.
    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        let Some(value) = self.text(name) else {
            return Ok(None);
        };
        match stdx::text::go_bool(value) {
            Some(flag) => Ok(Some(flag)),
            None => Err(Error::bad_option(name, value, "a boolean (true or false)")),
        }
    }

    /// A whole number; `None` when absent or empty.
    pub fn number(&self, name: &str) -> Result<Option<i64>> {
        let Some(value) = self.text(name) else {
            return Ok(None);
        };
        match value.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Error::bad_option(name, value, "a whole number")),
        }
    }

    /// All options whose name starts with `prefix`, without it.
    pub fn with_prefix(&self, prefix: &str) -> BTreeMap<String, String> {
        let range = self.0.range(prefix.to_owned()..);
        range
            .take_while(|(name, _)| name.starts_with(prefix))
            .map(|(name, value)| (name[prefix.len()..].to_owned(), value.clone()))
            .collect()
    }

    /// The map itself, to hand on to another frontend.
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Options {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Options {
        Options(
            pairs
                .into_iter()
                .map(|(k, v)| (k.into(), v.into()))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_cut_off() {
        let options =
            Options::from_iter([("build-arg:A", "1"), ("build-arg:B", ""), ("build", "x")]);
        let args = options.with_prefix("build-arg:");
        assert_eq!(
            args.into_iter().collect::<Vec<_>>(),
            [
                ("A".to_owned(), "1".to_owned()),
                ("B".to_owned(), String::new())
            ]
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named() {
        let options = Options::from_iter([("multi-platform", "maybe"), ("shm-size", "x")]);
        let error = options.flag("multi-platform").unwrap_err();
        assert_eq!(
            error.to_string(),
            "option multi-platform is \"maybe\" but should be a boolean (true or false)"
        );
        assert_eq!(error.kind(), stdx::Kind::InvalidInput);
        assert!(options.number("shm-size").is_err());
        assert_eq!(options.flag("absent").unwrap(), None);
    }
}
