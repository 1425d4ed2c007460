//! What a build is asked to do: everything in plain words, nothing of the wire.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use frontend::policy::Rule;
use frontend::{Bridge, CacheImport, FrontendResult};
use futures::future::BoxFuture;

use crate::Compatibility;

/// One request of a client, in plain words.
pub struct Request {
    /// The id the client made up.
    pub id: String,
    /// The session that has its files.
    pub session: String,
    /// What to build.
    pub what: What,
    /// Where the result goes.
    pub exporters: Vec<Spec>,
    /// The client chooses further exporters once it has seen the result.
    pub session_exporter: bool,
    /// Where cached steps come from.
    pub cache_imports: Vec<CacheImport>,
    /// Where cached steps go to.
    pub cache_exports: Vec<Spec>,
    /// What the build may use beyond the sandbox; allowed by the daemon.
    pub entitlements: Vec<String>,
    /// Which sources it may use.
    pub policy: Policy,
    /// Its steps reach the network through a proxy and in no other way.
    pub proxy_network: bool,
    /// As which releases made it.
    pub compatibility: Compatibility,
    /// It will be remembered: how its results were made is wanted even if no export asks.
    pub remembered: bool,
}

/// What a build gave.
#[derive(Clone, Debug, Default)]
pub struct Built {
    /// What the client is told: the exporters' answers, `cache.*` and `frontend.*`.
    pub response: BTreeMap<String, String>,
    /// The images that were written, by their exporters' places in the request.
    pub images: BTreeMap<usize, oci::Descriptor>,
    /// How the results were made, by their ids, if the build is remembered.
    pub provenance: BTreeMap<String, Predicate>,
}

/// What a statement says, without about what.
#[derive(Clone, Debug)]
pub struct Predicate {
    /// Its type: `https://slsa.dev/provenance/v1`.
    pub kind: String,
    /// JSON.
    pub bytes: Bytes,
}

/// Which sources a build may use. The default allows all.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Rules in their order.
    pub rules: Vec<Rule>,
    /// The session whose client decides; empty if none does.
    pub session: String,
}

/// A kind and its settings: an exporter, a remote cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// `image`, `registry`, …
    pub kind: String,
    /// Its settings.
    pub attrs: BTreeMap<String, String>,
}

/// What to build.
pub enum What {
    /// A graph.
    Definition {
        /// The graph.
        definition: llb::Definition,
        /// What is asked of the build as a whole, such as its epoch.
        options: BTreeMap<String, String>,
    },
    /// What a frontend here makes of the client's files.
    Frontend {
        /// `dockerfile.v0`, …
        name: String,
        /// Its options.
        options: BTreeMap<String, String>,
        /// Graphs by name.
        inputs: BTreeMap<String, llb::Definition>,
    },
    /// What a frontend in the client makes of it.
    Client {
        /// The client's options.
        options: BTreeMap<String, String>,
        /// Graphs by name.
        inputs: BTreeMap<String, llb::Definition>,
        /// Runs the frontend on a bridge until it has a result.
        run: ClientFrontend,
    },
}

impl What {
    /// The options of the frontend and of the build as a whole.
    pub(crate) fn options(&self) -> BTreeMap<String, String> {
        match self {
            What::Definition { options, .. }
            | What::Frontend { options, .. }
            | What::Client { options, .. } => options.clone(),
        }
    }
}

/// A frontend that runs elsewhere.
pub type ClientFrontend =
    Box<dyn FnOnce(Arc<dyn Bridge>) -> BoxFuture<'static, frontend::Result<FrontendResult>> + Send>;
