//! What the owner of the builder says about where it runs (row D04): told in every
//! provenance beside what the builder tells itself.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::{Error, Result};

/// The names of what the builder tells itself, in one version of SLSA or the other.
const OWN: [&str; 3] = ["buildConfig", "builderPlatform", "platform"];

/// Facts by their names. Clones share them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Environment(Arc<Map<String, Value>>);

impl Environment {
    /// Adds the facts of a document, an object in JSON. Of two facts of one name the later
    /// one counts, as a whole. The builder's own facts cannot be said here.
    pub fn add(&mut self, document: &[u8]) -> Result<()> {
        let said: Map<String, Value> =
            serde_json::from_slice(document).map_err(|error| Error::NoFacts(error.to_string()))?;
        if let Some(own) = said.keys().find(|name| OWN.contains(&name.as_str())) {
            return Err(Error::OwnFact(own.clone()));
        }
        Arc::make_mut(&mut self.0).extend(said);
        Ok(())
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// With the builder's own facts, in the order of the names: a map in BuildKit, too.
    pub(crate) fn with(&self, own: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
        let mut all = Map::clone(&self.0);
        all.extend(own.into_iter().map(|(name, fact)| (name.to_owned(), fact)));
        let mut all = Value::Object(all);
        all.sort_all_objects();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Rows: D04
    #[test]
    fn later_documents_win_and_the_builders_own_facts_stay_its_own() {
        let mut environment = Environment::default();
        assert!(environment.is_empty());
        for document in [r#"{"b":{"x":1,"y":2},"a":[1]}"#, r#"{"b":{"z":3}}"#, "{}"] {
            environment.add(document.as_bytes()).unwrap();
        }
        let before = environment.clone();
        let told = environment.with([("aa", "own".into())]);
        assert_eq!(told.to_string(), r#"{"a":[1],"aa":"own","b":{"z":3}}"#);
        for name in OWN {
            let document = json!({ "c": 1, name: 2 }).to_string();
            let refused = environment.add(document.as_bytes()).unwrap_err();
            assert_eq!(refused, Error::OwnFact(name.to_owned()));
        }
        for wrong in ["", "{", "[]", "null", "1", "{} {}", "\u{feff}{}"] {
            let refused = environment.add(wrong.as_bytes()).unwrap_err();
            assert!(matches!(refused, Error::NoFacts(_)), "{wrong}: {refused}");
        }
        assert_eq!(environment, before, "what was refused has left nothing");
    }
}
