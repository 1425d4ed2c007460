//! A registry of our own for as long as the demo runs, and as much HTTP as it takes to look
//! into it with other eyes than kiln's.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Error, Result};

/// How long it may take to answer first.
const START: Duration = Duration::from_secs(20);
const DOCUMENTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// A running docker-registry; ends when dropped.
pub(super) struct Registry {
    process: Child,
    port: u16,
}

/// Headers and body of an answer.
struct Answer {
    head: String,
    body: Vec<u8>,
}

impl Registry {
    /// Starts one that keeps its blobs below `dir`.
    pub(super) fn start(dir: &Path) -> Result<Registry> {
        let port = free_port()?;
        let config = dir.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\n\
             storage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            dir.join("registry").display()
        );
        std::fs::write(&config, text).map_err(Error::file(&config))?;
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| Error::Start {
                command: "docker-registry".to_owned(),
                source,
            })?;
        let registry = Registry { process, port };
        let begun = Instant::now();
        while registry.get("/v2/").is_err() {
            if begun.elapsed() > START {
                return Err(Error::Chore("docker-registry does not answer".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(registry)
    }

    /// The name of an image in it.
    pub(super) fn name(&self, repository: &str) -> String {
        format!("localhost:{}/{repository}:latest", self.port)
    }

    /// The digest its tag `latest` points at.
    pub(super) fn digest(&self, repository: &str) -> Result<String> {
        let answer = self.get(&format!("/v2/{repository}/manifests/latest"))?;
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("docker-content-digest")
                .then(|| value.trim().to_owned())
        };
        answer
            .head
            .lines()
            .find_map(header)
            .ok_or_else(|| Error::Chore("the registry gives no digest".to_owned()))
    }

    /// The `config` part of an image's config.
    pub(super) fn config(&self, repository: &str) -> Result<Value> {
        let mut manifest = self.json(&format!("/v2/{repository}/manifests/latest"))?;
        if let Some(digest) = manifest["manifests"][0]["digest"].as_str() {
            manifest = self.json(&format!("/v2/{repository}/manifests/{digest}"))?;
        }
        let digest = manifest["config"]["digest"].as_str().unwrap_or_default();
        let mut config = self.json(&format!("/v2/{repository}/blobs/{digest}"))?;
        Ok(config["config"].take())
    }

    fn json(&self, path: &str) -> Result<Value> {
        let body = self.get(path)?.body;
        serde_json::from_slice(&body).map_err(|error| Error::Chore(format!("{path}: {error}")))
    }

    /// One request, one connection.
    fn get(&self, path: &str) -> Result<Answer> {
        let asked = || -> std::io::Result<Vec<u8>> {
            let mut line = TcpStream::connect(("127.0.0.1", self.port))?;
            line.set_read_timeout(Some(START))?;
            write!(
                line,
                "GET {path} HTTP/1.0\r\nHost: localhost:{}\r\nAccept: {DOCUMENTS}\r\n\r\n",
                self.port
            )?;
            let mut all = Vec::new();
            line.read_to_end(&mut all)?;
            Ok(all)
        };
        let all = asked().map_err(Error::file(format!("the registry's {path}")))?;
        let end = all
            .windows(4)
            .position(|it| it == b"\r\n\r\n")
            .unwrap_or(all.len());
        let head = String::from_utf8_lossy(&all[..end]).into_owned();
        let status = head.lines().next().unwrap_or_default().to_owned();
        if !status.contains(" 200 ") {
            return Err(Error::Chore(format!("the registry's {path}: {status}")));
        }
        let body = all.get(end + 4..).unwrap_or_default().to_vec();
        Ok(Answer { head, body })
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> Result<u16> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(Error::file("a free port"))
}
