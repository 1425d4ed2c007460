//! The files that steps come from, each once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::Bytes;

use crate::SourceInfo;

/// What two mentions of one file have in common.
type Key = (String, String, Bytes);

/// Of the graphs that read two files the steps count and not what is said about these: clients say
/// some of it anew. The last step names all others.
type Graph = Bytes;

/// Files in the order of their first mention. Finding one takes the same time however many there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    pub(super) list: Vec<SourceInfo>,
    /// The first one of that key, whatever read it.
    first: HashMap<Key, usize>,
    /// The first one of that key that nobody said how to read.
    unread: HashMap<Key, usize>,
    read: HashMap<(Key, Option<Graph>), usize>,
}

impl Files {
    /// The place of `file`. How it was read counts as far as it is known.
    pub(super) fn add(&mut self, file: SourceInfo) -> usize {
        let key: Key = (
            file.filename.clone(),
            file.language.clone(),
            file.data.clone(),
        );
        let Some(definition) = &file.definition else {
            return match self.first.get(&key) {
                Some(&at) => at,
                None => {
                    self.first.insert(key.clone(), self.list.len());
                    self.unread.insert(key, self.list.len());
                    self.push(file)
                }
            };
        };
        let graph = (key.clone(), definition.def.last().cloned());
        let alike = self.read.get(&graph).copied();
        match (alike, self.unread.get(&key).copied()) {
            (Some(at), None) => at,
            (Some(at), Some(unread)) if at < unread => at,
            (_, Some(unread)) => {
                // Now it is known.
                self.list[unread].definition = file.definition;
                self.unread.remove(&key);
                self.read.insert(graph, unread);
                unread
            }
            (None, None) => {
                if let Entry::Vacant(first) = self.first.entry(key) {
                    first.insert(self.list.len());
                }
                self.read.insert(graph, self.list.len());
                self.push(file)
            }
        }
    }

    fn push(&mut self, file: SourceInfo) -> usize {
        self.list.push(file);
        self.list.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Definition;

    fn file(name: &str, graph: Option<&'static str>) -> SourceInfo {
        SourceInfo {
            filename: name.into(),
            data: "FROM scratch".into(),
            definition: graph.map(|graph| {
                let def = vec!["first".into(), graph.into()];
                Box::new(Definition {
                    def,
                    ..Definition::default()
                })
            }),
            language: "Dockerfile".into(),
        }
    }

    /// Rows: L17
    #[test]
    fn a_file_is_known_by_what_it_says_and_by_the_graph_that_read_it() {
        let mut files = Files::default();
        let mut add = |name, graph| files.add(file(name, graph));
        assert_eq!(add("a", Some("one")), 0);
        assert_eq!(add("a", Some("two")), 1);
        assert_eq!(add("a", Some("one")), 0);
        assert_eq!(add("a", None), 0);
        assert_eq!(add("b", None), 2);
        // It gets to know how it was read; another one is another file then.
        assert_eq!(add("b", Some("one")), 2);
        assert_eq!(add("b", Some("one")), 2);
        assert_eq!(add("b", Some("two")), 3);
        assert_eq!(files.list.len(), 4);
        assert!(files.list[2].definition.is_some());
    }
}
