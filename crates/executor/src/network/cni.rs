//! Calling CNI plugins: the CNI specification 1.0.0, sections 1 to 4.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::{CniNetwork, CniOptions};
use crate::error::Error;

/// Name of the interface in the container.
const INTERFACE: &str = "eth0";
/// Names the attachment in the environment of plugins, and of what they start.
pub(super) const ATTACHMENT: &str = "CNI_CONTAINERID";
/// How long one plugin may take. DHCP plugins wait for servers.
const PATIENCE: Duration = Duration::from_secs(60);
/// Versions in which plugins understand each other as we call them.
const VERSIONS: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];

/// A network configuration: plugins to call one after the other.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct List {
    name: String,
    version: String,
    plugins: Vec<Plugin>,
    /// Where they look for other plugins, such as those for addresses.
    path: OsString,
}

#[derive(Clone, Debug, PartialEq)]
struct Plugin {
    program: PathBuf,
    config: Value,
}

/// For whom plugins are called.
pub(super) struct Call<'a> {
    /// Names the attachment; plugins file what they do under it.
    pub(super) id: &'a str,
    /// The namespace; empty when it is gone.
    pub(super) namespace: &'a Path,
    /// The container's host name if it is not the usual one.
    pub(super) hostname: &'a str,
}

impl List {
    /// Reads the configuration and finds every plugin it names.
    pub(super) fn load(options: &CniOptions) -> Result<List, Error> {
        match &options.network {
            CniNetwork::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| Error::Network {
                    step: format!("reading the CNI configuration {}", path.display()),
                    reason: error.to_string(),
                })?;
                let list = serde_json::from_str(&text).map_err(|error| bad(path, &error))?;
                List::parse(list, std::slice::from_ref(&options.plugins))
                    .map_err(|reason| bad(path, &reason))
            }
            CniNetwork::Bridge { name, subnet } => bridge(options, name, subnet),
        }
    }

    /// `Err` says what is wrong with it.
    fn parse(list: Value, dirs: &[PathBuf]) -> Result<List, String> {
        let text = |key: &str| list[key].as_str().unwrap_or_default().to_string();
        let (name, version) = (text("name"), text("cniVersion"));
        if name.is_empty() || name.contains(['/', '\0']) {
            return Err("it has no name".to_string());
        }
        let version = if version.is_empty() {
            VERSIONS[0].to_string()
        } else {
            version
        };
        if !VERSIONS.contains(&version.as_str()) {
            let known = VERSIONS.join(", ");
            return Err(format!("its cniVersion {version} is none of {known}"));
        }
        let configs = match &list["plugins"] {
            Value::Array(plugins) => plugins.clone(),
            // A single plugin, as in a `.conf` file.
            _ => vec![list.clone()],
        };
        let plugins = configs.into_iter().map(|config| {
            let kind = config["type"].as_str().unwrap_or_default();
            if kind.is_empty() || kind.contains('/') {
                return Err(format!("a plugin has the type {kind:?}"));
            }
            let program = find(kind, dirs).ok_or_else(|| {
                let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
                format!("there is no plugin {kind} in {}", dirs.join(", "))
            })?;
            Ok(Plugin { program, config })
        });
        let plugins: Vec<Plugin> = plugins.collect::<Result<_, _>>()?;
        if plugins.is_empty() {
            return Err("it has no plugins".to_string());
        }
        let path = std::env::join_paths(dirs).map_err(|error| error.to_string())?;
        Ok(List {
            name,
            version,
            plugins,
            path,
        })
    }

    /// Connects a namespace; the last plugin's result.
    pub(super) async fn add(&self, call: &Call<'_>) -> Result<Value, Error> {
        let mut result = Value::Null;
        for plugin in &self.plugins {
            result = self.call("ADD", plugin, call, &result).await?;
        }
        Ok(result)
    }

    /// Undoes it, as far as it was done. Every plugin is asked, also after one failed.
    pub(super) async fn del(&self, call: &Call<'_>, result: &Value) -> Result<(), Error> {
        // Plugins of earlier versions do not expect the result here.
        let knows = VERSIONS.iter().position(|known| *known == self.version) >= Some(4);
        let result = if knows { result } else { &Value::Null };
        let mut outcome = Ok(());
        for plugin in self.plugins.iter().rev() {
            let done = self.call("DEL", plugin, call, result).await;
            outcome = outcome.and(done.map(drop));
        }
        outcome
    }

    async fn call(
        &self,
        command: &str,
        plugin: &Plugin,
        call: &Call<'_>,
        before: &Value,
    ) -> Result<Value, Error> {
        let failed = |reason: String| Error::Network {
            step: format!("CNI plugin {} ({command})", plugin.program.display()),
            reason,
        };
        let mut config = plugin.config.clone();
        config["name"] = json!(self.name);
        config["cniVersion"] = json!(self.version);
        if !before.is_null() {
            config["prevResult"] = before.clone();
        }
        let mut args = String::new();
        if !call.hostname.is_empty() {
            // The name by which plugins for DNS know a container's name.
            args = format!("K8S_POD_NAME={};IgnoreUnknown=1", call.hostname);
        }
        let mut child = tokio::process::Command::new(&plugin.program)
            .env("CNI_COMMAND", command)
            .env(ATTACHMENT, call.id)
            .env("CNI_NETNS", call.namespace)
            .env("CNI_IFNAME", INTERFACE)
            .env("CNI_ARGS", args)
            .env("CNI_PATH", &self.path)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let mut stdin = child.stdin.take().expect("it is a pipe");
        let talking = async {
            // One that does not read its configuration says why in its answer.
            let _gone = stdin.write_all(config.to_string().as_bytes()).await;
            drop(stdin);
            child.wait_with_output().await
        };
        let output = match tokio::time::timeout(PATIENCE, talking).await {
            Ok(output) => output.map_err(|error| failed(error.to_string()))?,
            Err(_) => return Err(failed(format!("no answer within {PATIENCE:?}"))),
        };
        let answer = serde_json::from_slice::<Value>(&output.stdout);
        if output.status.success() {
            return match answer {
                Ok(answer) => Ok(answer),
                Err(_) if command == "DEL" => Ok(Value::Null),
                Err(error) => Err(failed(format!("its answer cannot be read: {error}"))),
            };
        }
        let said = answer.unwrap_or_default();
        let said = ["msg", "details"].map(|key| said[key].as_str().unwrap_or_default().to_string());
        let mut said = said
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect::<Vec<_>>();
        if said.is_empty() {
            said.push(String::from_utf8_lossy(&output.stderr).trim().to_string());
        }
        Err(failed(said.join(": ")))
    }
}

/// The gateway a result names: how the container reaches this machine on a bridge.
pub(super) fn gateway(result: &Value) -> Option<IpAddr> {
    let ips = result["ips"].as_array().into_iter().flatten();
    let mut found = ips.filter_map(|ip| ip["gateway"].as_str());
    let old = result["ip4"]["gateway"].as_str();
    found.next().or(old)?.parse().ok()
}

/// Our own bridge: plugins under BuildKit's names first, then under their own.
fn bridge(options: &CniOptions, name: &str, subnet: &str) -> Result<List, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let plain = ["bridge", "host-local", "firewall"];
    let ours = plain.map(|plugin| format!("buildkit-cni-{plugin}"));
    let (names, dirs) = match ours.iter().all(|plugin| find(plugin, &path).is_some()) {
        true => (ours, path),
        false => (plain.map(str::to_string), vec![options.plugins.clone()]),
    };
    let [bridge, addresses, firewall] = &names;
    let list = json!({
        "cniVersion": "1.0.0",
        "name": "buildkit",
        "plugins": [
            {
                "type": bridge,
                "bridge": name,
                "isDefaultGateway": true,
                "ipMasq": true,
                "ipam": {"type": addresses, "ranges": [[{"subnet": subnet}]]},
            },
            {"type": firewall, "ingressPolicy": "same-bridge"},
        ],
    });
    let missing = |reason: String| Error::Network {
        step: format!("preparing the bridge {name}"),
        reason,
    };
    if find(addresses, &dirs).is_none() {
        let dir = options.plugins.display();
        return Err(missing(format!("there is no plugin {addresses} in {dir}")));
    }
    List::parse(list, &dirs).map_err(missing)
}

fn find(plugin: &str, dirs: &[PathBuf]) -> Option<PathBuf> {
    dirs.iter()
        .map(|dir| dir.join(plugin))
        .find(|file| file.is_file())
}

fn bad(path: &Path, reason: &dyn std::fmt::Display) -> Error {
    Error::Invalid {
        what: format!("CNI configuration {}", path.display()),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugins(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        dir
    }

    fn parse(text: &str, dir: &tempfile::TempDir) -> Result<List, String> {
        List::parse(
            serde_json::from_str(text).unwrap(),
            &[dir.path().to_owned()],
        )
    }

    /// Rows: X07
    #[test]
    fn a_list_and_a_single_plugin_are_understood() {
        let dir = plugins(&["bridge", "firewall"]);
        let list = r#"{"cniVersion": "0.4.0", "name": "n",
            "plugins": [{"type": "bridge", "bridge": "b0"}, {"type": "firewall"}]}"#;
        let list = parse(list, &dir).unwrap();
        assert_eq!(list.plugins.len(), 2);
        assert_eq!(list.plugins[0].config["bridge"], "b0");
        let one = parse(r#"{"name": "n", "type": "bridge"}"#, &dir).unwrap();
        assert_eq!((one.version.as_str(), one.plugins.len()), ("0.1.0", 1));
    }

    /// Rows: X07
    #[test]
    fn what_is_wrong_is_said_before_anything_is_called() {
        let dir = plugins(&["bridge"]);
        for (text, wrong) in [
            (r#"{"type": "bridge"}"#, "it has no name"),
            (
                r#"{"name": "n", "type": "../bridge"}"#,
                "a plugin has the type",
            ),
            (
                r#"{"name": "n", "type": "vlan"}"#,
                "there is no plugin vlan in",
            ),
            (r#"{"name": "n", "plugins": []}"#, "it has no plugins"),
            (
                r#"{"name": "n", "cniVersion": "9", "type": "bridge"}"#,
                "its cniVersion 9 is none",
            ),
        ] {
            let error = parse(text, &dir).unwrap_err();
            assert!(error.starts_with(wrong), "{text}: {error}");
        }
    }

    #[test]
    fn the_gateway_is_found_in_results_of_all_versions() {
        let new = json!({"ips": [{"address": "10.1.0.2/16", "gateway": "10.1.0.1"}]});
        let old = json!({"ip4": {"ip": "10.1.0.2/16", "gateway": "10.1.0.1"}});
        let expected = Some("10.1.0.1".parse().unwrap());
        assert_eq!((gateway(&new), gateway(&old)), (expected, expected));
        assert_eq!(gateway(&json!({})), None);
    }
}
