//! A definition read and checked: its steps in an order where inputs come first.
//!
//! Graphs come from anywhere, so nothing here recurses, everything is linear in
//! the size of the graph, and there is a limit to that size.

use std::collections::HashMap;

use bytes::Bytes;
use oci::Digest;

use crate::{Definition, Edge, Error, Metadata, Op, OpKind, Result, caps, validate, wire};

/// The most steps a graph may have.
const MAX_STEPS: usize = 1_000_000;

/// The most inputs all steps may have together.
const MAX_EDGES: usize = 4_000_000;

/// A checked graph. Steps nobody needs are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    vertices: Vec<Vertex>,
    by_digest: HashMap<Digest, usize>,
    root: Option<Edge>,
}

/// A step of a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Vertex {
    /// Its name.
    pub digest: Digest,
    /// The bytes the name belongs to.
    pub bytes: Bytes,
    /// What it says.
    pub op: Op,
    /// Where its inputs are in [`Graph::vertices`].
    pub inputs: Vec<VertexInput>,
    /// What is said about it.
    pub metadata: Metadata,
}

/// One output of another step of the same graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VertexInput {
    /// Which step.
    pub vertex: usize,
    /// Which of its outputs.
    pub output: u32,
}

impl Vertex {
    /// The name it is shown under, if it was given one.
    pub fn name(&self) -> Option<&str> {
        self.metadata
            .description
            .get(crate::attr::CUSTOM_NAME)
            .map(String::as_str)
    }
}

impl Graph {
    /// Reads and checks a definition. Digests are computed, never believed.
    pub fn load(definition: &Definition) -> Result<Graph> {
        if definition.def.is_empty() {
            return Ok(Graph::default());
        }
        if definition.def.len() < 2 {
            return Err(Error::Definition(
                "at least one op and the name of the result",
            ));
        }
        if definition.def.len() > MAX_STEPS {
            return Err(Error::TooLarge {
                what: "steps",
                limit: MAX_STEPS,
            });
        }
        let root = definition.head()?.ok_or(Error::Definition("no result"))?;

        let mut steps = Vec::with_capacity(definition.def.len());
        let mut by_digest = HashMap::with_capacity(definition.def.len());
        let mut edges = 0;
        for bytes in &definition.def[..definition.def.len() - 1] {
            let digest = Digest::of(bytes);
            let op = Op::decode(bytes.clone())?;
            validate::check(&op)?;
            edges += op.inputs.len();
            if edges > MAX_EDGES {
                return Err(Error::TooLarge {
                    what: "inputs",
                    limit: MAX_EDGES,
                });
            }
            by_digest.entry(digest).or_insert_with(|| {
                steps.push((digest, bytes.clone(), op));
                steps.len() - 1
            });
        }
        for metadata in definition.metadata.values() {
            caps::check(&metadata.caps)?;
        }
        let inputs = resolve(&steps, &by_digest)?;
        let at = *by_digest
            .get(&root.digest)
            .ok_or(Error::MissingInput(root.digest))?;
        has_output(&steps[at].2, root)?;

        let order = order(at, &inputs, |at| steps[at].0)?;
        Ok(assemble(definition, steps, inputs, &order, root))
    }

    /// All steps; inputs come before those who use them.
    pub fn vertices(&self) -> &[Vertex] {
        &self.vertices
    }

    /// The result; `None` is the empty tree.
    pub fn root(&self) -> Option<Edge> {
        self.root
    }

    /// The step of a name.
    pub fn get(&self, digest: &Digest) -> Option<&Vertex> {
        self.by_digest.get(digest).map(|at| &self.vertices[*at])
    }

    fn new(vertices: Vec<Vertex>, root: Option<Edge>) -> Graph {
        let by_digest = vertices
            .iter()
            .enumerate()
            .map(|(at, v)| (v.digest, at))
            .collect();
        Graph {
            vertices,
            by_digest,
            root,
        }
    }

    /// The same graph with some ops changed, all names computed anew. For policies
    /// that send a build to another source.
    pub fn map<E: From<Error>>(
        &self,
        mut change: impl FnMut(&Vertex) -> Result<Option<OpKind>, E>,
    ) -> Result<Graph, E> {
        let mut vertices: Vec<Vertex> = Vec::with_capacity(self.vertices.len());
        let mut renamed = HashMap::new();
        for vertex in &self.vertices {
            let mut new = vertex.clone();
            let changed = change(vertex)?;
            let moved = vertex
                .op
                .inputs
                .iter()
                .any(|edge| renamed.contains_key(&edge.digest));
            if changed.is_some() || moved {
                if let Some(kind) = changed {
                    new.op.kind = kind;
                }
                for edge in &mut new.op.inputs {
                    if let Some(name) = renamed.get(&edge.digest) {
                        edge.digest = *name;
                    }
                }
                validate::check(&new.op)?;
                new.bytes = new.op.encode();
                new.digest = Digest::of(&new.bytes);
                renamed.insert(vertex.digest, new.digest);
            }
            vertices.push(new);
        }
        let root = self.root.map(|edge| Edge {
            digest: renamed.get(&edge.digest).copied().unwrap_or(edge.digest),
            index: edge.index,
        });
        Ok(Graph::new(vertices, root))
    }

    /// The graph as a definition, without source map.
    pub fn definition(&self) -> Definition {
        let Some(root) = self.root else {
            return Definition::default();
        };
        let mut def: Vec<Bytes> = self.vertices.iter().map(|v| v.bytes.clone()).collect();
        def.push(wire::encode(&[root], None, None, None));
        Definition {
            def,
            metadata: self
                .vertices
                .iter()
                .map(|v| (v.digest, v.metadata.clone()))
                .collect(),
            source: None,
        }
    }
}

/// Where the inputs of each step are, and that they exist.
fn resolve(
    steps: &[(Digest, Bytes, Op)],
    by_digest: &HashMap<Digest, usize>,
) -> Result<Vec<Vec<VertexInput>>> {
    steps
        .iter()
        .map(|(_, _, op)| {
            let place = |edge: &Edge| {
                let vertex = *by_digest
                    .get(&edge.digest)
                    .ok_or(Error::MissingInput(edge.digest))?;
                has_output(&steps[vertex].2, *edge)?;
                Ok(VertexInput {
                    vertex,
                    output: edge.index,
                })
            };
            op.inputs.iter().map(place).collect()
        })
        .collect()
}

fn has_output(op: &Op, edge: Edge) -> Result<()> {
    // What a nested build gives is known only when it has been built.
    if matches!(op.kind, OpKind::Build(_)) || (edge.index as usize) < op.outputs() {
        return Ok(());
    }
    Err(Error::op(
        "input",
        format!(
            "output {} of {}, which has {}",
            edge.index,
            edge.digest,
            op.outputs()
        ),
    ))
}

/// What `root` needs, inputs first. Names being digests, a cycle would take a
/// collision, but a loop that never ends is too high a price for believing that.
fn order(
    root: usize,
    inputs: &[Vec<VertexInput>],
    name: impl Fn(usize) -> Digest,
) -> Result<Vec<usize>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; inputs.len()];
    let mut order = Vec::new();
    let mut stack = vec![(root, 0)];
    marks[root] = Mark::Open;
    while let Some((at, next)) = stack.last_mut() {
        let Some(input) = inputs[*at].get(*next) else {
            marks[*at] = Mark::Done;
            order.push(*at);
            stack.pop();
            continue;
        };
        *next += 1;
        match marks[input.vertex] {
            Mark::Done => {}
            Mark::Open => return Err(Error::Cycle(name(input.vertex))),
            Mark::New => {
                marks[input.vertex] = Mark::Open;
                stack.push((input.vertex, 0));
            }
        }
    }
    Ok(order)
}

fn assemble(
    definition: &Definition,
    steps: Vec<(Digest, Bytes, Op)>,
    inputs: Vec<Vec<VertexInput>>,
    order: &[usize],
    root: Edge,
) -> Graph {
    let mut place = vec![usize::MAX; steps.len()];
    for (new, old) in order.iter().enumerate() {
        place[*old] = new;
    }
    let mut slots: Vec<_> = steps.into_iter().zip(inputs).map(Some).collect();
    let vertices = order
        .iter()
        .filter_map(|old| slots[*old].take())
        .map(|((digest, bytes, op), inputs)| Vertex {
            digest,
            bytes,
            op,
            inputs: inputs
                .into_iter()
                .map(|input| VertexInput {
                    vertex: place[input.vertex],
                    ..input
                })
                .collect(),
            metadata: definition
                .metadata
                .get(&digest)
                .cloned()
                .unwrap_or_default(),
        })
        .collect();
    Graph::new(vertices, Some(root))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: L19
    #[test]
    fn steps_that_wait_for_each_other_are_named() {
        let edge = |vertex| VertexInput { vertex, output: 0 };
        let inputs = [vec![edge(1)], vec![edge(2)], vec![edge(0)]];
        let name = |at: usize| Digest::of([at as u8]);
        assert_eq!(order(0, &inputs, name), Err(Error::Cycle(name(0))));
        assert_eq!(
            order(0, &[vec![edge(1), edge(1)], vec![]], name),
            Ok(vec![1, 0])
        );
    }
}
