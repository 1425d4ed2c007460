//! A cache written and read again, through a place in memory.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use content::{ByteStream, Memory};
use solver::{Created, Edge, KeyId, Link, RecordStore};

use super::*;
use crate::import::{self, Imported, Layers, Limits};

/// A place one can look into.
#[derive(Default)]
struct Shelf(std::sync::Mutex<HashMap<Digest, Bytes>>);

#[async_trait]
impl Sink for Shelf {
    async fn has(&self, blob: &Descriptor) -> content::Result<bool> {
        Ok(self.0.lock().unwrap().contains_key(&blob.digest))
    }

    async fn put(&self, blob: &Descriptor, bytes: ByteStream) -> content::Result<()> {
        let bytes = content::collect(bytes, blob, 16 << 20).await?;
        self.0.lock().unwrap().insert(blob.digest, bytes);
        Ok(())
    }
}

#[async_trait]
impl Provider for Shelf {
    async fn size(&self, blob: &Descriptor) -> content::Result<u64> {
        let found = self
            .0
            .lock()
            .unwrap()
            .get(&blob.digest)
            .map(|bytes| bytes.len() as u64);
        found.ok_or(content::Error::NotFound(blob.digest))
    }

    async fn read(&self, blob: &Descriptor, offset: u64) -> content::Result<ByteStream> {
        let found = self.0.lock().unwrap().get(&blob.digest).cloned();
        let bytes = found.ok_or(content::Error::NotFound(blob.digest))?;
        Ok(content::once(bytes.slice(offset as usize..)))
    }
}

fn layer(text: &'static str) -> Descriptor {
    let mut layer = Descriptor::of(oci::media_type::OCI_LAYER_GZIP, text.as_bytes());
    layer.annotations.insert(
        DIFF_ID.to_owned(),
        Digest::of(format!("tar {text}")).to_string(),
    );
    layer
}

fn some_chains() -> Chains {
    let mut chains = Chains::new();
    let root = chains.add(Digest::of("root"), &[], vec![]).unwrap();
    let by = Digest::of("/").to_string();
    let stored = |layers: &[&'static str], at| Stored {
        layers: layers.iter().map(|text| layer(text)).collect(),
        created: Created(at),
    };
    let one = chains
        .add(
            Digest::of("one"),
            &[vec![(root, by.clone())]],
            vec![stored(&["base", "one"], 10)],
        )
        .unwrap();
    let two = [
        stored(&["base", "one", "two"], 20),
        stored(&["base", "lost"], 30),
    ];
    chains
        .add(Digest::of("two"), &[vec![(one, by)]], two.to_vec())
        .unwrap();
    chains
}

fn providing() -> Memory {
    let memory = Memory::default();
    for text in ["base", "one", "two"] {
        memory.add("", text);
    }
    memory
}

async fn written(form: Form) -> (Shelf, Descriptor) {
    let shelf = Arc::new(Shelf::default());
    let target = Target::Place(shelf.clone());
    let step = StepProgress::none();
    let manifest = write(&some_chains(), form, &providing(), &target, &step)
        .await
        .unwrap()
        .unwrap();
    drop(target);
    (Arc::into_inner(shelf).unwrap(), manifest)
}

/// Rows: core:X1, core:X2, core:X3, X4, core:X6, X8, core:X12, core:X13, core:X18, core:X19, X23, I2, I11, I12, R02
#[tokio::test]
async fn what_is_written_is_read_again() {
    for form in [Form::Image, Form::Index, Form::DockerList] {
        let (shelf, manifest) = written(form).await;
        assert_eq!(
            written(form).await.1,
            manifest,
            "the same graph gives the same bytes"
        );
        let step = StepProgress::none();
        let read = import::read(&shelf, &manifest, &Limits::default(), &step)
            .await
            .unwrap();
        let (config, blobs) = read.marshal(|_| true);
        assert_eq!(blobs.len(), 3, "the result with a lost layer is left out");
        assert_eq!(config.records.len(), 3);
        let (name, said) = response(&manifest);
        assert_eq!(name, "cache.manifest");
        let said: Descriptor = serde_json::from_str(&said).unwrap();
        assert_eq!(said, manifest);
    }
}

/// BuildKit ignores a cache config beyond one mebibyte. Ours may have the records of a large
/// build: 10,000 steps come back from a config of several. Rows: Z2
#[tokio::test]
async fn a_cache_of_a_large_build_comes_back_whole() {
    let mut chains = Chains::new();
    let by = Digest::of("/").to_string();
    let mut below = chains.add(Digest::of("root"), &[], vec![]).unwrap();
    for step in 0..10_000 {
        let stored = Stored {
            layers: vec![layer("base")],
            created: Created(step),
        };
        let digest = Digest::of(format!("step {step}"));
        let inputs = [vec![(below, by.clone())]];
        below = chains.add(digest, &inputs, vec![stored]).unwrap();
    }
    let shelf = Arc::new(Shelf::default());
    let target = Target::Place(shelf.clone());
    let step = StepProgress::none();
    let manifest = write(&chains, Form::Image, &providing(), &target, &step)
        .await
        .unwrap()
        .unwrap();
    drop(target);
    let document = content::collect(shelf.read(&manifest, 0).await.unwrap(), &manifest, 1 << 20);
    let container = crate::container::Container::parse(&document.await.unwrap()).unwrap();
    let size = container.config.unwrap().size;
    assert!(size > 2 << 20, "{size} bytes");
    let read = import::read(&*shelf, &manifest, &Limits::default(), &step)
        .await
        .unwrap();
    let (config, _) = read.marshal(|_| true);
    assert_eq!(config.records.len(), 10_001);
}

/// Rows: X7
#[tokio::test]
async fn an_empty_cache_leaves_the_old_one_alone() {
    let shelf = Arc::new(Shelf::default());
    let target = Target::Place(shelf.clone());
    let mut chains = Chains::new();
    chains.add(Digest::of("key only"), &[], vec![]);
    let nothing = write(
        &chains,
        Form::Image,
        &providing(),
        &target,
        &StepProgress::none(),
    )
    .await;
    assert_eq!(nothing.unwrap(), None);
    assert!(shelf.0.lock().unwrap().is_empty());
}

/// A place that has only what says which repository it came from, as lazy layers do.
struct Lazy(Memory);

#[async_trait]
impl Provider for Lazy {
    async fn size(&self, blob: &Descriptor) -> content::Result<u64> {
        match registry::sources(blob).is_empty() {
            true => Err(content::Error::NotFound(blob.digest)),
            false => self.0.size(blob).await,
        }
    }

    async fn read(&self, blob: &Descriptor, offset: u64) -> content::Result<ByteStream> {
        self.size(blob).await?;
        self.0.read(blob, offset).await
    }
}

/// Rows: core:X19, core:X28, C02
#[tokio::test]
async fn layers_nobody_fetched_yet_are_exported_from_where_they_are() {
    let mut blob = LayerBlob {
        descriptor: Descriptor::of(oci::media_type::DOCKER_LAYER_GZIP, b"base"),
        diff_id: oci::DiffId(Digest::of("tar base")),
        description: String::new(),
        created: None,
    };
    registry::add_source(&mut blob.descriptor, "docker.io", "library/base");
    let mut chains = Chains::new();
    let stored = Stored {
        layers: vec![described(blob)],
        created: Created(1),
    };
    chains.add(Digest::of("one"), &[], vec![stored]).unwrap();
    let shelf = Arc::new(Shelf::default());
    let target = Target::Place(shelf.clone());
    let step = StepProgress::none();
    let written = write(&chains, Form::Image, &Lazy(providing()), &target, &step).await;
    let manifest = written.unwrap().expect("its layer is somewhere");
    let shelf = shelf.0.lock().unwrap();
    assert!(shelf.contains_key(&Digest::of("base")));
    let text = String::from_utf8_lossy(&shelf[&manifest.digest]).into_owned();
    assert!(!text.contains("distribution.source"), "{text}");
    assert!(text.contains(oci::media_type::OCI_LAYER_GZIP), "{text}");
}

type Out = Vec<String>;

fn layers_of(provider: Arc<dyn Provider>) -> Layers<Out> {
    let make = Arc::new(|blobs: Vec<LayerBlob>| {
        Ok(Some(
            blobs
                .into_iter()
                .map(|blob| blob.diff_id.0.to_string())
                .collect(),
        ))
    });
    Layers {
        provider,
        fetch_into: None,
        origin: None,
        make,
    }
}

fn context() -> solver::OpContext {
    solver::OpContext {
        step: StepProgress::none(),
        job: solver::JobId(1),
        vertex: None,
        missed: None,
    }
}

/// Rows: I34, I35, I36, I38, I41, I42
#[tokio::test]
async fn an_import_answers_the_solver() {
    let (shelf, manifest) = written(Form::Image).await;
    let shelf = Arc::new(shelf);
    let provider = shelf.clone();
    let step = StepProgress::none();
    let imported = Imported::start(layers_of(shelf.clone()), step.clone(), async move {
        import::read(&*provider, &manifest, &Limits::default(), &step).await
    });
    let index = imported.index().await;
    let link = |name: &str| Link {
        input: 0,
        record: Digest::of(name),
        selector: Some(Digest::of("/")),
    };
    let one = index
        .children(&KeyId(Digest::of("root")), &link("one"))
        .unwrap();
    let two = index.children(&one[0], &link("two")).unwrap();
    let records = index.records(&two[0]).unwrap();
    assert_eq!(records[0].1, Created(20));
    let output = imported
        .load(&context(), &records[0].0)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(output.len(), 3);
    let gone = imported
        .load(&context(), &solver::ResultId("other".to_owned()))
        .await;
    assert_eq!(gone.unwrap(), None);
    shelf.0.lock().unwrap().remove(&Digest::of("two"));
    assert!(
        imported.load(&context(), &records[0].0).await.is_err(),
        "its layer is not there"
    );
}

/// Layers of a registry stay there and say where; those of a client, who will be gone, are
/// fetched at once.
///
/// Rows: I15, I24, I43
#[tokio::test]
async fn layers_stay_where_they_are_if_that_place_stays() {
    let (shelf, manifest) = written(Form::Image).await;
    let shelf = Arc::new(shelf);
    let dir = tempfile::tempdir().unwrap();
    let db = Arc::new(db::Db::memory().unwrap());
    let store = content::Store::open(dir.path(), db).unwrap();
    let seen: Arc<std::sync::Mutex<Vec<Descriptor>>> = Arc::default();
    for fetch in [false, true] {
        let (provider, top, noted) = (shelf.clone(), manifest.clone(), seen.clone());
        let mut layers = layers_of(shelf.clone());
        layers.origin = (!fetch).then(|| ("r:5000".to_owned(), "team/cache".to_owned()));
        layers.fetch_into = fetch.then(|| store.clone());
        layers.make = Arc::new(move |blobs: Vec<LayerBlob>| {
            *noted.lock().unwrap() = blobs.into_iter().map(|blob| blob.descriptor).collect();
            Ok(Some(Vec::new()))
        });
        let step = StepProgress::none();
        let imported = Imported::start(layers, step.clone(), async move {
            import::read(&*provider, &top, &Limits::default(), &step).await
        });
        for result in imported.index().await.results().unwrap() {
            imported.load(&context(), &result).await.unwrap().unwrap();
        }
        let seen = seen.lock().unwrap().clone();
        assert!(!seen.is_empty());
        for layer in seen {
            assert_eq!(store.size(&layer).await.is_ok(), fetch);
            let sources = registry::sources(&layer);
            match fetch {
                true => assert!(sources.is_empty()),
                false => assert_eq!(sources, [("r:5000".into(), "team/cache".into())]),
            }
        }
    }
}

/// Rows: C08, I46
#[tokio::test]
async fn an_import_that_fails_is_an_empty_cache() {
    let shelf: Arc<Shelf> = Arc::default();
    let provider = shelf.clone();
    let progress = progress::Progress::default();
    let step = progress.internal_step("importing cache manifest from example.com/x");
    let missing = Descriptor::of(oci::media_type::OCI_MANIFEST, b"missing");
    let shown = step.clone();
    let imported = Imported::start(layers_of(shelf), step, async move {
        import::read(&*provider, &missing, &Limits::default(), &shown).await
    });
    assert!(imported.index().await.results().unwrap().is_empty());
    progress.close();
    let mut told = progress.follow();
    let mut errors = Vec::new();
    while let Some(event) = told.next().await {
        if let progress::Event::Step(step) = event
            && !step.error.is_empty()
        {
            errors.push(step.error);
        }
    }
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("reading sha256:"), "{errors:?}");
}

/// Rows: I4
#[tokio::test]
async fn documents_have_a_limit() {
    let shelf = Shelf::default();
    let large = Descriptor::new("", Digest::of("large"), 5 << 20);
    let step = StepProgress::none();
    let error = import::read(&shelf, &large, &Limits::default(), &step)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "blob {} is too large (5242880 > 4194304)",
            Digest::of("large")
        )
    );
}

/// Rows: R03, I17, I19, I20, I21, I22, I23
#[tokio::test]
async fn a_cache_inside_an_image_is_read_again() {
    let shelf = Shelf::default();
    let image: Vec<Digest> = ["base", "one", "two"].map(Digest::of).to_vec();
    let value = crate::inline::value(&some_chains(), &image[..2]).unwrap();
    let value = base64::engine::general_purpose::STANDARD.encode(value);
    assert_eq!(
        crate::inline::value(&some_chains(), &[Digest::of("other")]),
        None
    );
    let put = async |media_type: &str, value: serde_json::Value| {
        let bytes = serde_json::to_vec(&value).unwrap();
        let blob = Descriptor::of(media_type, &bytes);
        shelf.put(&blob, content::once(bytes)).await.unwrap();
        blob
    };
    let diff_ids: Vec<String> = ["base", "one"]
        .map(|text| Digest::of(format!("tar {text}")).to_string())
        .to_vec();
    let config = put(
        oci::media_type::OCI_CONFIG,
        serde_json::json!({
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "FROM"}],
            "moby.buildkit.cache.v0": value,
        }),
    )
    .await;
    let plain = |text| Descriptor::of(oci::media_type::OCI_LAYER_GZIP, text);
    let manifest = put(
        oci::media_type::OCI_MANIFEST,
        serde_json::json!({
            "schemaVersion": 2, "config": config, "layers": [plain(b"base"), plain(b"one")],
        }),
    )
    .await;
    let index = put(
        oci::media_type::OCI_INDEX,
        serde_json::json!({"schemaVersion": 2, "manifests": [manifest, manifest]}),
    )
    .await;
    for top in [manifest, index] {
        let step = StepProgress::none();
        let chains = import::read(&shelf, &top, &Limits::default(), &step)
            .await
            .unwrap();
        let (config, blobs) = chains.marshal(|_| true);
        assert_eq!(config.records.len(), 3);
        assert_eq!(
            config
                .records
                .iter()
                .filter(|r| !r.layers.is_empty())
                .count(),
            1
        );
        let base = &blobs[&Digest::of("base")];
        assert_eq!(
            base.annotations["buildkit/createdat"],
            "2026-01-01T00:00:00Z"
        );
        assert_eq!(base.annotations["buildkit/description"], "FROM");
        let one = &blobs[&Digest::of("one")];
        assert_eq!(
            one.annotations.len(),
            1,
            "history ends before it: only the diff ID is known"
        );
    }
}

/// Every result of the export is made with futures that may move between threads.
#[test]
fn futures_can_be_spawned() {
    fn check(job: &JobHandle<Out>, layers: &dyn OutputLayers<Out>, edge: Edge) {
        fn send<T: Send>(_: T) {}
        send(async move { collect(job, &[edge], Mode::Max, layers).await });
        let (chains, provider) = (Chains::new(), providing());
        let target = Target::Place(Arc::new(Shelf::default()));
        send(async move {
            write(
                &chains,
                Form::Image,
                &provider,
                &target,
                &StepProgress::none(),
            )
            .await
        });
    }
    let _ = check;
}
