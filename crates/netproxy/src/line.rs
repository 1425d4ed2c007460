//! A connection to a server, used for one request after the other.

use bytes::Bytes;
use executor::Outside;
use http_body_util::{Either, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HeaderValue, PROXY_AUTHORIZATION};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use stdx::task::{Task, spawn};
use url::{Position, Url};

use crate::upstreams::{Through, Upstreams};

/// A request's body: the client's, or none where the request may be sent again.
pub(crate) type Sent = Either<Incoming, Empty<Bytes>>;

/// Headers of an answer may be so long.
const MOST_HEADERS: usize = 256 << 10;

/// A connection to a server. It carries the answer's body after the answer, so it has to be
/// kept until that is received.
pub(crate) struct Line {
    /// Scheme, host and port.
    server: String,
    sender: SendRequest<Sent>,
    through: Option<Through>,
    _driver: Task<()>,
}

impl Line {
    pub(crate) async fn open(
        upstreams: &Upstreams,
        outside: &Outside,
        url: &Url,
    ) -> Result<Line, String> {
        let reached = upstreams.reach(outside, url).await?;
        let shaking = http1::Builder::new()
            .max_buf_size(MOST_HEADERS)
            .handshake(TokioIo::new(reached.stream));
        let (sender, connection) = shaking.await.map_err(told)?;
        let driver = spawn("upstream", async move {
            // Whoever waits for an answer is told.
            let _ = connection.await;
        });
        Ok(Line {
            server: server(url),
            sender,
            through: reached.through,
            _driver: driver,
        })
    }

    /// Whether a request for `url` can go over it.
    pub(crate) async fn serves(&mut self, url: &Url) -> bool {
        self.server == server(url) && self.sender.ready().await.is_ok()
    }

    /// The answer; its body is still to come. `Err` has the request again if it was not sent.
    pub(crate) async fn ask(
        &mut self,
        url: &Url,
        mut request: Request<Sent>,
    ) -> Result<Response<Incoming>, (String, Option<Request<Sent>>)> {
        let target = match &self.through {
            None => &url[Position::BeforePath..],
            Some(_) => url.as_str(),
        };
        match target.parse::<Uri>() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(error) => return Err((error.to_string(), None)),
        }
        if let Some(login) = self.login() {
            request.headers_mut().insert(PROXY_AUTHORIZATION, login);
        }
        let answer = self.sender.try_send_request(request).await;
        answer.map_err(|mut failed| {
            let unsent = failed.take_message();
            (told(failed.into_error()), unsent)
        })
    }

    fn login(&self) -> Option<HeaderValue> {
        self.through.as_ref()?.login.clone()
    }
}

fn server(url: &Url) -> String {
    url[..Position::BeforePath].to_owned()
}

/// An error with its causes.
fn told(error: hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
