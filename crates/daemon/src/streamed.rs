//! Answers that come bit by bit, made by a task that ends when the client leaves.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use stdx::task::Task;
use tokio::sync::mpsc;
use tonic::Status;

/// Messages a client may be slow to take before the task waits.
const AHEAD: usize = 16;

/// A stream of messages and the task that makes them.
pub(crate) struct Streamed<T> {
    messages: mpsc::Receiver<Result<T, Status>>,
    _task: Task<()>,
}

/// Where the task puts messages.
pub(crate) struct Sending<T>(mpsc::Sender<Result<T, Status>>);

/// The client is gone.
pub(crate) struct Gone;

impl<T> Sending<T> {
    pub(crate) async fn send(&self, message: T) -> Result<(), Gone> {
        self.0.send(Ok(message)).await.map_err(|_| Gone)
    }
}

impl<T: Send + 'static> Streamed<T> {
    /// Runs `make` until it ends; an error ends the stream with it.
    pub(crate) fn new<F>(name: &'static str, make: impl FnOnce(Sending<T>) -> F) -> Streamed<T>
    where
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let (sender, messages) = mpsc::channel(AHEAD);
        let made = make(Sending(sender.clone()));
        let task = stdx::task::spawn(name, async move {
            if let Err(status) = made.await {
                // If the client is gone, nobody wants to know.
                let _ = sender.send(Err(status)).await;
            }
        });
        Streamed {
            messages,
            _task: task,
        }
    }
}

impl<T> Stream for Streamed<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.messages.poll_recv(cx)
    }
}
