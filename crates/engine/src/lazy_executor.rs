//! An executor that starts with the first process: a build in which every step is
//! cached needs none.

use std::path::PathBuf;

use async_trait::async_trait;
use executor::{
    Control, Dns, ExecProcess, Executor, Exit, Io, Native, NativeOptions, Process, Runtime,
    RuntimeOptions,
};
use tokio::sync::OnceCell;

use crate::Runner;

pub(crate) struct LazyExecutor {
    runner: Runner,
    state: PathBuf,
    dns: Option<Dns>,
    started: OnceCell<Started>,
}

enum Started {
    Native(Native),
    Runtime(Runtime),
}

impl LazyExecutor {
    pub(crate) fn new(runner: Runner, state: PathBuf, dns: Option<Dns>) -> LazyExecutor {
        LazyExecutor {
            runner,
            state,
            dns,
            started: OnceCell::new(),
        }
    }

    async fn executor(&self) -> executor::Result<&dyn Executor> {
        let started = self.started.get_or_try_init(async || match &self.runner {
            Runner::Native(helper) => {
                let options = NativeOptions {
                    helper: helper.clone(),
                    dns: self.dns.clone(),
                    ..NativeOptions::default()
                };
                Native::start(options).await.map(Started::Native)
            }
            Runner::Runtime(binary) => {
                let mut options = RuntimeOptions::new(binary, &self.state);
                options.dns = self.dns.clone();
                Runtime::start(options).await.map(Started::Runtime)
            }
        });
        Ok(match started.await? {
            Started::Native(native) => native,
            Started::Runtime(runtime) => runtime,
        })
    }
}

#[async_trait]
impl Executor for LazyExecutor {
    async fn run(&self, process: Process, io: Io, control: Control) -> executor::Result<Exit> {
        self.executor().await?.run(process, io, control).await
    }

    async fn exec(
        &self,
        name: &str,
        exec: ExecProcess,
        io: Io,
        control: Control,
    ) -> executor::Result<Exit> {
        self.executor().await?.exec(name, exec, io, control).await
    }
}
