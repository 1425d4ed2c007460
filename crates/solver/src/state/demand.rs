//! Who asks what of whom, and what happens when nobody does any more.

use super::{Content, EdgeId, Fault, Level, Run, Stage, State};
use crate::event::VertexId;

impl<O: Clone, E: Clone + From<Fault>> State<O, E> {
    /// Asks at least this much of an input.
    pub(super) fn ask(&mut self, edge: EdgeId, input: u32, level: Level) {
        let target = self.vertex(edge.0).inputs[input as usize];
        let asked = self.at(edge).inputs[input as usize].asked;
        if asked >= Some(level) {
            return;
        }
        self.at_mut(edge).inputs[input as usize].asked = Some(level);
        let state = self.make_edge(target);
        if let Some(old) = asked {
            state.demand[old as usize] -= 1;
        }
        state.demand[level as usize] += 1;
        state.waiters.insert((edge, input));
        self.push(target);
    }

    /// Asks nothing of any input any more.
    pub(super) fn withdraw_all(&mut self, edge: EdgeId) {
        for input in 0..self.at(edge).inputs.len() {
            let Some(level) = self.at_mut(edge).inputs[input].asked.take() else {
                continue;
            };
            let target = self.vertex(edge.0).inputs[input];
            let state = self.at_mut(target);
            state.demand[level as usize] -= 1;
            state.waiters.remove(&(edge, input as u32));
            self.relaxing.push_back(target);
        }
    }

    /// An edge has got to know more: those who wait look at it again.
    pub(super) fn reach(&mut self, edge: EdgeId, level: Level) {
        let state = self.at_mut(edge);
        if state.reached >= Some(level) {
            return;
        }
        state.reached = Some(level);
        self.wake(edge);
    }

    /// Those who wait for an edge look at it again.
    pub(super) fn wake(&mut self, edge: EdgeId) {
        let waiters: Vec<_> = self.at(edge).waiters.iter().copied().collect();
        for (waiter, input) in waiters {
            self.touch(waiter, input);
        }
    }

    /// An edge looks at one of its inputs again.
    pub(super) fn touch(&mut self, edge: EdgeId, input: u32) {
        if let Some(state) = self.edge_mut(edge) {
            state.dirty.push(input);
            self.push(edge);
        }
    }

    /// Every edge of a vertex looks at all inputs again.
    pub(super) fn touch_all(&mut self, vertex: VertexId) {
        let Some(v) = self.vertices.get_mut(&vertex) else {
            return;
        };
        for state in v.edges.values_mut() {
            state.dirty = (0..state.inputs.len() as u32).collect();
        }
        self.push_edges(vertex);
    }

    /// Stops what is done for an edge beyond what is still wanted of it.
    pub(super) fn relax(&mut self, edge: EdgeId) {
        let Some(state) = self.edge(edge) else { return };
        let want = state.want();
        let busy = match state.stage {
            Stage::New | Stage::Done => return,
            Stage::Defining | Stage::Defined => Level::Fast,
            Stage::Matching | Stage::Contents | Stage::Hopeless => Level::Slow,
            Stage::Building | Stage::Ready => Level::Output,
        };
        let loading = state.loading.is_some() && want < Some(Level::Output);
        if want >= Some(busy) && !loading {
            return;
        }
        self.let_go(edge);
        self.rest(edge.0);
        // Others may still wait for what this was about to find out.
        if want.is_some() {
            self.push(edge);
        }
    }

    /// Ends an edge's own work and its questions; what it has learnt stays.
    pub(super) fn let_go(&mut self, edge: EdgeId) {
        let state = self.at_mut(edge);
        let mut tasks: Vec<_> = state
            .inputs
            .iter_mut()
            .filter_map(|i| i.probing.take())
            .collect();
        if let Some(task) = state.finding.take() {
            // What it was looking for is not known: it is looked for again.
            state.looked.clear();
            state.maps_looked = 0;
            tasks.push(task);
        }
        tasks.extend(state.loading.take().map(|(task, record)| {
            state.records.push(record);
            task
        }));
        state.dirty.clear();
        state.stage = match state.stage {
            Stage::New | Stage::Defining => Stage::New,
            Stage::Defined | Stage::Matching | Stage::Contents => Stage::Defined,
            Stage::Hopeless | Stage::Building | Stage::Ready => Stage::Hopeless,
            Stage::Done => Stage::Done,
        };
        for task in tasks {
            self.cancel(task);
        }
        self.withdraw_all(edge);
    }

    /// Ends the work of a vertex that none of its edges needs any more.
    pub(super) fn rest(&mut self, id: VertexId) {
        let Some(vertex) = self.vertices.get_mut(&id) else {
            return;
        };
        let failed = vertex.failed.is_some();
        let unfinished = vertex.edges.values().filter(|edge| edge.output.is_none());
        let want = if failed {
            None
        } else {
            unfinished.filter_map(|edge| edge.want()).max()
        };
        let mut tasks = Vec::new();
        if want.is_none() {
            tasks.extend(vertex.asking_map.take());
        }
        if want < Some(Level::Slow) {
            for content in &mut vertex.contents {
                if let Content::Asked(task) = *content {
                    tasks.push(task);
                    *content = Content::Unknown;
                }
            }
        }
        for task in tasks {
            self.cancel(task);
        }
        if want < Some(Level::Output) && !matches!(self.vertex(id).run, Run::Done(_)) {
            self.stop_run(id);
        }
    }
}
