//! Graphs that a step found in a file, built in the build the step belongs to (row L15): under
//! the same policies as the graph with that step, and as part of what it asked for.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use oci::Digest;
use ops::{NestedError, Output};
use solver::OpContext;

use crate::Compatibility;
use crate::bridge::{Read, Shared, failed};
use crate::error::asked;
use crate::policy::Policies;
use crate::provenance::Asked;

/// Graphs that may be found in each other.
const MAX_DEPTH: usize = 10;

/// What holds for the graph a step is in, and so for the graph it finds.
#[derive(Clone)]
pub(crate) struct Within {
    pub(crate) policies: Policies,
    /// Who asked for it.
    pub(crate) asked: Arc<Asked>,
    /// The graphs around it that were found in files, by their last steps.
    around: Vec<Digest>,
}

impl Within {
    /// A graph that a client or a frontend gave.
    pub(crate) fn outermost(policies: Policies, asked: Arc<Asked>) -> Within {
        Within {
            policies,
            asked,
            around: Vec::new(),
        }
    }

    /// The name of all that holds for a graph that is found in this one, and none where a graph may
    /// do whatever any may.
    pub(crate) fn holds(&self, shared: &Shared) -> Option<Digest> {
        let (rules, session) = self.policies.known_by();
        let (version, allowed) = (shared.compatibility, &shared.entitlements);
        let proxied = shared.deeds.build.proxy.is_some();
        let usual = version == Compatibility::default() && allowed.is_empty() && !proxied;
        if usual && rules.is_none() && session.is_none() && self.around.is_empty() {
            return None;
        }
        let number = version.number();
        // So written, texts are in quotes: only the same things are written the same.
        let all = format!(
            "{rules:?} {session:?} {allowed:?} {number} {:?}{}",
            self.around,
            if proxied { " proxied" } else { "" }
        );
        Some(Digest::of(all))
    }
}

/// Builds what the steps of one graph find. They may outlive the build, which ends all the same.
pub(crate) struct Nested {
    pub(crate) shared: Weak<Shared>,
    pub(crate) within: Within,
}

#[async_trait]
impl ops::Nested for Nested {
    async fn build(&self, cx: &OpContext, definition: llb::Definition) -> frontend::Result<Output> {
        let nested = |error: NestedError| asked("building a graph", error.kind(), error);
        let mut within = self.within.clone();
        if within.around.len() >= MAX_DEPTH {
            let limit = MAX_DEPTH;
            return Err(nested(NestedError::TooDeep { limit }));
        }
        let Some(shared) = self.shared.upgrade() else {
            return Err(nested(NestedError::Canceled));
        };
        let read = Read::of(definition).await?;
        let Some(root) = read.root() else {
            return Ok(Output(None));
        };
        if within.around.contains(&root) {
            return Err(nested(NestedError::Itself));
        }
        within.around.push(root);
        let Some(reference) = shared.give(read, &within).await? else {
            return Ok(Output(None));
        };
        let solved = shared.get(&reference)?;
        let edge = solved.edge(&reference)?;
        let result = shared.job.solve_within(cx, edge).await;
        result.map_err(|error| failed(&solved.definition, error))
    }
}
