//! Containers whose only way out is a proxy of ours (row X08). They have a network namespace with
//! a loopback, and a socket that listens on it: we made it there, and we hold it. So nothing leaves
//! but what the proxy passes on, from the network the container would have had.

pub(crate) mod bundles;
mod outside;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::net::TcpListener;

use crate::Exit;
use crate::error::Error;
use crate::network::{Attached, Namespace, Networks, SandboxNetwork};
use crate::prepare::setup;
use crate::process::{Network, Process};

pub use outside::Outside;

/// What is reached without the proxy: the container's own loopback.
const NO_PROXY: &str = "127.0.0.1,localhost,::1";

/// Serves a container that has no other way out.
pub trait NetworkProxy: Send + Sync {
    /// The certificate, in PEM, of the authority that signs for the servers it stands in for. The
    /// container trusts it for as long as it runs.
    fn authority(&self) -> &str;

    /// Serves connections until it is dropped.
    fn serve(&self, listener: TcpListener, outside: Outside) -> BoxFuture<'static, ()>;
}

/// The namespace of a proxied container.
pub(crate) struct Inside {
    namespace: Namespace,
    /// Where programs open it.
    path: PathBuf,
    /// The network it would have had.
    outside: Attached,
}

impl Inside {
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn outside(&self) -> &Attached {
        &self.outside
    }
}

/// [`Networks::around`], with the proxy the process asks for in between. One that has no network
/// anyway is left alone.
pub(crate) async fn around<F>(
    networks: Option<&Arc<Networks>>,
    sandbox: &SandboxNetwork,
    mut process: Process,
    run: impl FnOnce(Arc<Process>, Attached) -> F,
) -> Result<Exit, Error>
where
    F: Future<Output = Result<Exit, Error>>,
{
    if crate::prepare::is_alone(process.network, sandbox) {
        process.proxy = None;
    }
    let Some(proxy) = process.proxy.clone() else {
        return Networks::around(networks, process, run).await;
    };
    Networks::around(networks, process, |mut process, outside| async move {
        let inside = Namespace::new().await?;
        let listening = inside.listen().await;
        let listener = listening.map_err(setup("listening for the proxy's container"))?;
        let address = listener.local_addr();
        let address = address.map_err(setup("listening for the proxy's container"))?;
        {
            // It is ours alone until it runs.
            let process = Arc::make_mut(&mut process);
            process.proxied = variables(&address.to_string());
            process.env = with_variables(&process.env, &process.proxied);
            // What the host's loopback offers is nothing to it.
            process.network = Network::Sandbox;
        }
        let reach = Outside::of(&outside, &process.extra_hosts);
        let reach = reach.map_err(setup("opening the proxy's network"))?;
        let serving = stdx::task::spawn("network-proxy", proxy.serve(listener, reach));
        let path = inside.named();
        let inside = Arc::new(Inside {
            namespace: inside,
            path,
            outside,
        });
        let ended = run(process, Attached::Proxied(inside.clone())).await;
        // A runtime binary opens the namespace by its path.
        drop((serving, inside));
        ended
    })
    .await
}

/// How programs are told of the proxy.
fn variables(address: &str) -> Vec<String> {
    let proxy = format!("http://{address}");
    let named = [
        ("HTTP_PROXY", proxy.as_str()),
        ("HTTPS_PROXY", &proxy),
        ("NO_PROXY", NO_PROXY),
    ];
    let both = named.into_iter().flat_map(|(name, value)| {
        [
            format!("{name}={value}"),
            format!("{}={value}", name.to_lowercase()),
        ]
    });
    both.collect()
}

/// `env` with these variables in place of those it has by their names.
pub(crate) fn with_variables(env: &[String], variables: &[String]) -> Vec<String> {
    fn name(variable: &str) -> &str {
        variable.split_once('=').map_or(variable, |(name, _)| name)
    }
    let replaced = |one: &String| variables.iter().any(|other| name(other) == name(one));
    let kept = env.iter().filter(|one| !replaced(one));
    kept.chain(variables).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: X08
    #[test]
    fn the_proxys_variables_take_the_place_of_others() {
        let own = ["HTTP_PROXY=http://a", "no_proxy=*", "http_proxyx=1", "A=b"].map(String::from);
        assert_eq!(
            with_variables(&own, &variables("127.0.0.1:7")),
            [
                "http_proxyx=1",
                "A=b",
                "HTTP_PROXY=http://127.0.0.1:7",
                "http_proxy=http://127.0.0.1:7",
                "HTTPS_PROXY=http://127.0.0.1:7",
                "https_proxy=http://127.0.0.1:7",
                "NO_PROXY=127.0.0.1,localhost,::1",
                "no_proxy=127.0.0.1,localhost,::1",
            ]
        );
        assert_eq!(with_variables(&own, &[]), own);
    }
}
