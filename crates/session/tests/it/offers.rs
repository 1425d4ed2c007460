//! What a client offers arrives, the same with a wire and without.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use content::{Provider as _, Sink as _};
use futures::StreamExt as _;
use llb::facts::{
    Attestations, ChecksumAlgorithm, ChecksumQuestion, DownloadFacts, Facts, GitFacts, ImageFacts,
    Questions,
};
use oci::Descriptor;
use session::local::{
    Dirs, Logins, SecretSource, SecretValues, SshSockets, Stores, Target, Targets,
};
use session::*;
use stdx::Kind;
use stdx::sys::Root;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::ends::join;

/// Runs a check over the wire and without one.
async fn both(offers: impl Fn() -> Attachables, check: impl AsyncFn(Arc<Session>)) {
    check(Arc::new(Session::direct("id", "name", offers()))).await;
    let ends = join(offers()).await;
    check(ends.session.clone()).await;
}

/// Rows: N01, N03, N04
#[tokio::test]
async fn directories() {
    let from = tempfile::tempdir().unwrap();
    std::fs::create_dir(from.path().join("späß")).unwrap();
    std::fs::write(from.path().join("späß/a"), "hello").unwrap();
    std::fs::write(from.path().join("skip.md"), "x".repeat(300_000)).unwrap();
    let offers = || Attachables::new().with_dirs(Dirs::new().with("context", from.path()));
    both(offers, async |session: Arc<Session>| {
        let to = tempfile::tempdir().unwrap();
        let request = DirRequest {
            name: "context".into(),
            exclude: vec!["*.md".into(), "nothing ä".into()],
            ..DirRequest::default()
        };
        let files = session.file_sync().unwrap();
        let summary = files
            .sync_into(&request, Root::open(to.path()).unwrap(), None)
            .await
            .unwrap();
        assert_eq!((summary.entries, summary.files, summary.bytes), (2, 1, 5));
        assert_eq!(
            std::fs::read_to_string(to.path().join("späß/a")).unwrap(),
            "hello"
        );

        let all = DirRequest {
            exclude: vec![],
            ..request
        };
        let summary = files
            .sync_into(&all, Root::open(to.path()).unwrap(), None)
            .await
            .unwrap();
        assert_eq!((summary.files, summary.bytes), (1, 300_000));

        let other = DirRequest {
            name: "etc".into(),
            ..DirRequest::default()
        };
        let error = files
            .sync_into(&other, Root::open(to.path()).unwrap(), None)
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("no access allowed to dir"),
            "{error}"
        );
    })
    .await;
}

/// Rows: N05
#[tokio::test]
async fn results() {
    let out = tempfile::tempdir().unwrap();
    let made = tempfile::tempdir().unwrap();
    std::fs::create_dir(made.path().join("bin")).unwrap();
    std::fs::write(made.path().join("bin/tool"), "x".repeat(100_000)).unwrap();
    let told = Arc::new(std::sync::Mutex::new(BTreeMap::new()));
    let (dir, file) = (out.path().join("dir"), out.path().join("out.tar"));
    let offers = || {
        let told = told.clone();
        let writer: local::OpenWriter = Arc::new(move |metadata: &BTreeMap<String, String>| {
            *told.lock().unwrap() = metadata.clone();
            Ok(Box::new(tokio::io::sink()) as _)
        });
        let targets = Targets::new()
            .with(
                "0",
                Target::Dir {
                    path: dir.clone(),
                    delete: false,
                },
            )
            .with("1", Target::File(file.clone()))
            .with("2", Target::Writer(writer));
        Attachables::new().with_targets(targets)
    };
    both(offers, async |session: Arc<Session>| {
        let send = session.file_send().unwrap();
        let to = |id: &str| SendRequest {
            exporter_id: Some(id.into()),
            metadata: BTreeMap::from([("containerimage.digest".into(), "sha256:ä".into())]),
            multi_platform: Some(true),
            modified: Some(1_000_000),
        };
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("kept"), "").unwrap();
        send.send_dir(&to("0"), Root::open(made.path()).unwrap(), None)
            .await
            .unwrap();
        assert_eq!(std::fs::read(dir.join("bin/tool")).unwrap().len(), 100_000);
        assert!(dir.join("kept").exists());
        let made = std::fs::metadata(dir.join("bin/tool")).unwrap();
        let since = made
            .modified()
            .unwrap()
            .duration_since(std::time::UNIX_EPOCH);
        assert_eq!(since.unwrap().as_secs(), 1_000_000);

        let bytes = || -> Bytestream {
            let piece = |_| Ok(Bytes::from(vec![7; 5 << 20]));
            futures::stream::iter(0..3).map(piece).boxed()
        };
        send.send_stream(&to("1"), bytes()).await.unwrap();
        assert_eq!(std::fs::read(&file).unwrap().len(), 15 << 20);
        send.send_stream(&to("2"), bytes()).await.unwrap();
        assert_eq!(told.lock().unwrap()["containerimage.digest"], "sha256:ä");

        // A stream that breaks leaves what was there.
        let broken = bytes().chain(futures::stream::iter([Err(Error::Lost("gone".into()))]));
        let error = send
            .send_stream(&to("1"), broken.boxed())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
        // The client may still be tidying up when we know that it broke.
        let names = || std::fs::read_dir(out.path()).unwrap().count();
        for _ in 0..200 {
            if names() == 2 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(names(), 2, "nothing half-written stays");
        assert_eq!(std::fs::read(&file).unwrap().len(), 15 << 20);

        assert!(send.send_stream(&to("9"), bytes()).await.is_err());
        std::fs::remove_dir_all(&dir).unwrap();
        std::fs::remove_file(&file).unwrap();
    })
    .await;
}

/// Rows: N06, N07
#[tokio::test]
async fn logins_and_secrets() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "from a file").unwrap();
    let offers = || Attachables {
        auth: Some(Arc::new(Logins::new(Arc::new(|host: String| {
            Box::pin(async move {
                Ok(Credentials {
                    username: host,
                    secret: "s".into(),
                })
            })
        })))),
        secrets: Some(Arc::new(
            SecretValues::new()
                .with("value", SecretSource::Value("v".into()))
                .with("file", SecretSource::File(file.path().into())),
        )),
        ..Attachables::new()
    };
    both(offers, async |session: Arc<Session>| {
        let auth = session.auth().unwrap();
        assert_eq!(
            auth.credentials("docker.io").await.unwrap().username,
            "docker.io"
        );
        let error = auth
            .fetch_token(&TokenRequest::default())
            .await
            .unwrap_err();
        assert_eq!(
            error.kind(),
            Kind::Unsupported,
            "the daemon fetches it itself then"
        );
        let secrets = session.secrets().unwrap();
        assert_eq!(secrets.get("value").await.unwrap(), "v");
        assert_eq!(secrets.get("file").await.unwrap(), "from a file");
        assert_eq!(
            secrets.get("none").await.unwrap_err().kind(),
            Kind::NotFound
        );
        assert_eq!(session.ssh().err().unwrap().kind(), Kind::Unsupported);
        assert_eq!(session.file_sync().err().unwrap().kind(), Kind::Unsupported);
    })
    .await;
}

/// Rows: N07
#[tokio::test]
async fn an_agent() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let echo = stdx::task::spawn("echo", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    });
    let offers = || Attachables {
        ssh: Some(Arc::new(SshSockets::new().with("default", &socket))),
        ..Attachables::new()
    };
    both(offers, async |session: Arc<Session>| {
        let ssh = session.ssh().unwrap();
        ssh.check("default").await.unwrap();
        ssh.check("").await.unwrap();
        assert_eq!(ssh.check("other").await.unwrap_err().kind(), Kind::NotFound);
        let mut stream = ssh.connect("default").await.unwrap();
        stream.write_all(b"who are you").await.unwrap();
        let mut answer = [0; 11];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"who are you");
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut answer).await.unwrap(), 0);
    })
    .await;
    drop(echo);
}

/// A store in memory.
#[derive(Default)]
struct Memory(std::sync::Mutex<BTreeMap<oci::Digest, Bytes>>);

#[async_trait]
impl content::Provider for Memory {
    async fn size(&self, blob: &Descriptor) -> content::Result<u64> {
        let found = self
            .0
            .lock()
            .unwrap()
            .get(&blob.digest)
            .map(|bytes| bytes.len() as u64);
        found.ok_or(content::Error::NotFound(blob.digest))
    }

    async fn read(&self, blob: &Descriptor, offset: u64) -> content::Result<content::ByteStream> {
        let found = self.0.lock().unwrap().get(&blob.digest).cloned();
        let bytes = found.ok_or(content::Error::NotFound(blob.digest))?;
        Ok(content::once(bytes.slice(offset as usize..)))
    }
}

#[async_trait]
impl content::Sink for Memory {
    async fn has(&self, blob: &Descriptor) -> content::Result<bool> {
        Ok(self.0.lock().unwrap().contains_key(&blob.digest))
    }

    async fn put(&self, blob: &Descriptor, bytes: content::ByteStream) -> content::Result<()> {
        let bytes =
            content::collect(content::Verified::new(bytes, blob).boxed(), blob, 1 << 30).await?;
        self.0.lock().unwrap().insert(blob.digest, bytes);
        Ok(())
    }
}

/// Rows: N07
#[tokio::test]
async fn blobs() {
    let offers = || Attachables {
        content: Some(Arc::new(
            Stores::new().with("oci:x", Arc::new(Memory::default())),
        )),
        ..Attachables::new()
    };
    both(offers, async |session: Arc<Session>| {
        let store = session.content().unwrap().store("oci:x");
        for bytes in [Bytes::from(vec![1; 3 << 20]), Bytes::new()] {
            let blob = Descriptor::of("application/octet-stream", &bytes);
            assert!(!store.has(&blob).await.unwrap());
            store
                .put(&blob, content::once(bytes.clone()))
                .await
                .unwrap();
            store
                .put(&blob, content::once(bytes.clone()))
                .await
                .unwrap();
            assert_eq!(store.size(&blob).await.unwrap(), blob.size);
            let read = store.read(&blob, 0).await.unwrap();
            assert_eq!(content::collect(read, &blob, 1 << 30).await.unwrap(), bytes);
        }
        let wrong = Descriptor::of("application/octet-stream", b"promised");
        assert!(store.put(&wrong, content::once("deliver")).await.is_err());
        assert!(!store.has(&wrong).await.unwrap());
        assert_eq!(store.size(&wrong).await.unwrap_err().kind(), Kind::NotFound);
        let other = session.content().unwrap().store("elsewhere");
        assert_eq!(other.size(&wrong).await.unwrap_err().kind(), Kind::NotFound);
        let refused = other.put(&wrong, content::once("promised")).await;
        let mut said = String::new();
        let mut next: Option<&dyn std::error::Error> = refused.as_ref().err().map(|e| e as _);
        while let Some(error) = next {
            said = format!("{said}: {error}");
            next = error.source();
        }
        assert!(said.contains("a content store of this name"), "{said}");
    })
    .await;
}

struct Choice;

#[async_trait]
impl Exporters for Choice {
    async fn find(
        &self,
        metadata: BTreeMap<String, Bytes>,
        refs: Vec<String>,
    ) -> Result<Vec<ExporterRequest>> {
        let attrs =
            BTreeMap::from([("keys".to_owned(), format!("{:?} {refs:?}", metadata.keys()))]);
        Ok(vec![ExporterRequest {
            kind: "local".into(),
            attrs,
        }])
    }

    async fn finalize(&self, response: BTreeMap<String, String>) -> Result<()> {
        match response.get("digest").map(String::as_str) {
            Some("right") => Ok(()),
            other => Err(Error::Refused {
                kind: Kind::Denied,
                message: format!("not {other:?}"),
            }),
        }
    }
}

#[async_trait]
impl Upload for Choice {
    async fn pull(&self, host: &str, path: &str) -> Result<Bytestream> {
        let text = format!("{host}{path}");
        Ok(futures::stream::iter([Ok(Bytes::from(text))]).boxed())
    }
}

/// Rows: E10, N07
#[tokio::test]
async fn exporters_and_uploads() {
    let offers = || Attachables {
        exporters: Some(Arc::new(Choice)),
        upload: Some(Arc::new(Choice)),
        ..Attachables::new()
    };
    both(offers, async |session: Arc<Session>| {
        let metadata = BTreeMap::from([("m".to_owned(), Bytes::new())]);
        let found = session
            .exporters()
            .unwrap()
            .find(metadata, vec!["r".into()])
            .await
            .unwrap();
        assert_eq!(found[0].attrs["keys"], r#"["m"] ["r"]"#);
        let finalize = async |digest: &str| {
            let response = [("digest".to_owned(), digest.to_owned())];
            let exporters = session.exporters().unwrap();
            exporters.finalize(response.into()).await
        };
        finalize("right").await.unwrap();
        let refused = finalize("wrong").await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Denied);
        assert_eq!(refused.to_string(), "not Some(\"wrong\")");
        let mut bytes = session
            .upload()
            .unwrap()
            .pull("host", "/ctx")
            .await
            .unwrap();
        assert_eq!(bytes.next().await.unwrap().unwrap(), "host/ctx");
    })
    .await;
}

fn everything() -> Questions {
    Questions {
        platform: Some("windows/arm64".parse().unwrap()),
        mode: Some("pull".into()),
        no_config: true,
        attestations: true,
        statements: vec!["https://slsa.dev/provenance/v1".into()],
        objects: true,
        checksum: Some(ChecksumQuestion {
            algorithm: ChecksumAlgorithm::Sha384,
            suffix: Bytes::from_static(b"suffix"),
        }),
    }
}

fn image() -> Facts {
    let digest = oci::Digest::of;
    let mut blob = oci::Descriptor::of("application/json", b"{}");
    blob.annotations.insert("a".into(), "b".into());
    Facts::Image(ImageFacts {
        digest: digest("index"),
        config: Bytes::from("{}"),
        attestations: Some(Attestations {
            root: digest("index"),
            image_manifest: digest("image"),
            attestation_manifest: Some(digest("attestation")),
            signature_manifests: vec![digest("signature")],
            blobs: vec![(blob, Bytes::from("{}"))],
        }),
    })
}

fn commit() -> Facts {
    Facts::Git(GitFacts {
        reference: "refs/tags/v1".into(),
        checksum: "1".repeat(40),
        commit: Some("2".repeat(40)),
        commit_object: Bytes::from("tree"),
        tag_object: Bytes::from("object"),
    })
}

fn download() -> Facts {
    Facts::Download(DownloadFacts {
        digest: oci::Digest::of("file"),
        filename: "file".into(),
        modified: Some(7),
        checksum: Some(("sha384:00".into(), Bytes::from_static(b"suffix"))),
    })
}

/// A client that serves both methods and answers neither, with the words of BuildKit's.
struct Mute;

#[async_trait]
impl Exporters for Mute {
    async fn find(
        &self,
        _: BTreeMap<String, Bytes>,
        _: Vec<String>,
    ) -> Result<Vec<ExporterRequest>> {
        Err(Error::Lost("no exporter callback registered".into()))
    }

    async fn finalize(&self, _: BTreeMap<String, String>) -> Result<()> {
        Err(Error::NotOffered("an end of exports"))
    }
}

/// Rows: E10
#[tokio::test]
async fn a_client_without_a_say_in_exporters_is_no_failure_and_one_that_left_is() {
    let ends = join(Attachables {
        exporters: Some(Arc::new(Mute)),
        ..Attachables::new()
    })
    .await;
    let exporters = ends.session.exporters().unwrap();
    let found = exporters.find(BTreeMap::new(), Vec::new()).await.unwrap();
    assert_eq!(found, []);
    exporters.finalize(BTreeMap::new()).await.unwrap();
    drop((ends.client, ends.pump));
    exporters
        .find(BTreeMap::new(), Vec::new())
        .await
        .unwrap_err();
    exporters.finalize(BTreeMap::new()).await.unwrap_err();
}

struct Strict;

#[async_trait]
impl Policies for Strict {
    async fn check(&self, question: &PolicyQuestion) -> Result<PolicyAnswer> {
        assert_eq!(
            question
                .platform
                .as_ref()
                .map(ToString::to_string)
                .as_deref(),
            Some("linux/amd64")
        );
        Ok(match (question.identifier.as_str(), &question.facts) {
            ("docker-image://good", _) => PolicyAnswer::Allow,
            ("docker-image://moved", _) => PolicyAnswer::Convert {
                identifier: "docker-image://good".into(),
                attrs: question.attrs.clone(),
            },
            ("docker-image://ask", Facts::Nothing) => PolicyAnswer::More(everything()),
            ("docker-image://ask", known) if known == &image() => PolicyAnswer::Allow,
            ("git://ask", known) if known == &commit() => PolicyAnswer::Allow,
            ("https://ask", known) if known == &download() => PolicyAnswer::Allow,
            _ => PolicyAnswer::Deny(vec!["we do not know it".into()]),
        })
    }
}

/// Rows: N08, P06
#[tokio::test]
async fn decisions_about_sources() {
    let offers = || Attachables {
        policies: Some(Arc::new(Strict)),
        ..Attachables::new()
    };
    both(offers, async |session: Arc<Session>| {
        let policies = session.policies().unwrap();
        let question = |identifier: &str| PolicyQuestion {
            platform: Some("linux/amd64".parse().unwrap()),
            identifier: identifier.into(),
            attrs: BTreeMap::from([("a".into(), "b".into())]),
            ..PolicyQuestion::default()
        };
        let ask = async |question: PolicyQuestion| policies.check(&question).await.unwrap();
        assert_eq!(
            ask(question("docker-image://good")).await,
            PolicyAnswer::Allow
        );
        let moved = ask(question("docker-image://moved")).await;
        assert!(matches!(moved, PolicyAnswer::Convert { attrs, .. } if attrs["a"] == "b"));
        let more = ask(question("docker-image://ask")).await;
        assert_eq!(more, PolicyAnswer::More(everything()));
        for (identifier, facts) in [
            ("docker-image://ask", image()),
            ("git://ask", commit()),
            ("https://ask", download()),
        ] {
            let told = PolicyQuestion {
                facts,
                ..question(identifier)
            };
            assert_eq!(ask(told).await, PolicyAnswer::Allow, "{identifier}");
        }
        let no = ask(question("docker-image://bad")).await;
        assert_eq!(no, PolicyAnswer::Deny(vec!["we do not know it".into()]));
    })
    .await;
}
