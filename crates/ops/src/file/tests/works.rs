//! Actions that use what others made.

use std::collections::BTreeMap;
use std::sync::Arc;

use llb::{Action, ActionKind, Copy, File, Mkfile, Rm};
use refs::{Parts, RecordMeta, Refs};
use snapshot::Tree;

use super::*;
use crate::Output;
use crate::file::work::Work;
use crate::file::{needed, used};

/// Results in a directory.
pub(super) struct State {
    pub(super) refs: Refs,
    _dir: tempfile::TempDir,
}

/// Results in a fresh directory; `None`, with the reason said, when we are not root.
pub(super) fn state() -> Option<State> {
    if !is_root() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let db = Arc::new(db::Db::open(dir.path().join("state.db")).unwrap());
    let store = content::Store::open(dir.path().join("content"), Arc::clone(&db)).unwrap();
    let snapshots =
        snapshot::open(dir.path().join("snapshots"), snapshot::Choice::Overlay).unwrap();
    let leases = lease::Leases::open(dir.path().join("leases"), Arc::clone(&db)).unwrap();
    let refs = Refs::open(Parts {
        db,
        store,
        snapshots,
        leases,
    })
    .unwrap();
    Some(State { refs, _dir: dir })
}

impl State {
    pub(super) fn made(&self, fill: impl FnOnce(&Root)) -> Output {
        let new = self.refs.begin(None, RecordMeta::new("input")).unwrap();
        fill(new.tree().root());
        Output(Some(new.commit().unwrap()))
    }

    pub(super) fn tree(&self, of: &Output) -> Arc<Tree> {
        let layers = of.0.as_ref().unwrap().unpacked_layers().unwrap();
        self.refs.snapshots().view(&layers).unwrap()
    }

    /// How many names the last layer has.
    pub(super) fn changes(&self, of: &Output) -> usize {
        let layers = of.0.as_ref().unwrap().unpacked_layers().unwrap();
        let last = self
            .refs
            .snapshots()
            .view(&layers[layers.len() - 1..])
            .unwrap();
        let mut lines = Vec::new();
        list(last.root(), Path::new(""), &mut lines);
        lines.len()
    }

    pub(super) fn work(&self, file: File, inputs: Vec<Output>) -> Result<Vec<Output>> {
        let (_, read) = used(&file, inputs.len());
        let trees: BTreeMap<_, _> = read
            .into_iter()
            .map(|input| {
                (
                    input,
                    inputs[input].0.as_ref().map(|_| self.tree(&inputs[input])),
                )
            })
            .collect();
        let work = Work {
            refs: self.refs.clone(),
            description: "step".into(),
            file: Arc::new(file),
            inputs,
            trees,
            cancelled: Cancelled::default(),
            empty: None,
        };
        work.run().map_err(|failed| failed.cause)
    }

    fn lines(&self, of: &Output) -> Vec<String> {
        let mut lines = Vec::new();
        list(self.tree(of).root(), Path::new(""), &mut lines);
        lines
    }
}

fn action(
    input: Option<u32>,
    secondary: Option<u32>,
    output: Option<u32>,
    kind: ActionKind,
) -> Action {
    Action {
        input,
        secondary,
        output,
        kind,
    }
}

fn mkfile(path: &str, text: &str) -> ActionKind {
    ActionKind::Mkfile(Mkfile {
        path: path.into(),
        mode: 0o644,
        data: text.to_owned().into(),
        ..Mkfile::default()
    })
}

fn copy_of(src: &str, dest: &str) -> ActionKind {
    ActionKind::Copy(wanted(src, dest))
}

/// Rows: L09
#[test]
fn privileged_actions_go_on_with_what_others_made() {
    let Some(state) = state() else { return };
    let base = state.made(|root| root.mkdir("base", 0o755).unwrap());
    let file = File {
        actions: vec![
            action(None, None, None, mkfile("/made", "text")), // 2
            action(Some(0), Some(2), None, copy_of("/made", "/base/copy")), // 3
            action(Some(3), None, Some(1), mkfile("/more", "1")), // 4
            action(Some(4), Some(4), Some(0), copy_of("/base", "/twice")), // 5
            action(Some(2), None, None, mkfile("/nobody/needs/this", "")), // 6, would fail
            action(Some(2), Some(1), Some(2), copy_of("/", "/")), // 7
        ],
    };
    let outputs = state.work(file, vec![base.clone(), Output(None)]).unwrap();
    assert_eq!(outputs.len(), 3);
    assert_eq!(
        state.lines(&outputs[1]),
        ["base/", "base/copy = text", "more = 1"]
    );
    assert_eq!(
        state.lines(&outputs[0]),
        [
            "base/",
            "base/copy = text",
            "more = 1",
            "twice/",
            "twice/copy = text"
        ]
    );
    assert_eq!(state.lines(&outputs[2]), ["made = text"]);
    assert_eq!(state.lines(&base), ["base/"], "inputs stay what they are");
    assert_eq!(
        outputs[1]
            .0
            .as_ref()
            .unwrap()
            .unpacked_layers()
            .unwrap()
            .len(),
        2,
        "one layer for two actions"
    );
    assert_eq!(outputs[0].0.as_ref().unwrap().description(), "step");
}

/// Rows: L09
#[test]
fn privileged_a_failed_action_leaves_nothing() {
    let Some(state) = state() else { return };
    let before = state.refs.usage(&refs::Filter::default()).unwrap().len();
    let rm = ActionKind::Rm(Rm {
        path: "/none".into(),
        ..Rm::default()
    });
    let file = File {
        actions: vec![
            action(None, None, None, mkfile("/a", "")),
            action(Some(0), None, Some(0), rm),
        ],
    };
    let error = state.work(file, vec![]).unwrap_err();
    assert_eq!(error.to_string(), "/none: no such file or directory");
    assert_eq!(
        state.refs.usage(&refs::Filter::default()).unwrap().len(),
        before
    );
}

/// Rows: L09
#[test]
fn only_what_outputs_come_from_is_needed() {
    let actions = [
        action(None, None, None, mkfile("/a", "")),
        action(None, None, None, mkfile("/b", "")),
        action(Some(2), None, Some(0), mkfile("/c", "")),
    ];
    assert_eq!(needed(&actions, 1), [false, true, true]);
    let copies = File {
        actions: vec![action(
            Some(0),
            Some(2),
            Some(0),
            ActionKind::Copy(Copy::new("/", "/")),
        )],
    };
    let (changed, read) = used(&copies, 3);
    assert_eq!(
        (
            changed.into_iter().collect::<Vec<_>>(),
            read.into_iter().collect::<Vec<_>>()
        ),
        (vec![0], vec![2])
    );
}
