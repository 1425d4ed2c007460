//! Attributes, taken one by one until none may be left.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The attributes not yet understood.
pub(super) struct Attrs<'a> {
    identifier: &'a str,
    left: BTreeMap<&'a str, &'a str>,
}

impl<'a> Attrs<'a> {
    pub(super) fn new(identifier: &'a str, attrs: &'a BTreeMap<String, String>) -> Attrs<'a> {
        Attrs {
            identifier,
            left: attrs
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect(),
        }
    }

    /// Whose they are.
    pub(super) fn identifier(&self) -> &'a str {
        self.identifier
    }

    /// The identifier itself is wrong.
    pub(super) fn wrong(&self, reason: impl Into<String>) -> Error {
        Error::Identifier {
            identifier: self.identifier.into(),
            reason: reason.into(),
        }
    }

    fn invalid(&self, name: &str, reason: impl Into<String>) -> Error {
        Error::Attribute {
            identifier: self.identifier.into(),
            name: name.into(),
            reason: reason.into(),
        }
    }

    /// Whether an attribute is there, and not yet taken.
    pub(super) fn has(&self, name: &str) -> bool {
        self.left.contains_key(name)
    }

    /// The text of an attribute.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.left.remove(name).map(str::to_owned)
    }

    /// The text of an attribute, empty when it is not there.
    pub(super) fn text_or_empty(&mut self, name: &str) -> String {
        self.text(name).unwrap_or_default()
    }

    /// What `read` makes of an attribute.
    pub(super) fn read<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>> {
        match self.left.remove(name) {
            None => Ok(None),
            Some(value) => read(value)
                .map(Some)
                .map_err(|reason| self.invalid(name, reason)),
        }
    }

    /// A parsed attribute.
    pub(super) fn parsed<T: FromStr<Err: std::fmt::Display>>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>> {
        self.read(name, |value| {
            value.parse().map_err(|error| format!("`{value}`: {error}"))
        })
    }

    /// `true` or `false`, in the spellings Go accepts.
    pub(super) fn truth(&mut self, name: &str) -> Result<bool> {
        let read = self.read(name, |value| match value {
            "" => Ok(false),
            value => stdx::text::go_bool(value)
                .ok_or_else(|| format!("`{value}` is neither true nor false")),
        })?;
        Ok(read.unwrap_or(false))
    }

    /// A number as Go's `ParseInt(_, 0, 64)` reads it: `420`, `0644`, `0o644`, `0x1a4`.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<u32>> {
        self.read(name, |value| {
            let (digits, radix) = match value.as_bytes() {
                [b'0', b'x' | b'X', ..] => (&value[2..], 16),
                [b'0', b'o' | b'O', ..] => (&value[2..], 8),
                [b'0', b'b' | b'B', ..] => (&value[2..], 2),
                [b'0', _, ..] => (&value[1..], 8),
                _ => (value, 10),
            };
            u32::from_str_radix(digits, radix)
                .map_err(|_| format!("`{value}` is no number from 0 on"))
        })
    }

    /// A JSON list of strings; `null` is none.
    pub(super) fn list(&mut self, name: &str) -> Result<Option<Vec<String>>> {
        let read = self.read(name, |value| {
            serde_json::from_str::<Option<Vec<String>>>(value)
                .map_err(|error| format!("not a JSON list of strings: {error}"))
        })?;
        Ok(read.flatten())
    }

    /// All attributes whose names begin with `prefix`, without it.
    pub(super) fn all(&mut self, prefix: &str) -> Vec<(String, String)> {
        let names: Vec<&str> = self
            .left
            .keys()
            .copied()
            .filter(|name| name.starts_with(prefix))
            .collect();
        names
            .into_iter()
            .map(|name| {
                (
                    name[prefix.len()..].to_owned(),
                    self.left.remove(name).expect("just seen").to_owned(),
                )
            })
            .collect()
    }

    /// That nothing is left.
    pub(super) fn finish(self) -> Result<()> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(name) => Err(self.invalid(name, "not known for this source")),
        }
    }
}
