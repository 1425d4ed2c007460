//! An OCI image layout on this machine: contexts are read from one, local caches are
//! kept in one.

use std::io::SeekFrom;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use content::{ByteStream, Provider, Sink, Verified};
use futures::StreamExt as _;
use oci::{Descriptor, Digest};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use crate::Error;

/// Bytes read at a time.
const PIECE: usize = 256 * 1024;
/// The annotation that holds a tag.
const TAG: &str = "org.opencontainers.image.ref.name";
/// The annotation that holds a whole name, as containerd has it.
const NAME: &str = "io.containerd.image.name";

/// A directory with `oci-layout`, `index.json` and `blobs/`.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    dir: PathBuf,
}

impl Layout {
    pub(crate) fn new(dir: impl Into<PathBuf>) -> Layout {
        Layout { dir: dir.into() }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir
            .join("blobs")
            .join(digest.algorithm().name())
            .join(digest.hex())
    }

    /// Whether what a descriptor points at is here.
    pub(crate) fn has(&self, descriptor: &Value) -> bool {
        let digest = descriptor["digest"].as_str().unwrap_or_default();
        digest
            .parse()
            .is_ok_and(|digest| self.path(&digest).exists())
    }

    fn index_path(&self) -> PathBuf {
        self.dir.join("index.json")
    }

    /// The digest a tag names; with a single entry any tag will do, as other tools have it.
    pub(crate) fn resolve(&self, tag: &str) -> Result<Option<Digest>, Error> {
        let index = self.read_index()?;
        let entries = index["manifests"].as_array().cloned().unwrap_or_default();
        let tagged = |entry: &&Value| {
            let name = entry["annotations"][TAG].as_str().unwrap_or_default();
            name == tag || name.ends_with(&format!(":{tag}"))
        };
        let found = entries
            .iter()
            .find(tagged)
            .or_else(|| match entries.as_slice() {
                [only] if tag == "latest" => Some(only),
                _ => None,
            });
        Ok(found.and_then(|entry| entry["digest"].as_str()?.parse().ok()))
    }

    /// Names a blob with a tag, in place of what had it.
    pub(crate) fn tag(&self, tag: &str, descriptor: &Value) -> Result<(), Error> {
        let mut entry = descriptor.clone();
        entry["annotations"][TAG] = json!(tag);
        self.enter(entry, |known| known[TAG] == tag)
    }

    /// Gives an image a whole name, in place of what had it.
    pub(crate) fn name(&self, name: &oci::ImageName, descriptor: &Value) -> Result<(), Error> {
        let mut entry = descriptor.clone();
        entry["annotations"][NAME] = json!(name.to_string());
        if let Some(tag) = name.tag() {
            entry["annotations"][TAG] = json!(tag);
        }
        self.enter(entry, |known| known[NAME] == name.to_string())
    }

    /// Puts an entry into the index, in place of those whose annotations `replaces` knows.
    fn enter(&self, entry: Value, replaces: impl Fn(&Value) -> bool) -> Result<(), Error> {
        let mut index = self.read_index()?;
        let manifests = index["manifests"]
            .as_array_mut()
            .map(std::mem::take)
            .unwrap_or_default();
        let others = manifests
            .into_iter()
            .filter(|known| !replaces(&known["annotations"]));
        index["manifests"] = others.chain([entry]).collect();
        let path = self.index_path();
        let failed = |source| Error::File {
            doing: "writing",
            path: path.clone(),
            source,
        };
        write_whole(
            &self.dir.join("oci-layout"),
            br#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .map_err(failed)?;
        write_whole(&path, index.to_string().as_bytes()).map_err(failed)
    }

    fn read_index(&self) -> Result<Value, Error> {
        let path = self.index_path();
        let failed = |source| Error::File {
            doing: "reading",
            path: path.clone(),
            source,
        };
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(error.into())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "manifests": [],
            })),
            Err(error) => Err(failed(error)),
        }
    }
}

/// A file that is not in its place yet. Others may read it as far as the umask lets them:
/// a layout is made to be handed on.
fn aside(dir: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(dir)
}

/// Writes beside, then renames: a reader sees the old file or the new one.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let mut file = aside(dir)?;
    std::io::Write::write_all(&mut file, bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn io(path: &Path, digest: Digest) -> impl Fn(std::io::Error) -> content::Error + '_ {
    move |source| match source.kind() {
        std::io::ErrorKind::NotFound => content::Error::NotFound(digest),
        _ => content::Error::Io {
            path: path.to_owned(),
            source: source.into(),
        },
    }
}

#[async_trait]
impl Provider for Layout {
    async fn size(&self, blob: &Descriptor) -> content::Result<u64> {
        let path = self.path(&blob.digest);
        Ok(tokio::fs::metadata(&path)
            .await
            .map_err(io(&path, blob.digest))?
            .len())
    }

    async fn read(&self, blob: &Descriptor, offset: u64) -> content::Result<ByteStream> {
        let path = self.path(&blob.digest);
        let mut file = tokio::fs::File::open(&path)
            .await
            .map_err(io(&path, blob.digest))?;
        file.seek(SeekFrom::Start(offset))
            .await
            .map_err(io(&path, blob.digest))?;
        let digest = blob.digest;
        let pieces =
            futures::stream::try_unfold((file, path), move |(mut file, path)| async move {
                let mut piece = vec![0; PIECE];
                let count = file.read(&mut piece).await.map_err(io(&path, digest))?;
                piece.truncate(count);
                Ok((count > 0).then(|| (Bytes::from(piece), (file, path))))
            });
        Ok(pieces.boxed())
    }
}

#[async_trait]
impl Sink for Layout {
    async fn has(&self, blob: &Descriptor) -> content::Result<bool> {
        match self.size(blob).await {
            Ok(size) => Ok(size == blob.size),
            Err(content::Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn put(&self, blob: &Descriptor, bytes: ByteStream) -> content::Result<()> {
        let path = self.path(&blob.digest);
        let dir = path.parent().unwrap_or(&self.dir).to_owned();
        let failed = |source: std::io::Error| content::Error::Io {
            path: path.clone(),
            source: source.into(),
        };
        tokio::fs::create_dir_all(&dir).await.map_err(failed)?;
        let (file, name) = aside(&dir).map_err(failed)?.into_parts();
        let mut file = tokio::fs::File::from_std(file);
        let mut verified = Verified::new(bytes, blob).boxed();
        while let Some(piece) = verified.next().await {
            file.write_all(&piece?).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        name.persist(&path).map_err(|error| failed(error.error))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Here(
        #[expect(dead_code, reason = "held")] tempfile::TempDir,
        Layout,
    );

    #[async_trait]
    impl Provider for Here {
        async fn size(&self, blob: &Descriptor) -> content::Result<u64> {
            self.1.size(blob).await
        }
        async fn read(&self, blob: &Descriptor, offset: u64) -> content::Result<ByteStream> {
            self.1.read(blob, offset).await
        }
    }

    async fn with(blobs: Vec<Bytes>) -> Box<dyn Provider> {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        for bytes in blobs {
            let path = layout.path(&Digest::of(&bytes));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        Box::new(Here(dir, layout))
    }

    /// Rows: S12, R02
    #[tokio::test]
    async fn a_layout_is_a_provider() {
        content::testing::returns_what_was_put(with).await;
        content::testing::says_not_found(with).await;
        content::testing::reads_from_an_offset(with).await;
    }

    /// Rows: B05, R02
    #[test]
    fn a_tag_is_moved_and_found() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        assert_eq!(layout.resolve("latest").unwrap(), None);
        let (one, two) = (Digest::of("1"), Digest::of("2"));
        layout
            .tag("latest", &json!({"digest": one.to_string(), "size": 1}))
            .unwrap();
        layout
            .tag("old", &json!({"digest": one.to_string(), "size": 1}))
            .unwrap();
        layout
            .tag("latest", &json!({"digest": two.to_string(), "size": 1}))
            .unwrap();
        assert_eq!(layout.resolve("latest").unwrap(), Some(two));
        assert_eq!(layout.resolve("old").unwrap(), Some(one));
        assert_eq!(layout.resolve("none").unwrap(), None);
    }

    /// Rows: B05
    #[test]
    fn an_image_has_one_entry_per_name_and_everybody_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let name: oci::ImageName = "registry.example/app:1".parse().unwrap();
        for text in ["1", "2"] {
            let digest = Digest::of(text).to_string();
            layout
                .name(&name, &json!({"digest": digest, "size": 1}))
                .unwrap();
        }
        let index = layout.read_index().unwrap();
        let entries = index["manifests"].as_array().unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0]["annotations"][NAME], "registry.example/app:1");
        assert_eq!(entries[0]["annotations"][TAG], "1");
        assert_eq!(entries[0]["digest"], Digest::of("2").to_string());
        let mode = std::fs::metadata(layout.index_path())
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o600, 0o600);
        let usual = dir.path().join("usual");
        std::fs::write(&usual, "").unwrap();
        let usual = std::fs::metadata(usual).unwrap().permissions();
        assert_eq!(mode.mode(), usual.mode(), "like any other new file");
    }
}
