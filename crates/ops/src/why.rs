//! Why a step is done again: what it is now, compared with what it was when it was last done.
//!
//! A step is known again by its place (which project, which stage, the how-manieth) or by its
//! text. What is kept of it is small and no secret: digests of its options and variables, the
//! names of its files with digests. It is a convenience: whatever is lost or cannot be read
//! only means that less is said.

mod memory;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contenthash::{Listed, Selector};
use llb::{Exec, OpKind};
use oci::Digest;
use refs::Ref;
use serde::{Deserialize, Serialize};
use solver::{CacheMap, Miss, Missed, Op, OpContext, OpError};
use stdx::patterns::Patterns;

use crate::remains::Step;
use crate::{Deeds, Error, Output};

pub use memory::LastTimes;
use memory::{Place, Slots};

/// Names of files kept of one input.
const MAX_FILES: usize = 1000;
/// Bytes of those names.
const MAX_NAMES: usize = 64 << 10;
/// Names said in one line.
const NAMES_SAID: usize = 3;
/// The session is there when its files were read; else this is not worth waiting for.
const PATIENCE: Duration = Duration::from_millis(10);

/// What a step was like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    /// Its text, without its place.
    text: String,
    /// What people set, each with a short digest of its value.
    facts: BTreeMap<String, String>,
    inputs: Vec<Input>,
}

/// What it works on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Input {
    /// The step it comes from, or the image.
    name: String,
    /// Digest of that image.
    pin: String,
    /// The very result.
    id: String,
    /// Its files, where those count and not the result as a whole.
    files: Option<BTreeMap<String, String>>,
    /// Those are not all.
    #[serde(default)]
    cut: bool,
    /// Digest of all files that count, named or not.
    #[serde(default)]
    all: String,
}

/// An op that says why it is done.
pub(crate) struct Explained {
    pub(crate) op: Arc<dyn Op<Output = Output>>,
    pub(crate) deeds: Deeds,
    place: Place,
    shape: Shape,
    /// Per input, the parts that count by content.
    parts: Vec<Option<Vec<Selector>>>,
    /// Per input, what of a client's directory was left out.
    hidden: Vec<Vec<String>>,
    step: Arc<Step>,
}

impl Explained {
    /// Of a vertex of a graph whose inputs are among `all`.
    pub(crate) fn new(
        deeds: Deeds,
        op: Arc<dyn Op<Output = Output>>,
        vertex: &llb::Vertex,
        all: &[llb::Vertex],
        parts: Vec<Option<Vec<Selector>>>,
        step: Arc<Step>,
    ) -> Explained {
        let (place, text) = Place::of(&crate::graph::name(vertex));
        let inputs = vertex
            .inputs
            .iter()
            .map(|input| of_input(&all[input.vertex]));
        let shape = Shape {
            text,
            facts: facts(vertex),
            inputs: inputs.collect(),
        };
        let hidden = vertex.inputs.iter().map(|input| hidden(&all[input.vertex]));
        Explained {
            op,
            deeds,
            place,
            shape,
            parts,
            hidden: hidden.collect(),
            step,
        }
    }

    /// Says where a path was not found, and why that may be.
    fn where_it_was_looked_for(&self, error: OpError, input: usize) -> OpError {
        let Some(place) = self.shape.inputs.get(input).map(|input| input.name.clone()) else {
            return error;
        };
        match error.downcast_ref::<Error>() {
            Some(Error::NotFound { path }) => {
                let pattern = self.hidden.get(input).and_then(|all| hides(all, path));
                Arc::new(Error::NotFoundIn {
                    path: path.clone(),
                    place,
                    hint: pattern.map(|pattern| {
                        format!(
                            "`{pattern}` in .dockerignore keeps {path} out of the build context."
                        )
                    }),
                })
            }
            Some(Error::NotFoundInEmpty { path, .. }) => Arc::new(Error::NotFoundInEmpty {
                path: path.clone(),
                place,
            }),
            _ => error,
        }
    }

    /// Says why, and gives what to keep once the step is done.
    async fn tell(&self, cx: &OpContext, inputs: &[Output]) -> (Slots, Shape) {
        let slots = self.place.slots(&self.project().await, &self.shape.text);
        let mut now = self.shape.clone();
        for (number, output) in inputs.iter().enumerate() {
            let Some(input) = now.inputs.get_mut(number) else {
                break;
            };
            let Some(found) = &output.0 else { continue };
            input.id = found.id().to_owned();
            if let Some(Some(parts)) = self.parts.get(number) {
                self.look_at(cx, found, parts, input).await;
            }
        }
        let (memory, asked) = (self.deeds.parts.last_times.clone(), slots.clone());
        let text = now.text.clone();
        let then = stdx::task::blocking(move || memory.get(&asked, &text)).await;
        if let Some(missed) = &cx.missed
            && let Some(why) = why(missed, then.as_ref(), &now)
        {
            cx.step.not_cached(&why);
        }
        (slots, now)
    }

    /// The files of an input that count.
    async fn look_at(&self, cx: &OpContext, found: &Ref, parts: &[Selector], input: &mut Input) {
        let (contents, build) = (&self.deeds.parts.contents, &self.deeds.build);
        let digests = contents.digests(found, parts.to_vec(), build, &cx.step);
        let Ok(digests) = digests.await else { return };
        let listed = contents.list(found, parts.to_vec(), MAX_FILES, build, &cx.step);
        let Ok(listed) = listed.await else { return };
        input.all = token(digests.iter().map(Digest::to_string).collect::<String>());
        input.name_files(listed);
    }

    /// What this build is of: steps of other projects may have the same text.
    async fn project(&self) -> String {
        let build = &self.deeds.build;
        let mut project = build.project.clone();
        if let Some(id) = build.group.ids().first()
            && let Ok(session) = build.sessions.get(id, PATIENCE).await
        {
            let _ = write!(project, "\0{}", session.shared_key());
        }
        project
    }
}

#[async_trait]
impl Op for Explained {
    type Output = Output;

    async fn cache_map(&self, cx: &OpContext, index: usize) -> Result<CacheMap, OpError> {
        self.op.cache_map(cx, index).await
    }

    async fn content_key(
        &self,
        cx: &OpContext,
        input: usize,
        output: &Output,
    ) -> Result<Option<Digest>, OpError> {
        let found = self.op.content_key(cx, input, output).await;
        found.map_err(|error| {
            let error = self.where_it_was_looked_for(error, input);
            Arc::new(self.step.failed_input(error, input, output)) as OpError
        })
    }

    async fn run(&self, cx: &OpContext, inputs: Vec<Output>) -> Result<Vec<Output>, OpError> {
        let (slots, now) = self.tell(cx, &inputs).await;
        let outputs = self.op.run(cx, inputs).await?;
        let memory = self.deeds.parts.last_times.clone();
        stdx::task::blocking(move || memory.put(&slots, &now)).await;
        Ok(outputs)
    }
}

/// Why a step is done; nothing when it is done for the first time.
fn why(missed: &Missed, then: Option<&Shape>, now: &Shape) -> Option<String> {
    match *missed.why {
        Miss::Ignored => return Some("asked to be done anew (--no-cache)".into()),
        Miss::Gone { .. } => return Some("its cached result is not there any more".into()),
        _ => {}
    }
    let Some(then) = then else {
        return missed
            .imports
            .then(|| "no imported cache has it, and it was not done here before".into());
    };
    let mut reasons = Vec::new();
    let mut facts: Vec<String> = changed(&then.facts, &now.facts)
        .into_iter()
        .map(|(_, fact)| fact.to_owned())
        .collect();
    // The text may be another one only because it shows a variable's value.
    if facts.iter().any(|fact| fact == INSTRUCTION) && then.text != now.text {
        facts.retain(|fact| fact != INSTRUCTION);
        reasons.push(format!(
            "the instruction changed (it was `{}`)",
            short(&then.text)
        ));
    }
    if !facts.is_empty() {
        reasons.push(format!("{} changed", listed(&facts)));
    }
    if then.inputs.len() == now.inputs.len() {
        let inputs = then.inputs.iter().zip(&now.inputs);
        reasons.extend(inputs.filter_map(|(then, now)| of_inputs(then, now)));
    } else if reasons.is_empty() {
        reasons.push("it works on other inputs".into());
    }
    if reasons.is_empty() {
        reasons.push("its earlier result was pruned".into());
    }
    Some(reasons.join("; "))
}

fn of_inputs(then: &Input, now: &Input) -> Option<String> {
    if let (Some(before), Some(after)) = (&then.files, &now.files) {
        let cut = then.cut || now.cut;
        let other = !then.all.is_empty() && then.all != now.all;
        return of_files(before, after, cut, &now.name)
            .or_else(|| other.then(|| format!("changed in {}: other files", now.name)));
    }
    if then.id == now.id && then.name == now.name && then.pin == now.pin {
        return None;
    }
    if then.pin.is_empty() != now.pin.is_empty() || (then.name != now.name && !now.pin.is_empty()) {
        return Some(format!("it builds on {} (it was {})", now.name, then.name));
    }
    if then.pin != now.pin {
        let (then, pin) = (short_digest(&then.pin), short_digest(&now.pin));
        return Some(format!("image {} changed ({then} is now {pin})", now.name));
    }
    // An image is made anew by each build that asks for it; what counts is its digest.
    if !now.pin.is_empty() {
        return None;
    }
    Some(format!("{} was made anew", now.name))
}

fn of_files(
    then: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
    cut: bool,
    from: &str,
) -> Option<String> {
    let mut by_kind: BTreeMap<Change, Vec<String>> = BTreeMap::new();
    // Where not all are named, one that is named only once may have been there all the time.
    let sure = |change: Change| !cut || change == Change::Other;
    for (change, path) in changed(then, now).into_iter().filter(|(c, _)| sure(*c)) {
        by_kind.entry(change).or_default().push(path.to_owned());
    }
    let said = by_kind.iter().map(|(change, paths)| {
        let what = match change {
            Change::Other => "changed",
            Change::New => "new",
            Change::Gone => "gone",
        };
        format!("{what} in {from}: {}", listed(paths))
    });
    let said: Vec<String> = said.collect();
    (!said.is_empty()).then(|| said.join(", "))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Other,
    New,
    Gone,
}

/// What is else in one of two maps.
fn changed<'a>(
    then: &'a BTreeMap<String, String>,
    now: &'a BTreeMap<String, String>,
) -> Vec<(Change, &'a str)> {
    let mut changed = Vec::new();
    for (name, value) in now {
        match then.get(name) {
            None => changed.push((Change::New, name.as_str())),
            Some(before) if before != value => changed.push((Change::Other, name.as_str())),
            Some(_) => {}
        }
    }
    let gone = then.keys().filter(|name| !now.contains_key(*name));
    changed.extend(gone.map(|name| (Change::Gone, name.as_str())));
    changed
}

fn listed(names: &[String]) -> String {
    let mut text = names[..names.len().min(NAMES_SAID)].join(", ");
    if names.len() > NAMES_SAID {
        let _ = write!(text, " and {} more", names.len() - NAMES_SAID);
    }
    text
}

fn short(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}

fn short_digest(digest: &str) -> &str {
    &digest[..digest.len().min("sha256:".len() + 12)]
}

/// Enough to tell two values apart.
fn token(value: impl AsRef<[u8]>) -> String {
    Digest::of(value).hex()[..12].to_owned()
}

impl Input {
    /// Takes the names of its files, as many as are kept.
    fn name_files(&mut self, listed: Vec<Listed>) {
        let name = |one: &Listed| {
            let path = one.path.to_string_lossy();
            match (one.dir, one.whole) {
                (false, _) => path.into_owned(),
                (true, false) => format!("{path}/"),
                (true, true) => format!("{path}/**"),
            }
        };
        self.cut = listed.len() >= MAX_FILES;
        let mut left = MAX_NAMES;
        let mut files = BTreeMap::new();
        for one in &listed {
            let name = name(one);
            match left.checked_sub(name.len()) {
                Some(less) => left = less,
                None => {
                    self.cut = true;
                    break;
                }
            }
            files.insert(name, token(one.digest.to_string()));
        }
        self.files = Some(files);
    }
}

fn of_input(vertex: &llb::Vertex) -> Input {
    let mut input = Input::default();
    match &vertex.op.kind {
        OpKind::Source(source) => {
            let identifier = &source.identifier;
            let name = identifier.split_once("://").map_or("", |(_, name)| name);
            match name
                .rsplit_once('@')
                .filter(|_| identifier.starts_with("docker-image:"))
            {
                Some((name, pin)) => (input.name, input.pin) = (name.to_owned(), pin.to_owned()),
                None if identifier.starts_with("local:") => {
                    input.name = format!("the {name} directory");
                    if name == "context" {
                        input.name = "the build context".to_owned();
                    }
                }
                None if identifier.starts_with("docker-image:") => input.name = name.to_owned(),
                None => input.name = identifier.clone(),
            }
        }
        _ => input.name = format!("`{}`", short(&crate::graph::name(vertex))),
    }
    input
}

/// What of a client's directory is not sent.
fn hidden(vertex: &llb::Vertex) -> Vec<String> {
    let OpKind::Source(source) = &vertex.op.kind else {
        return Vec::new();
    };
    let patterns = source.attrs.get(llb::attr::LOCAL_EXCLUDE);
    patterns
        .and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_default()
}

/// The pattern that hides a path, if one does.
fn hides<'a>(patterns: &'a [String], path: &str) -> Option<&'a str> {
    let path = path.trim_start_matches('/');
    let matches = |all: &[&String]| Patterns::new(all).is_ok_and(|all| all.matches(path));
    if !matches(&patterns.iter().collect::<Vec<_>>()) {
        return None;
    }
    let alone = patterns.iter().rev().find(|pattern| matches(&[*pattern]));
    alone.map(String::as_str)
}

/// The fact that a changed text tells already.
const INSTRUCTION: &str = "the instruction";

/// What people set, by the words they know.
fn facts(vertex: &llb::Vertex) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    if let Some(platform) = &vertex.op.platform {
        facts.insert("the platform".to_owned(), token(platform.to_string()));
    }
    match &vertex.op.kind {
        OpKind::Exec(exec) => of_exec(exec, &mut facts),
        OpKind::File(file) => {
            let told = llb::preimage::file(file, vertex.inputs.len());
            facts.insert(INSTRUCTION.to_owned(), token(told));
        }
        _ => {}
    }
    facts
}

fn of_exec(exec: &Exec, facts: &mut BTreeMap<String, String>) {
    let mut fact = |name: String, value: String| {
        facts.insert(name, token(value));
    };
    fact(INSTRUCTION.into(), exec.args.join("\0"));
    for variable in &exec.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        fact(
            format!("variable or build argument {name}"),
            value.to_owned(),
        );
    }
    fact("the working directory".into(), exec.cwd.clone());
    fact("the user".into(), exec.user.clone());
    fact("--network".into(), format!("{:?}", exec.network));
    fact("--security".into(), format!("{:?}", exec.security));
    fact("--add-host".into(), format!("{:?}", exec.extra_hosts));
    fact("--ulimit".into(), format!("{:?}", exec.ulimits));
    fact("the hostname".into(), exec.hostname.clone());
    fact("--cgroup-parent".into(), exec.cgroup_parent.clone());
    fact("--device".into(), format!("{:?}", exec.devices));
    fact("secret variables".into(), format!("{:?}", exec.secret_env));
    for mount in &exec.mounts {
        fact(
            format!("the mount at {}", mount.target),
            format!("{mount:?}"),
        );
    }
}
