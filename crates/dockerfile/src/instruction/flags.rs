//! The flags of one instruction, each asked for by name.

use crate::Error;
use crate::suggest::closest;

/// Flags as written; what is asked for is taken out, what is left over is unknown.
pub(super) struct Flags {
    given: Vec<(String, Option<String>)>,
    known: Vec<&'static str>,
}

impl Flags {
    pub(super) fn new(words: &[String]) -> Flags {
        let split = |word: &String| {
            let word = word.trim_start_matches("--");
            match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (word.to_owned(), None),
            }
        };
        Flags {
            given: words.iter().map(split).collect(),
            known: Vec::new(),
        }
    }

    /// All values of a flag that may be repeated.
    pub(super) fn all(&mut self, name: &'static str) -> Result<Vec<String>, Error> {
        self.known.push(name);
        let given = std::mem::take(&mut self.given);
        let (mine, rest) = given.into_iter().partition(|(n, _)| n == name);
        self.given = rest;
        let mine: Vec<(String, Option<String>)> = mine;
        let missing = || Error::FlagWithoutValue {
            flag: format!("--{name}"),
        };
        mine.into_iter()
            .map(|(_, value)| value.ok_or_else(missing))
            .collect()
    }

    /// The value of a flag, empty when absent.
    pub(super) fn text(&mut self, name: &'static str) -> Result<String, Error> {
        let mut all = self.all(name)?;
        if all.len() > 1 {
            return Err(Error::DuplicateFlag {
                flag: format!("--{name}"),
            });
        }
        Ok(all.pop().unwrap_or_default())
    }

    /// A flag that is there, or true, or false.
    pub(super) fn switch(&mut self, name: &'static str) -> Result<Option<bool>, Error> {
        for (given, value) in &mut self.given {
            if given == name {
                value.get_or_insert_with(|| "true".into());
            }
        }
        let value = self.text(name)?;
        match value.to_lowercase().as_str() {
            "" => Ok(None),
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            _ => Err(Error::BadFlagValue {
                flag: format!("--{name}"),
                value,
                expected: "true or false".into(),
            }),
        }
    }

    /// Nothing may be left over.
    pub(super) fn finish(self) -> Result<(), Error> {
        let Some((name, _)) = self.given.first() else {
            return Ok(());
        };
        Err(Error::UnknownFlag {
            flag: format!("--{name}"),
            suggestion: closest(name, self.known.iter().copied()),
        })
    }
}
