//! A container a frontend starts for itself (row G09). Its mounts are made ready once;
//! the first process runs in a new container, later ones join it.

mod platform;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use executor::{Control, Controller, Exit, Input, Io, Output as Sink, WinSize};
use frontend::{
    FileRange, FileStat, NewContainer, NewProcess, ProcessControl, ProcessExit, StartedProcess,
    TerminalSize,
};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use llb::Exec;
use oci::Platform;
use progress::StepProgress;
use snapshot::Tree;
use stdx::task::{blocking, spawn};
use tokio::sync::{mpsc, oneshot, watch};

use super::mounts::{Kept, Prepared, View, Wanted};
use super::{check_allowed, process};
use crate::{Deeds, Error, Output, Result};

/// Chunks on their way to or from a process before somebody waits.
const CHUNKS: usize = 16;
/// What programs that need a terminal are told it is, as BuildKit tells them.
const TERM: &str = "TERM=xterm";
/// Containers made so far: their names.
static MADE: AtomicU64 = AtomicU64::new(0);

/// A container of a frontend's own.
pub struct Container {
    deeds: Deeds,
    wanted: NewContainer,
    /// What its programs are for, nothing of it left open.
    platform: Platform,
    /// How the executor finds it.
    name: String,
    /// `None` once it is released.
    place: Mutex<Option<Arc<Place>>>,
    /// Whether there is a process others can join; held while one starts.
    begun: tokio::sync::Mutex<bool>,
    processes: Arc<Processes>,
}

/// Its mounts. Processes hold on to them until they are dead.
struct Place {
    view: View,
    trees: Vec<Option<Arc<Tree>>>,
    _kept: Kept,
}

/// What runs in it.
struct Processes {
    running: Mutex<Running>,
    count: watch::Sender<usize>,
    next: AtomicU64,
}

#[derive(Default)]
struct Running {
    by_number: BTreeMap<u64, Controller>,
    /// The container is released: nothing starts any more.
    closed: bool,
}

impl Container {
    /// Makes the mounts ready. `inputs` are the results they name, by their numbers.
    pub async fn prepare(
        deeds: Deeds,
        wanted: NewContainer,
        inputs: &[Output],
    ) -> Result<Container> {
        let platform = platform::whole(wanted.platform.clone(), &deeds.parts.platform);
        platform::check_runs(&platform)?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let container = Container {
            name: format!("gateway-{number}"),
            place: Mutex::default(),
            begun: tokio::sync::Mutex::new(false),
            processes: Arc::new(Processes::default()),
            platform,
            deeds,
            wanted,
        };
        check_allowed(
            &container.exec(&NewProcess::default()),
            &container.deeds.build,
        )?;
        let step = StepProgress::none();
        let mounts = Wanted {
            deeds: &container.deeds,
            step: &step,
            name: "a container of a frontend",
            cwd: "/",
            mounts: &container.wanted.mounts,
            inputs,
        };
        let Prepared { view, kept, trees } = mounts.prepare().await?;
        let place = Arc::new(Place {
            view,
            trees,
            _kept: kept,
        });
        *container.lock() = Some(place);
        Ok(container)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Place>>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self) -> Result<Arc<Place>> {
        self.lock().clone().ok_or_else(released)
    }

    fn exec(&self, wanted: &NewProcess) -> Exec {
        let mut exec = Exec::new(wanted.args.iter().cloned());
        exec.env.clone_from(&wanted.env);
        if !wanted.cwd.is_empty() {
            exec.cwd.clone_from(&wanted.cwd);
        }
        exec.user.clone_from(&wanted.user);
        exec.secret_env.clone_from(&wanted.secret_env);
        exec.security = wanted.security;
        exec.remove_mount_stubs_recursive = wanted.remove_mount_stubs_recursive;
        exec.network = self.wanted.network;
        exec.hostname.clone_from(&self.wanted.hostname);
        exec.extra_hosts.clone_from(&self.wanted.extra_hosts);
        exec
    }

    async fn begin(&self, wanted: NewProcess) -> Result<StartedProcess> {
        let exec = self.exec(&wanted);
        check_allowed(&exec, &self.deeds.build)?;
        platform::check_runs(&self.platform)?;
        if exec.args.is_empty() {
            return Err(Error::Invalid("there is no program to run".into()));
        }
        let mut env = process::environment(&exec, &self.deeds.build).await?;
        let has = |env: &[String], name: &str| env.iter().any(|one| one.starts_with(name));
        if wanted.tty && !has(&env, "TERM=") {
            env.push(TERM.to_owned());
        }
        if !has(&env, "PATH=") {
            env.push(format!("PATH={}", platform::default_path(&self.platform)));
        }
        let (io, ends) = streams(&wanted);
        let (control, controller, started) = Control::new();
        let mut begun = self.begun.lock().await;
        if !*begun {
            // A first one that was let go as it started may still be in the trees.
            self.processes.ended().await;
        }
        let place = self.place()?;
        let running = match *begun {
            false => self.first(&exec, env, wanted.tty, &place, io, control)?,
            true => self.another(&exec, env, wanted.tty, io, control),
        };
        let ended = self.processes.run(controller.clone(), place, running);
        let ended = ended.ok_or_else(released)?;
        // From here on, whoever stops waiting for the start lets the process go.
        let held = Held(controller);
        // An error says that it never started; why is said by its end.
        *begun |= started.await.is_ok();
        let command = exec.args.join(" ");
        Ok(StartedProcess {
            stdin: ends.stdin,
            stdout: ends.stdout,
            stderr: ends.stderr,
            control: Box::new(held),
            ended: Box::pin(async move {
                let exit = ended.await.map_err(|_| asked("running", released()))?;
                told(exit).map_err(|error| asked(&format!("running {command:?}"), error))
            }),
        })
    }

    /// A new container around the process.
    fn first(
        &self,
        exec: &Exec,
        env: Vec<String>,
        tty: bool,
        place: &Place,
        io: Io,
        control: Control,
    ) -> Result<BoxFuture<'static, executor::Result<Exit>>> {
        let parts = &self.deeds.parts;
        let (view, nobody) = (place.view.clone(), StepProgress::none());
        let mut process = process::describe(exec, env, None, view, parts, &nobody)?;
        process.name = Some(self.name.clone());
        process.tty = tty;
        let proxied = self.deeds.build.proxy.as_ref();
        if let Some(proxied) = proxied.filter(|_| exec.network != llb::Network::None) {
            process.proxy = Some(proxied.for_container()?);
        }
        let executor = parts.executor.clone();
        Ok(async move { executor.run(process, io, control).await }.boxed())
    }

    /// One more in the container of the first.
    fn another(
        &self,
        exec: &Exec,
        env: Vec<String>,
        tty: bool,
        io: Io,
        control: Control,
    ) -> BoxFuture<'static, executor::Result<Exit>> {
        let process = executor::ExecProcess {
            args: exec.args.clone(),
            env,
            cwd: exec.cwd.clone(),
            user: exec.user.clone(),
            tty,
            ulimits: Vec::new(),
            security: match exec.security {
                llb::Security::Sandbox => executor::Security::Sandbox,
                llb::Security::Insecure => executor::Security::Insecure,
            },
        };
        let (executor, name) = (self.deeds.parts.executor.clone(), self.name.clone());
        async move { executor.exec(&name, process, io, control).await }.boxed()
    }

    async fn look<T: Send + 'static>(
        &self,
        mount: usize,
        path: &str,
        work: impl FnOnce(Option<&Tree>, &str) -> Result<T> + Send + 'static,
    ) -> frontend::Result<T> {
        let doing = format!("reading {path} of mount {mount}");
        let tree = self.tree(mount).map_err(|error| asked(&doing, error))?;
        let owned = path.to_owned();
        let found = blocking(move || work(Some(&tree), &owned)).await;
        found.map_err(|error| match error.kind() {
            stdx::Kind::NotFound => frontend::Error::NoFile {
                path: path.to_owned(),
            },
            _ => asked(&doing, error),
        })
    }

    fn tree(&self, mount: usize) -> Result<Arc<Tree>> {
        let place = self.place()?;
        let count = place.trees.len();
        match place.trees.get(mount) {
            None => Err(Error::Invalid(format!(
                "there is no mount {mount}: the container has {count}"
            ))),
            Some(None) => Err(Error::Invalid(format!(
                "mount {mount} is in memory and cannot be looked into from outside"
            ))),
            Some(Some(tree)) => Ok(tree.clone()),
        }
    }
}

#[async_trait]
impl frontend::Container for Container {
    async fn start(&self, process: NewProcess) -> frontend::Result<StartedProcess> {
        let doing = format!("starting {:?}", process.args.join(" "));
        let started = self.begin(process).await;
        started.map_err(|error| asked(&doing, error))
    }

    async fn read_file(
        &self,
        mount: usize,
        path: &str,
        range: Option<FileRange>,
    ) -> frontend::Result<Bytes> {
        let range = range.map(|range| (range.offset, range.length));
        self.look(mount, path, move |tree, path| {
            crate::read_file(tree, path, range)
        })
        .await
    }

    async fn read_dir(
        &self,
        mount: usize,
        path: &str,
        include: Option<&str>,
    ) -> frontend::Result<Vec<FileStat>> {
        let include = include.map(str::to_owned);
        let found = self.look(mount, path, move |tree, path| {
            crate::read_dir(tree, path, include.as_deref())
        });
        Ok(found.await?.into_iter().map(FileStat::from).collect())
    }

    async fn stat_file(&self, mount: usize, path: &str) -> frontend::Result<FileStat> {
        self.look(mount, path, crate::stat)
            .await
            .map(FileStat::from)
    }

    async fn release(&self) -> bool {
        let place = self.lock().take();
        let killed = self.processes.close();
        // Whoever is starting something has the place too.
        drop(self.begun.lock().await);
        self.processes.ended().await;
        blocking(move || drop(place)).await;
        killed
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.processes.close();
        // The last of it may be much to take away.
        if let Some(place) = self.lock().take() {
            spawn("container-place", blocking(move || drop(place))).detach();
        }
    }
}

impl Default for Processes {
    fn default() -> Processes {
        Processes {
            running: Mutex::default(),
            count: watch::Sender::new(0),
            next: AtomicU64::new(0),
        }
    }
}

impl Processes {
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a process to its end, whoever waits for it, and lets go of what it needs then.
    /// `None` when the container is released: then it does not run at all.
    fn run(
        self: &Arc<Processes>,
        controller: Controller,
        place: impl Send + 'static,
        running: BoxFuture<'static, executor::Result<Exit>>,
    ) -> Option<oneshot::Receiver<executor::Result<Exit>>> {
        let (tell, ended) = oneshot::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        {
            // Under one lock: what is in here when it closes is killed and waited for.
            let mut running = self.lock();
            if running.closed {
                return None;
            }
            running.by_number.insert(number, controller);
            self.count.send_modify(|count| *count += 1);
        }
        let processes = self.clone();
        let whole = async move {
            let exit = running.await;
            blocking(move || drop(place)).await;
            processes.lock().by_number.remove(&number);
            // Nobody may be waiting any more.
            let _ = tell.send(exit);
            processes.count.send_modify(|count| *count -= 1);
        };
        spawn("gateway-process", whole).detach();
        Some(ended)
    }

    /// Waits until nothing runs.
    async fn ended(&self) {
        let mut count = self.count.subscribe();
        // The sender lives as long as `self`.
        let _ = count.wait_for(|count| *count == 0).await;
    }

    /// Kills what runs, and says whether anything did; nothing runs from now on.
    fn close(&self) -> bool {
        let mut running = self.lock();
        running.closed = true;
        running.by_number.values().for_each(Controller::cancel);
        !running.by_number.is_empty()
    }
}

/// A process somebody holds: let go, it is killed.
struct Held(Controller);

#[async_trait]
impl ProcessControl for Held {
    async fn signal(&self, signal: i32) {
        self.0.signal(signal).await;
    }

    fn resize(&self, size: TerminalSize) {
        self.0.resize(WinSize {
            rows: size.rows,
            cols: size.cols,
        });
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn released() -> Error {
    Error::Invalid("the container was released".into())
}

/// The caller's ends.
#[derive(Default)]
struct Ends {
    stdin: Option<mpsc::Sender<Bytes>>,
    stdout: Option<mpsc::Receiver<Bytes>>,
    stderr: Option<mpsc::Receiver<Bytes>>,
}

fn streams(wanted: &NewProcess) -> (Io, Ends) {
    let (mut io, mut ends) = (Io::none(), Ends::default());
    if wanted.stdin {
        let (sender, receiver) = mpsc::channel(CHUNKS);
        (io.stdin, ends.stdin) = (Input::Channel(receiver), Some(sender));
    }
    if wanted.stdout {
        let (sender, receiver) = mpsc::channel(CHUNKS);
        (io.stdout, ends.stdout) = (Sink::Channel(sender), Some(receiver));
    }
    if wanted.stderr {
        let (sender, receiver) = mpsc::channel(CHUNKS);
        (io.stderr, ends.stderr) = (Sink::Channel(sender), Some(receiver));
    }
    (io, ends)
}

/// A program that is not there has an exit code too: the shell's.
fn told(exit: executor::Result<Exit>) -> Result<ProcessExit> {
    match exit {
        Ok(exit) => Ok(ProcessExit {
            code: exit.code,
            oom: exit.oom,
            why: None,
        }),
        Err(executor::Error::NoContainer { .. }) => Err(Error::Invalid(
            "the container's first process has ended, and the container with it".into(),
        )),
        Err(error) => match error.exit_code() {
            None => Err(error.into()),
            Some(code) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                Ok(ProcessExit {
                    code,
                    oom: false,
                    why: Some(format!("{error}{}", cause.unwrap_or_default())),
                })
            }
        },
    }
}

fn asked(doing: &str, error: Error) -> frontend::Error {
    frontend::Error::Engine {
        doing: doing.to_owned(),
        kind: error.kind(),
        source: Arc::new(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that was on its way in when the container was released.
    /// Rows: G09
    #[tokio::test]
    async fn nothing_runs_in_a_released_container() {
        let processes = Arc::new(Processes::default());
        let (_control, controller, _started) = Control::new();
        let run = |processes: &Arc<Processes>| {
            let running = async { Err(executor::Error::Canceled) }.boxed();
            processes.run(controller.clone(), (), running)
        };
        let before = run(&processes).expect("it is open");
        assert!(before.await.unwrap().is_err(), "it came to its end");
        processes.close();
        assert!(run(&processes).is_none());
        assert_eq!(*processes.count.borrow(), 0, "nobody is waited for");
    }
}
