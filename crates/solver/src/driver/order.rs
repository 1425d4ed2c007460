//! Puts vertices in order: inputs first.

use std::collections::HashMap;

use oci::Digest;

use crate::op::VertexSpec;
use crate::{Error, Result};

/// The vertices, each once, inputs first; `known` says which were described
/// before. Kahn's way: no recursion, however deep.
pub(super) fn inputs_first<O>(
    vertices: Vec<VertexSpec<O>>,
    known: impl Fn(&Digest) -> bool,
) -> Result<Vec<VertexSpec<O>>> {
    let mut numbers: HashMap<Digest, usize> = HashMap::new();
    let mut new: Vec<Option<VertexSpec<O>>> = Vec::with_capacity(vertices.len());
    for vertex in vertices {
        if !known(&vertex.digest) && !numbers.contains_key(&vertex.digest) {
            numbers.insert(vertex.digest, new.len());
            new.push(Some(vertex));
        }
    }
    let mut missing = vec![0; new.len()];
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); new.len()];
    for (number, vertex) in new.iter().enumerate() {
        let vertex = vertex.as_ref().expect("none is taken yet");
        for input in &vertex.inputs {
            match numbers.get(&input.vertex) {
                Some(other) => {
                    missing[number] += 1;
                    users[*other].push(number);
                }
                None if known(&input.vertex) => {}
                None => {
                    let (name, missing) = (vertex.name.clone(), input.vertex);
                    return Err(Error::MissingInput { name, missing });
                }
            }
        }
    }
    let mut ready: std::collections::VecDeque<usize> = (0..new.len())
        .filter(|number| missing[*number] == 0)
        .collect();
    let mut ordered = Vec::with_capacity(new.len());
    while let Some(number) = ready.pop_front() {
        ordered.extend(new[number].take());
        for user in &users[number] {
            missing[*user] -= 1;
            if missing[*user] == 0 {
                ready.push_back(*user);
            }
        }
    }
    match new.into_iter().flatten().next() {
        Some(left) => Err(Error::Cycle { name: left.name }),
        None => Ok(ordered),
    }
}
