//! Clients and servers that want to see it fall.

use std::time::Duration;

use futures::future::join_all;

use super::servers::Server;
use super::*;

/// Whatever was said before, it goes on serving.
async fn still_serves(proxy: &Served, server: &Server) {
    let url = server.url("/hello");
    let asking = proxy.get(&url);
    let answer = tokio::time::timeout(Duration::from_secs(20), asking).await;
    assert_eq!(answer.unwrap(), (200, "hello\n".into()));
}

/// Rows: X08
#[tokio::test]
async fn what_is_no_request_is_refused() {
    let (server, proxy) = (Server::start().await, Served::start().await);
    for nonsense in [
        "\0\0\0\0\r\n\r\n",
        "SSH-2.0-OpenSSH_9.9\r\n\r\n",
        "GET\r\n\r\n",
        "GET http://[/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET ftp://127.0.0.1/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET http:/// HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "CONNECT / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "POST http://127.0.0.1/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST http://127.0.0.1/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = proxy.say(nonsense).await;
        let status = parted(&answer).0;
        assert!([0, 400].contains(&status), "{nonsense:?}: {answer}");
    }
    assert_eq!(proxy.proxy.seen().requests, []);
    still_serves(&proxy, &server).await;
}

/// Rows: X08
#[tokio::test]
async fn headers_end_somewhere() {
    let (server, proxy) = (Server::start().await, Served::start().await);
    let begin = format!("GET {} HTTP/1.1\r\nHost: x\r\n", server.url("/hello"));
    let long = format!("{begin}X: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("{begin}{}\r\n", "X: x\r\n".repeat(5000));
    for headers in [long, many] {
        let answer = proxy.say(&headers).await;
        assert!([0, 431].contains(&parted(&answer).0), "{answer}");
    }
    still_serves(&proxy, &server).await;
}

/// Rows: X08
#[tokio::test]
async fn half_a_request_harms_nobody() {
    let (server, proxy) = (Server::start().await, Served::start().await);
    let request = format!("POST {} HTTP/1.1\r\nHost: x\r\n", server.url("/hello"));
    let request = format!("{request}Content-Length: 100\r\n\r\nsome");
    let mut held = Vec::new();
    for length in [1, 10, request.len() - 4, request.len()] {
        let mut stream = proxy.connect().await;
        stream
            .write_all(&request.as_bytes()[..length])
            .await
            .unwrap();
        held.push(stream);
        let mut stream = proxy.connect().await;
        stream
            .write_all(&request.as_bytes()[..length])
            .await
            .unwrap();
    }
    still_serves(&proxy, &server).await;
}

/// More connections than are served at a time wait for their turn.
///
/// Rows: X08
#[tokio::test]
async fn thousands_of_connections_are_served_in_turn() {
    let (server, proxy) = (Server::start().await, Served::start().await);
    let rounds = (0..3).map(|_| async {
        for _ in 0..5 {
            let url = server.url("/hello");
            let answers = join_all((0..70).map(|_| proxy.get(&url))).await;
            assert!(answers.iter().all(|answer| answer.0 == 200));
        }
    });
    join_all(rounds).await;
    let mut idle = Vec::new();
    for _ in 0..255 {
        idle.push(proxy.connect().await);
    }
    still_serves(&proxy, &server).await;
    // One more than there is room for: it is served when another goes.
    idle.push(proxy.connect().await);
    let url = server.url("/hello");
    let mut waiting = Box::pin(proxy.get(&url));
    let patience = Duration::from_millis(200);
    tokio::time::timeout(patience, &mut waiting)
        .await
        .unwrap_err();
    idle.truncate(100);
    assert_eq!(waiting.await.0, 200);
}

/// A server that never answers holds nobody but who asked it, and nobody when the proxy goes.
///
/// Rows: X08
#[tokio::test]
async fn a_server_that_hangs_is_let_go_of() {
    let (server, proxy) = (Server::start().await, Served::start().await);
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", server.url("/hangs"));
    let mut hanging = Vec::new();
    for _ in 0..10 {
        let mut stream = proxy.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        hanging.push(stream);
    }
    still_serves(&proxy, &server).await;
    // What was sent may have been heard.
    let unanswered = proxy.incomplete();
    assert_eq!(unanswered, [crate::seen::UPSTREAM; 10]);
    drop(proxy.serving);
    for mut stream in hanging {
        let ended = tokio::time::timeout(Duration::from_secs(5), rest(&mut stream)).await;
        assert_eq!(ended.unwrap(), "");
    }
    let ended = TcpStream::connect(proxy.address).await;
    assert!(ended.is_err(), "nobody listens any more");
}

/// Rows: X08
#[tokio::test]
async fn methods_that_lead_elsewhere_are_refused() {
    let (server, proxy) = (Server::start().await, Served::start().await);
    assert_eq!(proxy.ask("TRACE", &server.url("/hello")).await.0, 405);
    let login = "CONNECT me:secret@far.test:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(proxy.say(login).await.starts_with("HTTP/1.1 400 "));
    assert_eq!(
        proxy.told(server.address),
        ["- TRACE http://SERVER/hello -> 405 (this method does not go through the proxy)"]
    );
    still_serves(&proxy, &server).await;
}

/// A server that wants to speak something else is not followed.
///
/// Rows: X08
#[tokio::test]
async fn no_answer_opens_a_way_out() {
    let (server, proxy) = (Server::start().await, Served::start().await);
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: x\r\n\r\n",
        server.url("/switch")
    );
    let (status, why) = parted(&proxy.say(&request).await);
    assert_eq!(status, 502, "{why}");
    still_serves(&proxy, &server).await;
}
