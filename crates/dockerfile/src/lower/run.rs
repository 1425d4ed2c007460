//! `RUN`.

use llb::{MountKind as LlbKind, MountSpec};

use super::Lowering;
use super::meta::join;
use super::name::{summary, upper_first};
use super::stage::Step;
use crate::Error;
use crate::ignore::clean;
use crate::instruction::{Mount, MountFault, MountKind, Network, Run, Sharing};
use crate::plan::{About, FileAction, Tree, Work};
use crate::shell::{Env, Lexer};
use crate::syntax::{Lines, chomp, parse_heredoc};

/// Where a script of a here-doc is found.
const SCRIPTS: &str = "/dev/pipes/";

impl Lowering<'_> {
    pub(super) fn run(&mut self, index: usize, run: &Run, step: &Step) -> Result<(), Error> {
        let lines = step.instruction.lines;
        let owner = self.paths_owner(index);
        self.stages[owner].paths.insert("/".into());
        let mounts = self.mounts_of(index, run, lines)?;
        let mut specs = Vec::new();
        let mut shown = step.instruction.text.clone();
        let args = self.command(index, run, &mut specs, &mut shown);
        let mut exec = self.exec(index, run, args.clone());
        for (mount, source) in mounts.iter().zip(&step.sources) {
            self.mount(index, mount, *source, lines, &mut exec, &mut specs)?;
        }
        self.shm(&mut specs);
        let name = self.run_name(index, &shown, &mounts, step);
        let about = About {
            command: Some(step.instruction.text.clone()),
            ignore_cache: self.stages[index].no_cache,
            resources: self.options.resources.clone(),
            at: Some(lines.ranges()),
            ..About::named(name)
        };
        let stage = &self.stages[index];
        let work = Work::Run {
            exec: Box::new(exec),
            root: stage.state.tree,
            mounts: specs,
            platform: stage
                .state
                .platform
                .clone()
                .unwrap_or_else(|| self.target_platform.clone()),
        };
        let history = self.history(index, &args);
        self.stages[index].state.tree = Some(self.plan.add(work, about));
        self.commit(index, format!("RUN {history} # buildkit"), true);
        Ok(())
    }

    fn mounts_of(&mut self, index: usize, run: &Run, lines: Lines) -> Result<Vec<Mount>, Error> {
        /// Both kinds of trouble a mount's text can have.
        enum Trouble {
            Fault(MountFault),
            Word(Error),
        }
        impl From<MountFault> for Trouble {
            fn from(fault: MountFault) -> Trouble {
                Trouble::Fault(fault)
            }
        }
        let mut mounts = Vec::with_capacity(run.mounts.len());
        for text in &run.mounts {
            let mount = text.resolve(|word| self.expand(index, word, lines).map_err(Trouble::Word));
            mounts.push(mount.map_err(|trouble| match trouble {
                Trouble::Fault(fault) => Error::Mount {
                    mount: text.text.clone(),
                    fault,
                },
                Trouble::Word(error) => error,
            })?);
        }
        Ok(mounts)
    }

    /// What is executed. A here-doc is a script, or text for the shell.
    fn command(
        &mut self,
        index: usize,
        run: &Run,
        specs: &mut Vec<(MountSpec, Option<Tree>)>,
        shown: &mut String,
    ) -> Vec<String> {
        let mut words = run.command.words.clone();
        if let (Some(first), [text]) = (run.heredocs.first(), words.as_slice()) {
            if parse_heredoc(text).is_some() {
                let data = if first.chomp {
                    chomp(&first.content)
                } else {
                    first.content.clone()
                };
                shown.push_str(&format!(" ({})", summary(&first.content)));
                if data.starts_with("#!") {
                    let script = self.inline_file(&first.name, data, 0o755);
                    let spec = MountSpec::bind(SCRIPTS, None, "").readonly(true);
                    specs.push((spec, Some(script)));
                    return self.shelled(index, run, vec![format!("{SCRIPTS}{}", first.name)]);
                }
                words = vec![data];
            } else {
                let mut whole = text.clone();
                for heredoc in &run.heredocs {
                    whole.push('\n');
                    whole.push_str(&heredoc.content);
                    whole.push_str(&heredoc.name);
                }
                words = vec![whole];
            }
        }
        self.shelled(index, run, words)
    }

    fn shelled(&self, index: usize, run: &Run, words: Vec<String>) -> Vec<String> {
        if !run.command.shell {
            return words;
        }
        let mut args = self.stages[index].image.shell();
        args.push(words.join(" "));
        args
    }

    fn exec(&self, index: usize, run: &Run, args: Vec<String>) -> llb::Exec {
        let state = &self.stages[index].state;
        let options = self.options;
        let devices = run.devices.iter().map(|device| llb::CdiDevice {
            name: device.name.clone(),
            optional: !device.required,
        });
        llb::Exec {
            args,
            env: state
                .env
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            cwd: if state.dir.is_empty() {
                "/".into()
            } else {
                state.dir.clone()
            },
            user: state.user.clone(),
            proxy: self.proxy(),
            extra_hosts: options.extra_hosts.clone(),
            hostname: options.hostname.clone(),
            ulimits: options.ulimits.clone(),
            cgroup_parent: options.cgroup_parent.clone(),
            remove_mount_stubs_recursive: true,
            network: match run.network {
                Network::Default => options.network,
                Network::None => llb::Network::None,
                Network::Host => llb::Network::Host,
            },
            security: match run.insecure {
                true => llb::Security::Insecure,
                false => llb::Security::Sandbox,
            },
            devices: options.devices.iter().cloned().chain(devices).collect(),
            ..llb::Exec::default()
        }
    }

    /// Proxies come as build arguments in any case, and are in no key.
    fn proxy(&self) -> Option<llb::ProxyEnv> {
        let mut proxy = llb::ProxyEnv::default();
        for (name, value) in &self.options.build_args {
            let place = match name.to_lowercase().as_str() {
                "http_proxy" => &mut proxy.http,
                "https_proxy" => &mut proxy.https,
                "ftp_proxy" => &mut proxy.ftp,
                "no_proxy" => &mut proxy.no,
                "all_proxy" => &mut proxy.all,
                _ => continue,
            };
            place.clone_from(value);
        }
        (proxy != llb::ProxyEnv::default()).then_some(proxy)
    }

    fn mount(
        &mut self,
        index: usize,
        mount: &Mount,
        source: Option<usize>,
        lines: Lines,
        exec: &mut llb::Exec,
        specs: &mut Vec<(MountSpec, Option<Tree>)>,
    ) -> Result<(), Error> {
        match mount.kind {
            MountKind::Secret => {
                self.secret(index, mount, lines, exec, specs);
                return Ok(());
            }
            MountKind::Ssh => {
                self.agent(index, mount, lines, exec, specs);
                return Ok(());
            }
            _ => {}
        }
        let mut tree = match (mount.kind, source) {
            (MountKind::Tmpfs, _) => None,
            (_, Some(source)) => {
                let source = self.dispatched(source, &mount.from, index)?;
                let owner = self.paths_owner(source);
                self.stages[owner]
                    .paths
                    .insert(clean(&format!("/{}", mount.source)));
                self.stages[source].state.tree
            }
            (MountKind::Cache, None) => None,
            (_, None) => {
                self.context_paths
                    .insert(clean(&format!("/{}", mount.source)));
                Some(self.context)
            }
        };
        let target = match mount.target.starts_with('/') {
            true => mount.target.clone(),
            false => join(&self.stages[index].state.dir, &mount.target),
        };
        if clean(&target) == "/" {
            return Err(Error::BadMountTarget {
                target: mount.target.clone(),
            });
        }
        let mut spec = MountSpec::new(target, None, self.mount_kind(index, mount, lines));
        spec.readonly = mount.readonly;
        let selector = clean(&format!("/{}", mount.source));
        if selector != "/" {
            spec.selector = selector;
        } else if mount.mode.is_some() || mount.uid.is_some() || mount.gid.is_some() {
            tree = Some(self.owned_directory(mount, tree));
            spec.selector = "/cache".into();
        }
        specs.push((spec, tree));
        Ok(())
    }

    fn mount_kind(&mut self, index: usize, mount: &Mount, lines: Lines) -> LlbKind {
        match mount.kind {
            MountKind::Tmpfs => LlbKind::Tmpfs { size: mount.size },
            MountKind::Cache => {
                let id = match mount.id.as_str() {
                    "" => clean(&mount.target),
                    id => id.to_owned(),
                };
                self.stages[index]
                    .seen
                    .caches
                    .entry(id.clone())
                    .or_insert(lines);
                LlbKind::Cache(llb::CacheMount {
                    id: format!("{}/{id}", self.options.cache_namespace),
                    sharing: match mount.sharing {
                        Sharing::Shared => llb::Sharing::Shared,
                        Sharing::Private => llb::Sharing::Private,
                        Sharing::Locked => llb::Sharing::Locked,
                    },
                })
            }
            _ => LlbKind::Bind,
        }
    }

    /// A directory with the owner and mode a cache mount begins with.
    fn owned_directory(&mut self, mount: &Mount, base: Option<Tree>) -> Tree {
        let id = |id: Option<u32>| Some(llb::User::Id(id.unwrap_or(0)));
        let mkdir = llb::Mkdir {
            path: "/cache".into(),
            mode: i32::try_from(mount.mode.unwrap_or(0o755) & 0o7777).expect("twelve bits"),
            owner: Some(llb::Chown {
                user: id(mount.uid),
                group: id(mount.gid),
            }),
            ..llb::Mkdir::default()
        };
        let work = Work::Files {
            base,
            actions: vec![FileAction::Mkdir(mkdir)],
        };
        self.plan.add(
            work,
            About::named("[internal] setting cache mount permissions"),
        )
    }

    fn secret(
        &mut self,
        index: usize,
        mount: &Mount,
        lines: Lines,
        exec: &mut llb::Exec,
        specs: &mut Vec<(MountSpec, Option<Tree>)>,
    ) {
        let last = |path: &str| {
            path.trim_end_matches('/')
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        let id = [&mount.source, &mount.id]
            .into_iter()
            .find(|id| !id.is_empty());
        let id = id.cloned().unwrap_or_else(|| last(&mount.target));
        self.stages[index]
            .seen
            .secrets
            .entry(id.clone())
            .or_insert((mount.required, lines));
        if let Some(name) = &mount.env {
            exec.secret_env.push(llb::SecretEnv {
                id: id.clone(),
                name: name.clone(),
                optional: !mount.required,
            });
            if mount.target.is_empty() {
                return;
            }
        }
        let target = match mount.target.as_str() {
            "" => format!("/run/secrets/{}", last(&id)),
            target => target.to_owned(),
        };
        let secret = owned(id, mount, 0o400);
        specs.push((MountSpec::new(target, None, LlbKind::Secret(secret)), None));
    }

    fn agent(
        &mut self,
        index: usize,
        mount: &Mount,
        lines: Lines,
        exec: &mut llb::Exec,
        specs: &mut Vec<(MountSpec, Option<Tree>)>,
    ) {
        let shown = if mount.id.is_empty() {
            "default"
        } else {
            &mount.id
        };
        let seen = &mut self.stages[index].seen.agents;
        seen.entry(shown.to_owned())
            .or_insert((mount.required, lines));
        let before = specs
            .iter()
            .filter(|(spec, _)| matches!(spec.kind, LlbKind::Ssh(_)))
            .count();
        let target = match mount.target.as_str() {
            "" => format!("/run/buildkit/ssh_agent.{before}"),
            target => target.to_owned(),
        };
        if before == 0 && !exec.env.iter().any(|e| e.starts_with("SSH_AUTH_SOCK=")) {
            exec.env.push(format!("SSH_AUTH_SOCK={target}"));
        }
        let socket = owned(mount.id.clone(), mount, 0o600);
        specs.push((MountSpec::new(target, None, LlbKind::Ssh(socket)), None));
    }

    fn shm(&self, specs: &mut Vec<(MountSpec, Option<Tree>)>) {
        if self.options.shm_size > 0 {
            let kind = LlbKind::Tmpfs {
                size: self.options.shm_size,
            };
            specs.push((MountSpec::new("/dev/shm", None, kind), None));
        }
    }

    /// The step's name; secrets in variables are shown as stars.
    fn run_name(&mut self, index: usize, shown: &str, mounts: &[Mount], step: &Step) -> String {
        let mut env: Env = self.stages[index].state.env.clone();
        for name in mounts.iter().filter_map(|mount| mount.env.as_ref()) {
            env.set(name, "****");
        }
        let lexer = Lexer {
            raw_quotes: true,
            skip_unset: true,
            ..self.lexer
        };
        let shown = self.shown(lexer, shown, &env);
        self.step_name(index, &upper_first(&shown), step)
    }

    /// `|2 A=1 B= /bin/sh -c …`: the arguments a step could see.
    fn history(&self, index: usize, args: &[String]) -> String {
        let stage = &self.stages[index];
        let mut seen: Vec<(&str, String)> = Vec::new();
        for arg in &stage.args {
            let value = stage.state.env.get(&arg.name).map(str::to_owned);
            let value = value.or_else(|| arg.value.clone()).unwrap_or_default();
            match seen.iter_mut().find(|(name, _)| *name == arg.name) {
                Some((_, old)) => *old = value,
                None => seen.push((&arg.name, value)),
            }
        }
        let mut words = Vec::new();
        if !seen.is_empty() {
            words.push(format!("|{}", seen.len()));
        }
        words.extend(
            seen.into_iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
        words.extend(args.iter().cloned());
        words.join(" ")
    }
}

fn owned(id: String, mount: &Mount, mode: u32) -> llb::Owned {
    llb::Owned {
        id,
        uid: mount.uid.unwrap_or(0),
        gid: mount.gid.unwrap_or(0),
        mode: mount.mode.unwrap_or(mode),
        optional: !mount.required,
    }
}
