//! Secrets of the build's clients (row X05).

use bytes::Bytes;

use crate::{Build, Error, Result};

/// The largest a secret may be.
const LARGEST: usize = 500 << 10;

/// A secret by its id; `None` when no client has it and it is not needed.
pub(super) async fn get(build: &Build, id: &str, optional: bool) -> Result<Option<Bytes>> {
    if id.is_empty() {
        return Err(Error::Invalid(
            "a secret is wanted and its id is not said".into(),
        ));
    }
    let answer = build.group.any(&build.sessions, |session| async move {
        session.secrets()?.get(id).await
    });
    let missing = || session::Error::NotFound {
        what: "secret",
        name: id.to_owned(),
    };
    let source = match answer.await {
        Ok(secret) if secret.len() > LARGEST => {
            let size = secret.len();
            let most = format!("secret {id} has {size} bytes; {LARGEST} is the most");
            return Err(Error::Invalid(most));
        }
        Ok(secret) => return Ok(Some(secret)),
        Err(error) if build.group.is_empty() || is_missing(&error) => missing(),
        Err(error) => error,
    };
    match &source {
        session::Error::NotFound { .. } if optional => Ok(None),
        session::Error::NotFound { .. } => Err(Error::Session {
            what: format!("secret {id}: not found: give it with --secret id={id},src=FILE"),
            source,
        }),
        _ => Err(Error::Session {
            what: format!("asking for secret {id}"),
            source,
        }),
    }
}

/// Whether the client is there and does not have it.
pub(super) fn is_missing(error: &session::Error) -> bool {
    matches!(
        error,
        session::Error::NotFound { .. } | session::Error::NotOffered(_)
    ) || matches!(error.kind(), stdx::Kind::NotFound | stdx::Kind::Unsupported)
}
