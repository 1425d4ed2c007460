//! Exporters that the client chooses once it has seen the result.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use engine::{Built, Engine, Failure, Request, Spec};
use futures::StreamExt as _;
use session::{Attachables, Bytestream, ExporterRequest, FileSend, Observer, SendRequest, Session};
use stdx::Kind;

use crate::setup;

/// What a client was asked, in order.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    Choose,
    Take(Option<String>),
    Finish(BTreeMap<String, String>),
}

/// A client that takes tarballs and chooses one, and may say no at either end.
#[derive(Default)]
struct Client {
    asked: Mutex<Vec<Asked>>,
    takes_none: bool,
    is_not_content: bool,
}

impl Client {
    fn note(&self, asked: Asked) {
        self.asked.lock().unwrap().push(asked);
    }
}

fn no(message: &str) -> session::Result<()> {
    let (kind, message) = (Kind::Denied, message.to_owned());
    Err(session::Error::Refused { kind, message })
}

#[async_trait]
impl session::Exporters for Client {
    async fn find(
        &self,
        _: BTreeMap<String, Bytes>,
        refs: Vec<String>,
    ) -> session::Result<Vec<ExporterRequest>> {
        assert_eq!(refs.len(), 1);
        self.note(Asked::Choose);
        Ok(vec![ExporterRequest {
            kind: "tar".to_owned(),
            attrs: BTreeMap::new(),
        }])
    }

    async fn finalize(&self, response: BTreeMap<String, String>) -> session::Result<()> {
        self.note(Asked::Finish(response));
        match self.is_not_content {
            true => no("that is not what we wanted"),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl FileSend for Client {
    async fn send_stream(
        &self,
        request: &SendRequest,
        mut bytes: Bytestream,
    ) -> session::Result<()> {
        if self.takes_none {
            return no("the disk is full");
        }
        while let Some(piece) = bytes.next().await {
            piece?;
        }
        self.note(Asked::Take(request.exporter_id.clone()));
        Ok(())
    }

    async fn send_dir(
        &self,
        _: &SendRequest,
        _: stdx::sys::Root,
        _: Option<Observer>,
    ) -> session::Result<()> {
        unreachable!("no directory is asked for")
    }
}

/// Builds one file for an image and a tarball, and for what `offers` chooses.
async fn build(engine: &Engine, offers: Attachables) -> Result<Built, Failure> {
    let spec = |kind: &str| Spec {
        kind: kind.to_owned(),
        attrs: BTreeMap::new(),
    };
    let request = Request {
        session: "s1".to_owned(),
        exporters: vec![spec("image"), spec("tar")],
        session_exporter: true,
        ..setup::of_one_file(BTreeMap::new())
    };
    let session = Session::direct("s1", "test", offers);
    let _here = engine.sessions().register(session);
    setup::build(engine, request).await
}

/// The client chooses, takes each result by its number, and hears what all exports gave when
/// they are done; nothing when one failed. What it then says counts.
///
/// Rows: E10
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_client_that_chooses_exporters_hears_when_they_are_done() {
    let Some((engine, _dir)) = setup::engine().await else {
        return;
    };
    let play = async |client: Client| {
        let client = Arc::new(client);
        let offers = Attachables {
            exporters: Some(client.clone()),
            file_send: Some(client.clone()),
            ..Attachables::new()
        };
        let built = build(&engine, offers).await;
        let mut asked = std::mem::take(&mut *client.asked.lock().unwrap());
        if let [_, side_by_side @ .., _] = &mut asked[..] {
            side_by_side.sort();
        }
        (built, asked)
    };
    let (built, asked) = play(Client::default()).await;
    let response = built.unwrap().response;
    assert!(
        response.contains_key("containerimage.digest"),
        "{response:?}"
    );
    let take = |id: &str| Asked::Take(Some(id.to_owned()));
    let finish = Asked::Finish(response);
    assert_eq!(asked, [Asked::Choose, take("1"), take("2"), finish]);

    let (built, asked) = play(Client {
        is_not_content: true,
        ..Client::default()
    })
    .await;
    assert_eq!(built.unwrap_err().message, "that is not what we wanted");
    assert_eq!(asked.len(), 4);

    let (built, asked) = play(Client {
        takes_none: true,
        ..Client::default()
    })
    .await;
    assert_eq!(built.unwrap_err().message, "the disk is full");
    assert_eq!(asked, [Asked::Choose]);

    // Who offers no choice has none, and what the request says is done.
    let takes = Arc::new(Client::default());
    let offers = Attachables {
        file_send: Some(takes.clone()),
        ..Attachables::new()
    };
    build(&engine, offers).await.unwrap();
    assert_eq!(*takes.asked.lock().unwrap(), [take("1")]);
    engine.close().await;
}
