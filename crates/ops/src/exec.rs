//! The exec op: a process in a container, on trees made of the inputs.

mod agent;
mod container;
mod emulation;
mod key;
mod mounts;
mod process;
mod secrets;

use std::sync::Arc;

use async_trait::async_trait;
use executor::Process;
use executor::cdi::Refused;
use executor::usage::Recorder;
use frontend::FailedPart;
use llb::{CdiDevice, Exec, OpKind, Resources, preimage};
use netproxy::Proxy;
use oci::{Digest, Platform};
use progress::Stream;
use solver::{CacheMap, KeyDigest, Op, OpContext, OpError};

use crate::remains::Step;
use crate::{Build, Deeds, Error, Output, Proxied, Result};
pub use container::Container;
use key::InputKey;
pub(crate) use mounts::cache_mount_key;

/// A process in a container. What its mounts become are its outputs.
pub(crate) struct ExecOp {
    deeds: Deeds,
    exec: Exec,
    platform: Platform,
    keys: Vec<InputKey>,
    resources: Option<Resources>,
    step: Arc<Step>,
}

impl ExecOp {
    /// Refuses what the build is not allowed, also when the result is known already.
    pub(crate) fn new(deeds: Deeds, vertex: &llb::Vertex, step: Arc<Step>) -> Result<ExecOp> {
        let OpKind::Exec(exec) = &vertex.op.kind else {
            let kind = vertex.op.kind.name();
            return Err(Error::Invalid(format!("{kind} is not an exec")));
        };
        check_allowed(exec, &deeds.build)?;
        let platform = vertex.op.platform.as_ref();
        let platform = platform.unwrap_or(&deeds.parts.platform);
        Ok(ExecOp {
            platform: platform.clone().normalized(),
            keys: InputKey::of_all(exec, vertex.inputs.len())?,
            exec: Exec {
                devices: allowed_devices(exec, &deeds)?,
                ..exec.clone()
            },
            resources: vertex.metadata.resources.clone(),
            step,
            deeds,
        })
    }

    /// The parts of an input that count by content.
    pub(crate) fn parts(&self, input: usize) -> Option<Vec<contenthash::Selector>> {
        let key = self.keys.get(input).filter(|key| key.map().by_content)?;
        let parts = key.parts().into_iter();
        Some(parts.map(contenthash::Selector::path).collect())
    }

    async fn content(&self, cx: &OpContext, input: usize, output: &Output) -> Result<Digest> {
        let nothing = || Error::Invalid(format!("there is no input {input}"));
        let parts = self.keys.get(input).ok_or_else(nothing)?.parts();
        let digests = match &output.0 {
            Some(found) => {
                let selectors = parts.into_iter().map(contenthash::Selector::path);
                let contents = &self.deeds.parts.contents;
                let build = &self.deeds.build;
                contents
                    .digests(found, selectors.collect(), build, &cx.step)
                    .await?
            }
            None => match parts.iter().find(|part| *part != "/") {
                None => vec![Digest::of(b"")],
                Some(missing) => {
                    return Err(Error::in_nothing(missing.clone()));
                }
            },
        };
        let texts: Vec<String> = digests.iter().map(Digest::to_string).collect();
        Ok(Digest::of(texts.join("\0")))
    }

    async fn with_devices(&self, mut process: Process) -> Result<Process> {
        let (cdi, wanted) = (self.deeds.parts.cdi.clone(), names(&self.exec.devices));
        let given = stdx::task::blocking(move || {
            cdi.read().apply(&wanted, &mut process)?;
            Ok(process)
        });
        given.await
    }

    async fn execute(&self, cx: &OpContext, inputs: Vec<Output>) -> Result<Vec<Output>, OpError> {
        emulation::check(&self.platform)?;
        let name = format!("exec {}", self.exec.args.join(" "));
        let wanted = mounts::Wanted {
            deeds: &self.deeds,
            step: &cx.step,
            name: &name,
            cwd: &self.exec.cwd,
            mounts: &self.exec.mounts,
            inputs: &inputs,
        };
        let (env, prepared) = tokio::try_join!(
            process::environment(&self.exec, &self.deeds.build),
            wanted.prepare()
        )?;
        let parts = &self.deeds.parts;
        let mounts::Prepared { view, kept, trees } = prepared;
        drop(trees);
        let resources = self.resources.as_ref();
        let mut process = process::describe(&self.exec, env, resources, view, parts, &cx.step)?;
        if !self.exec.devices.is_empty() {
            process = self.with_devices(process).await?;
        }
        let usage = self.deeds.build.usage.as_ref();
        let recorder = usage.map(|_| Recorder::default());
        process.usage.clone_from(&recorder);
        let proxy = self.proxy()?;
        process.proxy = proxy
            .clone()
            .map(|proxy| proxy as Arc<dyn executor::NetworkProxy>);
        let (exit, kept) = process::run(parts.executor.clone(), process, &cx.step, kept).await;
        if let (Some(usage), Some(recorder)) = (usage, recorder) {
            usage.add(cx.step.digest(), recorder.samples());
        }
        if let (Some(proxied), Some(proxy)) = (&self.deeds.build.proxy, proxy) {
            let seen = proxy.seen();
            let summary = seen.summary();
            if !summary.is_empty() {
                cx.step.log(Stream::Err, summary);
            }
            proxied.add(cx.step.digest(), seen);
        }
        match process::judge(&self.exec, exit) {
            Ok(()) => Ok(kept.commit().await?),
            Err(error @ Error::Exit(_)) => {
                let (began, mounts) = (self.began(&inputs), self.exec.mounts.len());
                let left = kept.leave().await;
                let step = &self.step;
                let failed = step.failed(error, FailedPart::Process, began, mounts, left);
                Err(Arc::new(failed))
            }
            Err(error) => {
                stdx::task::blocking(move || drop(kept)).await;
                Err(error.into())
            }
        }
    }

    /// The only way to the network it asks for, if the build is a proxied one.
    fn proxy(&self) -> Result<Option<Arc<Proxy>>> {
        let proxied = self.deeds.build.proxy.as_ref();
        let proxied = proxied.filter(|_| self.exec.network != llb::Network::None);
        proxied.map(Proxied::for_step).transpose()
    }

    /// What each of its mounts began as.
    fn began(&self, inputs: &[Output]) -> Vec<Option<Output>> {
        let began = |mount: &llb::Mount| {
            let number = mount.input.and_then(|number| usize::try_from(number).ok());
            number.and_then(|number| inputs.get(number)).cloned()
        };
        self.exec.mounts.iter().map(began).collect()
    }
}

/// The devices of a step that the build may use, by the names they really have.
fn allowed_devices(exec: &Exec, deeds: &Deeds) -> Result<Vec<CdiDevice>> {
    if exec.devices.is_empty() {
        return Ok(Vec::new());
    }
    let devices = deeds.parts.cdi.read();
    match devices.allow(&names(&exec.devices), &deeds.build.devices) {
        Ok(allowed) => Ok(allowed
            .into_iter()
            .map(|(name, optional)| CdiDevice { name, optional })
            .collect()),
        Err(Refused::Error(error)) => Err(error.into()),
        Err(Refused::Forbidden(names)) => Err(Error::DeniedDevices { names }),
    }
}

fn names(devices: &[CdiDevice]) -> Vec<(String, bool)> {
    let names = devices
        .iter()
        .map(|device| (device.name.clone(), device.optional));
    names.collect()
}

pub(crate) fn check_allowed(exec: &Exec, build: &Build) -> Result<()> {
    if exec.network == llb::Network::Host && !build.allow_network_host {
        return Err(Error::Denied {
            what: "network.host",
            remedy: "say --allow network.host; a daemon must allow it in its configuration too",
        });
    }
    if exec.security == llb::Security::Insecure && !build.allow_security_insecure {
        return Err(Error::Denied {
            what: "security.insecure",
            remedy: "say --allow security.insecure; a daemon must allow it in its configuration too",
        });
    }
    Ok(())
}

#[async_trait]
impl Op for ExecOp {
    type Output = Output;

    async fn cache_map(&self, _: &OpContext, _: usize) -> Result<CacheMap, OpError> {
        let digest = Digest::of(preimage::exec(&self.exec, &self.platform));
        Ok(CacheMap {
            digest: KeyDigest::Stable(digest),
            inputs: self.keys.iter().map(InputKey::map).collect(),
            last: true,
        })
    }

    async fn content_key(
        &self,
        cx: &OpContext,
        input: usize,
        output: &Output,
    ) -> Result<Option<Digest>, OpError> {
        Ok(Some(self.content(cx, input, output).await?))
    }

    async fn run(&self, cx: &OpContext, inputs: Vec<Output>) -> Result<Vec<Output>, OpError> {
        self.execute(cx, inputs).await
    }
}
