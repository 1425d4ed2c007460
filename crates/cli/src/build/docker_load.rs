//! `--load`: the archive goes to `docker load`.

use std::process::Stdio;
use std::sync::Arc;

use session::local::Target;
use tokio::process::Command;

use crate::Error;

/// A target that feeds `docker load`; an error if there is no such program.
pub(crate) fn target() -> Result<Target, Error> {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|dir| dir.join("docker").is_file());
    if !found {
        return Err(Error::NoDocker);
    }
    Ok(Target::Writer(Arc::new(|_| {
        let mut child = Command::new("docker")
            .arg("load")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let stdin = child
            .stdin
            .take()
            .ok_or_else(|| std::io::Error::other("docker load has no standard input"))?;
        Ok(Box::new(Load {
            stdin: Some(stdin),
            child,
        }))
    })))
}

/// Closing it waits for `docker load` to end, and fails if that failed.
struct Load {
    stdin: Option<tokio::process::ChildStdin>,
    child: tokio::process::Child,
}

impl tokio::io::AsyncWrite for Load {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        match &mut self.stdin {
            Some(stdin) => std::pin::Pin::new(stdin).poll_write(cx, bytes),
            None => std::task::Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        match &mut self.stdin {
            Some(stdin) => std::pin::Pin::new(stdin).poll_flush(cx),
            None => std::task::Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        self.stdin = None;
        let ended = std::pin::pin!(self.child.wait());
        match std::task::ready!(ended.poll(cx)) {
            Ok(status) if status.success() => std::task::Poll::Ready(Ok(())),
            Ok(status) => {
                std::task::Poll::Ready(Err(std::io::Error::other(format!("docker load: {status}"))))
            }
            Err(error) => std::task::Poll::Ready(Err(error)),
        }
    }
}
