//! The engine behind the seam [`crate::builder::Builder`].

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use engine::{Engine, Runner};
use executor::HelperProgram;
use executor::cdi::DeviceInfo;
use futures::FutureExt as _;
use oci::Digest;
use progress::Progress;
use refs::{Filter, Limits, PrunePolicy, UsageRecord};
use registry::{HostConfig, Hosts, KeyPair};
use session::Sessions;
use stdx::Kind;

use crate::Error;
use crate::builder::{Archive, ArchiveError, Builder, Built, Failure, Request, Usage, Worker};
use crate::config::gc::GcRule;
use crate::config::{Config, file};
use crate::gateway::Pipes;

/// Opens the engine on the state directory `config` names, which must be ours.
pub async fn open(config: &Config) -> Result<Arc<dyn Builder>, Error> {
    if config.free_cgroup_top
        && let Err(error) = stdx::task::blocking(executor::free_top).await
    {
        tracing::warn!(%error, "no room could be made at the top of the cgroups");
    }
    let mut settings = settings(config)?;
    let dir = config.provenance_env_dir.clone();
    settings.environment =
        stdx::task::blocking(move || crate::config::environment::read(&dir)).await?;
    let engine = Engine::open(settings).await?;
    engine.catch_up();
    let worker = crate::to_proto::worker(engine.info(), &config.gc);
    engine.serve_frontends(Arc::new(Pipes::new(worker)));
    Ok(Arc::new(Building(engine)))
}

fn settings(config: &Config) -> Result<engine::Config, Error> {
    let mut settings = engine::Config::new(&config.root);
    settings.snapshotter = config
        .snapshotter
        .parse()
        .map_err(|error: snapshot::Error| Error::BadSetting {
            setting: "snapshotter",
            value: config.snapshotter.clone(),
            problem: error.to_string(),
        })?;
    settings.runner = match &config.runtime {
        Some(program) => Runner::Runtime(PathBuf::from(program)),
        None => Runner::Native(HelperProgram::ThisProgram),
    };
    settings.labels.clone_from(&config.labels);
    settings.platforms = config
        .platforms
        .iter()
        .map(|text| {
            text.parse()
                .map_err(|error: oci::InvalidPlatform| Error::BadSetting {
                    setting: "platform",
                    value: text.clone(),
                    problem: error.to_string(),
                })
        })
        .collect::<Result<_, Error>>()?;
    settings.platforms_max_age = config.platforms_max_age;
    settings.hosts = hosts(config);
    settings.dns = config.dns.as_ref().map(|dns| executor::Dns {
        nameservers: dns.nameservers.clone(),
        options: dns.options.clone(),
        search: dns.search_domains.clone(),
    });
    settings.cgroup_parent.clone_from(&config.cgroup_parent);
    settings.network.clone_from(&config.network);
    settings.proxy_network = config.proxy_network;
    settings.apparmor.clone_from(&config.apparmor);
    settings.cdi.clone_from(&config.cdi);
    settings.trace_socket.clone_from(&config.trace_socket);
    settings.max_parallelism = config.max_parallelism;
    settings.frontends = engine::Frontends {
        dockerfile: config.frontends.dockerfile.enabled != Some(false),
        gateway: config.frontends.gateway.enabled != Some(false),
        allowed_repositories: allowed_repositories(config)?,
    };
    Ok(settings)
}

fn allowed_repositories(config: &Config) -> Result<Vec<String>, Error> {
    let names = &config.frontends.gateway.allowed_repositories;
    let checked = names
        .iter()
        .map(|name| match name.parse::<oci::ImageName>() {
            Ok(_) => Ok(name.clone()),
            Err(error) => Err(Error::BadSetting {
                setting: "allowedRepositories",
                value: name.clone(),
                problem: error.to_string(),
            }),
        });
    checked.collect()
}

fn hosts(config: &Config) -> Hosts {
    let mut hosts = Hosts::default();
    if let Some(limit) = config.registry_concurrency {
        hosts.max_concurrency = limit;
    }
    hosts.by_name = config
        .registries
        .iter()
        .map(|(name, registry)| (name.clone(), host(registry)))
        .collect();
    hosts
}

fn host(registry: &file::Registry) -> HostConfig {
    let pair = |pair: &file::KeyPair| KeyPair {
        key: pair.key.clone(),
        cert: pair.cert.clone(),
    };
    HostConfig {
        mirrors: registry.mirrors.clone(),
        http: registry.http,
        insecure: registry.insecure,
        ca: registry.ca.clone(),
        keypair: registry.keypair.iter().map(pair).collect(),
        tlsconfigdir: registry.tlsconfigdir.clone(),
    }
}

/// The engine, asked by the services.
struct Building(Engine);

#[async_trait]
impl Builder for Building {
    fn sessions(&self) -> &Sessions {
        self.0.sessions()
    }

    fn blobs(&self) -> Arc<dyn content::Provider> {
        Arc::new(self.0.refs().store().clone())
    }

    fn list_blobs(
        &self,
        after: Option<&Digest>,
        count: usize,
    ) -> Result<Vec<content::BlobInfo>, content::Error> {
        self.0.refs().store().list_from(after, count)
    }

    fn archive(&self) -> Result<Archive, ArchiveError> {
        let refs = self.0.refs();
        Archive::open(
            refs.db().clone(),
            refs.store().clone(),
            refs.leases().clone(),
        )
    }

    fn counters(&self) -> BTreeMap<&'static str, u64> {
        let counters = self.0.counters();
        BTreeMap::from([
            ("events", counters.events),
            ("runs", counters.runs),
            ("loads", counters.loads),
            ("shared_runs", counters.shared),
        ])
    }

    fn worker(&self) -> Worker {
        self.0.worker()
    }

    async fn build(&self, request: Request, progress: Progress) -> Result<Built, Failure> {
        // A fault of ours ends this build with a sentence, and no other.
        let building = AssertUnwindSafe(self.0.build(request, progress)).catch_unwind();
        building.await.unwrap_or_else(|panic| {
            let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
            let said = said.unwrap_or_default();
            Err(Failure::new(
                Kind::Internal,
                format!("a fault in the builder, please report it: {said}"),
            ))
        })
    }

    async fn usage(&self, filters: &[String], unused: Duration) -> Result<Vec<Usage>, Failure> {
        Ok(self
            .0
            .usage(filters, unused)
            .await?
            .into_iter()
            .map(usage)
            .collect())
    }

    async fn devices(&self) -> Vec<DeviceInfo> {
        self.0.devices().await
    }

    async fn close(&self) {
        self.0.close().await;
    }

    async fn sync(&self, quick: bool) -> Result<(), Failure> {
        match quick {
            true => self.0.sync_if_quick().await,
            false => self.0.sync().await,
        }
    }

    async fn prune(&self, rule: &GcRule) -> Result<Vec<Usage>, Failure> {
        let filter = Filter::parse(&rule.filters)
            .map_err(|error| Failure::new(error.kind(), error.to_string()))?;
        let policy = PrunePolicy {
            filter,
            all: rule.all,
            keep_duration: rule.keep_duration,
            limits: Limits {
                reserved_space: rule.reserved,
                max_used_space: rule.max_used,
                min_free_space: rule.min_free,
            },
        };
        Ok(self
            .0
            .prune(vec![policy])
            .await?
            .into_iter()
            .map(usage)
            .collect())
    }
}

fn usage(record: UsageRecord) -> Usage {
    Usage {
        id: record.id,
        mutable: record.mutable,
        in_use: record.in_use,
        size: record.size,
        parents: record.parents,
        created: Some(record.created),
        last_used: record.last_used,
        uses: record.usage_count,
        description: record.description,
        record_type: record.record_type.as_str().to_owned(),
        shared: record.shared,
    }
}
