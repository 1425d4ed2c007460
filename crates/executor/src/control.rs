//! Holding a running process: signals, terminal size, cancelling, and how it ended.

use tokio::sync::{mpsc, oneshot, watch};

/// Size of a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WinSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 + signal when a signal ended it, as shells say it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel killed something in the container for lack of memory.
    pub oom: bool,
}

impl Exit {
    /// Whether it ended with code 0.
    pub fn success(&self) -> bool {
        self.code == 0
    }

    /// The exit of a wait status as `waitpid` gives it.
    pub(crate) fn of_wait_status(status: i32, oom: bool) -> Exit {
        if libc::WIFSIGNALED(status) {
            let signal = libc::WTERMSIG(status);
            return Exit {
                code: 128 + signal,
                signal: Some(signal),
                oom,
            };
        }
        Exit {
            code: libc::WEXITSTATUS(status),
            signal: None,
            oom,
        }
    }
}

/// The executor's end: what the caller wishes for the running process.
pub struct Control {
    pub(crate) signals: mpsc::Receiver<i32>,
    pub(crate) resize: watch::Receiver<Option<WinSize>>,
    pub(crate) cancel: watch::Receiver<bool>,
    pub(crate) started: Option<oneshot::Sender<()>>,
}

/// The caller's end. Dropping it changes nothing for the process.
#[derive(Clone)]
pub struct Controller {
    signals: mpsc::Sender<i32>,
    resize: watch::Sender<Option<WinSize>>,
    cancel: watch::Sender<bool>,
}

impl Control {
    /// Both ends, and a receiver told when the process has started (dropped without
    /// a word when it never does).
    pub fn new() -> (Control, Controller, oneshot::Receiver<()>) {
        let (signal_to, signals) = mpsc::channel(16);
        let (resize_to, resize) = watch::channel(None);
        let (cancel_to, cancel) = watch::channel(false);
        let (started_to, started) = oneshot::channel();
        let control = Control {
            signals,
            resize,
            cancel,
            started: Some(started_to),
        };
        (
            control,
            Controller {
                signals: signal_to,
                resize: resize_to,
                cancel: cancel_to,
            },
            started,
        )
    }

    /// For a process nobody will signal or resize.
    pub fn none() -> Control {
        Control::new().0
    }

    /// Waits until the caller cancels; forever if it never does.
    pub(crate) async fn canceled(cancel: &mut watch::Receiver<bool>) {
        if cancel.wait_for(|wanted| *wanted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Controller {
    /// Sends a signal to the process; lost if it has ended.
    pub async fn signal(&self, signal: i32) {
        let _ended = self.signals.send(signal).await;
    }

    /// Tells its terminal a new size. Only the newest matters.
    pub fn resize(&self, size: WinSize) {
        self.resize.send_replace(Some(size));
    }

    /// Kills the container; `run` then ends with [`crate::Error::Canceled`].
    pub fn cancel(&self) {
        self.cancel.send_replace(true);
    }
}
