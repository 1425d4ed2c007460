//! How sessions come and go, and what is made of clients that do not play along.

use std::time::Duration;

use proto::moby::buildkit::v1::BytesMessage;
use session::tunnel::{Health, Hello, accept};
use session::*;
use stdx::Kind;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::ends::join;

const SOON: Duration = Duration::from_secs(10);

/// Rows: N01
#[tokio::test]
async fn a_session_is_known_by_its_headers() {
    let ends = join(Attachables::new()).await;
    let session = &ends.session;
    assert_eq!(
        (session.id(), session.name(), session.shared_key()),
        ("the-id", "the-name", "the-key")
    );
    assert_eq!(ends.sessions.len(), 1);
    assert!(Hello::from_metadata(&tonic::metadata::MetadataMap::new()).is_err());
}

/// Rows: N01, N02
#[tokio::test]
async fn a_session_ends_with_the_line() {
    let ends = join(Attachables::new()).await;
    assert!(!ends.session.is_over());
    drop(ends.pump);
    tokio::time::timeout(SOON, ends.session.over())
        .await
        .expect("it ends");
    let gone = ends
        .sessions
        .get("the-id", Duration::from_millis(10))
        .await
        .unwrap_err();
    assert_eq!(gone.to_string(), "no active session for the-id");

    let ends = join(Attachables::new()).await;
    drop(ends.client);
    tokio::time::timeout(SOON, ends.session.over())
        .await
        .expect("it ends");
}

/// Rows: N01
#[tokio::test]
async fn a_build_may_come_before_its_session() {
    let sessions = Sessions::new();
    let waiting = sessions.get("x", SOON);
    let coming = async {
        tokio::task::yield_now().await;
        sessions.register(Session::direct("x", "", Attachables::new()))
    };
    let (found, registration) = tokio::join!(waiting, coming);
    assert_eq!(found.unwrap().id(), "x");
    // The same id again replaces; the end of the first does not end the second.
    let second = sessions.register(Session::direct("x", "", Attachables::new()));
    drop(registration);
    assert_eq!(sessions.len(), 1);
    drop(second);
    assert!(sessions.is_empty());
}

/// A client that opened a session and then does `what` with it.
async fn accept_from(what: Vec<&'static [u8]>, stay: bool) -> (std::sync::Arc<Session>, impl Drop) {
    let sessions = Sessions::new();
    let (to_daemon, at_daemon) = mpsc::channel::<Result<BytesMessage, Status>>(16);
    let hello = Hello {
        id: "x".into(),
        methods: vec![
            "/moby.filesync.v1.filesync/diffcopy".into(),
            "/moby.buildkit.secrets.v1.Secrets/GetSecret".into(),
        ],
        ..Hello::default()
    };
    let health = Health {
        every: Duration::from_millis(20),
        timeout: Duration::from_millis(50),
        misses: 2,
    };
    let outgoing = accept(&sessions, hello, health, ReceiverStream::new(at_daemon))
        .await
        .unwrap();
    for bytes in what {
        to_daemon
            .send(Ok(BytesMessage { data: bytes.into() }))
            .await
            .unwrap();
    }
    let session = sessions.get("x", SOON).await.unwrap();
    let held = stay.then_some(to_daemon);
    struct Hold<T>(T);
    impl<T> Drop for Hold<T> {
        fn drop(&mut self) {}
    }
    (session, Hold((held, outgoing, sessions)))
}

/// Rows: N02
#[tokio::test]
async fn a_client_that_does_not_answer_is_given_up() {
    for (bytes, stay) in [
        (vec![], true),                                         // silent
        (vec![], false),                                        // gone
        (vec![&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..]], true), // something else
        (vec![&b"\0\0\x0c\x04\0\0"[..]], true),                 // half a frame, then silence
        (vec![&b"\0\0\x0c\x04\0\0"[..]], false),                // half a frame, then gone
    ] {
        let (session, _held) = accept_from(bytes, stay).await;
        let files = session
            .file_sync()
            .expect("names of methods are compared without case");
        let to = tempfile::tempdir().unwrap();
        let root = stdx::sys::Root::open(to.path()).unwrap();
        let request = DirRequest::default();
        let ask = files.sync_into(&request, root, None);
        let ended = async {
            session.over().await;
        };
        let (_, answer) = tokio::time::timeout(SOON, async { tokio::join!(ended, ask) })
            .await
            .expect("nobody waits for ever");
        assert!(answer.is_err());
    }
    let (session, _held) = accept_from(vec![], true).await;
    let error = tokio::time::timeout(SOON, session.secrets().unwrap().get("x"))
        .await
        .expect("it ends")
        .unwrap_err();
    assert!(
        matches!(
            error.kind(),
            Kind::Unavailable | Kind::Internal | Kind::Canceled
        ),
        "{error:?}"
    );
}
