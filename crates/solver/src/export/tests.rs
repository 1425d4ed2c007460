//! Which nodes of a graph get a result.

use std::collections::BTreeSet;
use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::index::Record;
use crate::key::ResultId;

/// Remotes made of numbers: what was done with which, and what cannot be done.
#[derive(Default)]
struct Fake {
    done: Mutex<Vec<String>>,
    there: BTreeSet<u32>,
    broken: BTreeSet<u32>,
}

impl Fake {
    fn say(&self, what: String) {
        self.done.lock().unwrap().push(what);
    }

    fn said(&self) -> Vec<String> {
        let mut said = std::mem::take(&mut *self.done.lock().unwrap());
        said.sort();
        said
    }
}

#[async_trait]
impl Remotes<u32> for Fake {
    type Remote = u32;

    async fn load(&self, record: &Record) -> Result<Option<u32>, OpError> {
        self.say(format!("load {}", record.result.0));
        Ok(record.result.0.parse().ok())
    }

    async fn existing(&self, output: &u32) -> Result<Option<u32>, OpError> {
        Ok(self.there.get(output).copied())
    }

    async fn create(&self, output: &u32) -> Result<Option<u32>, OpError> {
        self.say(format!("create {output}"));
        match self.broken.contains(output) {
            true => Err(Arc::new(std::io::Error::other("broken"))),
            false => Ok(Some(*output)),
        }
    }
}

fn node(number: u32, inputs: &[usize]) -> ExportNode<u32> {
    let link = |node: &usize| {
        BTreeSet::from([ExportLink {
            node: *node,
            selector: None,
        }])
    };
    ExportNode {
        digest: Digest::of(number.to_string()),
        edges: Vec::new(),
        inputs: inputs.iter().map(link).collect(),
        output: Some(number),
        created: Some(Created(1)),
        records: Vec::new(),
        export: None,
    }
}

/// A source, two steps on it, and one on both.
fn diamond() -> ExportGraph<u32> {
    ExportGraph {
        nodes: vec![node(0, &[]), node(1, &[0]), node(2, &[0]), node(3, &[1, 2])],
        targets: vec![3],
    }
}

async fn results(graph: &ExportGraph<u32>, mode: Mode, fake: &Fake) -> Vec<Option<u32>> {
    let walked = walk(graph, mode, false, fake).await.unwrap();
    walked
        .into_iter()
        .map(|node| node.result.map(|(remote, _)| remote))
        .collect()
}

/// Rows: X24, X25, core:X28, core:X31
#[tokio::test]
async fn each_node_is_made_once_and_only_if_it_is_not_there() {
    let fake = Fake {
        there: BTreeSet::from([1]),
        ..Fake::default()
    };
    let all = results(&diamond(), Mode::Max, &fake).await;
    assert_eq!(
        all,
        [None, Some(1), Some(2), Some(3)],
        "sources are keys only"
    );
    assert_eq!(fake.said(), ["create 2", "create 3"]);
    let least = results(&diamond(), Mode::Min, &fake).await;
    assert_eq!(least, [None, Some(1), None, Some(3)]);
    assert_eq!(fake.said(), ["create 3"]);
}

/// Rows: core:X32
#[tokio::test]
async fn what_cannot_be_made_below_the_target_is_a_key_only() {
    let fake = |broken: u32| Fake {
        broken: BTreeSet::from([broken]),
        ..Fake::default()
    };
    let all = results(&diamond(), Mode::Max, &fake(2)).await;
    assert_eq!(all, [None, Some(1), None, Some(3)]);
    assert!(walk(&diamond(), Mode::Max, false, &fake(3)).await.is_err());
}

/// Rows: core:X33
#[tokio::test]
async fn a_vertex_may_keep_its_result_out() {
    let mut graph = diamond();
    graph.nodes[1].export = Some(false);
    graph.nodes[2].export = Some(true);
    let all = results(&graph, Mode::Max, &Fake::default()).await;
    assert_eq!(all, [None, None, Some(2), Some(3)]);
}

/// Rows: core:X26
#[tokio::test]
async fn a_record_that_is_gone_makes_room_for_the_next() {
    let mut graph = diamond();
    let record = |name: &str, at: i64| Record {
        store: LOCAL,
        key: KeyId(Digest::of("key")),
        result: ResultId(name.to_owned()),
        created: Created(at),
    };
    graph.nodes[1].output = None;
    graph.nodes[1].records = vec![record("gone", 9), record("7", 5), record("8", 1)];
    let fake = Fake::default();
    let walked = walk(&graph, Mode::Max, false, &fake).await.unwrap();
    assert_eq!(walked[1].result, Some((7, Created(5))));
    let said = fake.said();
    assert!(said.contains(&"load gone".to_owned()) && !said.contains(&"load 8".to_owned()));
}
