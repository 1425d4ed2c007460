//! The steps of a graph, numbered and named as provenance shows them.

use std::collections::HashMap;
use std::sync::Arc;

use attest::{BuildConfig, SourceFile, SourceMap, Step};
use llb::{Definition, Graph, OpKind, attr};
use oci::Digest;
use serde_json::Value;

/// All that is told about the steps of a result.
pub(super) struct Steps {
    pub(super) steps: BuildConfig,
    pub(super) source: Option<SourceMap>,
    pub(super) numbers: Arc<HashMap<Digest, usize>>,
}

pub(super) fn told(definition: &Definition) -> llb::Result<Steps> {
    let (steps, numbers) = config(definition)?;
    let source = match definition
        .source
        .as_ref()
        .filter(|source| !source.infos.is_empty())
    {
        None => None,
        Some(source) => {
            let locations = source.locations.iter().filter_map(|(digest, places)| {
                let number = numbers.get(digest)?;
                Some((
                    format!("step{number}"),
                    value(&llb::go_form::locations(places)),
                ))
            });
            let infos = source.infos.iter().map(|info| {
                let read_by = match &info.definition {
                    None => BuildConfig::default(),
                    Some(definition) => config(definition)?.0,
                };
                Ok(SourceFile {
                    filename: info.filename.clone(),
                    language: info.language.clone(),
                    data: llb::go_form::bytes(&info.data),
                    read_by,
                })
            });
            Some(SourceMap {
                locations: locations.collect(),
                infos: infos.collect::<llb::Result<_>>()?,
            })
        }
    };
    Ok(Steps {
        steps,
        source,
        numbers: Arc::new(numbers),
    })
}

fn value(json: &str) -> Value {
    serde_json::from_str(json).expect("our own JSON can be read")
}

/// The steps in the order in which they are reached from the result, inputs first, and
/// last the entry that names the result.
fn config(definition: &Definition) -> llb::Result<(BuildConfig, HashMap<Digest, usize>)> {
    let graph = Graph::load(definition)?;
    let (Some(root), Some(last)) = (graph.root(), definition.def.last()) else {
        return Ok(Default::default());
    };
    let vertices = graph.vertices();
    let mut numbers: HashMap<Digest, usize> = HashMap::with_capacity(vertices.len() + 1);
    let mut order = Vec::with_capacity(vertices.len());
    let top = vertices
        .iter()
        .position(|vertex| vertex.digest == root.digest);
    let mut todo: Vec<(usize, usize)> = top.into_iter().map(|top| (top, 0)).collect();
    let mut reached = vec![false; vertices.len()];
    while let Some((at, next)) = todo.pop() {
        reached[at] = true;
        match vertices[at].inputs.get(next) {
            Some(input) => {
                todo.push((at, next + 1));
                if !reached[input.vertex] {
                    todo.push((input.vertex, 0));
                }
            }
            None => {
                numbers.insert(vertices[at].digest, order.len());
                order.push(at);
            }
        }
    }
    let mut steps = Vec::with_capacity(order.len() + 1);
    for at in order {
        let vertex = &vertices[at];
        let mut op = vertex.op.clone();
        match &mut op.kind {
            OpKind::Source(source) => source
                .attrs
                .retain(|key, _| key != attr::LOCAL_SESSION && key != attr::LOCAL_UNIQUE),
            OpKind::Build(build) => drop(build.attrs.remove(attr::BUILD_HOLDS)),
            _ => {}
        }
        let inputs = vertex.inputs.iter().map(|input| {
            let number = numbers[&vertices[input.vertex].digest];
            format!("step{number}:{}", input.output)
        });
        let (id, inputs) = (format!("step{}", steps.len()), inputs.collect());
        steps.push(Step {
            id,
            op: value(&llb::go_form::op(&op)),
            inputs,
            usage: None,
        });
    }
    let number = steps.len();
    steps.push(Step {
        id: format!("step{number}"),
        op: value(&llb::go_form::result()),
        inputs: vec![format!("step{}:{}", numbers[&root.digest], root.index)],
        usage: None,
    });
    numbers.insert(Digest::of(last), number);
    let digests = numbers
        .iter()
        .map(|(digest, number)| (digest.to_string(), format!("step{number}")));
    Ok((
        BuildConfig {
            digests: digests.collect(),
            steps,
        },
        numbers,
    ))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use llb::{Builder, Copy, Exec, FileOps, Meta, MountSpec};

    use super::*;

    /// Rows: P02
    #[test]
    fn steps_come_after_their_inputs_in_the_order_of_reaching() {
        let mut graph = Builder::new();
        let linux = "linux/amd64".parse().unwrap();
        let base = graph.source(
            "docker-image://docker.io/library/base:1",
            [],
            Some(&linux),
            Meta::default(),
        );
        let attrs = [
            ("local.session", "secret"),
            ("local.followpaths", "[\"a\"]"),
        ];
        let attrs = attrs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let context = graph.source("local://context", attrs, None, Meta::default());
        let exec = Exec::new(["true"]);
        let run = graph.run(
            exec,
            vec![MountSpec::root(Some(base))],
            Some(&linux),
            Meta::default(),
        );
        let files = FileOps::on(run.root).copy(Some(context), Copy::new("/a", "/b"));
        let copied = graph.file(files, Meta::default());
        let definition = graph.definition(Some(&copied));
        let told = told(&definition).unwrap();
        assert!(told.source.is_none());
        assert_eq!(told.numbers.len(), 5);
        let shown: Vec<String> = told
            .steps
            .steps
            .iter()
            .map(|step| serde_json::to_string(step).unwrap())
            .collect();
        expect![[r#"
            {"id":"step0","op":{"Op":{"source":{"identifier":"docker-image://docker.io/library/base:1"}},"platform":{"Architecture":"amd64","OS":"linux"},"constraints":{}}}
            {"id":"step1","op":{"Op":{"exec":{"meta":{"args":["true"],"cwd":"/"},"mounts":[{"dest":"/"}]}},"platform":{"Architecture":"amd64","OS":"linux"},"constraints":{}},"inputs":["step0:0"]}
            {"id":"step2","op":{"Op":{"source":{"identifier":"local://context","attrs":{"local.followpaths":"[\"a\"]"}}},"constraints":{}}}
            {"id":"step3","op":{"Op":{"file":{"actions":[{"input":0,"secondaryInput":1,"output":0,"Action":{"copy":{"src":"/a","dest":"/b","mode":-1,"timestamp":-1}}}]}},"constraints":{}},"inputs":["step1:0","step2:0"]}
            {"id":"step4","op":{"Op":{}},"inputs":["step3:0"]}"#]].assert_eq(&shown.join("\n"));
    }
}
