//! The graph of keys and results between the solver and a cache config.
//!
//! A record's node is found again by its digest and the nodes that lead to it: adding it twice
//! gives one node with both sets of results.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use oci::{Descriptor, Digest};
use solver::Created;

mod marshal;
mod parse;

/// A layer of a result, as its manifest describes it.
pub type Layer = Descriptor;

/// A node in [`Chains`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) usize);

/// A result: layers, bottom first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The layers.
    pub layers: Vec<Layer>,
    /// When it was made.
    pub created: Created,
}

impl Stored {
    fn same(&self, other: &Stored) -> bool {
        let digests = |stored: &Stored| stored.layers.iter().map(|l| l.digest).collect::<Vec<_>>();
        self.created == other.created && digests(self) == digests(other)
    }
}

/// A way to a node: from which node, by which selector.
pub(crate) type Way = (NodeId, String);

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) digest: Digest,
    pub(crate) inputs: Vec<BTreeSet<Way>>,
    pub(crate) results: Vec<Stored>,
    /// By input, selector and digest: the nodes this one leads to.
    children: BTreeMap<(usize, String, Digest), BTreeSet<NodeId>>,
}

/// More was looked at than the graph allows.
#[derive(Debug)]
struct Tangled;

/// Keys and results.
#[derive(Clone, Debug)]
pub struct Chains {
    pub(crate) nodes: Vec<Node>,
    roots: HashMap<Digest, NodeId>,
    /// Nodes found to be another one.
    merged: HashMap<NodeId, NodeId>,
    /// How many nodes may still be looked at to find loops.
    looks: usize,
}

impl Default for Chains {
    fn default() -> Chains {
        Chains {
            nodes: Vec::new(),
            roots: HashMap::new(),
            merged: HashMap::new(),
            looks: usize::MAX,
        }
    }
}

impl Chains {
    /// An empty graph.
    pub fn new() -> Chains {
        Chains::default()
    }

    /// Adds a node, or finds it. `inputs` has, per input, the nodes that lead to it; an input
    /// without any gives nothing. A way that would make a loop is left out.
    pub fn add(
        &mut self,
        digest: Digest,
        inputs: &[Vec<Way>],
        results: Vec<Stored>,
    ) -> Option<NodeId> {
        let added = self.try_add(digest, inputs, results);
        added.expect("a graph of our own may be looked at without end")
    }

    fn try_add(
        &mut self,
        digest: Digest,
        inputs: &[Vec<Way>],
        results: Vec<Stored>,
    ) -> Result<Option<NodeId>, Tangled> {
        if inputs.iter().any(Vec::is_empty) {
            return Ok(None);
        }
        let inputs: Vec<Vec<Way>> = inputs
            .iter()
            .map(|ways| {
                ways.iter()
                    .map(|(node, by)| (self.now(*node), by.clone()))
                    .collect()
            })
            .collect();
        let id = if inputs.is_empty() {
            match self.roots.get(&digest) {
                Some(id) => *id,
                None => {
                    let id = self.make(digest, 0);
                    self.roots.insert(digest, id);
                    id
                }
            }
        } else {
            self.find_or_make(digest, &inputs)?
        };
        let node = &mut self.nodes[id.0];
        for result in results {
            if !node.results.iter().any(|known| known.same(&result)) {
                node.results.push(result);
            }
        }
        Ok(Some(id))
    }

    fn make(&mut self, digest: Digest, inputs: usize) -> NodeId {
        let inputs = vec![BTreeSet::new(); inputs];
        let (results, children) = (Vec::new(), BTreeMap::new());
        self.nodes.push(Node {
            digest,
            inputs,
            results,
            children,
        });
        NodeId(self.nodes.len() - 1)
    }

    fn find_or_make(&mut self, digest: Digest, inputs: &[Vec<Way>]) -> Result<NodeId, Tangled> {
        let mut same: Option<BTreeSet<NodeId>> = None;
        for (index, ways) in inputs.iter().enumerate() {
            let mut reached = BTreeSet::new();
            for (node, selector) in ways {
                let key = (index, selector.clone(), digest);
                reached.extend(self.nodes[node.0].children.get(&key).into_iter().flatten());
            }
            same = Some(match same {
                Some(same) => &same & &reached,
                None => reached,
            });
        }
        let same = same.unwrap_or_default();
        let known = same.first().copied();
        let id = known.unwrap_or_else(|| self.make(digest, inputs.len()));
        for other in same.iter().skip(1) {
            self.merge(*other, id)?;
        }
        // What lies below is looked for only if there is a new way: equal records are many.
        let mut below = None;
        for (index, ways) in inputs.iter().enumerate() {
            for way in ways {
                let there = self.nodes[id.0].inputs.get(index);
                if there.is_some_and(|there| there.contains(way)) {
                    continue;
                }
                let below = match &below {
                    Some(below) => below,
                    None => below.insert(match known {
                        Some(id) => self.below(id)?,
                        None => HashSet::new(),
                    }),
                };
                if !below.contains(&way.0) {
                    self.link(way.0, index, &way.1, id);
                }
            }
        }
        Ok(id)
    }

    fn link(&mut self, from: NodeId, index: usize, selector: &str, to: NodeId) {
        let digest = self.nodes[to.0].digest;
        let key = (index, selector.to_owned(), digest);
        self.nodes[from.0]
            .children
            .entry(key)
            .or_default()
            .insert(to);
        let inputs = &mut self.nodes[to.0].inputs;
        if inputs.len() <= index {
            inputs.resize(index + 1, BTreeSet::new());
        }
        inputs[index].insert((from, selector.to_owned()));
    }

    /// The node itself and all it leads to.
    fn below(&mut self, id: NodeId) -> Result<HashSet<NodeId>, Tangled> {
        let mut seen = HashSet::new();
        let mut look = vec![id];
        while let Some(at) = look.pop() {
            self.looks = self.looks.checked_sub(1).ok_or(Tangled)?;
            if seen.insert(at) {
                look.extend(self.nodes[at.0].children.values().flatten());
            }
        }
        Ok(seen)
    }

    /// `other` turns out to be `id`: what leads to and from it now leads to and from `id`.
    fn merge(&mut self, other: NodeId, id: NodeId) -> Result<(), Tangled> {
        let below = self.below(id)?;
        let gone = &mut self.nodes[other.0];
        let (inputs, children) = (
            std::mem::take(&mut gone.inputs),
            std::mem::take(&mut gone.children),
        );
        let results = std::mem::take(&mut gone.results);
        for (index, ways) in inputs.into_iter().enumerate() {
            for (from, selector) in ways {
                let key = (index, selector.clone(), self.nodes[other.0].digest);
                if let Some(nodes) = self.nodes[from.0].children.get_mut(&key) {
                    nodes.remove(&other);
                }
                if !below.contains(&from) {
                    self.link(from, index, &selector, id);
                }
            }
        }
        for ((index, selector, _), nodes) in children {
            for node in nodes {
                self.nodes[node.0].inputs[index].remove(&(other, selector.clone()));
                self.link(id, index, &selector, node);
            }
        }
        for result in results {
            if !self.nodes[id.0]
                .results
                .iter()
                .any(|known| known.same(&result))
            {
                self.nodes[id.0].results.push(result);
            }
        }
        self.merged.insert(other, id);
        Ok(())
    }

    /// The node that a node has become.
    fn now(&self, mut id: NodeId) -> NodeId {
        while let Some(other) = self.merged.get(&id) {
            id = *other;
        }
        id
    }

    /// Every node, those that lead to others first. No recursion: chains may be long.
    pub(crate) fn in_order(&self) -> Vec<NodeId> {
        let mut waiting: Vec<usize> = vec![0; self.nodes.len()];
        let mut ready = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            if self.merged.contains_key(&NodeId(number)) {
                continue;
            }
            let from: BTreeSet<NodeId> = node.inputs.iter().flatten().map(|way| way.0).collect();
            waiting[number] = from.len();
            if from.is_empty() {
                ready.push(NodeId(number));
            }
        }
        let mut order = Vec::with_capacity(self.nodes.len());
        let mut next = 0;
        while next < ready.len() {
            let id = ready[next];
            next += 1;
            order.push(id);
            let children: BTreeSet<NodeId> = self.nodes[id.0]
                .children
                .values()
                .flatten()
                .copied()
                .collect();
            for child in children {
                waiting[child.0] -= 1;
                if waiting[child.0] == 0 {
                    ready.push(child);
                }
            }
        }
        order
    }

    /// A name for each node made from all that leads to it: equal graphs have equal names.
    pub(crate) fn names(&self) -> HashMap<NodeId, Digest> {
        use std::fmt::Write as _;
        let mut names: HashMap<NodeId, Digest> = HashMap::new();
        for id in self.in_order() {
            let node = &self.nodes[id.0];
            if node.inputs.is_empty() {
                names.insert(id, node.digest);
                continue;
            }
            let mut text = format!("{}\n", node.digest);
            for (index, ways) in node.inputs.iter().enumerate() {
                let mut lines: Vec<String> = ways
                    .iter()
                    .map(|(from, by)| format!("{index} {} {by}\n", names[from]))
                    .collect();
                lines.sort();
                for line in lines {
                    let _ = write!(text, "{line}");
                }
            }
            names.insert(id, Digest::of(text));
        }
        names
    }
}

#[cfg(test)]
mod tests;
