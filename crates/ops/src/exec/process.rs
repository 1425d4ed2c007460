//! What an exec says, as the executor wants it; and what its end means.

use std::net::AddrParseError;
use std::sync::Arc;

use bytes::Bytes;
use executor::{Control, Controller, Executor, Exit, HostIp, Io, Process, Ulimit};
use llb::Exec;
use progress::{StepProgress, Stream};
use stdx::task::{Task, spawn};
use tokio::sync::mpsc::Receiver;

use super::mounts::{Kept, View};
use super::secrets;
use crate::{Build, Error, ExitError, Parts, Result};

/// Chunks of output on their way to the log.
const CHUNKS: usize = 16;
/// Where a step finds the socket for its spans.
const TRACE_SOCKET: &str = "/dev/otel-grpc.sock";
/// How OpenTelemetry's libraries in it hear of it, by the specification of its exporters.
const TRACE_ENVIRONMENT: [&str; 3] = [
    "OTEL_TRACES_EXPORTER=otlp",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=unix:///dev/otel-grpc.sock",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc",
];
/// A host whose address is that of the machine outside of the container.
const HOST_GATEWAY: &str = "host-gateway";

/// The environment: as it is said, proxies under both spellings, secrets.
pub(super) async fn environment(exec: &Exec, build: &Build) -> Result<Vec<String>> {
    let mut env = exec.env.clone();
    if let Some(proxy) = &exec.proxy {
        let proxies = [
            ("HTTP_PROXY", &proxy.http),
            ("HTTPS_PROXY", &proxy.https),
            ("FTP_PROXY", &proxy.ftp),
            ("NO_PROXY", &proxy.no),
            ("ALL_PROXY", &proxy.all),
        ];
        for (name, value) in proxies.into_iter().filter(|(_, value)| !value.is_empty()) {
            env.push(format!("{name}={value}"));
            env.push(format!("{}={value}", name.to_lowercase()));
        }
    }
    for wanted in &exec.secret_env {
        let secret = secrets::get(build, &wanted.id, wanted.optional).await?;
        let secret = secret.unwrap_or_default();
        let unfit = |why: &str| {
            Error::Invalid(format!(
                "secret {} cannot be in the environment: {why}",
                wanted.id
            ))
        };
        let text = std::str::from_utf8(&secret).map_err(|_| unfit("it is not text"))?;
        if text.contains('\0') {
            return Err(unfit("it contains a NUL byte"));
        }
        env.push(format!("{}={text}", wanted.name));
    }
    Ok(env)
}

/// The process as the executor wants it. What it is told of traces is not in its key.
pub(super) fn describe(
    exec: &Exec,
    env: Vec<String>,
    resources: Option<&llb::Resources>,
    view: View,
    parts: &Parts,
    step: &StepProgress,
) -> Result<Process> {
    let mut process = Process::new(view.root, exec.args.clone());
    process.readonly_root = view.readonly_root;
    process.mounts = view.mounts;
    process.shm_size = view.shm_size;
    process.env = env;
    process.cwd.clone_from(&exec.cwd);
    process.user.clone_from(&exec.user);
    process.hostname.clone_from(&exec.hostname);
    process.extra_hosts = extra_hosts(exec)?;
    process.dns.clone_from(&parts.dns);
    process.network = match exec.network {
        llb::Network::Sandbox => executor::Network::Sandbox,
        llb::Network::Host => executor::Network::Host,
        llb::Network::None => executor::Network::None,
    };
    process.security = match exec.security {
        llb::Security::Sandbox => executor::Security::Sandbox,
        llb::Security::Insecure => executor::Security::Insecure,
    };
    let ulimits = exec.ulimits.iter().map(|limit| Ulimit {
        name: limit.name.clone(),
        soft: limit.soft,
        hard: limit.hard,
    });
    process.ulimits = ulimits.collect();
    process.resources = resources.map(limits).unwrap_or_default();
    process.cgroup_parent = match exec.cgroup_parent.as_str() {
        "" => parts.cgroup_parent.clone(),
        parent => Some(parent.to_owned()),
    };
    process.remove_mount_stubs_recursive = exec.remove_mount_stubs_recursive;
    if let Some(socket) = parts.trace_socket.as_ref().filter(|path| path.exists()) {
        let environment = TRACE_ENVIRONMENT.map(str::to_owned);
        process.env.extend(environment);
        process.env.extend(step.trace_environment());
        process.mounts.push(executor::Mount {
            target: TRACE_SOCKET.to_owned(),
            source: executor::MountSource::Host {
                path: socket.clone(),
                restrict: executor::Restrict::default(),
            },
            readonly: true,
        });
    }
    Ok(process)
}

fn extra_hosts(exec: &Exec) -> Result<Vec<HostIp>> {
    let hosts = exec.extra_hosts.iter().map(|extra| {
        let host = extra.host.clone();
        let ip = match extra.ip.as_str() {
            // Where that is depends on the container's network.
            HOST_GATEWAY => Ok(None),
            ip => ip
                .trim_start_matches('[')
                .trim_end_matches(']')
                .parse()
                .map(Some),
        };
        let unfit = |_: AddrParseError| {
            Error::Invalid(format!("host {host}: {:?} is not an IP address", extra.ip))
        };
        Ok(HostIp {
            ip: ip.map_err(unfit)?,
            host,
        })
    });
    hosts.collect()
}

fn limits(wanted: &llb::Resources) -> executor::Resources {
    let number = |n: i64| (n != 0).then_some(n);
    let positive = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0);
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    executor::Resources {
        memory: number(wanted.memory),
        memory_swap: number(wanted.memory_swap),
        cpu_shares: positive(wanted.cpu_shares),
        cpu_period: positive(wanted.cpu_period),
        cpu_quota: number(wanted.cpu_quota),
        cpuset_cpus: text(&wanted.cpuset_cpus),
        cpuset_mems: text(&wanted.cpuset_mems),
        ..executor::Resources::default()
    }
}

/// A process that runs, with all that must stay until it has ended.
struct Running {
    controller: Controller,
    task: Option<Task<Ended>>,
}

type Ended = (executor::Result<Exit>, Kept);

/// Runs it to its end, its output going to the step's log. Dropping the future kills
/// it; what it used is let go of only once it is dead, so that nobody else gets a
/// locked directory before.
pub(super) async fn run(
    executor: Arc<dyn Executor>,
    process: Process,
    step: &StepProgress,
    kept: Kept,
) -> Ended {
    let (control, controller, _started) = Control::new();
    let step = step.clone();
    let task = spawn("exec", async move {
        let (io, out, err) = Io::channels(CHUNKS);
        let (exit, (), ()) = tokio::join!(
            executor.run(process, io, control),
            log(&step, Stream::Out, out),
            log(&step, Stream::Err, err),
        );
        (exit, kept)
    });
    let mut running = Running {
        controller,
        task: Some(task),
    };
    let ended = match &mut running.task {
        Some(task) => task.await,
        None => unreachable!("it was just put there"),
    };
    running.task = None;
    ended
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            self.controller.cancel();
            task.detach();
        }
    }
}

async fn log(step: &StepProgress, stream: Stream, mut from: Receiver<Bytes>) {
    while let Some(chunk) = from.recv().await {
        step.log(stream, chunk);
    }
}

/// Whether the step did what it should.
pub(super) fn judge(exec: &Exec, exit: executor::Result<Exit>) -> Result<()> {
    let command = exec.args.join(" ");
    let exit = match exit {
        Ok(exit) => exit,
        Err(error) => {
            let Some(code) = error.exit_code() else {
                return Err(error.into());
            };
            let why = std::error::Error::source(&error).map(|why| format!(": {why}"));
            let how = format!("{error}{}", why.unwrap_or_default());
            return Err(ExitError {
                command,
                code,
                how,
                oom: false,
            }
            .into());
        }
    };
    let fine = match &exec.valid_exit_codes[..] {
        [] => exit.code == 0,
        valid => valid.contains(&exit.code),
    };
    if fine {
        return Ok(());
    }
    let how = match exit.signal {
        _ if exit.oom => "cannot allocate memory".to_owned(),
        Some(signal) => format!("exit code: {} (killed by signal {signal})", exit.code),
        None => format!("exit code: {}", exit.code),
    };
    Err(ExitError {
        command,
        code: exit.code,
        how,
        oom: exit.oom,
    }
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(exit: Exit, valid: &[i32]) -> String {
        let mut exec = Exec::new(["make", "all"]);
        exec.valid_exit_codes = valid.to_vec();
        match judge(&exec, Ok(exit)) {
            Ok(()) => "fine".into(),
            Err(error) => error.to_string(),
        }
    }

    /// Rows: L04, X17
    #[test]
    fn ends_are_told_in_buildkits_words() {
        let exit = |code, signal, oom| Exit { code, signal, oom };
        let failed =
            |how: &str| format!("process \"make all\" did not complete successfully: {how}");
        assert_eq!(judged(exit(0, None, false), &[]), "fine");
        assert_eq!(judged(exit(2, None, false), &[]), failed("exit code: 2"));
        assert_eq!(judged(exit(2, None, false), &[1, 2]), "fine");
        assert_eq!(
            judged(exit(0, None, false), &[1, 2]),
            failed("exit code: 0")
        );
        let killed = exit(137, Some(9), false);
        assert_eq!(
            judged(killed, &[]),
            failed("exit code: 137 (killed by signal 9)")
        );
        assert_eq!(judged(killed, &[137]), "fine");
        assert_eq!(
            judged(exit(137, Some(9), true), &[]),
            failed("cannot allocate memory")
        );
    }

    /// Rows: X12
    #[test]
    fn no_limit_is_not_a_limit_of_nothing() {
        assert!(limits(&llb::Resources::default()).is_empty());
        let wanted = llb::Resources {
            memory: 1 << 20,
            memory_swap: -1,
            cpu_shares: 512,
            cpu_period: 100_000,
            cpu_quota: 50_000,
            cpuset_cpus: "0-1".into(),
            cpuset_mems: "0".into(),
        };
        let limits = limits(&wanted);
        assert_eq!(
            (limits.memory, limits.memory_swap),
            (Some(1 << 20), Some(-1))
        );
        assert_eq!(
            (limits.cpu_shares, limits.cpu_period),
            (Some(512), Some(100_000))
        );
        assert_eq!(limits.cpu_quota, Some(50_000));
        assert_eq!(limits.cpuset_cpus.as_deref(), Some("0-1"));
        assert_eq!(limits.cpuset_mems.as_deref(), Some("0"));
    }
}
