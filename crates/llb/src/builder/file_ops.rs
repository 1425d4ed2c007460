//! A chain of changes to one tree, numbered when it is added.

use super::Inputs;
use crate::Edge;
use crate::op::file::{Action, ActionKind, Chown, Copy, File, Mkdir, Mkfile, Rm, Symlink, User};

/// Changes to one tree, in order.
#[derive(Clone, Debug, Default)]
pub struct FileOps {
    base: Option<Edge>,
    steps: Vec<(Option<Edge>, ActionKind, Option<Edge>)>,
}

impl FileOps {
    /// Begins with a tree.
    pub fn on(base: Option<Edge>) -> FileOps {
        FileOps {
            base,
            steps: Vec::new(),
        }
    }

    /// Copies from another tree.
    pub fn copy(self, from: Option<Edge>, copy: Copy) -> FileOps {
        self.then(from, ActionKind::Copy(copy), None)
    }

    /// Copies from another tree, owners looked up by name in `owners`. Without,
    /// names are looked up in the tree the chain began with.
    pub fn copy_with_owners(self, from: Option<Edge>, copy: Copy, owners: Option<Edge>) -> FileOps {
        self.then(from, ActionKind::Copy(copy), owners)
    }

    /// Writes a file.
    pub fn mkfile(self, mkfile: Mkfile) -> FileOps {
        self.then(None, ActionKind::Mkfile(mkfile), None)
    }

    /// Makes a directory.
    pub fn mkdir(self, mkdir: Mkdir) -> FileOps {
        self.then(None, ActionKind::Mkdir(mkdir), None)
    }

    /// Removes.
    pub fn rm(self, rm: Rm) -> FileOps {
        self.then(None, ActionKind::Rm(rm), None)
    }

    /// Makes a symlink.
    pub fn symlink(self, symlink: Symlink) -> FileOps {
        self.then(None, ActionKind::Symlink(symlink), None)
    }

    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    fn then(mut self, from: Option<Edge>, kind: ActionKind, owners: Option<Edge>) -> FileOps {
        self.steps.push((from, kind, owners));
        self
    }

    pub(super) fn number(self) -> (Vec<Edge>, File) {
        let mut inputs = Inputs::default();
        let base = inputs.number(self.base);
        let mut actions = Vec::with_capacity(self.steps.len());
        for (from, kind, owners) in self.steps {
            let secondary = inputs.number(from);
            let owners = inputs.number(owners).map(i64::from);
            actions.push((secondary, kind, owners));
        }
        let count = u32::try_from(inputs.0.len()).expect("fewer inputs than fit");
        let last = actions.len().saturating_sub(1);
        let actions = actions
            .into_iter()
            .enumerate()
            .map(|(at, (secondary, mut kind, owners))| {
                let input = match at.checked_sub(1) {
                    None => base,
                    Some(before) => Some(count + u32::try_from(before).expect("few actions")),
                };
                kind.look_up_owners_in(owners.or(base.map(i64::from)).unwrap_or(-1));
                Action {
                    input,
                    secondary,
                    output: (at == last).then_some(0),
                    kind,
                }
            });
        let file = File {
            actions: actions.collect(),
        };
        (inputs.0, file)
    }
}

impl ActionKind {
    fn owner_mut(&mut self) -> Option<&mut Chown> {
        match self {
            ActionKind::Copy(c) => c.owner.as_mut(),
            ActionKind::Mkfile(m) => m.owner.as_mut(),
            ActionKind::Mkdir(m) => m.owner.as_mut(),
            ActionKind::Symlink(s) => s.owner.as_mut(),
            ActionKind::Rm(_) => None,
        }
    }

    fn look_up_owners_in(&mut self, tree: i64) {
        let Some(owner) = self.owner_mut() else {
            return;
        };
        for user in [&mut owner.user, &mut owner.group].into_iter().flatten() {
            if let User::Name { input, .. } = user {
                *input = tree;
            }
        }
    }
}
