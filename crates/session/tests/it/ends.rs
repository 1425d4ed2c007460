//! A daemon and a client joined by two channels of messages.

use proto::moby::buildkit::v1::BytesMessage;
use session::tunnel::{Health, accept};
use session::{Attachables, Session, Sessions};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Both ends; drop it and the line is cut.
pub(crate) struct Ends {
    pub(crate) sessions: Sessions,
    pub(crate) session: Arc<Session>,
    pub(crate) client: session::serve::Serving,
    pub(crate) pump: stdx::task::Task<()>,
}

/// A client that offers this, and the daemon's view of it.
pub(crate) async fn join(offers: Attachables) -> Ends {
    let sessions = Sessions::new();
    let hello = session::serve::hello("the-id", "the-name", "the-key", &offers);
    let hello = session::tunnel::Hello::from_metadata(&hello.to_metadata().unwrap()).unwrap();
    let (to_client, at_client) = mpsc::channel::<Result<BytesMessage, Status>>(16);
    let (to_daemon, at_daemon) = mpsc::channel::<Result<BytesMessage, Status>>(16);
    let (mut from_client, client) = session::serve::over(offers, ReceiverStream::new(at_client));
    let incoming = ReceiverStream::new(at_daemon);
    let mut from_daemon = accept(&sessions, hello, Health::default(), incoming)
        .await
        .unwrap();
    let pump = stdx::task::spawn("pump", async move {
        loop {
            tokio::select! {
                message = from_client.recv() => match message {
                    Some(message) => if to_daemon.send(Ok(message)).await.is_err() { break },
                    None => break,
                },
                message = from_daemon.recv() => match message {
                    Some(message) => if to_client.send(Ok(message)).await.is_err() { break },
                    None => break,
                },
            }
        }
    });
    let session = sessions
        .get("the-id", Duration::from_secs(5))
        .await
        .unwrap();
    Ends {
        sessions,
        session,
        client,
        pump,
    }
}
