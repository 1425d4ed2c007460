//! Requests the proxy sees because it stands in for the server, and how it asks the real one.

use oci::Digest;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::servers::Server;
use super::*;
use crate::authority::Authority;

fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    roots.add(certificate).unwrap();
    roots
}

fn trusting(authority: &Authority) -> Upstreams {
    Upstreams::new(roots(authority.pem()), Matcher::builder().build())
}

/// Asks the proxy for a server, and shakes hands with whoever is there.
async fn enter(proxy: &Served, server: &str, name: &str) -> TlsStream<TcpStream> {
    let mut stream = proxy.connect().await;
    let request = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(proxy.proxy.authority()))
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.unwrap()
}

async fn ask(stream: &mut TlsStream<TcpStream>, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: lies\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    parted(&rest(stream).await)
}

/// Rows: X08
#[tokio::test]
async fn an_https_request_is_seen_decided_on_and_passed_on() {
    let authority = Authority::new().unwrap();
    let server = Server::secure(&authority, "127.0.0.1").await;
    let rules = Arc::new(Rules::default());
    let proxy = Served::with(trusting(&authority), Some(rules.clone())).await;
    let address = server.address.to_string();
    let mut stream = enter(&proxy, &address, "127.0.0.1").await;
    assert_eq!(ask(&mut stream, "/hello").await, (200, "hello\n".into()));
    let mut stream = enter(&proxy, &address, "127.0.0.1").await;
    assert_eq!(ask(&mut stream, "/denied").await.0, 403);
    let mut stream = enter(&proxy, &address, "127.0.0.1").await;
    let (_, heard) = ask(&mut stream, "/echo").await;
    // Not a server behind the same address that was not decided on.
    let host = format!("host: {address}");
    assert!(heard.to_lowercase().contains(&host), "{heard}");
    let material = &proxy.proxy.seen().materials[0];
    assert_eq!(material.url, format!("https://{address}/hello"));
    assert_eq!(material.digest, Digest::of("hello\n"));
    let asked = rules.asked.lock().unwrap().clone();
    assert_eq!(asked[1], format!("GET https://{address}/denied"));
}

/// Rows: X08
#[tokio::test]
async fn a_name_has_a_certificate_of_its_own() {
    let proxy = Served::start().await;
    for (server, name) in [
        ("nowhere.invalid:443", "nowhere.invalid"),
        ("under_score.invalid:8443", "under_score.invalid"),
        ("[::1]:1", "::1"),
    ] {
        let mut stream = enter(&proxy, server, name).await;
        assert_eq!(ask(&mut stream, "/").await.0, 502, "{server}");
    }
    // As browsers write it: without the port that goes without saying.
    let told = proxy.proxy.seen().summary();
    assert!(
        told.contains("- GET https://nowhere.invalid/ -> 502 ("),
        "{told}"
    );
}

/// Rows: X08
#[tokio::test]
async fn the_real_server_is_checked() {
    let (ours, theirs) = (Authority::new().unwrap(), Authority::new().unwrap());
    for (authority, name) in [(&theirs, "127.0.0.1"), (&ours, "other.invalid")] {
        let server = Server::secure(authority, name).await;
        let proxy = Served::with(trusting(&ours), None).await;
        let address = server.address.to_string();
        let mut stream = enter(&proxy, &address, "127.0.0.1").await;
        let (status, why) = ask(&mut stream, "/hello").await;
        assert_eq!(status, 502);
        assert!(why.contains("certificate"), "{why}");
        assert_eq!(proxy.incomplete(), ["upstream_error"]);
    }
}

/// Rows: X08
#[tokio::test]
async fn a_client_that_does_not_trust_the_proxy_is_told_of() {
    let proxy = Served::start().await;
    let hello = "CONNECT git.invalid:22 HTTP/1.1\r\nHost: x\r\n\r\nSSH-2.0-OpenSSH_9.9\r\n";
    let answer = proxy.say(hello).await;
    assert!(!answer.contains("SSH"), "{answer}");
    let told = proxy.proxy.seen();
    let [request] = &told.requests[..] else {
        panic!("one line: {told:?}");
    };
    assert_eq!(
        (request.method.as_str(), request.url.as_str()),
        ("CONNECT", "git.invalid:22")
    );
    let why = request.why.clone().unwrap_or_default();
    assert!(
        why.starts_with("only HTTPS goes through the proxy"),
        "{why}"
    );
}

/// Some programs look at the certificate when the handshake is over.
///
/// Rows: X08
#[tokio::test]
async fn a_client_that_leaves_after_the_handshake_is_told_of() {
    let proxy = Served::start().await;
    drop(enter(&proxy, "h.invalid:443", "h.invalid").await);
    let told = proxy.proxy.seen().summary();
    assert!(
        told.contains("- CONNECT h.invalid:443 -> 502 (only HTTPS"),
        "{told}"
    );
    let mut stream = enter(&proxy, "i.invalid:443", "i.invalid").await;
    ask(&mut stream, "/").await;
    let told = proxy.proxy.seen().summary();
    assert!(!told.contains("CONNECT i.invalid"), "{told}");
}

/// A proxy before the servers, as machines behind one have it in their environment.
///
/// Rows: X08
#[tokio::test]
async fn the_proxies_of_the_machine_are_asked() {
    let authority = Authority::new().unwrap();
    let server = Server::secure(&authority, "far.test").await;
    // It answers plain requests with what was asked, and connects where `CONNECT` says.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let before = listener.local_addr().unwrap();
    let heard = Arc::new(Mutex::new(String::new()));
    let hearing = heard.clone();
    let _serving = spawn("before", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap().to_lowercase();
            hearing.lock().unwrap().push_str(&head);
            let Some(target) = head.strip_prefix("connect ") else {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                stream.write_all(answer).await.unwrap();
                continue;
            };
            let target = target.split(' ').next().unwrap();
            let target = target.replace("far.test", "127.0.0.1");
            let mut other = TcpStream::connect(target).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut other).await;
        }
    });
    let proxies = Matcher::builder()
        .all(format!("http://me:secret@{before}"))
        .no("direct.invalid".to_owned());
    let upstreams = Upstreams::new(roots(authority.pem()), proxies.build());
    let proxy = Served::with(upstreams, None).await;
    let address = format!("far.test:{}", server.address.port());
    let mut stream = enter(&proxy, &address, "far.test").await;
    assert_eq!(ask(&mut stream, "/hello").await, (200, "hello\n".into()));
    assert_eq!(proxy.get("http://far.invalid/x").await, (200, "ok".into()));
    // What is on this machine is none of its business.
    let near = Server::start().await;
    assert_eq!(proxy.get(&near.url("/hello")).await.1, "hello\n");
    assert_eq!(proxy.get("http://direct.invalid/x").await.0, 502);
    let heard = heard.lock().unwrap().clone();
    assert!(
        heard.starts_with(&format!("connect {address} http/1.1\r\n")),
        "{heard}"
    );
    assert!(
        heard.contains("get http://far.invalid/x http/1.1\r\n"),
        "{heard}"
    );
    assert_eq!(
        heard
            .matches("proxy-authorization: basic bwu6c2vjcmv0")
            .count(),
        2
    );
    let upstreams = Upstreams::new(
        RootCertStore::empty(),
        Matcher::builder()
            .all("socks5://127.0.0.1:1".to_owned())
            .build(),
    );
    let (status, why) = Served::with(upstreams, None)
        .await
        .get("http://far.invalid/")
        .await;
    assert_eq!(status, 502);
    assert!(why.contains("socks5 are not supported"), "{why}");
}
