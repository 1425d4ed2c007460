//! Registries: a real one, and one in memory that misbehaves when told to.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use testkit::image::Blob;
use testkit::registry::Server;
use tokio::runtime::Runtime;

use super::binary;
use super::peers::Peers;
use super::place::Place;
use super::running::Running;

/// The registry of the testkit, with a runtime to live in.
pub(crate) struct Memory {
    server: Server,
    _runtime: Runtime,
}

impl Memory {
    /// Starts one.
    pub(crate) fn start() -> Memory {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let server = runtime.block_on(Server::start());
        Memory {
            server,
            _runtime: runtime,
        }
    }
}

impl std::ops::Deref for Memory {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

/// Docker's registry, if the tools of others are there, else the one in memory.
pub(crate) enum Real {
    /// A process that is killed when this is dropped.
    Process(
        #[allow(dead_code, reason = "it ends with us")] Running,
        String,
    ),
    /// Good enough to push to and pull from.
    Memory(Memory),
}

impl Real {
    /// Starts one with its data in `place`.
    #[track_caller]
    pub(crate) fn start(place: &Place) -> Real {
        let Some(peers) = Peers::get() else {
            return Real::Memory(Memory::start());
        };
        let port = free_port();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
            place.path("registry").display()
        );
        let config = place.write("registry.yml", config);
        let config = config.to_str().expect("our paths are text");
        let mut running = place.start(peers.command(&["docker-registry", "serve", config]));
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(!running.ended(), "the registry ended:\n{}", running.said());
            assert!(Instant::now() < deadline, "no answer:\n{}", running.said());
            std::thread::sleep(Duration::from_millis(10));
        }
        Real::Process(running, format!("127.0.0.1:{port}"))
    }

    /// `127.0.0.1:port`
    pub(crate) fn host(&self) -> String {
        match self {
            Real::Process(_, host) => host.clone(),
            Real::Memory(memory) => memory.host(),
        }
    }
}

/// A port nobody has; somebody may take it before we do, which is rare.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// The base image of the golden builds: busybox, 1 MB.
pub(crate) struct BaseImage;

impl BaseImage {
    /// `127.0.0.1:port/library/base:1`, in a registry all tests share.
    pub(crate) fn name() -> String {
        format!("{}/library/base:1", BaseImage::host())
    }

    /// The host of that registry.
    pub(crate) fn host() -> String {
        static SHARED: OnceLock<Memory> = OnceLock::new();
        let shared = SHARED.get_or_init(|| {
            let memory = Memory::start();
            BaseImage::put(&memory, "library/base", "1");
            memory
        });
        shared.host()
    }

    /// Settings that make that registry the mirror of Docker Hub.
    pub(crate) fn mirror() -> String {
        mirror(&BaseImage::host())
    }

    /// Puts it into a registry.
    pub(crate) fn put(server: &Server, repository: &str, tag: &str) {
        let manifest = BaseImage::manifest();
        let document: serde_json::Value =
            serde_json::from_slice(&manifest.bytes).expect("a manifest");
        let layers = document["layers"].as_array().expect("layers").iter();
        for descriptor in layers.chain([&document["config"]]) {
            let digest = descriptor["digest"].as_str().expect("a digest");
            let media_type = descriptor["mediaType"].as_str().expect("a media type");
            server.add_blob(repository, &blob(media_type, digest));
        }
        server.add_manifest(repository, tag, &manifest);
    }

    /// The same files under another digest: its manifest has an annotation more.
    pub(crate) fn put_other(server: &Server, repository: &str, tag: &str) {
        let manifest = BaseImage::manifest();
        let mut document: serde_json::Value =
            serde_json::from_slice(&manifest.bytes).expect("a manifest");
        document["annotations"] = serde_json::json!({"another": "one"});
        let bytes = serde_json::to_vec(&document).expect("JSON");
        let other = Blob::new(oci::media_type::OCI_MANIFEST, bytes);
        server.add_manifest(repository, tag, &other);
    }

    fn manifest() -> Blob {
        let index = std::fs::read(golden().join("base/index.json")).expect("the base image");
        let index: serde_json::Value = serde_json::from_slice(&index).expect("an index");
        let digest = index["manifests"][0]["digest"].as_str().expect("a digest");
        blob(oci::media_type::OCI_MANIFEST, digest)
    }
}

/// Settings that make a registry the mirror of Docker Hub.
pub(crate) fn mirror(host: &str) -> String {
    format!("[registry.\"docker.io\"]\nmirrors = [\"{host}\"]\n")
}

/// Where the golden data lies.
pub(crate) fn golden() -> PathBuf {
    binary::repository().join("tests/golden")
}

fn blob(media_type: &str, digest: &str) -> Blob {
    let path = golden().join("base/blobs").join(digest.replace(':', "/"));
    Blob::new(
        media_type,
        std::fs::read(path).expect("a blob of the base image"),
    )
}
