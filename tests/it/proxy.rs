//! Steps that reach the network through the proxy and in no other way.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{BaseImage, Daemon, Peers, Place, Running, free_port, json};

const HELLO: &str = "hello from outside\n";

/// A server on this machine's loopback, for as long as the test program runs.
struct Web {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Web {
    fn start() -> Web {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("there is a loopback");
        let port = listener.local_addr().expect("it listens").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::Relaxed);
                // Whoever went away needs no answer.
                let _ = Web::answer(stream);
            }
        });
        Web { port, connections }
    }

    fn answer(mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? == 1 {
            head.push(byte[0]);
        }
        let found = head.starts_with(b"GET /hello ") || head.starts_with(b"GET /old ");
        let (status, body) = match found {
            true => ("200 OK", HELLO),
            false => ("404 Not Found", "nothing\n"),
        };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        stream.write_all(answer.as_bytes())
    }

    /// By the name that builds are given for it: the loopback itself is not asked for through
    /// proxies.
    fn url(&self, path: &str) -> String {
        format!("http://outside:{}{path}", self.port)
    }
}

const OUTSIDE: [&str; 3] = ["--proxy-network", "--add-host", "outside=127.0.0.1"];

fn args<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&OUTSIDE[..], more].concat()
}

/// What the provenance in a folder says of the network, and its materials.
fn provenance(folder: &Path) -> (Value, Vec<(String, String)>) {
    let bytes = fs::read(folder.join("provenance.json")).expect("it was asked for");
    let predicate = json(&bytes)["predicate"].clone();
    let materials = predicate["buildDefinition"]["resolvedDependencies"].clone();
    let materials = materials.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pairs = materials
        .iter()
        .map(|one| (text(&one["uri"]), text(&one["digest"]["sha256"])));
    (predicate["runDetails"]["metadata"].clone(), pairs.collect())
}

/// Rows: X08
#[test]
fn steps_reach_the_network_through_the_proxy_only_and_it_is_told() {
    let (place, web) = (Place::new(), Web::start());
    let (base, port) = (BaseImage::name(), web.port);
    let dockerfile = format!(
        "FROM {base} AS got\nRUN wget -q -O /got {} && ! wget -q -O /none {}\n\
         RUN unset http_proxy HTTP_PROXY; ip -o link | wc -l | sed 's/^/links:/'; \
         for to in outside 127.0.0.1 1.1.1.1; do nc -w 2 $to {port} < /dev/null && exit 9; done; true\n\
         RUN --network=none ! env | grep -i _proxy= && ! wget -q -O /none {}\n\
         FROM scratch\nCOPY --from=got /got /got\n",
        web.url("/hello"),
        web.url("/missing"),
        web.url("/hello"),
    );
    place.context(&dockerfile);
    let out = place.path("out");
    let output = format!("type=local,dest={}", out.display());
    let wanted = ["--provenance=mode=max,version=v1", "-o", &output];
    let build = place.build(&args(&wanted)).ok();
    let (hello, missing) = (web.url("/hello"), web.url("/missing"));
    let build = build.says(&[
        "proxy network requests:",
        &format!("- GET {hello} -> 200"),
        &format!("- GET {missing} -> 404"),
        "links:1",
    ]);
    assert_eq!(web.connections.load(Ordering::Relaxed), 2, "{build}");
    assert_eq!(
        fs::read_to_string(out.join("got")).expect("it is there"),
        HELLO
    );
    let (metadata, materials) = provenance(&out);
    let digest = oci::Digest::of(HELLO).hex();
    assert!(materials.contains(&(hello, digest)), "{materials:?}");
    let network = &metadata["buildkit_metadata"]["network"];
    assert_eq!(network["mode"], "proxy", "{metadata}");
    let incomplete = network["incomplete"].as_array().expect("one request");
    assert_eq!(incomplete.len(), 1, "{network}");
    assert_eq!(incomplete[0]["uri"], missing.as_str());
    assert_eq!(incomplete[0]["method"], "GET");
    assert_eq!(incomplete[0]["reason"], "unsuccessful_response");
    assert_eq!(
        metadata["buildkit_completeness"]["resolvedDependencies"],
        false
    );

    // The proxy is no part of a step's name, so what was made with it is known without it, and
    // the other way round. What a step got that was not run now is not known.
    let build = place.build(&["--add-host", "outside=127.0.0.1", "-o", &output]);
    assert_eq!(build.ok().made(), Vec::<String>::new());
    let strict = "--provenance=mode=max,version=v1,complete-materials=true";
    let build = place.build(&args(&[strict, "-o", &output])).fails();
    build.says(&["materials are incomplete"]);
    let build = place.build(&args(&wanted)).ok();
    assert_eq!(build.made(), Vec::<String>::new());
    let (metadata, _) = provenance(&out);
    let incomplete = metadata["buildkit_metadata"]["network"]["incomplete"].clone();
    let reasons = incomplete.as_array().cloned().unwrap_or_default();
    assert!(!reasons.is_empty() && reasons.iter().all(|one| one["reason"] == "not_captured"));
    place.assert_nothing_left();
}

/// The host's network is where the proxy of such a step reaches out from, for those who may have
/// it. Here the daemon has a proxy for all builds.
///
/// Rows: X08
#[test]
fn a_step_with_the_hosts_network_has_a_proxy_too() {
    let (place, web) = (Place::new(), Web::start());
    let flags = [
        "--proxy-network",
        "--allow-insecure-entitlement=network.host",
    ];
    let daemon = Daemon::start_at(&place, "", &flags);
    let url = format!("http://127.0.0.1:{}/hello", web.port);
    place.context(&format!(
        "FROM {}\nRUN --network=host wget -q -O - {url} | sed 's/^/got /'; \
         ip -o link | wc -l | sed 's/^/links:/'\n",
        BaseImage::name()
    ));
    let build = daemon.build(&["--allow=network.host"]).ok();
    build.says(&[
        "got hello from outside",
        "links:1",
        &format!("- GET {url} -> 200"),
    ]);
    let build = daemon.build(&["--no-cache"]).fails();
    build.says(&["network.host is not allowed"]);
    assert_eq!(web.connections.load(Ordering::Relaxed), 1);
    daemon.stop().ok();
}

/// A daemon that does it for all builds, and a client of BuildKit's with rules for sources: what a
/// step asks for is one.
///
/// Rows: X08, P05
#[test]
fn the_source_policy_holds_for_what_steps_ask_for() {
    let (place, web) = (Place::new(), Web::start());
    let daemon = Daemon::start(&place, "proxyNetwork = true\n");
    let Some(program) = Peers::get().and_then(Peers::buildctl) else {
        return;
    };
    let build = |dockerfile: &str, rules: &str| {
        place.context(&format!("FROM {}\n{dockerfile}", BaseImage::name()));
        let policy = place.write("policy.json", format!("{{\"rules\": [{rules}]}}"));
        let mut command = std::process::Command::new(&program);
        command
            .current_dir(place.root())
            .env("HOME", place.root())
            .args(["--addr", &daemon.address(), "build", "--progress=plain"])
            .args([
                "--frontend=dockerfile.v0",
                "--local=context=ctx",
                "--local=dockerfile=ctx",
            ])
            .args(["--opt=add-hosts=outside=127.0.0.1", "--source-policy-file"])
            .arg(policy);
        place.start(command).wait()
    };
    let deny = |url: &str| {
        format!("{{\"action\": \"DENY\", \"selector\": {{\"identifier\": \"{url}\"}}}}")
    };
    let (hello, old) = (web.url("/hello"), web.url("/old"));
    let wget = |url: &str| format!("RUN wget -q -O - {url}\n");
    let denied = build(&wget(&hello), &deny("http://outside:*")).fails();
    denied.says(&[&format!("- GET {hello} -> 403 (source")]);
    assert_eq!(web.connections.load(Ordering::Relaxed), 0);
    let allow = format!(
        "{},{}",
        deny("http*"),
        deny(&hello).replace("DENY", "ALLOW")
    );
    build(&wget(&hello), &allow)
        .ok()
        .says(&[&format!("- GET {hello} -> 200")]);
    let convert = format!(
        "{{\"action\": \"CONVERT\", \"selector\": {{\"identifier\": \"{old}\"}}, \
         \"updates\": {{\"identifier\": \"{hello}\"}}}}"
    );
    let converted = build(&wget(&old), &convert).ok();
    converted.says(&[&format!("- GET {hello} -> 200"), "hello from outside"]);
    daemon.stop().ok();
}

/// A program with a real TLS library, whose idea of whom to trust is the image's bundle.
fn curl(place: &Place, peers: Peers) {
    let listed = place
        .start(peers.command(&["ldd", "/usr/bin/curl"]))
        .wait()
        .ok();
    let text = listed.text();
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain(["/usr/bin/curl"]) {
        let from = peers.folder().join(&file[1..]);
        place.write(&format!("ctx/root{file}"), fs::read(from).expect("a file"));
    }
    place.write("ctx/root/etc/ssl/certs/ca-certificates.crt", "nobody yet\n");
}

/// A server that speaks TLS, with a certificate of its own.
struct Secure {
    running: Running,
    url: String,
}

impl Secure {
    fn start(place: &Place, peers: Peers) -> Secure {
        place.write("web/hello", HELLO);
        let new = "openssl req -quiet -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        let script = format!(
            "cd {} && {new} -x509 -keyout ca.key -out ca.pem -subj /CN=authority && \
             {new} -keyout key.pem -out asked.pem -subj /CN=outside && \
             echo subjectAltName=DNS:outside > names && openssl x509 -req -in asked.pem \
             -CA ca.pem -CAkey ca.key -extfile names -out cert.pem",
            place.path("web").display()
        );
        place
            .start(peers.command(&["sh", "-c", &script]))
            .wait()
            .ok();
        let port = free_port();
        let script = format!(
            "cd {} && exec openssl s_server -quiet -WWW -accept 127.0.0.1:{port} \
             -cert cert.pem -key key.pem",
            place.path("web").display()
        );
        let running = place.start(peers.command(&["sh", "-c", &script]));
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "{}", running.said());
            std::thread::sleep(Duration::from_millis(10));
        }
        Secure {
            running,
            url: format!("https://outside:{port}/hello"),
        }
    }
}

/// Rows: X08
#[test]
fn https_is_seen_by_programs_that_trust_the_images_bundle() {
    let place = Place::new();
    let Some(peers) = Peers::get() else {
        return;
    };
    curl(&place, peers);
    let web = Secure::start(&place, peers);
    let (url, authority) = (&web.url, place.path("web/ca.pem"));
    let theirs = fs::read(&authority).expect("it was made");
    place.write("ctx/root/other.pem", theirs);
    let variables = [("SSL_CERT_FILE", authority.to_str().expect("text"))];
    let daemon = Daemon::start_with(&place, "", &variables);
    place.context(&format!(
        "FROM {} AS got\nCOPY --chmod=755 root /\nRUN curl --silent --show-error --fail -o /got {url}\n\
         RUN curl --silent --show-error --cacert /other.pem {url} || echo not trusted\n\
         FROM scratch\nCOPY --from=got /got /etc/ssl/certs/ca-certificates.crt /\n",
        BaseImage::name()
    ));
    let out = place.path("out");
    let output = format!("type=local,dest={}", out.display());
    let wanted = ["--provenance=mode=max,version=v1", "-o", &output];
    let build = daemon.build(&args(&wanted)).ok();
    build.says(&[
        &format!("- GET {url} -> 200"),
        "not trusted",
        "- CONNECT outside:",
        "only HTTPS goes through the proxy, from programs that trust its certificate",
    ]);
    assert_eq!(
        fs::read_to_string(out.join("got")).expect("it is there"),
        HELLO
    );
    let bundle = fs::read_to_string(out.join("ca-certificates.crt")).expect("it is there");
    assert_eq!(bundle, "nobody yet\n", "nothing of the proxy's stays");
    let (_, materials) = provenance(&out);
    let digest = oci::Digest::of(HELLO).hex();
    assert!(materials.contains(&(url.clone(), digest)), "{materials:?}");
    daemon.stop().ok();
    drop(web.running);
}

/// A build that is stopped while a server makes it wait leaves nothing.
///
/// Rows: X08
#[test]
fn a_build_can_be_stopped_while_a_server_hangs() {
    let place = Place::new();
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("there is a loopback");
    let port = listener.local_addr().expect("it listens").port();
    place.context(&format!(
        "FROM {}\nRUN wget -q -O - http://outside:{port}/\n",
        BaseImage::name()
    ));
    let build = place.start_build(&OUTSIDE);
    listener.set_nonblocking(true).expect("it is a socket");
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut asked = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(_) => assert!(Instant::now() < deadline, "{}", build.said()),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    asked.set_nonblocking(false).expect("it is a socket");
    let mut first = [0];
    asked.read_exact(&mut first).expect("a request");
    build.signal(rustix::process::Signal::INT);
    let begun = Instant::now();
    build.wait().fails();
    assert!(begun.elapsed() < Duration::from_secs(10));
    place.assert_nothing_left();
}
