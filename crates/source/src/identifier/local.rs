//! `local://`.

use llb::attr;
use session::DirRequest;

use super::attrs::Attrs;
use crate::error::Result;

/// A directory of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalId {
    /// The client's name of it.
    pub name: String,
    /// The session that has it; any of the build's when empty.
    pub session: String,
    /// Only what matches; `None` and an empty list differ in the cache key.
    pub include: Option<Vec<String>>,
    /// Not what matches.
    pub exclude: Option<Vec<String>>,
    /// Only these and what symlinks in them lead to.
    pub follow: Option<Vec<String>>,
    /// Names the directory that is kept between builds.
    pub shared_key: String,
    /// Ask for every file, even one that looks unchanged.
    pub all: bool,
    /// Names and sizes only.
    pub metadata_only: bool,
    /// Content all the same of these.
    pub metadata_except: Option<Vec<String>>,
}

impl LocalId {
    pub(super) fn parse(rest: &str, attrs: &mut Attrs<'_>) -> Result<LocalId> {
        if rest.is_empty() {
            return Err(attrs.wrong("it has no name"));
        }
        let mut name = rest.to_owned();
        let mut session = attrs.text_or_empty(attr::LOCAL_SESSION);
        if let Some((prefix, id)) = session.split_once(':') {
            name = format!("{prefix}-{name}");
            session = id.to_owned();
        }
        // It only makes definitions differ that are equal otherwise.
        attrs.text(attr::LOCAL_UNIQUE);
        Ok(LocalId {
            name,
            session,
            include: attrs.list(attr::LOCAL_INCLUDE)?,
            exclude: attrs.list(attr::LOCAL_EXCLUDE)?,
            follow: attrs.list(attr::LOCAL_FOLLOW)?,
            shared_key: attrs.text_or_empty(attr::LOCAL_SHARED_KEY),
            all: attrs
                .read(attr::LOCAL_DIFFER, |value| match value {
                    "" | "metadata" => Ok(false),
                    "none" => Ok(true),
                    other => Err(format!("invalid differ `{other}`")),
                })?
                .unwrap_or(false),
            metadata_only: attrs.truth(attr::LOCAL_METADATA_ONLY)?,
            metadata_except: attrs.list(attr::LOCAL_METADATA_EXCEPT)?,
        })
    }

    /// What the session is asked for.
    pub fn request(&self) -> DirRequest {
        DirRequest {
            name: self.name.clone(),
            include: self.include.clone().unwrap_or_default(),
            exclude: self.exclude.clone().unwrap_or_default(),
            follow: self.follow.clone().unwrap_or_default(),
            all: self.all,
            metadata_only: self.metadata_only,
            metadata_except: self.metadata_except.clone().unwrap_or_default(),
        }
    }
}
