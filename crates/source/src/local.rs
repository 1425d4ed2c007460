//! Directories of the client (S19). What came is kept under the client's key
//! for it, so that the next build gets only what changed, and so is what is known of it
//! by content.

use std::path::Path;
use std::sync::Arc;

use contenthash::Contents;
use refs::{MutableRef, RecordMeta, RecordType, Ref, Sharing};
use serde::Serialize;
use session::{Observer, Session, Target};
use stdx::sys::Root;

use crate::context::{Context, Sources};
use crate::error::Result;
use crate::identifier::LocalId;
use crate::source::Key;
use oci::go_json;

/// The note beside a ref with what is known of its files by content. It moves
/// with a kept directory from build to build, so whoever changes the directory
/// must see to it.
pub const CONTENTS_NOTE: &str = "contents";

/// The note beside a kept directory that says that it is being changed. When a build is
/// killed meanwhile it stays, and says that [`CONTENTS_NOTE`] is about files that may be
/// no longer there.
const CHANGING_NOTE: &str = "contents.changing";

/// A directory of the client.
#[derive(Clone)]
pub struct Local {
    sources: Sources,
    id: Arc<LocalId>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Preimage<'a> {
    #[serde(rename = "SessionID")]
    session: &'a str,
    include_patterns: &'a Option<Vec<String>>,
    exclude_patterns: &'a Option<Vec<String>>,
    follow_paths: &'a Option<Vec<String>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    metadata_transfer: bool,
    #[serde(skip_serializing_if = "nothing")]
    metadata_exceptions: &'a Option<Vec<String>>,
}

fn nothing(list: &Option<Vec<String>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

impl Local {
    /// The directory `id` names.
    pub fn new(sources: &Sources, id: LocalId) -> Local {
        Local {
            sources: sources.clone(),
            id: Arc::new(id),
        }
    }

    /// Holds for the session only: nobody knows what the directory has in it.
    pub fn cache_key(&self, cx: &Context) -> Result<Key> {
        let id = &self.id;
        let ids = cx.group.ids();
        let session = match (id.session.as_str(), ids.first()) {
            ("", Some(first)) => first,
            ("", None) => return Err(session::Error::NoSession(String::new()).into()),
            (named, _) => named,
        };
        Ok(key(id, session))
    }

    /// The directory as it is now.
    pub async fn fetch(&self, cx: &Context) -> Result<Ref> {
        if !self.id.session.is_empty() {
            let session = cx.session(&self.id.session).await?;
            return self.fetch_from(&session, cx).await;
        }
        let mut last = session::Error::NoSession(String::new()).into();
        for id in cx.group.ids() {
            let fetched = match cx.session(&id).await {
                Ok(session) => self.fetch_from(&session, cx).await,
                Err(error) => Err(error),
            };
            match fetched {
                Ok(fetched) => return Ok(fetched),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn fetch_from(&self, session: &Session, cx: &Context) -> Result<Ref> {
        let id = &self.id;
        let files = session.file_sync()?;
        let refs = &self.sources.parts().refs;
        let suffix = if id.metadata_only { ":metadata" } else { "" };
        let kept_as = format!(
            "local:{}:{}:{}{suffix}",
            id.name,
            id.shared_key,
            session.shared_key()
        );
        let meta = RecordMeta {
            description: format!("local source for {}", id.name),
            record_type: RecordType::LocalSource,
        };
        let kept = refs.named(&kept_as, None, Sharing::Private, meta).await?;
        let transfer = Arc::new(cx.step.transfer(format!("transferring {}:", id.name)));
        let shown = Arc::clone(&transfer);
        let observer: Observer = Arc::new(move |bytes| shown.set(bytes, 0));
        let (kept, root, known) = stdx::task::blocking(move || begin(kept)).await?;
        let request = id.request();
        // A build that is cancelled is gone before the last file is written.
        let kept = Arc::new(kept);
        let target = Target {
            root,
            known: Some(known),
            hold: Some(kept.clone()),
        };
        let synced = files.sync_hashed(&request, target, Some(observer));
        let (summary, known) = match synced.await {
            Ok(synced) => synced,
            Err(error) => {
                // What a broken transfer left is in no known state.
                drop(kept);
                if let Err(error) = refs.forget_named(&kept_as) {
                    tracing::warn!(%error, kept_as, "broken transfer stays");
                }
                return Err(error.into());
            }
        };
        tracing::debug!(name = id.name, ?summary, "local directory received");
        transfer.set(summary.wire_bytes, 0);
        if let Ok(transfer) = Arc::try_unwrap(transfer) {
            transfer.done();
        }
        let kept = Arc::into_inner(kept).expect("nothing is written any more");
        stdx::task::blocking(move || end(kept, known)).await
    }
}

/// Opens a kept directory, with what is known of it, to be changed.
fn begin(kept: MutableRef) -> Result<(MutableRef, Root, Contents)> {
    let failed = || crate::Error::io("opening the kept directory");
    let root = kept.tree().root().try_clone().map_err(failed())?;
    let is_certain = kept.note(CHANGING_NOTE)?.is_none_or(|note| note.is_empty());
    let noted = match is_certain {
        true => kept.note(CONTENTS_NOTE)?,
        false => None,
    };
    // A note that cannot be read is as good as none.
    let known = match noted.and_then(|note| Contents::decode(&note).ok()) {
        Some(known) => known,
        None => {
            let mut known = Contents::of_sent_files();
            if !root.read_dir(".").map_err(failed())?.is_empty() {
                let seen = known.refresh(&root, Path::new(""));
                seen.map_err(|error| failed()(std::io::Error::other(error)))?;
            }
            known
        }
    };
    kept.set_note(CHANGING_NOTE, b"1")?;
    Ok((kept, root, known))
}

/// Makes a kept directory final, which is in step with what is known of it.
fn end(kept: MutableRef, known: Option<Contents>) -> Result<Ref> {
    match known {
        Some(mut known) => {
            if let Some(note) = known.unsaved() {
                kept.set_note(CONTENTS_NOTE, &note)?;
            }
        }
        None => kept.set_note(CONTENTS_NOTE, b"")?,
    }
    kept.set_note(CHANGING_NOTE, b"")?;
    Ok(kept.commit()?)
}

fn key(id: &LocalId, session: &str) -> Key {
    let preimage = Preimage {
        session,
        include_patterns: &id.include,
        exclude_patterns: &id.exclude,
        follow_paths: &id.follow,
        metadata_transfer: id.metadata_only,
        metadata_exceptions: &id.metadata_except,
    };
    let digest = go_json::digest(&preimage);
    Key {
        text: format!("session:{}:{digest}", id.name),
        pin: digest.to_string(),
        last: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identifier;

    /// The vector is from `a01-run-shell/preimages.json` of the golden set.
    ///
    /// Rows: S19
    #[test]
    fn the_key_of_a_directory_is_buildkits() {
        let attrs = [
            ("local.followpaths", r#"[".dockerignore"]"#),
            ("local.sharedkeyhint", "context"),
        ];
        let attrs = attrs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let Ok(Identifier::Local(id)) = Identifier::parse("local://context", &attrs) else {
            panic!("local")
        };
        assert_eq!(
            key(&id, "uxforns0cq36j8zcd20ibu8x9").text,
            "session:context:sha256:e668096e9101f4d2991aef79191f5f76f547a6a4e00c46814a958ebef9f3eb13"
        );
    }
}
