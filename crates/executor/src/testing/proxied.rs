//! Promises about containers that have a proxy and no other way out.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Rootfs, gather, run_with, succeeds};
use crate::{Control, ExecProcess, Executor, HostIp, Io, Network, NetworkProxy, Outside, Process};

/// What every bundle in these tests ends in while a container runs.
const AUTHORITY: &str =
    "-----BEGIN CERTIFICATE-----\nb25seSBhIHRlc3Q=\n-----END CERTIFICATE-----\n";

/// Tells of every request whether its server can be reached.
pub struct Teller;

impl Teller {
    async fn answer(mut client: TcpStream, outside: &Outside) -> std::io::Result<()> {
        let mut asked = vec![0; 4096];
        let length = client.read(&mut asked).await?;
        let asked = String::from_utf8_lossy(&asked[..length]).into_owned();
        let url = asked.split(' ').nth(1).unwrap_or_default();
        let place = url.trim_start_matches("http://").trim_end_matches('/');
        let (host, port) = place.split_once(':').unwrap_or((place, "80"));
        let port = port.parse().unwrap_or_default();
        let reached = match outside.connect(host, port).await {
            Ok(_) => "reached",
            Err(_) => "not reached",
        };
        let answer = format!("HTTP/1.0 200 OK\r\n\r\n{url} is {reached}\n");
        client.write_all(answer.as_bytes()).await
    }
}

impl NetworkProxy for Teller {
    fn authority(&self) -> &str {
        AUTHORITY
    }

    fn serve(&self, listener: TcpListener, outside: Outside) -> BoxFuture<'static, ()> {
        let serving = async move {
            while let Ok((client, _)) = listener.accept().await {
                let _went_away = Teller::answer(client, &outside).await;
            }
        };
        serving.boxed()
    }
}

async fn server() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("there is a loopback");
    let port = listener.local_addr().expect("it listens").port();
    (listener, port)
}

fn proxied(mut process: Process) -> Process {
    process.proxy = Some(Arc::new(Teller));
    process
}

/// The network it asks for is where its proxy reaches out from; it has a loopback and the proxy.
///
/// Rows: X08
pub async fn a_proxied_container_reaches_its_proxy_and_nothing_else(executor: Arc<dyn Executor>) {
    let (_listening, port) = server().await;
    let script = format!(
        "ip -o link | wc -l
         wget -q -O- http://given:{port}/
         unset http_proxy HTTP_PROXY
         nc -w 2 127.0.0.1 {port} </dev/null && echo leaked
         nc -w 2 given {port} </dev/null && echo leaked
         nc -w 2 1.1.1.1 80 </dev/null && echo leaked
         nc -w 2 8.8.8.8 53 </dev/null && echo leaked
         echo end"
    );
    for network in [Network::Sandbox, Network::Host] {
        let rootfs = Rootfs::busybox();
        let mut process = proxied(rootfs.sh(&script));
        process.network = network;
        process.env = vec!["http_proxy=http://somewhere.invalid".into()];
        process.extra_hosts = vec![HostIp {
            host: "given".into(),
            ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        }];
        let ran = succeeds(&*executor, process).await;
        let told = format!("1\nhttp://given:{port}/ is reached\nend\n");
        assert_eq!(ran.out, told, "{ran:?}");
    }
}

/// Rows: X08
pub async fn without_a_network_there_is_no_proxy(executor: Arc<dyn Executor>) {
    let mut rootfs = Rootfs::busybox();
    bundle(&mut rootfs);
    let mut process = proxied(rootfs.sh("env | grep -ic proxy; cat /etc/ssl/cert.pem"));
    process.network = Network::None;
    let ran = super::run(&*executor, process).await.expect("it runs");
    assert_eq!(ran.out, "0\ntheirs\n");
}

/// Rows: X08
pub async fn a_process_that_joins_hears_of_the_proxy(executor: Arc<dyn Executor>) {
    let (_listening, port) = server().await;
    let rootfs = Rootfs::busybox();
    let mut process = proxied(rootfs.sh("exec sleep 60"));
    process.name = Some("proxied".into());
    let (control, controller, started) = Control::new();
    let joining = async {
        started.await.expect("it starts");
        let (io, out, err) = Io::channels(4);
        let script = format!("wget -q -O- http://127.0.0.1:{port}/; env | grep -c ^no_proxy=");
        let exec = ExecProcess {
            args: ["/bin/sh", "-c", &script].map(str::to_owned).to_vec(),
            env: vec!["no_proxy=".into()],
            ..ExecProcess::default()
        };
        let exec = executor.exec("proxied", exec, io, Control::none());
        let (exit, out, err) = tokio::join!(exec, gather(out), gather(err));
        controller.cancel();
        assert!(exit.expect("it ran").success(), "{out} {err}");
        assert!(out.ends_with("\n1\n"), "{out} {err}");
    };
    let (first, ()) = tokio::join!(run_with(&*executor, process, control), joining);
    first.expect_err("it was cancelled");
}

fn bundle(rootfs: &mut Rootfs) {
    let dir = rootfs.path().join("etc/ssl");
    std::fs::create_dir_all(&dir).expect("it is ours");
    std::fs::write(dir.join("cert.pem"), "theirs\n").expect("it is ours");
}

/// The proxy's authority is in the bundle as long as the container runs: of one that can be
/// written, and of one that cannot.
///
/// Rows: X08
pub async fn the_proxys_authority_is_trusted_for_the_run(executor: Arc<dyn Executor>) {
    for readonly in [false, true] {
        let mut rootfs = Rootfs::busybox();
        bundle(&mut rootfs);
        let script = "cat /etc/ssl/cert.pem; ls -a /etc/ssl; exit 3";
        let mut process = proxied(rootfs.sh(script));
        process.readonly_root = readonly;
        let ran = super::run(&*executor, process).await.expect("it runs");
        assert_eq!(ran.exit.code, 3, "{ran:?}");
        let (bundle, names) = ran.out.split_once("# kiln proxy CA end\n").expect("marks");
        assert_eq!(
            bundle,
            format!("theirs\n\n# kiln proxy CA begin\n{AUTHORITY}")
        );
        assert_eq!(names, ".\n..\ncert.pem\n");
        let after = std::fs::read_to_string(rootfs.path().join("etc/ssl/cert.pem"));
        assert_eq!(after.expect("it is there"), "theirs\n");
    }
}
