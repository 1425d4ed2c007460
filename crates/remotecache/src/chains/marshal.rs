//! From the graph to a cache config, always in the same order.

use std::collections::{BTreeMap, HashMap};

use oci::{Descriptor, Digest};

use super::{Chains, NodeId, Stored};
use crate::config::{CacheConfig, CacheInput, CacheLayer, CacheRecord, CacheResult};
use crate::when;

/// The stacks of layers that results are: each layer once per layer it lies on.
#[derive(Default)]
struct Stacks {
    /// Blob, and the number of the stack below.
    all: Vec<(Digest, Option<usize>)>,
    /// The same by name: the digests of the whole stack.
    numbers: HashMap<(Digest, Option<usize>), usize>,
}

impl Stacks {
    fn add(&mut self, layers: &[Descriptor]) -> Option<usize> {
        let mut below = None;
        for layer in layers {
            let key = (layer.digest, below);
            let number = *self.numbers.entry(key).or_insert_with(|| {
                self.all.push(key);
                self.all.len() - 1
            });
            below = Some(number);
        }
        below
    }

    /// The order in which stacks are written: by blob, then by what is below.
    fn sorted(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.all.len()).collect();
        let names: Vec<Digest> = {
            let mut names: Vec<Digest> = Vec::with_capacity(self.all.len());
            for (blob, below) in &self.all {
                let below = below
                    .map(|below| names[below].to_string())
                    .unwrap_or_default();
                names.push(Digest::of(format!("{blob} {below}")));
            }
            names
        };
        let key = |number: &usize| {
            let (blob, below) = self.all[*number];
            (blob.to_string(), below.is_some(), names[*number])
        };
        order.sort_by_cached_key(key);
        order
    }
}

impl Chains {
    /// Each node's newest result, of those for which `usable` says yes.
    pub(crate) fn best(&self, id: NodeId, usable: &impl Fn(&Stored) -> bool) -> Option<&Stored> {
        let results = self.nodes[id.0].results.iter();
        let mut best: Option<&Stored> = None;
        for result in results.filter(|result| !result.layers.is_empty() && usable(result)) {
            if best.is_none_or(|best| best.created < result.created) {
                best = Some(result);
            }
        }
        best
    }

    /// The config, and the layers it speaks of by digest. A result for which `usable` says no
    /// is left out. Equal graphs give equal bytes.
    pub fn marshal(
        &self,
        usable: impl Fn(&Stored) -> bool,
    ) -> (CacheConfig, BTreeMap<Digest, Descriptor>) {
        let order = self.sorted();
        let mut stacks = Stacks::default();
        let mut blobs = BTreeMap::new();
        let mut tops: HashMap<NodeId, (usize, String)> = HashMap::new();
        for id in &order {
            let Some(best) = self.best(*id, &usable) else {
                continue;
            };
            for layer in &best.layers {
                blobs.entry(layer.digest).or_insert_with(|| layer.clone());
            }
            if let Some(top) = stacks.add(&best.layers) {
                tops.insert(*id, (top, when::text(best.created)));
            }
        }
        let sorted = stacks.sorted();
        let mut new = vec![0_i64; sorted.len()];
        for (at, number) in sorted.iter().enumerate() {
            new[*number] = at as i64;
        }
        let layers = sorted.iter().map(|number| {
            let (blob, below) = stacks.all[*number];
            let parent = below.map_or(-1, |below| new[below]);
            CacheLayer {
                blob: Some(blob),
                parent,
                annotations: None,
            }
        });
        let layers = layers.collect();
        let records = self.records(&order, |id| {
            let (top, created_at) = tops.get(&id)?;
            Some(CacheResult {
                layer: new[*top],
                created_at: created_at.clone(),
            })
        });
        (CacheConfig { layers, records }, blobs)
    }

    /// Records for nodes in the given order.
    pub(crate) fn records(
        &self,
        order: &[NodeId],
        result: impl Fn(NodeId) -> Option<CacheResult>,
    ) -> Vec<CacheRecord> {
        let numbers: HashMap<NodeId, i64> = order
            .iter()
            .enumerate()
            .map(|(at, id)| (*id, at as i64))
            .collect();
        let record = |id: &NodeId| {
            let node = &self.nodes[id.0];
            let inputs = node.inputs.iter().map(|ways| {
                let mut inputs: Vec<CacheInput> = ways
                    .iter()
                    .map(|(from, by)| CacheInput {
                        selector: by.clone(),
                        link: numbers[from],
                    })
                    .collect();
                inputs.sort_by(|a, b| (a.link, &a.selector).cmp(&(b.link, &b.selector)));
                inputs
            });
            CacheRecord {
                layers: result(*id).into_iter().collect(),
                chains: Vec::new(),
                digest: node.digest.to_string(),
                inputs: inputs.collect(),
            }
        };
        order.iter().map(record).collect()
    }

    /// Nodes in the order of their records: by digest, number of inputs, and per input the
    /// number of ways, then selectors and digests of what leads there. Nodes equal in all that
    /// differ further up; there their names decide.
    pub(crate) fn sorted(&self) -> Vec<NodeId> {
        let names = self.names();
        let key = |id: &NodeId| {
            let node = &self.nodes[id.0];
            let inputs: Vec<_> = node
                .inputs
                .iter()
                .map(|ways| {
                    let digest = |from: &NodeId| self.nodes[from.0].digest.to_string();
                    let mut ways: Vec<_> = ways
                        .iter()
                        .map(|(from, by)| (by.clone(), digest(from)))
                        .collect();
                    ways.sort();
                    (ways.len(), ways)
                })
                .collect();
            (
                node.digest.to_string(),
                node.inputs.len(),
                inputs,
                names[id],
            )
        };
        let mut order = self.in_order();
        order.sort_by_cached_key(key);
        order
    }
}
