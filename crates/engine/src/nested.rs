//! Graphs that a step found in a file, built in the build the step belongs to (row L15): under
//! the same policies as the graph with that step, and as part of what it asked for.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use ops::{NestedError, Output};
use solver::OpContext;

use crate::bridge::{Shared, failed};
use crate::error::asked;
use crate::policy::Policies;
use crate::provenance::Asked;

/// Graphs that may be found in each other.
const MAX_DEPTH: u32 = 10;

/// What holds for the graph a step is in, and so for the graph it finds.
#[derive(Clone)]
pub(crate) struct Within {
    pub(crate) policies: Policies,
    /// Who asked for it.
    pub(crate) asked: Arc<Asked>,
    /// How many graphs around it were found in files.
    depth: u32,
}

impl Within {
    /// A graph that a client or a frontend gave.
    pub(crate) fn outermost(policies: Policies, asked: Arc<Asked>) -> Within {
        Within {
            policies,
            asked,
            depth: 0,
        }
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
        let limit = MAX_DEPTH;
        if self.within.depth >= limit {
            return Err(nested(NestedError::TooDeep { limit }));
        }
        let Some(shared) = self.shared.upgrade() else {
            return Err(nested(NestedError::Canceled));
        };
        let within = Within {
            depth: self.within.depth + 1,
            ..self.within.clone()
        };
        let Some(reference) = shared.load(definition, &within).await? else {
            return Ok(Output(None));
        };
        let solved = shared.get(&reference)?;
        let edge = solved.edge(&reference)?;
        let result = shared.job.solve_within(cx, edge).await;
        result.map_err(|error| failed(&solved.definition, error))
    }
}
