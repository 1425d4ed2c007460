//! A picture of what is known below an edge, for exporting it.

use std::collections::{BTreeSet, HashMap};

use oci::Digest;

use super::{Content, EdgeId, Fault, State};
use crate::event::{LOCAL, StoreId, VertexId};
use crate::key::{KeyDigest, KeyId};

/// An edge in the picture.
#[derive(Clone, Debug)]
pub(crate) struct Found<O> {
    /// The vertex.
    pub(crate) vertex: VertexId,
    /// Which of its outputs.
    pub(crate) number: u32,
    /// One record digest for a vertex with inputs; one per map else.
    pub(crate) records: Vec<Digest>,
    /// Per input: the edge, with the selector by which it counts, and the
    /// content by which it counts as well.
    pub(crate) inputs: Vec<(usize, Option<Digest>, Option<Digest>)>,
    /// The output, if it is there.
    pub(crate) output: Option<O>,
    /// The names of the edge in the stores.
    pub(crate) keys: Vec<(Option<StoreId>, KeyId)>,
}

/// What is known below an edge. Inputs come before what is made of them; the
/// last one is the edge itself.
pub(crate) type Snapshot<O> = Vec<Found<O>>;

impl<O: Clone, E: Clone + From<Fault>> State<O, E> {
    /// What is known below an edge.
    pub(crate) fn picture(&self, edge: EdgeId) -> Snapshot<O> {
        let mut numbers: HashMap<EdgeId, usize> = HashMap::new();
        let mut found = Vec::new();
        let mut look = vec![(edge, false)];
        while let Some((at, inputs_done)) = look.pop() {
            if numbers.contains_key(&at) || self.edge(at).is_none() {
                continue;
            }
            if !inputs_done {
                look.push((at, true));
                let inputs = &self.vertex(at.0).inputs;
                look.extend(inputs.iter().rev().map(|input| (*input, false)));
                continue;
            }
            if let Some(one) = self.found_at(at, &numbers) {
                numbers.insert(at, found.len());
                found.push(one);
            }
        }
        found
    }

    fn found_at(&self, edge: EdgeId, numbers: &HashMap<EdgeId, usize>) -> Option<Found<O>> {
        let vertex = self.vertex(edge.0);
        let stable = |digest: &KeyDigest| !digest.is_random();
        let digests = vertex.maps.iter().map(|map| map.digest).filter(stable);
        let mut records: Vec<_> = digests.map(|d| d.record(i64::from(edge.1))).collect();
        if !vertex.inputs.is_empty() {
            records = records.pop().into_iter().collect();
        }
        let mut inputs = Vec::new();
        for (index, target) in vertex.inputs.iter().enumerate() {
            let content = match vertex.contents[index] {
                Content::Known(content) => content,
                _ => None,
            };
            let selector = vertex.maps.last()?.inputs[index].selector;
            inputs.push((
                numbers.get(target).copied().unwrap_or(usize::MAX),
                selector,
                content,
            ));
        }
        let state = self.at(edge);
        let keys = match vertex.inputs.is_empty() {
            true => self.probe_keys(edge),
            false => self.names(edge),
        };
        let output = state.output.clone();
        Some(Found {
            vertex: edge.0,
            number: edge.1,
            records,
            inputs,
            output,
            keys,
        })
    }

    /// The nodes of a vertex with inputs: of one with an output only those of this very output,
    /// of any other one all that its inputs lead to.
    fn names(&self, edge: EdgeId) -> Vec<(Option<StoreId>, KeyId)> {
        let state = self.at(edge);
        let own = state.id.map(|id| (LOCAL, id));
        let own = own.filter(|own| state.matched.contains(own));
        let mut names: BTreeSet<_> = own.into_iter().chain(state.from).collect();
        if state.output.is_none() {
            names.extend(&state.matched);
        }
        let names = names.into_iter();
        names.map(|(store, id)| (Some(store), id)).collect()
    }
}
