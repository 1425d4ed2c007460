//! Where a lazy blob can be fetched again: its descriptor carries the
//! repositories it was seen in, as containerd writes them
//! (`containerd.io/distribution.source.<host>` = `repo,repo`).

use std::sync::Arc;

use async_trait::async_trait;
use content::{ByteStream, Provider};
use oci::Descriptor;

use crate::{Credentials, Registry, Repository};

/// The annotation's name up to the host.
pub const SOURCE_ANNOTATION: &str = "containerd.io/distribution.source.";

/// The repositories a blob was seen in, as registry and path.
pub fn sources(blob: &Descriptor) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (key, value) in &blob.annotations {
        let Some(host) = key
            .strip_prefix(SOURCE_ANNOTATION)
            .filter(|host| *host != "ref")
        else {
            continue;
        };
        for path in value.split(',').filter(|path| !path.is_empty()) {
            found.push((host.to_owned(), path.to_owned()));
        }
    }
    found
}

/// Notes on a blob that `path` of `host` has it.
pub fn add_source(blob: &mut Descriptor, host: &str, path: &str) {
    let known = blob
        .annotations
        .entry(format!("{SOURCE_ANNOTATION}{host}"))
        .or_default();
    if known.split(',').any(|one| one == path) {
        return;
    }
    if !known.is_empty() {
        known.push(',');
    }
    known.push_str(path);
}

/// Reads any blob whose descriptor says where it came from.
#[derive(Clone)]
pub struct Origins {
    registry: Registry,
    credentials: Arc<dyn Credentials>,
}

impl Origins {
    /// With the credentials of one build.
    pub fn new(registry: Registry, credentials: Arc<dyn Credentials>) -> Origins {
        Origins {
            registry,
            credentials,
        }
    }

    fn repositories(&self, blob: &Descriptor) -> Vec<Repository> {
        sources(blob)
            .iter()
            .map(|(host, path)| {
                self.registry
                    .at(host, path, self.credentials.clone(), false)
            })
            .collect()
    }
}

#[async_trait]
impl Provider for Origins {
    async fn size(&self, blob: &Descriptor) -> content::Result<u64> {
        let mut last = crate::Error::absent(blob, "any repository it was seen in").into();
        for repository in self.repositories(blob) {
            match repository.size(blob).await {
                Ok(size) => return Ok(size),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn read(&self, blob: &Descriptor, offset: u64) -> content::Result<ByteStream> {
        let mut last = crate::Error::absent(blob, "any repository it was seen in").into();
        for repository in self.repositories(blob) {
            match repository.read(blob, offset).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_remembers_each_repository_once() {
        let mut blob = Descriptor::of("x", b"");
        for (host, path) in [
            ("docker.io", "library/a"),
            ("docker.io", "b"),
            ("docker.io", "b"),
            ("r:5000", "c"),
        ] {
            add_source(&mut blob, host, path);
        }
        let expected = [
            ("docker.io", "library/a"),
            ("docker.io", "b"),
            ("r:5000", "c"),
        ];
        assert_eq!(
            sources(&blob),
            expected.map(|(host, path)| (host.to_owned(), path.to_owned()))
        );
    }
}
