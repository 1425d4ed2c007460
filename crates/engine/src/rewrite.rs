//! A graph as its build wants it: other sources in place of some, and nested builds that are
//! known by what holds for them, too.

use std::collections::BTreeMap;

use llb::{Definition, Graph, OpKind, Vertex, attr};
use oci::Digest;

use crate::Compatibility;

/// What becomes of a graph before it is given to the solver.
#[derive(Default)]
pub(crate) struct Rewrite {
    /// What policies put in place of sources, by the steps' digests.
    pub(crate) others: BTreeMap<Digest, llb::Source>,
    /// As which release sources give what they give.
    pub(crate) compatibility: Compatibility,
    /// The name of what holds for graphs that its steps find; none when nothing does. Steps of
    /// several builds are one step, and its result is kept: where other things hold, it is another
    /// step, and so is all that rests on it.
    pub(crate) holds: Option<Digest>,
}

impl Rewrite {
    /// The graph with its changes, its places still at their steps.
    pub(crate) fn graph(
        &self,
        definition: Definition,
        graph: Graph,
    ) -> llb::Result<(Definition, Graph)> {
        if !graph.vertices().iter().any(|step| self.op(step).is_some()) {
            return Ok((definition, graph));
        }
        let new = graph.map(|vertex| Ok::<_, llb::Error>(self.op(vertex)))?;
        let mut changed = new.definition();
        changed.source = definition.source;
        if let Some(map) = &mut changed.source {
            for (before, after) in graph.vertices().iter().zip(new.vertices()) {
                if before.digest != after.digest
                    && let Some(places) = map.locations.remove(&before.digest)
                {
                    map.locations.insert(after.digest, places);
                }
            }
        }
        Ok((changed, new))
    }

    /// What a step does instead.
    fn op(&self, vertex: &Vertex) -> Option<OpKind> {
        match &vertex.op.kind {
            OpKind::Source(source) => {
                let other = self.others.get(&vertex.digest);
                let old = self.compatibility.source(other.unwrap_or(source));
                old.or_else(|| other.cloned()).map(OpKind::Source)
            }
            OpKind::Build(build) => self.nested(build).map(OpKind::Build),
            _ => None,
        }
    }

    /// Nobody else says what holds.
    fn nested(&self, build: &llb::Build) -> Option<llb::Build> {
        let holds = self.holds.as_ref().map(Digest::to_string);
        if build.attrs.get(attr::BUILD_HOLDS) == holds.as_ref() {
            return None;
        }
        let mut build = build.clone();
        build.attrs.remove(attr::BUILD_HOLDS);
        let holds = holds.map(|holds| (attr::BUILD_HOLDS.to_owned(), holds));
        build.attrs.extend(holds);
        Some(build)
    }
}

#[cfg(test)]
mod tests {
    use llb::{Builder, Edge, Meta, Op};

    use super::*;

    fn digests(graph: &Graph) -> Vec<Digest> {
        graph.vertices().iter().map(|one| one.digest).collect()
    }

    /// Rows: A17
    #[test]
    fn only_the_oldest_version_has_other_git_sources() {
        let mut builder = Builder::new();
        let sources = ["docker-image://h/a:1", "git://h/r"];
        let sources =
            sources.map(|name| Some(builder.source(name, BTreeMap::new(), None, Meta::default())));
        let both = builder.merge(&sources, Meta::default());
        let definition = builder.definition(both.as_ref());
        let graph = Graph::load(&definition).unwrap();
        let aged = |compatibility, graph: &Graph| {
            let rewrite = Rewrite {
                compatibility,
                ..Rewrite::default()
            };
            rewrite.graph(graph.definition(), graph.clone()).unwrap().1
        };
        for same in [Compatibility::V015, Compatibility::V031] {
            assert_eq!(digests(&aged(same, &graph)), digests(&graph));
        }
        let old = aged(Compatibility::V013, &graph);
        let kept = digests(&graph)
            .into_iter()
            .filter(|digest| digests(&old).contains(digest));
        assert_eq!(kept.count(), 1, "the image");
        assert_eq!(
            digests(&aged(Compatibility::V013, &old)),
            digests(&old),
            "once is enough"
        );
    }

    /// Rows: A17, P05
    #[test]
    fn what_comes_in_place_of_a_source_is_as_old_as_the_rest() {
        let mut builder = Builder::new();
        let root = builder.source("https://h/f", [], None, Meta::default());
        let definition = builder.definition(Some(&root));
        let graph = Graph::load(&definition).unwrap();
        let other = llb::Source {
            identifier: "git://h/r".into(),
            attrs: BTreeMap::new(),
        };
        let rewrite = Rewrite {
            others: [(root.digest, other)].into(),
            compatibility: Compatibility::V013,
            holds: None,
        };
        let (_, graph) = rewrite.graph(definition, graph).unwrap();
        let OpKind::Source(source) = &graph.vertices()[0].op.kind else {
            panic!("{graph:?}")
        };
        assert_eq!(source.identifier, "git://h/r");
        assert_eq!(source.attrs[attr::GIT_OLD_MODES], "true");
    }

    /// A step that builds what it finds is another one where other things hold, and whoever wrote
    /// the graph cannot say what does.
    ///
    /// Rows: L15
    #[test]
    fn a_nested_build_is_known_by_what_holds_for_it() {
        let graph = |said: Option<&str>| {
            let mut builder = Builder::new();
            let file = builder.source("https://h/f", [], None, Meta::default());
            let attrs = said.map(|said| (attr::BUILD_HOLDS.to_owned(), said.to_owned()));
            let op = Op {
                inputs: vec![file],
                kind: OpKind::Build(llb::Build {
                    builder: -1,
                    inputs: [(attr::BUILD_DEFINITION_INPUT.to_owned(), 0)].into(),
                    definition: None,
                    attrs: attrs.into_iter().collect(),
                }),
                platform: None,
                constraints: None,
            };
            let digest = builder.add(&op, Meta::default());
            let rests = llb::FileOps::on(Some(Edge { digest, index: 0 }));
            let rests = rests.mkdir(llb::Mkdir {
                path: "/d".to_owned(),
                ..llb::Mkdir::default()
            });
            let rests = builder.file(rests, Meta::default());
            let definition = builder.definition(Some(&rests));
            let graph = Graph::load(&definition).unwrap();
            (definition, graph)
        };
        let held = |said: Option<&str>, holds: Option<Digest>| {
            let (definition, graph) = graph(said);
            let rewrite = Rewrite {
                holds,
                ..Rewrite::default()
            };
            digests(&rewrite.graph(definition, graph).unwrap().1)
        };
        let (one, two) = (Digest::of("1"), Digest::of("2"));
        let plain = digests(&graph(None).1);
        assert_eq!(held(None, None), plain);
        let (first, second) = (held(None, Some(one)), held(None, Some(two)));
        for (all, others) in [(&plain, &first), (&first, &second), (&plain, &second)] {
            let same = all.iter().filter(|digest| others.contains(digest));
            assert_eq!(same.count(), 1, "the file it is found in");
        }
        let said = one.to_string();
        assert_eq!(held(Some(&said), None), plain);
        assert_eq!(held(Some(&said), Some(two)), second);
        assert_eq!(held(Some(&said), Some(one)), first);
    }
}
