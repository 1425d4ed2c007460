//! What a build takes: arguments, secrets, agents and caches of the stages it needs.

use std::collections::{BTreeMap, BTreeSet};

use super::Lowering;
use crate::instruction::Arg;
use crate::syntax::Lines;

/// An argument's declaration.
#[derive(Clone, Debug, Default)]
pub(crate) struct ArgInfo {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) description: String,
    pub(crate) lines: Lines,
    /// Other arguments its default uses.
    pub(crate) needs: BTreeSet<String>,
}

impl ArgInfo {
    pub(super) fn new(arg: &Arg, lines: Lines) -> ArgInfo {
        ArgInfo {
            name: arg.name.clone(),
            description: arg.description.clone(),
            lines,
            ..ArgInfo::default()
        }
    }
}

/// What one stage was seen to use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) args: BTreeMap<String, ArgInfo>,
    pub(crate) used: BTreeSet<String>,
    /// Id to whether it is required, and where.
    pub(crate) secrets: BTreeMap<String, (bool, Lines)>,
    pub(crate) agents: BTreeMap<String, (bool, Lines)>,
    pub(crate) caches: BTreeMap<String, Lines>,
}

/// What a build takes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outline {
    pub(crate) name: String,
    pub(crate) args: Vec<ArgInfo>,
    pub(crate) secrets: Vec<(String, bool, Lines)>,
    pub(crate) agents: Vec<(String, bool, Lines)>,
    pub(crate) caches: Vec<(String, Lines)>,
}

impl Lowering<'_> {
    /// Gathers from all stages `target` needs.
    pub(super) fn outline(&self, target: usize) -> Outline {
        let mut outline = Outline {
            name: self.stages[target].name.clone(),
            ..Outline::default()
        };
        let mut args = BTreeMap::new();
        let (mut secrets, mut agents, mut caches) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for index in self.reachable(target) {
            let seen = &self.stages[index].seen;
            let mut open: Vec<&String> = seen.used.iter().collect();
            while let Some(name) = open.pop() {
                let info = seen.args.get(name).or_else(|| self.declared.get(name));
                let Some(info) = info else { continue };
                if args.insert(name.clone(), info.clone()).is_none() {
                    open.extend(&info.needs);
                }
            }
            secrets.extend(seen.secrets.clone());
            agents.extend(seen.agents.clone());
            caches.extend(seen.caches.clone());
        }
        outline.args = args.into_values().collect();
        outline.args.sort_by_key(|arg| arg.lines);
        outline.secrets = secrets.into_iter().map(|(id, (r, l))| (id, r, l)).collect();
        outline.secrets.sort_by_key(|secret| secret.2);
        outline.agents = agents.into_iter().map(|(id, (r, l))| (id, r, l)).collect();
        outline.agents.sort_by_key(|agent| agent.2);
        outline.caches = caches.into_iter().collect();
        outline.caches.sort_by_key(|cache| cache.1);
        outline
    }
}
