//! An executor that starts with the first process: a build in which every step is
//! cached needs none.

use std::path::PathBuf;
use std::sync::Arc;

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

pub(crate) struct LazyExecutor(Arc<Shared>);

struct Shared {
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
        LazyExecutor(Arc::new(Shared {
            setting,
            started: OnceCell::new(),
        }))
    }

    async fn executor(&self) -> executor::Result<&dyn Executor> {
        if let Some(started) = self.0.started.get() {
            return Ok(started.executor());
        }
        // A build that is cancelled meanwhile does not stop it halfway: plugins of the network
        // are at work, and the next build needs it as well.
        let shared = self.0.clone();
        stdx::task::to_the_end("executor-start", async move {
            let starting = shared.started.get_or_try_init(|| shared.setting.start());
            starting.await.map(drop)
        })
        .await?;
        Ok(self.0.started.get().expect("it has started").executor())
    }
}

impl Setting {
    async fn start(&self) -> executor::Result<Started> {
        match &self.runner {
            Runner::Native(helper) => {
                let options = NativeOptions {
                    helper: helper.clone(),
                    dns: self.dns.clone(),
                    network: self.network.clone(),
                    apparmor: self.apparmor.clone(),
                    ..NativeOptions::default()
                };
                Native::start(options).await.map(Started::Native)
            }
            Runner::Runtime(binary) => {
                let mut options = RuntimeOptions::new(binary, &self.state);
                options.dns.clone_from(&self.dns);
                options.network.clone_from(&self.network);
                options.apparmor.clone_from(&self.apparmor);
                Runtime::start(options).await.map(Started::Runtime)
            }
        }
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
        // A start under way comes to its end first; one that is not is not begun.
        let started = self.0.started.get_or_try_init(async || Err(()));
        if let Ok(started) = started.await {
            started.executor().close().await;
        }
    }
}
