//! A state directory, an executor, builds with their sessions, and a tree to run in.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use content::Memory;
use executor::{Native, NativeOptions};
use llb::{Edge, Exec, Mount, MountKind, Op as LlbOp, OpKind};
use oci::Platform;
use ops::{Build, ContentsCache, Deeds, Output, Parts};
use progress::{Event, Progress, StepProgress};
use refs::{RecordMeta, Ref, Refs};
use registry::{Anonymous, Hosts, Registry};
use session::{Attachables, Group, Registration, Session, Sessions};
use solver::{JobId, Op, OpContext, OpError};

/// A daemon's state.
pub(crate) struct World {
    pub(crate) refs: Refs,
    pub(crate) parts: Arc<Parts>,
    sessions: Sessions,
    clients: AtomicUsize,
    _dir: tempfile::TempDir,
}

/// One build in it.
pub(crate) struct Client {
    pub(crate) deeds: Deeds,
    pub(crate) found: Arc<Found>,
    _session: Registration,
}

/// Graphs that steps found; the result of each is the empty tree.
#[derive(Default)]
pub(crate) struct Found(pub(crate) Mutex<Vec<llb::Definition>>);

#[async_trait]
impl ops::Nested for Found {
    async fn build(&self, _: &OpContext, definition: llb::Definition) -> frontend::Result<Output> {
        self.0.lock().unwrap().push(definition);
        Ok(Output(None))
    }
}

/// What was done, and what was printed.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) outputs: Result<Vec<Output>, OpError>,
    pub(crate) printed: String,
}

impl World {
    /// A fresh one; `None`, with the reason said, when we are not root.
    pub(crate) async fn new() -> Option<World> {
        World::on(tempfile::tempdir().unwrap()).await
    }

    /// One that keeps its layers in `dir`.
    pub(crate) async fn on(dir: tempfile::TempDir) -> Option<World> {
        if !executor::testing::is_root() {
            return None;
        }
        let db = Arc::new(db::Db::open(dir.path().join("state.db")).unwrap());
        let refs = Refs::open(refs::Parts {
            db: db.clone(),
            store: content::Store::open(dir.path().join("content"), db.clone()).unwrap(),
            snapshots: snapshot::open(dir.path().join("layers"), snapshot::Choice::Overlay)
                .unwrap(),
            leases: lease::Leases::open(dir.path().join("leases"), db.clone()).unwrap(),
        })
        .unwrap();
        let sources = source::Sources::open(source::Parts {
            refs: refs.clone(),
            registry: Registry::new(Hosts::default()),
            db,
            git: "git".into(),
            scratch: dir.path().into(),
        })
        .unwrap();
        let native = Native::start(NativeOptions::default()).await.unwrap();
        let parts = Arc::new(Parts {
            refs: refs.clone(),
            sources,
            executor: Arc::new(native),
            contents: ContentsCache::default(),
            last_times: ops::LastTimes::default(),
            platform: Platform::host(),
            dns: None,
            cgroup_parent: None,
            trace_socket: None,
            scratch: dir.path().into(),
            cdi: executor::cdi::Cdi::default(),
        });
        Some(World {
            refs,
            parts,
            sessions: Sessions::new(),
            clients: AtomicUsize::new(1),
            _dir: dir,
        })
    }

    /// A build whose client offers these things.
    pub(crate) fn client(&self, offers: Attachables, allow: bool) -> Client {
        let id = format!("s{}", self.clients.fetch_add(1, Ordering::Relaxed));
        let session = Session::direct(&id, "test", offers);
        let session = self.sessions.register(session);
        let build = Arc::new(Build {
            sessions: self.sessions.clone(),
            group: Group::of(id),
            project: String::new(),
            credentials: Anonymous::shared(),
            resolutions: Arc::new(source::Resolutions::default()),
            provider: Arc::new(Memory::default()),
            allow_network_host: allow,
            allow_security_insecure: allow,
            devices: executor::cdi::Grants::default(),
            usage: Some(ops::StepUsage::default()),
            proxy: None,
        });
        let parts = self.parts.clone();
        Client {
            deeds: Deeds { parts, build },
            found: Arc::default(),
            _session: session,
        }
    }

    /// A build whose client offers nothing and is allowed nothing.
    pub(crate) fn plain(&self) -> Client {
        self.client(Attachables::new(), false)
    }

    /// A result with these files; a path that ends in `/` is a directory.
    pub(crate) fn tree(&self, files: &[(&str, &str)]) -> Output {
        self.tree_with(|root| {
            for (path, text) in files {
                match path.strip_suffix('/') {
                    Some(dir) => drop(root.create_dir_all(dir, 0o755).unwrap()),
                    None => snapshot::testing::write(root, path, text),
                }
            }
        })
    }

    fn tree_with(&self, fill: impl FnOnce(&stdx::sys::Root)) -> Output {
        let begun = self
            .refs
            .begin(None, RecordMeta::new("made by a test"))
            .unwrap();
        fill(begun.tree().root());
        Output(Some(begun.commit().unwrap()))
    }

    /// A result with a shell and small tools.
    pub(crate) fn busybox(&self) -> Output {
        const TOOLS: &[&str] = &[
            "sh", "cat", "echo", "id", "ls", "mkdir", "rm", "touch", "sleep", "true", "false",
            "env", "pwd", "stat", "head", "hostname", "test", "grep", "wc", "kill", "mv", "ulimit",
        ];
        self.tree_with(|root| {
            for dir in ["bin", "etc", "tmp", "root"] {
                root.create_dir_all(dir, 0o755).unwrap();
            }
            let program = std::fs::read("/bin/busybox")
                .expect("/bin/busybox is needed: apt-get install busybox-static");
            let mut file = root.create_file("bin/busybox", 0o755).unwrap();
            file.write_all(&program).unwrap();
            for tool in TOOLS {
                root.symlink("busybox", format!("bin/{tool}")).unwrap();
            }
            let users = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/home/web:/bin/sh\n";
            snapshot::testing::write(root, "etc/passwd", users);
            snapshot::testing::write(root, "etc/group", "root:x:0:\nweb:x:34:\n");
        })
    }

    /// Everything in an output, with its contents.
    pub(crate) async fn listing(&self, output: &Output) -> BTreeMap<String, String> {
        let build = self.plain().deeds.build;
        let tree = output.tree(&build, &StepProgress::none()).await.unwrap();
        let mut files = BTreeMap::new();
        if let Some(tree) = tree {
            list(tree.root(), "", &mut files);
        }
        files
    }

    /// The contents of a file of an output.
    pub(crate) async fn read(&self, output: &Output, path: &str) -> Option<String> {
        self.listing(output).await.remove(path)
    }
}

impl Client {
    /// The op of an exec with so many inputs.
    pub(crate) fn op(
        &self,
        exec: Exec,
        inputs: usize,
    ) -> ops::Result<Arc<dyn Op<Output = Output>>> {
        self.op_with(exec, inputs, None, llb::Meta::default())
    }

    pub(crate) fn op_with(
        &self,
        exec: Exec,
        inputs: usize,
        platform: Option<Platform>,
        meta: llb::Meta,
    ) -> ops::Result<Arc<dyn Op<Output = Output>>> {
        self.op_of(OpKind::Exec(exec), inputs, platform, meta)
    }

    /// The op of changes to files with so many inputs.
    pub(crate) fn file_op(
        &self,
        file: llb::File,
        inputs: usize,
    ) -> ops::Result<Arc<dyn Op<Output = Output>>> {
        self.op_of(OpKind::File(file), inputs, None, llb::Meta::default())
    }

    /// The vertices of a graph.
    pub(crate) fn vertices(
        &self,
        graph: &llb::Graph,
    ) -> ops::Result<Vec<solver::VertexSpec<Output>>> {
        let found: Arc<dyn ops::Nested> = self.found.clone();
        self.deeds.vertices(graph, false, &found)
    }

    pub(crate) fn op_of(
        &self,
        kind: OpKind,
        inputs: usize,
        platform: Option<Platform>,
        meta: llb::Meta,
    ) -> ops::Result<Arc<dyn Op<Output = Output>>> {
        let mut builder = llb::Builder::new();
        let inputs = (0..inputs).map(|number| {
            let name = format!("docker-image://docker.io/library/input:{number}");
            builder.source(name, [], None, llb::Meta::default())
        });
        let inputs = inputs.collect();
        let op = LlbOp {
            inputs,
            kind,
            platform,
            constraints: None,
        };
        let digest = builder.add(&op, meta);
        let definition = builder.definition(Some(&Edge { digest, index: 0 }));
        let graph = llb::Graph::load(&definition).unwrap();
        let vertices = self.vertices(&graph)?;
        let vertex = vertices.into_iter().find(|vertex| vertex.digest == digest);
        Ok(vertex.unwrap().op)
    }

    /// Does an exec on these inputs.
    pub(crate) async fn run(&self, exec: Exec, inputs: &[&Output]) -> Done {
        let op = match self.op(exec, inputs.len()) {
            Ok(op) => op,
            Err(error) => {
                let outputs = Err(error.into());
                return Done {
                    outputs,
                    printed: String::new(),
                };
            }
        };
        self.run_op(&*op, inputs).await
    }

    pub(crate) async fn run_op(&self, op: &dyn Op<Output = Output>, inputs: &[&Output]) -> Done {
        let progress = Progress::default();
        let cx = OpContext {
            step: progress.step(oci::Digest::of("step"), "step", &[]),
            job: JobId(1),
            vertex: None,
            missed: None,
        };
        let outputs = op
            .run(&cx, inputs.iter().map(|input| (*input).clone()).collect())
            .await;
        progress.close();
        let mut follower = progress.follow();
        let mut printed = String::new();
        while let Some(event) = follower.next().await {
            if let Event::Log(log) = event {
                printed.push_str(&String::from_utf8_lossy(&log.data));
            }
        }
        Done { outputs, printed }
    }
}

impl Done {
    /// The outputs of something that went well.
    pub(crate) fn outputs(self) -> Vec<Output> {
        self.outputs
            .unwrap_or_else(|error| panic!("{} {}", chain(&*error), self.printed))
    }

    /// The only output.
    pub(crate) fn output(self) -> Output {
        self.outputs().remove(0)
    }

    /// The error of something that did not.
    pub(crate) fn error(&self) -> &ops::Error {
        let error: &dyn std::error::Error = &**self.outputs.as_ref().unwrap_err();
        let cause = error
            .downcast_ref::<ops::StepError>()
            .and_then(std::error::Error::source);
        cause.unwrap_or(error).downcast_ref().unwrap()
    }

    /// What is left of a step that failed.
    pub(crate) fn remains(&self) -> std::sync::Arc<ops::Remains> {
        let error = self.outputs.as_ref().unwrap_err();
        let step = error.downcast_ref::<ops::StepError>();
        step.expect("something to look at").remains.clone()
    }

    /// Why it did not go well, in full.
    pub(crate) fn why(&self) -> String {
        chain(self.error())
    }
}

/// Names without the first slash; directories are empty, links say where they lead.
fn list(root: &stdx::sys::Root, dir: &str, files: &mut BTreeMap<String, String>) {
    let here = if dir.is_empty() { "." } else { dir };
    for entry in root.read_dir(here).unwrap() {
        let name = entry.name.to_string_lossy();
        let path = format!("{dir}{}{name}", if dir.is_empty() { "" } else { "/" });
        let stat = root.lstat(&path).unwrap();
        let text = if stat.is_dir() {
            list(root, &path, files);
            String::new()
        } else if stat.is_symlink() {
            format!("-> {}", root.read_link(&path).unwrap().display())
        } else {
            let mut bytes = Vec::new();
            root.open_file(&path)
                .unwrap()
                .read_to_end(&mut bytes)
                .unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        files.insert(path, text);
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(&format!(": {source}"));
        next = source.source();
    }
    text
}

/// An exec of a shell script in input 0, which becomes output 0.
pub(crate) fn sh(script: &str) -> Exec {
    let mut exec = Exec::new(["/bin/sh", "-c", script]);
    exec.mounts.push(Mount {
        input: Some(0),
        output: Some(0),
        ..mount("/", MountKind::Bind)
    });
    exec
}

/// A mount without input or output.
pub(crate) fn mount(target: &str, kind: MountKind) -> Mount {
    Mount {
        input: None,
        selector: String::new(),
        target: target.into(),
        output: None,
        readonly: false,
        kind,
        result_id: String::new(),
        content_cache: llb::ContentCache::Default,
    }
}

/// The ref of an output that is not empty.
pub(crate) fn found(output: &Output) -> &Ref {
    output.0.as_ref().unwrap()
}

/// A client's SSH agent that says back what it is told.
pub(crate) struct Echo;

#[async_trait]
impl session::SshAgent for Echo {
    async fn check(&self, id: &str) -> session::Result<()> {
        match id {
            "default" => Ok(()),
            id => Err(session::Error::NotFound {
                what: "ssh key",
                name: id.into(),
            }),
        }
    }

    async fn connect(&self, _: &str) -> session::Result<Box<dyn session::SshStream>> {
        let (here, there) = tokio::io::duplex(64);
        stdx::task::spawn("echo", async move {
            let (mut read, mut write) = tokio::io::split(there);
            let _broken = tokio::io::copy(&mut read, &mut write).await;
        })
        .detach();
        Ok(Box::new(here))
    }
}
