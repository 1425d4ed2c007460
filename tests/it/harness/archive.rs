//! Images as they lie in an OCI archive or folder, and tars as lists of entries.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

/// The files of an OCI layout.
pub(crate) struct Layout(BTreeMap<String, Vec<u8>>);

impl Layout {
    /// Reads an archive.
    #[track_caller]
    pub(crate) fn of_tar(bytes: &[u8]) -> Layout {
        Layout(files(bytes))
    }

    /// Reads a folder.
    #[track_caller]
    pub(crate) fn of_folder(path: &Path) -> Layout {
        let mut files = BTreeMap::new();
        let index = std::fs::read(path.join("index.json")).expect("an index");
        files.insert("index.json".to_owned(), index);
        for entry in std::fs::read_dir(path.join("blobs/sha256")).expect("blobs") {
            let entry = entry.expect("a readable folder");
            let name = format!("blobs/sha256/{}", entry.file_name().to_string_lossy());
            files.insert(name, std::fs::read(entry.path()).expect("a blob"));
        }
        Layout(files)
    }

    /// A file.
    #[track_caller]
    pub(crate) fn file(&self, name: &str) -> &[u8] {
        let names: Vec<&String> = self.0.keys().collect();
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("no {name} among {names:?}"))
    }

    /// A blob, whose digest is true.
    #[track_caller]
    pub(crate) fn blob(&self, digest: &str) -> &[u8] {
        let bytes = self.file(&format!("blobs/{}", digest.replace(':', "/")));
        assert_eq!(oci::Digest::of(bytes).to_string(), digest);
        bytes
    }

    /// The index.
    #[track_caller]
    pub(crate) fn index(&self) -> Value {
        json(self.file("index.json"))
    }

    /// The bytes of the first manifest; of the first of its own, if it is an index.
    #[track_caller]
    pub(crate) fn manifest(&self) -> &[u8] {
        let index = self.index();
        let bytes = self.blob(text(&index["manifests"][0]["digest"]));
        let document = json(bytes);
        match document["manifests"].as_array() {
            Some(manifests) => self.blob(text(&manifests[0]["digest"])),
            None => bytes,
        }
    }

    /// The bytes of its config.
    #[track_caller]
    pub(crate) fn config(&self) -> &[u8] {
        let manifest = json(self.manifest());
        self.blob(text(&manifest["config"]["digest"]))
    }

    /// The bytes of its layers, bottom first, unpacked.
    #[track_caller]
    pub(crate) fn layers(&self) -> Vec<Vec<u8>> {
        let manifest = json(self.manifest());
        let layers = manifest["layers"].as_array().expect("layers").iter();
        layers
            .map(|layer| unpacked(self.blob(text(&layer["digest"]))))
            .collect()
    }

    /// The regular files of all layers, as the image shows them (whiteouts of files are
    /// followed, those of folders are not needed here).
    #[track_caller]
    pub(crate) fn image_files(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for layer in self.layers() {
            for (name, bytes) in files(&layer) {
                match name.rsplit_once(".wh.") {
                    Some((folder, gone)) => {
                        all.remove(&format!("{folder}{gone}"));
                    }
                    None => {
                        all.insert(name, String::from_utf8_lossy(&bytes).into_owned());
                    }
                }
            }
        }
        all
    }
}

/// A JSON document.
#[track_caller]
pub(crate) fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

/// The regular files of a tar.
#[track_caller]
fn files(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("its bytes");
        files.insert(name, bytes);
    }
    files
}

/// Bytes without gzip, if they have it.
#[track_caller]
pub(crate) fn unpacked(bytes: &[u8]) -> Vec<u8> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return bytes.to_vec();
    }
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes)
        .read_to_end(&mut plain)
        .expect("gzip");
    plain
}

/// The entries of a tar, one a line, to see where two differ.
#[track_caller]
pub(crate) fn entries(tar: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let mut line = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let header = entry.header().clone();
        let number = |field: std::io::Result<u64>| field.unwrap_or(u64::MAX);
        let _ = write!(
            line,
            " {:?} {:o} {}:{} {} bytes @{}",
            header.entry_type(),
            header.mode().unwrap_or(0),
            number(header.uid()),
            number(header.gid()),
            number(header.size()),
            number(header.mtime())
        );
        if let Some(target) = entry.link_name_bytes() {
            let _ = write!(line, " -> {}", String::from_utf8_lossy(&target));
        }
        if let Ok(Some(records)) = entry.pax_extensions() {
            for record in records.flatten() {
                let (key, value) = (record.key_bytes(), record.value_bytes());
                let (key, value) = (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
                let _ = write!(line, " {key}={value}");
            }
        }
        lines.push(line);
    }
    lines
}
