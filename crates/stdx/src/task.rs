//! Tasks with an owner: dropping the handle stops the task.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tracing::Instrument;

/// A running task. Drop it and the task is aborted at its next await; await it
/// for its value. A panic inside the task resumes in whoever awaits it.
#[must_use = "dropping a Task stops it: keep it, await it, or detach it"]
pub struct Task<T>(Option<tokio::task::JoinHandle<T>>);

/// Starts `future` under a span called `name`, owned by whoever holds the handle.
pub fn spawn<T: Send + 'static>(
    name: &'static str,
    future: impl Future<Output = T> + Send + 'static,
) -> Task<T> {
    let span = tracing::info_span!("task", name);
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
    let handle = tokio::task::spawn(future.instrument(span));
    Task(Some(handle))
}

/// Runs `future` to its end under a span called `name`, also when whoever awaits it goes
/// away: for what leaves things behind when it stops halfway.
pub async fn to_the_end<T: Send + 'static>(
    name: &'static str,
    future: impl Future<Output = T> + Send + 'static,
) -> T {
    let handle = spawn(name, future).0.take().expect("it is just spawned");
    match handle.await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Runs blocking work on the pool for it. Not cancelled when dropped: work that
/// has begun (a rename, a transaction) ends on its own.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let span = tracing::Span::current();
    match tokio::task::spawn_blocking(move || span.in_scope(work)).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl<T> Task<T> {
    /// Lets the task run without an owner. For tasks that end by themselves
    /// when a channel closes.
    pub fn detach(mut self) {
        drop(self.0.take());
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(tokio::task::JoinHandle::is_finished)
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let handle = self.0.as_mut().expect("polled only while it is owned");
        match Pin::new(handle).poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(value)) => Poll::Ready(value),
            Poll::Ready(Err(error)) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.abort();
        }
    }
}
