//! What travels inside `Control.Session`: HTTP/2 frames of a client that answers our calls, and
//! of a daemon that calls our client.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use proto::moby::buildkit::v1::BytesMessage;
use session::local::{Dirs, SecretSource, SecretValues, Target as Place, Targets};
use session::tunnel::{Health, Hello, accept};
use session::{Attachables, DirRequest, Session, Sessions, TokenRequest};

use super::{Fenced, Target, by_the_clock};
use crate::mutate::{Shape, join, split};

pub(super) const TARGET: Target = Target {
    name: "session",
    run,
    seeds,
    shape: Shape::Pieces(2),
    words: &[
        "\0\0\0\x04\0\0\0\0\0",
        "\0\0\0\x04\x01\0\0\0\0",
        "\0\0\x04\x03\0\0\0\0\x01\0\0\0\x02",
        "\0\0\x04\x08\0\0\0\0\0\x7f\u{7f}\u{7f}\u{7f}",
        "\0\0\x08\x06\0\0\0\0\0abcdefgh",
        "\0\0\0\0\x01\0\0\0\x01",
        "grpc-status",
        "12",
        "content-type",
        "application/grpc",
        "\0\0\0\0\0",
        "\0\x01\0\0\0",
        "\0\u{7f}\u{7f}\u{7f}\u{7f}",
    ],
    longest: 8 << 10,
    memory: 48 << 20,
};

const METHODS: [&str; 10] = [
    "/moby.filesync.v1.FileSync/DiffCopy",
    "/moby.filesync.v1.FileSend/DiffCopy",
    "/moby.filesync.v1.Auth/Credentials",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
    "/moby.sshforward.v1.SSH/ForwardAgent",
    "/containerd.services.content.v1.Content/Read",
    "/moby.upload.v1.Upload/Pull",
    "/moby.exporter.v1.Exporter/FindExporters",
    "/moby.exporter.v1.Exporter/FinalizeExport",
    "/grpc.health.v1.Health/Check",
];

/// The first byte chooses who we are, the second what we ask; each piece is a message of the
/// tunnel. Afterwards the other side is silent, or gone.
fn run(input: &[u8]) {
    let [side, call, pieces @ ..] = input else {
        return;
    };
    let fenced = Fenced::new();
    by_the_clock(async {
        let pieces = split(pieces).into_iter();
        let messages = pieces.map(|data| Ok(BytesMessage { data: data.into() }));
        let messages = futures::stream::iter(messages);
        let incoming = if side & 2 == 0 {
            messages.boxed()
        } else {
            messages.chain(futures::stream::pending()).boxed()
        };
        if side & 1 == 0 {
            as_daemon(*call, incoming, &fenced).await;
        } else {
            as_client(incoming, &fenced).await;
        }
    });
    fenced.check();
}

/// A silent client is given up soon.
const HURRIED: Health = Health {
    every: Duration::from_millis(5),
    timeout: Duration::from_millis(10),
    misses: 2,
};

type Incoming = futures::stream::BoxStream<'static, Result<BytesMessage, tonic::Status>>;

async fn as_daemon(call: u8, incoming: Incoming, fenced: &Fenced) {
    let sessions = Sessions::new();
    let hello = Hello {
        id: "id".into(),
        methods: METHODS.map(str::to_owned).into(),
        ..Hello::default()
    };
    let Ok(mut outgoing) = accept(&sessions, hello, HURRIED, incoming).await else {
        return;
    };
    let drain = stdx::task::spawn(
        "drain",
        async move { while outgoing.recv().await.is_some() {} },
    );
    if let Ok(session) = sessions.get("id", Duration::ZERO).await {
        asked(&session, call, fenced).await;
        session.over().await;
    }
    drop(drain);
    while !sessions.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// One question; what comes of it is the client's business, that something does is ours.
async fn asked(session: &Session, call: u8, fenced: &Fenced) {
    let is_ok = match call % 9 {
        0 => {
            let request = DirRequest {
                name: "context".into(),
                ..DirRequest::default()
            };
            let files = session.file_sync().expect("it is offered");
            files.sync_into(&request, fenced.root(), None).await.is_ok()
        }
        1 => {
            let send = session.file_send().expect("it is offered");
            let bytes = futures::stream::iter([Ok(Bytes::from_static(b"tar"))]).boxed();
            send.send_stream(&Default::default(), bytes).await.is_ok()
        }
        2 => session
            .auth()
            .expect("it is offered")
            .credentials("host")
            .await
            .is_ok(),
        3 => session
            .secrets()
            .expect("it is offered")
            .get("a")
            .await
            .is_ok(),
        4 => session
            .ssh()
            .expect("it is offered")
            .check("default")
            .await
            .is_ok(),
        5 => {
            let store = session.content().expect("it is offered").store("s");
            let blob = oci::Descriptor::of("text/plain", b"blob");
            match store.read(&blob, 0).await {
                Ok(stream) => content::collect(stream, &blob, 1 << 20).await.is_ok(),
                Err(_) => false,
            }
        }
        6 => match session
            .upload()
            .expect("it is offered")
            .pull("host", "/path")
            .await
        {
            Ok(mut stream) => {
                while let Some(Ok(_)) = stream.next().await {}
                true
            }
            Err(_) => false,
        },
        7 => {
            let exporters = session.exporters().expect("it is offered");
            exporters.find(Default::default(), Vec::new()).await.is_ok()
        }
        _ => {
            let auth = session.auth().expect("it is offered");
            auth.fetch_token(&TokenRequest::default()).await.is_ok()
        }
    };
    // Either is fine.
    let _: bool = is_ok;
}

async fn as_client(incoming: Incoming, fenced: &Fenced) {
    let secrets = SecretValues::new().with("a", SecretSource::Value(Bytes::from_static(b"b")));
    let offers = Attachables {
        secrets: Some(Arc::new(secrets)),
        ..Attachables::new()
    };
    let place = Place::Dir {
        path: fenced.path(),
        delete: true,
    };
    let offers = offers
        .with_dirs(Dirs::new().with("context", fenced.path()))
        .with_targets(Targets::new().with("", place));
    let (mut outgoing, serving) = session::serve::over(offers, incoming);
    let quiet = async { while outgoing.recv().await.is_some() {} };
    // A daemon that says nothing more is waited for until it leaves, which it does.
    let _ended = tokio::time::timeout(Duration::from_millis(10), quiet).await;
    drop(serving);
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames of seeds are short");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Headers without compression, as HPACK allows.
fn headers(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in pairs {
        out.push(0);
        for text in [name, value] {
            out.push(u8::try_from(text.len()).expect("headers of seeds are short"));
            out.extend(text.bytes());
        }
    }
    out
}

/// A message as gRPC wraps it.
fn wrapped(message: &impl prost::Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let mut out = vec![0];
    out.extend(u32::try_from(bytes.len()).expect("short").to_be_bytes());
    out.extend(bytes);
    out
}

fn seeds() -> Vec<Vec<u8>> {
    const HEADERS: u8 = 1;
    const END_HEADERS: u8 = 4;
    const END_STREAM: u8 = 1;
    let settings = [frame(4, 0, 0, &[]), frame(4, 1, 0, &[])].concat();
    let secret = proto::moby::buildkit::secrets::v1::GetSecretResponse {
        data: "value".into(),
    };
    let begin = headers(&[(":status", "200"), ("content-type", "application/grpc")]);
    let end = headers(&[("grpc-status", "0")]);
    let answer = |message: &[u8]| {
        [
            frame(HEADERS, END_HEADERS, 1, &begin),
            frame(0, 0, 1, message),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &end),
        ]
    };
    let answer = answer(&wrapped(&secret)).concat();
    let failed = headers(&[
        (":status", "200"),
        ("grpc-status", "5"),
        ("grpc-message", "no%20such"),
    ]);
    let failed = frame(HEADERS, END_HEADERS | END_STREAM, 1, &failed);
    let mut seeds = Vec::new();
    for call in 0..9 {
        for side in [0, 2] {
            seeds.push(join(&[side, call], &[settings.clone(), answer.clone()]));
            seeds.push(join(&[side, call], &[settings.clone(), failed.clone()]));
        }
    }
    let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    preface.extend(&settings);
    let question = proto::moby::buildkit::secrets::v1::GetSecretRequest {
        id: "a".into(),
        ..Default::default()
    };
    for method in METHODS {
        let asked = headers(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "x"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("dir-name", "context"),
        ]);
        let call = [
            frame(HEADERS, END_HEADERS, 1, &asked),
            frame(0, END_STREAM, 1, &wrapped(&question)),
        ]
        .concat();
        for side in [1, 3] {
            seeds.push(join(&[side, 0], &[preface.clone(), call.clone()]));
        }
    }
    seeds
}
