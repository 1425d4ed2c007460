//! The daemon's end of a session: the client opened `Control.Session`, a stream of
//! bytes each way, and inside it the daemon is the HTTP/2 *client* (features N01, N02).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use hyper_util::rt::TokioIo;
use proto::moby::buildkit::v1::BytesMessage;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::{mpsc, watch};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};

use crate::{Error, Result, Session, Sessions, metadata, remote};

/// Header with the session's id.
pub const ID: &str = "x-docker-expose-session-uuid";
/// Header with its name.
pub const NAME: &str = "x-docker-expose-session-name";
/// Header with its shared key.
pub const SHARED_KEY: &str = "x-docker-expose-session-sharedkey";
/// Header with one method it serves; given once per method.
pub const METHOD: &str = "x-docker-expose-session-grpc-method";

/// How much may lie in the tunnel each way.
const BUFFER: usize = 256 << 10;
/// The largest piece put into one message.
const PIECE: usize = 64 << 10;

/// What a client says of itself as it opens a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// Made up by the client.
    pub id: String,
    /// For people.
    pub name: String,
    /// Same key, same directory kept between builds.
    pub shared_key: String,
    /// Full method names: `/moby.filesync.v1.FileSync/DiffCopy`.
    pub methods: Vec<String>,
}

impl Hello {
    /// Reads the headers of the call.
    pub fn from_metadata(map: &MetadataMap) -> Result<Hello> {
        let id = metadata::first(map, ID).filter(|id| !id.is_empty());
        Ok(Hello {
            id: id.ok_or_else(|| Error::Protocol(format!("a session without {ID}")))?,
            name: metadata::first(map, NAME).unwrap_or_default(),
            shared_key: metadata::first(map, SHARED_KEY).unwrap_or_default(),
            methods: metadata::all(map, METHOD),
        })
    }

    /// Writes the headers of the call.
    pub fn to_metadata(&self) -> Result<MetadataMap> {
        let mut map = MetadataMap::new();
        metadata::add(&mut map, ID, std::slice::from_ref(&self.id))?;
        metadata::add(&mut map, NAME, std::slice::from_ref(&self.name))?;
        metadata::add(&mut map, SHARED_KEY, std::slice::from_ref(&self.shared_key))?;
        metadata::add(&mut map, METHOD, &self.methods)?;
        Ok(map)
    }

    /// Whether a method is served. Clients differ in how they write names.
    pub(crate) fn serves(&self, method: &str) -> bool {
        self.methods
            .iter()
            .any(|known| known.eq_ignore_ascii_case(method))
    }
}

/// How often and how patiently a client is asked whether it is still there.
#[derive(Clone, Copy, Debug)]
pub struct Health {
    /// Time between questions.
    pub every: Duration,
    /// Patience; grows while answers are slow.
    pub timeout: Duration,
    /// This many missed in a row end the session.
    pub misses: u32,
}

impl Default for Health {
    fn default() -> Health {
        Health {
            every: Duration::from_secs(5),
            timeout: Duration::from_secs(15),
            misses: 2,
        }
    }
}

/// Takes a client's session, makes it known, and gives what has to be sent to the
/// client. The session ends when the client's stream does, when the returned stream
/// is dropped, or when the client no longer answers.
pub async fn accept(
    sessions: &Sessions,
    hello: Hello,
    health: Health,
    incoming: impl Stream<Item = Result<BytesMessage, tonic::Status>> + Send + Unpin + 'static,
) -> Result<mpsc::Receiver<BytesMessage>> {
    let Pipe {
        io,
        outgoing,
        answered,
        over,
    } = pipe(incoming);
    let channel = channel(io).await?;
    let (alive, ended) = watch::channel(false);
    let offers = remote::offers(&hello, &channel);
    let session = Session::remote(
        hello.id,
        hello.name,
        hello.shared_key,
        offers,
        answered,
        ended,
    );
    let registration = sessions.register(session);
    let watching = async move {
        tokio::select! {
            () = over => {}
            () = still_there(channel, health) => {}
        }
        tracing::debug!(session = registration.session().id(), "session ends");
        drop(registration);
        // Says it is over; nobody listening is fine.
        let _ = alive.send(true);
    };
    // Ends by itself when the stream does.
    stdx::task::spawn("session", watching).detach();
    Ok(outgoing)
}

/// Comes back when the client no longer answers.
async fn still_there(channel: Channel, health: Health) {
    use proto::grpc::health::v1::HealthCheckRequest;
    use proto::grpc::health::v1::health_client::HealthClient;

    let mut client = HealthClient::new(channel);
    let mut missed = 0;
    let mut slowest = Duration::ZERO;
    loop {
        tokio::time::sleep(health.every).await;
        let begin = tokio::time::Instant::now();
        let patience = health.timeout.max(slowest * 3 / 2);
        let asked = client.check(HealthCheckRequest::default());
        match tokio::time::timeout(patience, asked).await {
            Ok(Ok(_)) => {
                missed = 0;
                slowest = begin.elapsed();
            }
            // A client that does not know the question has answered.
            Ok(Err(status)) if status.code() == tonic::Code::Unimplemented => missed = 0,
            Ok(Err(_)) | Err(_) => {
                missed += 1;
                slowest = slowest.max(begin.elapsed());
                if missed >= health.misses {
                    return;
                }
            }
        }
    }
}

/// A gRPC channel over one connection that is there already. When it breaks there is
/// no second one.
async fn channel(io: DuplexStream) -> Result<Channel> {
    let once = Arc::new(Mutex::new(Some(io)));
    let connect = tower::service_fn(move |_: http::Uri| {
        let io = once.lock().expect("nothing panics holding it").take();
        async move {
            let gone =
                || std::io::Error::new(std::io::ErrorKind::NotConnected, "the session is over");
            io.map(TokioIo::new).ok_or_else(gone)
        }
    });
    Endpoint::from_static("http://session")
        .http2_max_header_list_size(proto::MAX_HEADER_LIST_SIZE)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .connect_with_connector(connect)
        .await
        .map_err(|error| Error::Lost(error.to_string()))
}

/// A byte stream made of messages.
pub(crate) struct Pipe {
    /// Read and write here.
    pub(crate) io: DuplexStream,
    /// Messages for the other side.
    pub(crate) outgoing: mpsc::Receiver<BytesMessage>,
    /// Becomes true when the other side has taken notice of what went out first.
    pub(crate) answered: watch::Receiver<bool>,
    /// Comes back when either direction is over.
    pub(crate) over: futures::future::BoxFuture<'static, ()>,
}

/// So many messages after ours are an answer, whatever is in them.
const ENOUGH: u32 = 4;

/// Whether the acknowledgement of our settings is among these frames of HTTP/2.
fn has_answer(frames: &[u8]) -> bool {
    const SETTINGS_ACK: [u8; 9] = [0, 0, 0, 4, 1, 0, 0, 0, 0];
    frames
        .windows(SETTINGS_ACK.len())
        .any(|frame| frame == SETTINGS_ACK)
}

/// Turns messages into a byte stream and back.
pub(crate) fn pipe(
    mut incoming: impl Stream<Item = Result<BytesMessage, tonic::Status>> + Send + Unpin + 'static,
) -> Pipe {
    let (io, far) = tokio::io::duplex(BUFFER);
    let (mut far_read, mut far_write) = tokio::io::split(far);
    let (out, outgoing) = mpsc::channel(16);
    let (answer, answered) = watch::channel(false);
    let spoken = Arc::new(AtomicBool::new(false));
    let spoke = spoken.clone();
    let inward = stdx::task::spawn("session-in", async move {
        let (mut greeted, mut later) = (false, 0);
        while let Some(Ok(message)) = incoming.next().await {
            if !greeted && spoken.load(Ordering::Relaxed) {
                later += 1;
                // An answer that is cut in two is followed by others.
                greeted = later >= ENOUGH || has_answer(&message.data);
                answer.send_replace(greeted);
            }
            if far_write.write_all(&message.data).await.is_err() {
                break;
            }
        }
        // The other end may be gone already.
        let _ = far_write.shutdown().await;
    });
    let outward = stdx::task::spawn("session-out", async move {
        let mut piece = vec![0; PIECE];
        while let Ok(count @ 1..) = far_read.read(&mut piece).await {
            let data = Bytes::copy_from_slice(&piece[..count]);
            if out.send(BytesMessage { data }).await.is_err() {
                break;
            }
            spoke.store(true, Ordering::Relaxed);
        }
    });
    let over = Box::pin(async move {
        tokio::select! {
            () = inward => {}
            () = outward => {}
        }
    });
    Pipe {
        io,
        outgoing,
        answered,
        over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that closes before it has seen our greeting takes it for nonsense; so it is
    /// known when it has.
    ///
    /// Rows: N01
    #[tokio::test]
    async fn what_comes_before_our_greeting_is_no_answer_to_it() {
        let (theirs, incoming) = mpsc::channel(8);
        let settings = Bytes::from_static(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
        let answer = Bytes::from_static(&[0, 0, 0, 4, 1, 0, 0, 0, 0]);
        let message = |data: &Bytes| Ok(BytesMessage { data: data.clone() });
        let incoming = tokio_stream::wrappers::ReceiverStream::new(incoming);
        let Pipe {
            mut io,
            mut outgoing,
            mut answered,
            over: _over,
        } = pipe(incoming);
        let mut read = [0; 9];
        theirs.send(message(&settings)).await.unwrap();
        io.read_exact(&mut read).await.unwrap();
        io.write_all(b"hello").await.unwrap();
        assert_eq!(outgoing.recv().await.unwrap().data, "hello");
        theirs.send(message(&settings)).await.unwrap();
        io.read_exact(&mut read).await.unwrap();
        assert!(!*answered.borrow_and_update());
        theirs.send(message(&answer)).await.unwrap();
        io.read_exact(&mut read).await.unwrap();
        assert!(*answered.borrow_and_update());
    }
}
