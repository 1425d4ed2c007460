//! Walks keys and records for a remote cache.
//!
//! [`JobHandle::export`](crate::JobHandle::export) gives a graph of key nodes:
//! the ones this build knows, and, through the indexes, other ways to reach
//! them. [`walk`] decides which of them get a result. Both give the same nodes
//! in the same order for the same build.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use oci::Digest;
use tracing::debug;

use crate::event::{LOCAL, StoreId};
use crate::index::{Index, IndexError, Record};
use crate::key::{Created, KeyId};
use crate::op::{Edge, OpError};
use crate::state::Snapshot;

/// How many results are made ready at one time.
const CONCURRENT_RESULTS: usize = 4;

/// A way to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExportLink {
    /// The node it comes from.
    pub node: usize,
    /// The part of it that counts.
    pub selector: Option<Digest>,
}

/// A node: a key, how it is reached, and perhaps a result.
#[derive(Clone, Debug)]
pub struct ExportNode<O> {
    /// Record digest.
    pub digest: Digest,
    /// What it is in the build: several edges may have one key.
    pub edges: Vec<Edge>,
    /// Per input, the ways to get here.
    pub inputs: Vec<BTreeSet<ExportLink>>,
    /// The output, if the build has it.
    pub output: Option<O>,
    /// When that was made, if it is known.
    pub created: Option<Created>,
    /// Records that have it, the best first.
    pub records: Vec<Record>,
    /// What the vertex says about exporting its result.
    pub export: Option<bool>,
}

/// Nodes, inputs first.
#[derive(Clone, Debug)]
pub struct ExportGraph<O> {
    /// The nodes.
    pub nodes: Vec<ExportNode<O>>,
    /// Those of the edge that was asked for.
    pub targets: Vec<usize>,
}

/// How much is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The result itself; below it only what needs no work to be exported.
    Min,
    /// Every result.
    Max,
}

/// Makes results into what can be exported.
#[async_trait]
pub trait Remotes<O>: Send + Sync {
    /// A result as it is exported.
    type Remote: Send;
    /// The output of a record; nothing when it is gone.
    async fn load(&self, record: &Record) -> Result<Option<O>, OpError>;
    /// The output as it is exported, if that needs no work.
    async fn existing(&self, output: &O) -> Result<Option<Self::Remote>, OpError>;
    /// The output as it is exported.
    async fn create(&self, output: &O) -> Result<Option<Self::Remote>, OpError>;
}

/// A node with the results to export.
#[derive(Clone, Debug)]
pub struct Exported<R> {
    /// Record digest.
    pub digest: Digest,
    /// Per input, the ways to get here.
    pub inputs: Vec<BTreeSet<ExportLink>>,
    /// Its result.
    pub result: Option<(R, Created)>,
}

/// Decides which nodes get a result and makes those. Nodes keep their numbers.
///
/// Without `roots` the nodes without inputs (sources) are keys only. A node
/// below the targets whose result cannot be made is exported as a key only.
pub async fn walk<O: Clone + Send + Sync, M: Remotes<O>>(
    graph: &ExportGraph<O>,
    mode: Mode,
    roots: bool,
    remotes: &M,
) -> Result<Vec<Exported<M::Remote>>, OpError> {
    let wanted = |node: &ExportNode<O>| {
        (roots || !node.inputs.is_empty())
            && node.export != Some(false)
            && (node.output.is_some() || !node.records.is_empty())
    };
    let mut results: Vec<Option<(M::Remote, Created)>> = Vec::new();
    results.resize_with(graph.nodes.len(), || None);
    match mode {
        Mode::Max => {
            let numbers = (0..graph.nodes.len()).filter(|n| wanted(&graph.nodes[*n]));
            let made = numbers.map(|number| async move {
                (number, result_of(&graph.nodes[number], true, remotes).await)
            });
            let made: Vec<_> = futures::stream::iter(made)
                .buffered(CONCURRENT_RESULTS)
                .collect()
                .await;
            for (number, result) in made {
                results[number] = or_key_only(graph, number, result)?;
            }
        }
        Mode::Min => {
            // Work is done only until each way down has one result.
            let mut work: Vec<bool> = vec![false; graph.nodes.len()];
            for target in &graph.targets {
                work[*target] = true;
            }
            for number in (0..graph.nodes.len()).rev() {
                let node = &graph.nodes[number];
                if wanted(node) {
                    let result = result_of(node, work[number], remotes).await;
                    results[number] = or_key_only(graph, number, result)?;
                }
                if work[number] && results[number].is_none() {
                    for link in node.inputs.iter().flatten() {
                        work[link.node] = true;
                    }
                }
            }
        }
    }
    let nodes = graph.nodes.iter().zip(results);
    Ok(nodes
        .map(|(node, result)| Exported {
            digest: node.digest,
            inputs: node.inputs.clone(),
            result,
        })
        .collect())
}

fn or_key_only<O, T>(
    graph: &ExportGraph<O>,
    number: usize,
    result: Result<Option<T>, OpError>,
) -> Result<Option<T>, OpError> {
    match result {
        Err(error) if !graph.targets.contains(&number) => {
            debug!(%error, record = %graph.nodes[number].digest, "exported as a key only");
            Ok(None)
        }
        other => other,
    }
}

async fn result_of<O: Clone + Send + Sync, M: Remotes<O>>(
    node: &ExportNode<O>,
    work: bool,
    remotes: &M,
) -> Result<Option<(M::Remote, Created)>, OpError> {
    let newest = node.records.first().map(|record| record.created);
    let mut found = None;
    if let Some(output) = &node.output {
        let created = node.created.or(newest).unwrap_or_else(Created::now);
        found = Some((output.clone(), created));
    } else {
        for record in &node.records {
            if let Some(output) = remotes.load(record).await? {
                found = Some((output, record.created));
                break;
            }
        }
    }
    let Some((output, created)) = found else {
        return Ok(None);
    };
    let mut remote = remotes.existing(&output).await?;
    if remote.is_none() && work {
        remote = remotes.create(&output).await?;
    }
    Ok(remote.map(|remote| (remote, created)))
}

/// Puts a graph together. May block on the disk.
pub(crate) fn graph<O: Clone>(
    picture: Snapshot<O>,
    shown: &[(Option<Edge>, Option<bool>)],
    indexes: &[(StoreId, Arc<dyn Index>)],
    backlinks: bool,
) -> Result<ExportGraph<O>, IndexError> {
    let mut builder = Builder {
        nodes: Vec::new(),
        by_digest: HashMap::new(),
        by_key: HashMap::new(),
        indexes,
    };
    let mut edges: Vec<Vec<usize>> = Vec::with_capacity(picture.len());
    let picture = keys_that_lead(picture, indexes)?;
    for (found, (edge, export)) in picture.into_iter().zip(shown) {
        let records = builder.records(&found.keys)?;
        let mut numbers = Vec::new();
        if found.inputs.is_empty() {
            let mut digests = found.records.clone();
            if backlinks {
                digests.extend(builder.same_result(&records)?);
            }
            for digest in digests {
                let number = builder.root(digest);
                if !numbers.contains(&number) {
                    numbers.push(number);
                }
            }
        } else if let Some(digest) = found.records.first() {
            let mut inputs = Vec::with_capacity(found.inputs.len());
            for (edge, selector, content) in &found.inputs {
                let nodes = edges.get(*edge).map(Vec::as_slice).unwrap_or_default();
                let mut links: BTreeSet<ExportLink> = nodes
                    .iter()
                    .map(|node| ExportLink {
                        node: *node,
                        selector: *selector,
                    })
                    .collect();
                if let Some(content) = content {
                    let node = builder.root(KeyId::content(*content).0);
                    links.insert(ExportLink {
                        node,
                        selector: None,
                    });
                }
                inputs.push(links);
            }
            if backlinks {
                builder.other_ways(&found.keys, &mut inputs)?;
            }
            if inputs.iter().all(|links| !links.is_empty()) {
                numbers.push(builder.add(*digest, inputs));
                for (store, key) in &found.keys {
                    let number = builder.nodes.len() - 1;
                    builder
                        .by_key
                        .insert((store.unwrap_or(LOCAL), *key), number);
                }
            }
        }
        for number in &numbers {
            let node = &mut builder.nodes[*number];
            node.edges.extend(*edge);
            node.output = found.output.clone();
            node.records = records.clone();
            node.export = *export;
        }
        edges.push(numbers);
    }
    Ok(ExportGraph {
        nodes: builder.nodes,
        targets: edges.pop().unwrap_or_default(),
    })
}

/// Leaves each edge the keys that count. One that was not loaded may be known by several, made
/// of the same inputs at different times: those count from which follows what was loaded.
fn keys_that_lead<O: Clone>(
    mut picture: Snapshot<O>,
    indexes: &[(StoreId, Arc<dyn Index>)],
) -> Result<Snapshot<O>, IndexError> {
    let mut leading: Vec<BTreeSet<(StoreId, KeyId)>> = vec![BTreeSet::new(); picture.len()];
    for (number, found) in picture.iter_mut().enumerate().rev() {
        if found.inputs.is_empty() {
            continue;
        }
        let leads = |(store, key): &(Option<StoreId>, KeyId)| {
            leading[number].contains(&(store.unwrap_or(LOCAL), *key))
        };
        if found.keys.iter().any(leads) {
            found.keys.retain(leads);
        }
        for (only, key) in &found.keys {
            let stores = indexes
                .iter()
                .filter(|(id, _)| only.is_none_or(|only| only == *id));
            for (store, index) in stores {
                for (parent, link) in index.parents(key)? {
                    let input = found.inputs.get(link.input as usize);
                    if let Some(leading) = input.and_then(|input| leading.get_mut(input.0)) {
                        leading.insert((*store, parent));
                    }
                }
            }
        }
    }
    Ok(picture)
}

struct Builder<'a, O> {
    nodes: Vec<ExportNode<O>>,
    by_digest: HashMap<Digest, usize>,
    by_key: HashMap<(StoreId, KeyId), usize>,
    indexes: &'a [(StoreId, Arc<dyn Index>)],
}

impl<O> Builder<'_, O> {
    fn add(&mut self, digest: Digest, inputs: Vec<BTreeSet<ExportLink>>) -> usize {
        let (output, created, records) = (None, None, Vec::new());
        self.nodes.push(ExportNode {
            digest,
            edges: Vec::new(),
            inputs,
            output,
            created,
            records,
            export: None,
        });
        self.nodes.len() - 1
    }

    fn root(&mut self, digest: Digest) -> usize {
        if let Some(number) = self.by_digest.get(&digest) {
            return *number;
        }
        let number = self.add(digest, Vec::new());
        self.by_digest.insert(digest, number);
        number
    }

    fn stores(&self, only: Option<StoreId>) -> impl Iterator<Item = &(StoreId, Arc<dyn Index>)> {
        self.indexes
            .iter()
            .filter(move |(id, _)| only.is_none_or(|only| only == *id))
    }

    /// The records of an edge: the newest first, of equally old ones ours first.
    fn records(&self, keys: &[(Option<StoreId>, KeyId)]) -> Result<Vec<Record>, IndexError> {
        let mut all = Vec::new();
        for (only, key) in keys {
            for (store, index) in self.stores(*only) {
                for (result, created) in index.records(key)? {
                    all.push(Record {
                        store: *store,
                        key: *key,
                        result,
                        created,
                    });
                }
            }
        }
        all.sort_by(|a, b| (b.created, a.store, &a.result).cmp(&(a.created, b.store, &b.result)));
        all.dedup_by(|a, b| a.store == b.store && a.result == b.result);
        Ok(all)
    }

    /// Other keys without inputs under which a result is known.
    fn same_result(&self, records: &[Record]) -> Result<Vec<Digest>, IndexError> {
        let mut digests = BTreeSet::new();
        for record in records {
            for (_, index) in self.stores(Some(record.store)) {
                for key in index.keys_of(&record.result)? {
                    if index.parents(&key)?.is_empty() {
                        digests.insert(key.0);
                    }
                }
            }
        }
        Ok(digests.into_iter().collect())
    }

    /// Ways to the nodes of an edge that only the indexes know.
    fn other_ways(
        &mut self,
        keys: &[(Option<StoreId>, KeyId)],
        inputs: &mut [BTreeSet<ExportLink>],
    ) -> Result<(), IndexError> {
        for (only, key) in keys {
            let stores: Vec<_> = self.stores(*only).cloned().collect();
            for (store, index) in stores {
                for (parent, link) in index.parents(key)? {
                    if let Some(links) = inputs.get_mut(link.input as usize)
                        && let Some(node) = self.node_of(store, &*index, parent)?
                    {
                        links.insert(ExportLink {
                            node,
                            selector: link.selector,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// The node for a key of an index, with all that leads to it. Nothing for
    /// one that is reached only through itself or not for every input.
    fn node_of(
        &mut self,
        store: StoreId,
        index: &dyn Index,
        key: KeyId,
    ) -> Result<Option<usize>, IndexError> {
        let mut begun: BTreeSet<KeyId> = BTreeSet::new();
        let mut look = vec![key];
        while let Some(at) = look.last().copied() {
            if self.by_key.contains_key(&(store, at)) {
                look.pop();
                continue;
            }
            let ways = index.parents(&at)?;
            if ways.is_empty() {
                let number = self.root(at.0);
                self.by_key.insert((store, at), number);
                look.pop();
                continue;
            }
            if begun.insert(at) {
                let missing = ways.iter().map(|(parent, _)| *parent);
                let missing = missing
                    .filter(|p| !begun.contains(p) && !self.by_key.contains_key(&(store, *p)));
                look.extend(missing.collect::<BTreeSet<_>>());
                continue;
            }
            look.pop();
            let width = ways
                .iter()
                .map(|(_, link)| link.input as usize + 1)
                .max()
                .unwrap_or(0);
            let mut inputs = vec![BTreeSet::new(); width];
            for (parent, link) in &ways {
                if let Some(node) = self.by_key.get(&(store, *parent)) {
                    let link_to = ExportLink {
                        node: *node,
                        selector: link.selector,
                    };
                    inputs[link.input as usize].insert(link_to);
                }
            }
            if inputs.iter().all(|links| !links.is_empty()) {
                let number = self.add(ways[0].1.record, inputs);
                self.by_key.insert((store, at), number);
            }
        }
        Ok(self.by_key.get(&(store, key)).copied())
    }
}

#[cfg(test)]
mod tests;
