//! What is known about sources without having their files: attestations of images, objects of
//! git, digests of downloads.

use llb::facts::{ChecksumAlgorithm, ChecksumQuestion, GitFacts};
use oci::{Descriptor, Digest};
use serde_json::{Value, json};
use session::Attachables;
use source::{Error, Source};
use testkit::image::{Blob, Image};
use testkit::registry::Server;
use testkit::web::{Page, Web};

use crate::git::{git, served};
use crate::setup::{State, state};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const SLSA: &str = "https://slsa.dev/provenance/v1";
const SPDX: &str = "https://spdx.dev/Document";

fn manifest(kind: &str, layers: &[Value], subject: Option<&Blob>) -> Blob {
    let empty = Descriptor::of("application/vnd.oci.empty.v1+json", b"{}");
    let mut document = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": kind,
        "config": empty,
        "layers": layers,
    });
    if let Some(subject) = subject {
        document["subject"] = json!(subject.descriptor);
    }
    Blob::new(MANIFEST, document.to_string())
}

/// A layer with an annotation about what it says.
fn layer(server: &Server, says: &str, bytes: Vec<u8>) -> (Digest, Value) {
    let blob = Blob::new("application/vnd.in-toto+json", bytes);
    server.add_blob("app", &blob);
    let mut descriptor = blob.descriptor.clone();
    descriptor
        .annotations
        .insert("in-toto.io/predicate-type".into(), says.into());
    (descriptor.digest, json!(descriptor))
}

struct Signed {
    root: Digest,
    image: Digest,
    statements: Digest,
    signature: Digest,
    provenance: Digest,
    bundle: Digest,
}

/// `app:1` with statements about its manifest for amd64, and who signed them; a statement about
/// another manifest lies in front.
fn signed(server: &Server, sbom: Vec<u8>) -> Signed {
    let (image, other) = (Image::seeded(1, 1, 1, 10), Image::seeded(2, 1, 1, 10));
    server.add_image("app", "amd64", &image);
    server.add_image("app", "arm64", &other);
    server.add_blob("app", &Blob::new("application/vnd.oci.empty.v1+json", "{}"));
    let (provenance, slsa) = layer(server, SLSA, b"provenance".to_vec());
    let (_, spdx) = layer(server, SPDX, sbom);
    let statements = manifest(
        "application/vnd.docker.attestation.manifest.v1+json",
        &[spdx, slsa],
        None,
    );
    let (_, foreign) = layer(server, SLSA, b"foreign".to_vec());
    let about_other = manifest(
        "application/vnd.docker.attestation.manifest.v1+json",
        &[foreign],
        None,
    );
    let entry = |image: &Image, platform: &str| {
        let mut descriptor = image.manifest.descriptor.clone();
        descriptor.platform = Some(platform.parse().unwrap());
        json!(descriptor)
    };
    let said = |statements: &Blob, image: &Image| {
        let mut descriptor = statements.descriptor.clone();
        let annotations = [
            (
                "vnd.docker.reference.type",
                "attestation-manifest".to_owned(),
            ),
            (
                "vnd.docker.reference.digest",
                image.manifest.descriptor.digest.to_string(),
            ),
        ];
        descriptor.annotations = annotations.map(|(k, v)| (k.to_owned(), v)).into();
        json!(descriptor)
    };
    let index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [
            entry(&other, "linux/arm64"),
            entry(&image, "linux/amd64"),
            said(&about_other, &other),
            said(&statements, &image),
        ],
    });
    let index = Blob::new(INDEX, index.to_string());
    let bundle = Blob::new(BUNDLE, "bundle");
    server.add_blob("app", &bundle);
    let note = manifest("application/x.note", &[], Some(&statements));
    let signature = manifest(BUNDLE, &[json!(bundle.descriptor)], Some(&statements));
    server.add_manifest("app", "about-other", &about_other);
    server.add_manifest("app", "statements", &statements);
    server.add_manifest("app", "note", &note);
    server.add_manifest("app", "signature", &signature);
    server.add_manifest("app", "1", &index);
    Signed {
        root: index.descriptor.digest,
        image: image.manifest.descriptor.digest,
        statements: statements.descriptor.digest,
        signature: signature.descriptor.digest,
        provenance,
        bundle: bundle.descriptor.digest,
    }
}

async fn attestations(
    state: &State,
    name: &str,
    statements: &[&str],
) -> source::Result<llb::facts::Attestations> {
    let build = state.build(Attachables::new());
    let Source::Image(image) = state.source(name, &[])? else {
        panic!("{name} is an image")
    };
    let statements: Vec<String> = statements.iter().map(|kind| (*kind).to_owned()).collect();
    image.attestations(&statements, &build.cx).await
}

/// Rows: G03, P06
#[tokio::test]
async fn privileged_who_says_what_about_an_image() {
    let Some(state) = state() else { return };
    let server = Server::start().await;
    let signed = signed(&server, b"sbom".to_vec());
    let name = format!("docker-image://{}/app:1", server.host());
    let chain = attestations(&state, &name, &[]).await.unwrap();
    assert_eq!(
        (chain.root, chain.image_manifest),
        (signed.root, signed.image)
    );
    assert_eq!(chain.attestation_manifest, Some(signed.statements));
    assert_eq!(chain.signature_manifests, [signed.signature]);
    let digests = |chain: &llb::facts::Attestations| -> Vec<Digest> {
        chain.blobs.iter().map(|(blob, _)| blob.digest).collect()
    };
    let bare = [
        signed.root,
        signed.statements,
        signed.signature,
        signed.bundle,
    ];
    assert_eq!(digests(&chain), bare);
    for (blob, bytes) in &chain.blobs {
        assert_eq!(
            (blob.digest, blob.size),
            (Digest::of(bytes), bytes.len() as u64)
        );
    }
    // A statement comes along when it is asked for, and only one about this image.
    let chain = attestations(&state, &name, &[SLSA]).await.unwrap();
    let with = [
        signed.root,
        signed.statements,
        signed.provenance,
        signed.signature,
        signed.bundle,
    ];
    assert_eq!(digests(&chain), with);
    assert_eq!(&chain.blobs[2].1[..], b"provenance");
    // An image without any says so.
    let plain = format!("docker-image://{}/app:amd64", server.host());
    let chain = attestations(&state, &plain, &[SLSA]).await.unwrap();
    assert_eq!(
        (chain.root, chain.image_manifest),
        (signed.image, signed.image)
    );
    assert_eq!(
        (chain.attestation_manifest, chain.signature_manifests.len()),
        (None, 0)
    );
    // Older registries have no list of what refers to what.
    server.without_referrers_api();
    let chain = attestations(&state, &name, &[]).await.unwrap();
    assert_eq!(digests(&chain), [signed.root, signed.statements]);
}

/// Rows: G03
#[tokio::test]
async fn privileged_statements_without_end_are_refused() {
    let Some(state) = state() else { return };
    let server = Server::start().await;
    signed(&server, vec![b'x'; 13 << 20]);
    let name = format!("docker-image://{}/app:1", server.host());
    assert!(attestations(&state, &name, &[SLSA]).await.is_ok());
    let error = attestations(&state, &name, &[SPDX]).await.unwrap_err();
    assert!(matches!(error, Error::Document { .. }), "{error}");
    assert!(error.to_string().contains("larger than 12 MiB"), "{error}");
}

/// Rows: G03, P06
#[tokio::test]
async fn privileged_the_bytes_of_commits_and_tags() {
    let Some(state) = state() else { return };
    let Some(served) = served() else { return };
    let (url, r) = (served.url("r"), served.dir.path().join("r"));
    let known = async |fragment: &str, attrs: &[(&str, &str)], objects| {
        let build = state.build(Attachables::new());
        let all = [&[("git.fullurl", url.as_str())], attrs].concat();
        let Ok(Source::Git(git)) = state.source(&format!("{url}#{fragment}"), &all) else {
            panic!("it is git")
        };
        git.facts(objects, &build.cx).await
    };
    let id = |name: &str| git(&r, &["rev-parse", name]);
    let plain = known("v1", &[], false).await.unwrap();
    let expected = GitFacts {
        reference: "refs/tags/v1".into(),
        checksum: id("v1"),
        commit: Some(id("v1^{commit}")),
        ..GitFacts::default()
    };
    assert_eq!(plain, expected);
    for fragment in ["v1", "refs/tags/v1", &id("v1")] {
        let facts = known(fragment, &[], true).await.unwrap();
        assert_eq!(facts.checksum, id("v1"));
        let (commit, tag) = (&facts.commit_object, &facts.tag_object);
        let commit = verify::object_id(verify::ObjectKind::Commit, commit, false);
        assert_eq!(facts.commit, Some(commit));
        assert_eq!(
            verify::object_id(verify::ObjectKind::Tag, tag, false),
            id("v1")
        );
    }
    let branch = known("main", &[], true).await.unwrap();
    assert_eq!((branch.commit, branch.tag_object.len()), (None, 0));
    assert_eq!(
        verify::object_id(verify::ObjectKind::Commit, &branch.commit_object, false),
        id("main")
    );
    let kept = known("v1", &[("git.keepgitdir", "true")], false)
        .await
        .unwrap();
    assert_eq!(kept.commit, None);
    // Nobody is told about a commit that must be signed and is not.
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let error = known("main", &[("git.sig.pubkey", key)], false).await;
    assert!(matches!(error, Err(Error::GitSignature { .. })));
}

/// Rows: G03, P06
#[tokio::test]
async fn privileged_name_time_and_digest_of_a_download() {
    let Some(state) = state() else { return };
    let web = Web::start().await;
    let page = Page {
        bytes: "ab".to_owned().into(),
        headers: vec![(
            "last-modified".into(),
            "Sun, 06 Nov 1994 08:49:37 GMT".into(),
        )],
        ..Page::default()
    };
    web.put("/d/f.txt", page);
    let known = async |attrs: &[(&str, &str)], question: Option<&ChecksumQuestion>| {
        let build = state.build(Attachables::new());
        let Ok(Source::Http(http)) = state.source(&web.url("/d/f.txt"), attrs) else {
            panic!("it is a download")
        };
        http.facts(question, &build.cx).await.unwrap()
    };
    let facts = known(&[], None).await;
    assert_eq!(
        (
            facts.digest,
            facts.filename.as_str(),
            facts.modified,
            facts.checksum
        ),
        (Digest::of("ab"), "f.txt", Some(784_111_777), None)
    );
    let question = ChecksumQuestion {
        algorithm: ChecksumAlgorithm::Sha256,
        suffix: bytes::Bytes::from_static(b"c"),
    };
    let digest = Digest::of("ab").to_string();
    let pinned = [("http.checksum", digest.as_str())];
    let before = web.asked().len();
    assert_eq!(known(&pinned, None).await.modified, None);
    assert_eq!(web.asked().len(), before, "a checksum says it all");
    for attrs in [&[][..], &pinned] {
        let facts = known(attrs, Some(&question)).await;
        let (digest, suffix) = facts.checksum.unwrap();
        assert_eq!(
            (digest, &suffix[..]),
            (Digest::of("abc").to_string(), &b"c"[..])
        );
    }
}
