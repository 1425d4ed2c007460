//! From a cache config to the graph.

use std::collections::{HashMap, HashSet};

use oci::{Descriptor, Digest};

use super::{Chains, NodeId, Stored, Tangled, Way};
use crate::config::{CacheConfig, CacheRecord};
use crate::error::ParseError;
use crate::when;

/// Layers of all results together. Large caches have some hundred thousand; a small document
/// can ask for millions of millions.
const MAX_LAYERS: usize = 1 << 19;

/// Nodes that are looked at, all in all, to find that no way makes a loop. It happens where a
/// record has more ways than its twin before; a small document can ask for millions of millions.
const MAX_LOOKS: usize = 1 << 22;

impl Chains {
    /// Reads a config. `blobs` has the layers that are there: a result that needs another one
    /// is left out, its key stays.
    pub fn parse(
        config: &CacheConfig,
        blobs: &HashMap<Digest, Descriptor>,
    ) -> Result<Chains, ParseError> {
        let mut chains = Chains::new();
        chains.parse_into(config, blobs)?;
        Ok(chains)
    }

    /// The same, into a graph that may have records from elsewhere.
    pub fn parse_into(
        &mut self,
        config: &CacheConfig,
        blobs: &HashMap<Digest, Descriptor>,
    ) -> Result<(), ParseError> {
        let order = inputs_first(&config.records)?;
        let mut nodes: Vec<Option<NodeId>> = vec![None; config.records.len()];
        let mut left = MAX_LAYERS;
        self.looks = MAX_LOOKS;
        for number in order {
            let record = &config.records[number];
            if record.digest.starts_with("random:") {
                continue;
            }
            let digest: Digest = record.digest.parse().map_err(|source| ParseError::Digest {
                record: number,
                source,
            })?;
            let mut inputs: Vec<Vec<Way>> = Vec::with_capacity(record.inputs.len());
            for alternatives in &record.inputs {
                // A way from a random record leads nowhere.
                let ways = alternatives.iter().filter_map(|input| {
                    let node = nodes[usize::try_from(input.link).ok()?]?;
                    Some((node, input.selector.clone()))
                });
                inputs.push(ways.collect());
            }
            let results = results(config, number, blobs, &mut left)?;
            let added = self.try_add(digest, &inputs, results);
            nodes[number] = added.map_err(|Tangled| ParseError::Tangled)?;
        }
        self.looks = usize::MAX;
        Ok(())
    }
}

/// The records' numbers, each after those that lead to it.
fn inputs_first(records: &[CacheRecord]) -> Result<Vec<usize>, ParseError> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        No,
        Begun,
        Done,
    }
    let mut seen = vec![Seen::No; records.len()];
    let mut order = Vec::with_capacity(records.len());
    for start in 0..records.len() {
        let mut look = vec![start];
        while let Some(at) = look.last().copied() {
            match seen[at] {
                Seen::Done => {
                    look.pop();
                }
                Seen::Begun => {
                    seen[at] = Seen::Done;
                    order.push(at);
                    look.pop();
                }
                Seen::No => {
                    seen[at] = Seen::Begun;
                    for alternatives in &records[at].inputs {
                        if alternatives.is_empty() {
                            return Err(ParseError::EmptyInput(at));
                        }
                        for input in alternatives {
                            let link = usize::try_from(input.link)
                                .ok()
                                .filter(|link| *link < records.len())
                                .ok_or(ParseError::RecordId(input.link))?;
                            match seen[link] {
                                Seen::Begun => return Err(ParseError::LoopingRecord),
                                Seen::No => look.push(link),
                                Seen::Done => {}
                            }
                        }
                    }
                }
            }
        }
    }
    Ok(order)
}

fn results(
    config: &CacheConfig,
    number: usize,
    blobs: &HashMap<Digest, Descriptor>,
    left: &mut usize,
) -> Result<Vec<Stored>, ParseError> {
    let record = &config.records[number];
    let mut results = Vec::new();
    let created = |text: &str| {
        when::read(text).ok_or_else(|| ParseError::Created {
            record: number,
            text: text.to_owned(),
        })
    };
    let mut layer = |index: i64| {
        *left = left.checked_sub(1).ok_or(ParseError::TooManyLayers)?;
        let at = usize::try_from(index)
            .ok()
            .and_then(|index| config.layers.get(index));
        at.ok_or(ParseError::LayerIndex(index))
    };
    for result in &record.layers {
        let mut layers = Some(Vec::new());
        let mut seen = HashSet::new();
        let mut at = result.layer;
        loop {
            let here = layer(at)?;
            if !seen.insert(at) {
                return Err(ParseError::LoopingLayer);
            }
            let blob = here.blob.and_then(|digest| blobs.get(&digest));
            match (blob, &mut layers) {
                (Some(blob), Some(layers)) => layers.push(blob.clone()),
                _ => layers = None,
            }
            at = here.parent;
            if at == -1 {
                break;
            }
        }
        if let Some(mut layers) = layers {
            layers.reverse();
            results.push(Stored {
                layers,
                created: created(&result.created_at)?,
            });
        }
    }
    for result in &record.chains {
        let mut layers = Some(Vec::new());
        for index in &result.layers {
            let blob = layer(*index)?.blob.and_then(|digest| blobs.get(&digest));
            match (blob, &mut layers) {
                (Some(blob), Some(layers)) => layers.push(blob.clone()),
                _ => layers = None,
            }
        }
        if let Some(layers) = layers.filter(|layers| !layers.is_empty()) {
            results.push(Stored {
                layers,
                created: created(&result.created_at)?,
            });
        }
    }
    Ok(results)
}
