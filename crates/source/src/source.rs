//! Any source, for those who do not care which.

use refs::Ref;

use crate::context::{Context, Sources};
use crate::error::Result;
use crate::identifier::Identifier;
use crate::{Blob, Git, Http, Image, Local};

/// What a source is cached by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The text that goes into `llb::preimage::source`. One that begins with
    /// `session:` holds for this session only and is never kept.
    pub text: String,
    /// What exactly it stands for (a digest, a commit), for provenance.
    pub pin: String,
    /// Whether this was the last key.
    pub last: bool,
}

/// The time, in seconds since 1970.
pub(crate) fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// One source of a build.
#[derive(Clone)]
pub enum Source {
    /// An image of a registry or a layout.
    Image(Image),
    /// One blob as a file.
    Blob(Blob),
    /// A commit.
    Git(Git),
    /// A download.
    Http(Http),
    /// A directory of the client.
    Local(Local),
}

impl Source {
    /// The source an identifier names, for one platform.
    pub fn new(sources: &Sources, identifier: Identifier, platform: &oci::Platform) -> Source {
        match identifier {
            Identifier::Image(id) => Source::Image(Image::new(sources, id, platform)),
            Identifier::Layout(id) => Source::Image(Image::layout(sources, id, platform)),
            Identifier::Blob(id) => Source::Blob(Blob::new(sources, id)),
            Identifier::Git(id) => Source::Git(Git::new(sources, id)),
            Identifier::Http(id) => Source::Http(Http::new(sources, id)),
            Identifier::Local(id) => Source::Local(Local::new(sources, id)),
        }
    }

    /// Its key. `index` counts from zero until a key is the last one.
    pub async fn cache_key(&self, cx: &Context, index: usize) -> Result<Key> {
        match self {
            Source::Image(image) => image.cache_key(cx, index).await,
            Source::Blob(blob) => Ok(blob.cache_key()),
            Source::Git(git) => git.cache_key(cx).await,
            Source::Http(http) => http.cache_key(cx).await,
            Source::Local(local) => local.cache_key(cx),
        }
    }

    /// Its files; `None` for an image without layers.
    pub async fn fetch(&self, cx: &Context) -> Result<Option<Ref>> {
        match self {
            Source::Image(image) => image.fetch(cx).await,
            Source::Blob(blob) => blob.fetch(cx).await.map(Some),
            Source::Git(git) => git.fetch(cx).await.map(Some),
            Source::Http(http) => http.fetch(cx).await.map(Some),
            Source::Local(local) => local.fetch(cx).await.map(Some),
        }
    }
}
