//! Requests and answers in the clear, and what is known of them.

use std::sync::atomic::Ordering;

use oci::Digest;

use super::servers::Server;
use super::*;

/// Rows: X08
#[tokio::test]
async fn what_is_received_whole_is_a_material() {
    let (server, proxy) = (Server::start().await, Served::start().await);
    for path in ["/hello", "/chunks", "/close"] {
        assert_eq!(proxy.get(&server.url(path)).await, (200, "hello\n".into()));
    }
    let materials = proxy.proxy.seen().materials;
    let urls: Vec<&str> = materials.iter().map(|one| one.url.as_str()).collect();
    assert_eq!(
        urls,
        ["/hello", "/chunks", "/close"].map(|path| server.url(path))
    );
    assert!(
        materials
            .iter()
            .all(|one| one.digest == Digest::of("hello\n"))
    );
    assert_eq!(proxy.incomplete(), Vec::<&str>::new());
    assert_eq!(
        proxy.told(server.address),
        [
            "- GET http://SERVER/hello -> 200",
            "- GET http://SERVER/chunks -> 200",
            "- GET http://SERVER/close -> 200"
        ]
    );
}

/// Rows: X08
#[tokio::test]
async fn what_is_not_says_why() {
    let (server, proxy) = (Server::start().await, Served::start().await);
    assert_eq!(proxy.ask("POST", &server.url("/hello")).await.0, 200);
    assert_eq!(
        proxy.ask("HEAD", &server.url("/hello")).await,
        (200, String::new())
    );
    assert_eq!(proxy.get(&server.url("/part")).await.0, 206);
    assert_eq!(proxy.get(&server.url("/missing")).await.0, 404);
    assert!(!proxy.get(&server.url("/short")).await.1.contains("hello\n"));
    assert_eq!(proxy.get("http://127.0.0.1:1/").await.0, 502);
    assert_eq!(proxy.get(&server.url("/sends-on")).await.0, 302);
    let range = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-\r\nConnection: close\r\n\r\n",
        server.url("/hello")
    );
    assert_eq!(parted(&proxy.say(&range).await).0, 200);
    assert_eq!(
        proxy.incomplete(),
        [
            "method_not_materializable",
            "method_not_materializable",
            "partial_response",
            "unsuccessful_response",
            "body_read_failed",
            "upstream_error",
            "partial_response",
        ]
    );
    assert_eq!(proxy.proxy.seen().materials, []);
    let told = proxy.told(server.address);
    assert!(
        told[5].starts_with("- GET http://127.0.0.1:1/ -> 502 ("),
        "{told:?}"
    );
}

/// Rows: X08
#[tokio::test]
async fn an_address_that_sends_on_is_a_material_too() {
    let (server, proxy) = (Server::start().await, Served::start().await);
    proxy.get(&server.url("/sends-on")).await;
    proxy.get(&server.url("/hello")).await;
    let all = proxy.proxy.seen().all_materials();
    let urls: Vec<&str> = all.iter().map(|one| one.url.as_str()).collect();
    assert_eq!(urls, [server.url("/hello"), server.url("/sends-on")]);
}

/// Rows: X08
#[tokio::test]
async fn requests_are_passed_on_as_they_are_but_for_the_hop() {
    let (server, proxy) = (Server::start().await, Served::start().await);
    let request = format!(
        "POST http://user:p%40ss@{}/echo?q=%20#part HTTP/1.1\r\nHost: elsewhere\r\n\
         Connection: close, X-Mine\r\nX-Mine: 1\r\nX-Kept: 2\r\nProxy-Authorization: Basic eA==\r\n\
         Proxy-Connection: keep-alive\r\nAccept-Encoding: gzip\r\nTE: trailers\r\n\
         Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        server.address
    );
    let answer = proxy.say(&request).await;
    let answer = answer.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n");
    let (status, heard) = parted(answer);
    assert_eq!(status, 200);
    let mut lines: Vec<String> = heard.to_lowercase().lines().map(str::to_owned).collect();
    lines.sort();
    let host = format!("host: {}", server.address);
    assert_eq!(
        lines,
        [
            "",
            "14",
            "authorization: basic dxnlcjpwqhnz",
            &host,
            "post /echo?q=%20 http/1.1",
            "transfer-encoding: chunked",
            "x-kept: 2",
        ]
    );
    assert_eq!(
        proxy.told(server.address),
        ["- POST http://xxxxx:xxxxx@SERVER/echo?q=%20 -> 200"]
    );
}

/// Rows: X08
#[tokio::test]
async fn connections_are_used_again_and_dead_ones_replaced() {
    let (server, proxy) = (Server::start().await, Served::start().await);
    let mut stream = proxy.connect().await;
    for path in [
        "/hello",
        "/hello",
        "/chunks",
        "/then-closes",
        "/hello",
        "/hello",
    ] {
        let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", server.url(path));
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let whole = |answer: &str| match path {
            "/then-closes" => answer.ends_with("\r\n0") || answer.ends_with("\n\r\n0"),
            "/chunks" => answer.ends_with("0\r\n\r\n"),
            _ => answer.ends_with("hello\n"),
        };
        while !whole(&answer) {
            let mut piece = [0; 1024];
            let length = stream.read(&mut piece).await.unwrap();
            assert_ne!(length, 0, "{path}: {answer}");
            answer.push_str(std::str::from_utf8(&piece[..length]).unwrap());
        }
    }
    assert_eq!(server.connections.load(Ordering::Relaxed), 2);
    assert_eq!(proxy.proxy.seen().requests.len(), 6);
}

/// Bodies of any size pass as they come.
///
/// Rows: X08
#[tokio::test]
async fn bodies_are_not_held_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = Served::start().await;
    let mut client = proxy.connect().await;
    let request = format!("GET http://{address}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    // A connection that is closed with something unread takes with it what is on its way.
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        asked.push(server.read_u8().await.unwrap());
    }
    let length = 48 << 20;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    server.write_all(head.as_bytes()).await.unwrap();
    server.write_all(b"first").await.unwrap();
    let mut begin = Vec::new();
    while !begin.ends_with(b"first") {
        begin.push(client.read_u8().await.unwrap());
    }
    // Nobody reads: the server is held back, long before it has sent everything.
    let piece = vec![7; 1 << 20];
    let mut sent = 0;
    let stuffing = async {
        loop {
            sent += server.write(&piece).await.unwrap();
        }
    };
    let patience = std::time::Duration::from_millis(700);
    tokio::time::timeout(patience, stuffing).await.unwrap_err();
    assert!(sent < length / 2, "{sent} bytes are somewhere");
    let sending = spawn("server", async move {
        let mut left = length - 5 - sent;
        while left > 0 {
            let now = left.min(piece.len());
            server.write_all(&piece[..now]).await.unwrap();
            left -= now;
        }
    });
    let mut received = 5;
    let mut piece = vec![0; 1 << 20];
    while received < length {
        let now = client.read(&mut piece).await.unwrap();
        assert_ne!(now, 0, "{received} of {length}, {sent} at first");
        received += now;
    }
    sending.await;
    assert_eq!(proxy.proxy.seen().materials.len(), 1);
}

/// Rows: X08
#[tokio::test]
async fn the_gate_decides_on_one_form_of_each_address() {
    let server = Server::start().await;
    let rules = Arc::new(Rules {
        other: server.url("/hello"),
        ..Rules::default()
    });
    let proxy = Served::with(direct(), Some(rules.clone())).await;
    let port = server.address.port();
    assert_eq!(proxy.get(&server.url("/fine")).await.0, 200);
    let (status, why) = proxy.get(&server.url("/denied")).await;
    assert_eq!((status, why.as_str()), (403, "Forbidden: not that\n"));
    for odd in [
        format!("HTTP://127.1:{port}/x/../denied"),
        format!("http://LOCALHOST.:{port}/%2e%2e/denied"),
        format!("http://a:b@localhost:{port}/./denied"),
        format!("http://localhost...:{port}/denied"),
        format!("http://[::ffff:127.0.0.1]:{port}/denied"),
        format!("http://0:{port}/denied"),
    ] {
        assert_eq!(proxy.get(&odd).await.0, 403, "{odd}");
    }
    assert_eq!(
        proxy.get(&server.url("/old")).await,
        (200, "hello\n".into())
    );
    assert_eq!(proxy.ask("POST", &server.url("/old")).await.0, 403);
    let asked = rules.asked.lock().unwrap().join("\n");
    let asked = asked.replace(&port.to_string(), "PORT");
    assert_eq!(
        asked,
        "GET http://127.0.0.1:PORT/fine\n\
         GET http://127.0.0.1:PORT/denied\n\
         GET http://127.0.0.1:PORT/denied\n\
         GET http://localhost:PORT/denied\n\
         GET http://xxxxx:xxxxx@localhost:PORT/denied\n\
         GET http://localhost:PORT/denied\n\
         GET http://127.0.0.1:PORT/denied\n\
         GET http://127.0.0.1:PORT/denied\n\
         GET http://127.0.0.1:PORT/old\n\
         POST http://127.0.0.1:PORT/old"
    );
    let seen = proxy.proxy.seen();
    let urls: Vec<&str> = seen.materials.iter().map(|one| one.url.as_str()).collect();
    assert_eq!(urls, [server.url("/fine"), server.url("/hello")]);
    assert_eq!(seen.incomplete, [], "what was denied brought nothing in");
    let told = proxy.told(server.address);
    assert_eq!(told[1], "- GET http://SERVER/denied -> 403 (not that)");
    assert_eq!(told[8], "- GET http://SERVER/hello -> 200");
}

/// Rows: X08
#[tokio::test]
async fn a_gate_that_sends_to_nowhere_denies() {
    let server = Server::start().await;
    for other in ["ftp://x/", "docker-image://x", "no address"] {
        let rules = Rules {
            other: other.into(),
            ..Rules::default()
        };
        let proxy = Served::with(direct(), Some(Arc::new(rules))).await;
        let (status, why) = proxy.get(&server.url("/old")).await;
        assert_eq!(status, 403, "{why}");
        assert!(why.contains(other), "{why}");
    }
}
