//! An executor that starts with the first process: a build in which every step is
//! cached needs none.

use std::path::PathBuf;

use async_trait::async_trait;
use executor::{
    Control, Dns, ExecProcess, Executor, Exit, Io, Native, NativeOptions, Process, Runtime,
    RuntimeOptions, SandboxNetwork,
};
use tokio::sync::OnceCell;

use crate::Runner;

/// What the executor will be.
pub(crate) struct Setting {
    pub(crate) runner: Runner,
    /// Where a runtime binary keeps its state.
    pub(crate) state: PathBuf,
    pub(crate) dns: Option<Dns>,
    pub(crate) network: SandboxNetwork,
    pub(crate) apparmor: Option<String>,
}

pub(crate) struct LazyExecutor {
    setting: Setting,
    started: OnceCell<Started>,
}

enum Started {
    Native(Native),
    Runtime(Runtime),
}

impl Started {
    fn executor(&self) -> &dyn Executor {
        match self {
            Started::Native(native) => native,
            Started::Runtime(runtime) => runtime,
        }
    }
}

impl LazyExecutor {
    pub(crate) fn new(setting: Setting) -> LazyExecutor {
        LazyExecutor {
            setting,
            started: OnceCell::new(),
        }
    }

    async fn executor(&self) -> executor::Result<&dyn Executor> {
        let setting = &self.setting;
        let started = self
            .started
            .get_or_try_init(async || match &setting.runner {
                Runner::Native(helper) => {
                    let options = NativeOptions {
                        helper: helper.clone(),
                        dns: setting.dns.clone(),
                        network: setting.network.clone(),
                        apparmor: setting.apparmor.clone(),
                        ..NativeOptions::default()
                    };
                    Native::start(options).await.map(Started::Native)
                }
                Runner::Runtime(binary) => {
                    let mut options = RuntimeOptions::new(binary, &setting.state);
                    options.dns.clone_from(&setting.dns);
                    options.network.clone_from(&setting.network);
                    options.apparmor.clone_from(&setting.apparmor);
                    Runtime::start(options).await.map(Started::Runtime)
                }
            });
        Ok(started.await?.executor())
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

    async fn close(&self) {
        if let Some(started) = self.started.get() {
            started.executor().close().await;
        }
    }
}
