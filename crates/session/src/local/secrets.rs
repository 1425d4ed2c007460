//! Secrets from files, from the environment, or given outright.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Error, Result, Secrets};

/// As large as a secret may be, as upstream has it.
const MAX_SECRET: u64 = 500 << 10;

/// Where a secret is.
#[derive(Clone)]
pub enum SecretSource {
    /// In a file, read when asked for.
    File(PathBuf),
    /// Known already: from the environment, from a helper.
    Value(Bytes),
}

/// Secrets by name.
#[derive(Clone, Default)]
pub struct SecretValues {
    by_id: BTreeMap<String, SecretSource>,
}

impl SecretValues {
    /// None yet.
    pub fn new() -> SecretValues {
        SecretValues::default()
    }

    /// With one more.
    pub fn with(mut self, id: impl Into<String>, source: SecretSource) -> SecretValues {
        self.by_id.insert(id.into(), source);
        self
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

#[async_trait]
impl Secrets for SecretValues {
    async fn get(&self, id: &str) -> Result<Bytes> {
        let path = match self.by_id.get(id) {
            None => {
                return Err(Error::NotFound {
                    what: "secret",
                    name: id.to_owned(),
                });
            }
            Some(SecretSource::Value(value)) => return Ok(value.clone()),
            Some(SecretSource::File(path)) => path,
        };
        let io = |e| Error::io(format!("reading secret {id} from {}", path.display()), e);
        let metadata = tokio::fs::metadata(path).await.map_err(io)?;
        if metadata.len() > MAX_SECRET {
            return Err(Error::Refused {
                kind: stdx::Kind::InvalidInput,
                message: format!("invalid secret {id}: larger than {MAX_SECRET} bytes"),
            });
        }
        Ok(tokio::fs::read(path).await.map_err(io)?.into())
    }
}
