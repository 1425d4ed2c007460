//! One build from request to result: frontend, solve, export, remote cache, attestations, history.

// What the daemon will call, so that both sides meet in the middle:
//
// - `Engine: Clone`; `Engine::open(Config) -> Result<Engine, Error>` (async or not).
// - `engine.sessions() -> &session::Sessions`: `Control.Session` registers there.
// - `engine.worker() -> Worker info: id, labels, platforms`.
// - `engine.build(BuildRequest, progress::Progress) -> Result<Outcome, BuildError>`; dropping the
//   future cancels the build. `BuildRequest { id, session, what, exporters: [{kind, attrs}],
//   cache_imports, cache_exports, entitlements, .. }`; `Outcome.response: BTreeMap<String, String>`
//   is `SolveResponse.ExporterResponse`.
// - `What::Definition(llb::Definition)`, `What::Frontend { name, options, inputs }`, and
//   `What::Client { options, inputs, run }` for a frontend that runs in the client (buildx):
//   `run: Box<dyn FnOnce(Arc<dyn frontend::Bridge>) -> BoxFuture<'static,
//   frontend::Result<frontend::FrontendResult>> + Send>`. The daemon lets LLBBridge calls ask
//   that bridge until the client calls `Return`.
// - `BuildError` gives: `kind()`, the step's digest, source places, exit code, hints (row A16).
// - `engine.usage(filters, age)`, `engine.prune(rule) -> the records freed`, `engine.history()`.
