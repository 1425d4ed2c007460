//! Images: what a name stands for, which of its manifests suits the platform,
//! and its layers, which nobody fetches before a step reads them (S01).

mod attestations;
mod config;
mod document;
mod key;
mod pull;

/// The documents of an image, read as pulling reads them.
pub mod documents {
    pub use super::config::layers;
    pub use super::document::{Document, choose};
}

use std::sync::Arc;

use bytes::Bytes;
use content::{FirstOf, Provider};
use llb::facts::Attestations;
use oci::{Digest, ImageName, Platform};
use refs::{RecordType, Ref};

use crate::context::{Context, Sources};
use crate::error::Result;
use crate::identifier::{ImageId, LayoutId};
use crate::source::Key;
use pull::{Place, Pulled};

/// An image for one platform.
#[derive(Clone)]
pub struct Image {
    sources: Sources,
    what: Arc<What>,
}

pub(crate) struct What {
    pub place: Where,
    pub platform: Platform,
    pub layer_limit: Option<usize>,
    pub record_type: RecordType,
}

/// Where the image is.
pub(crate) enum Where {
    Registry(ImageId),
    Layout(LayoutId),
}

/// An image's config, for a frontend.
#[derive(Clone, Debug)]
pub struct ImageConfig {
    /// The digest the name stands for: of an index, if it is one.
    pub digest: Digest,
    /// The manifest for the platform.
    pub manifest: Digest,
    /// The config, as it is stored.
    pub config: Bytes,
    /// The platform that was wanted.
    pub platform: Platform,
}

impl Image {
    /// An image of a registry.
    pub fn new(sources: &Sources, id: ImageId, platform: &Platform) -> Image {
        let (layer_limit, record_type) = (id.layer_limit, id.record_type);
        Image::at(
            sources,
            Where::Registry(id),
            platform,
            layer_limit,
            record_type,
        )
    }

    /// An image of a layout on the client's side.
    pub fn layout(sources: &Sources, id: LayoutId, platform: &Platform) -> Image {
        let layer_limit = id.layer_limit;
        Image::at(
            sources,
            Where::Layout(id),
            platform,
            layer_limit,
            RecordType::Regular,
        )
    }

    fn at(
        sources: &Sources,
        place: Where,
        platform: &Platform,
        layer_limit: Option<usize>,
        record_type: RecordType,
    ) -> Image {
        let platform = platform.clone().normalized();
        Image {
            sources: sources.clone(),
            what: Arc::new(What {
                place,
                platform,
                layer_limit,
                record_type,
            }),
        }
    }

    /// The image's name, as in messages.
    pub fn reference(&self) -> String {
        match &self.what.place {
            Where::Registry(id) => id.name.to_string(),
            Where::Layout(id) => id.reference.clone(),
        }
    }

    /// The name of an image of a registry.
    pub fn name(&self) -> Option<&ImageName> {
        match &self.what.place {
            Where::Registry(id) => Some(&id.name),
            Where::Layout(_) => None,
        }
    }

    /// Key 0 is over the manifest digest, platform and limit; key 1 is the
    /// chain ID, so that equal content under other names or compressions is
    /// found too (S02, P18).
    pub async fn cache_key(&self, cx: &Context, index: usize) -> Result<Key> {
        let pulled = self.pulled(cx).await?;
        let refs = &self.sources.parts().refs;
        refs.introduced(&pulled.layers, &cx.step);
        let pin = pulled.root.digest.to_string();
        let first = key::manifest(
            &pulled.root.digest,
            &self.what.platform,
            self.what.layer_limit,
        )
        .to_string();
        if index == 0 {
            return Ok(Key {
                text: first,
                pin,
                last: false,
            });
        }
        let text = key::config(&pulled.config, self.what.layer_limit)?.unwrap_or(first);
        Ok(Key {
            text,
            pin,
            last: true,
        })
    }

    /// The image's layers as a ref. Fetches no layer.
    pub async fn fetch(&self, cx: &Context) -> Result<Option<Ref>> {
        let pulled = self.pulled(cx).await?;
        let refs = self.sources.parts().refs.clone();
        let (layers, record_type) = (pulled.layers.clone(), self.what.record_type);
        let documents = [
            pulled.root.digest,
            pulled.manifest.digest,
            pulled.config_descriptor.digest,
        ];
        stdx::task::blocking(move || {
            let Some(found) = refs.from_layers(layers)? else {
                return Ok(None);
            };
            for document in &documents {
                found.attach(document)?;
            }
            if record_type != RecordType::Regular {
                found.declare_record_type(record_type)?;
            }
            Ok(Some(found))
        })
        .await
    }

    /// The image's config, for a frontend that builds on it.
    pub async fn config(&self, cx: &Context) -> Result<ImageConfig> {
        let pulled = self.pulled(cx).await?;
        Ok(ImageConfig {
            digest: pulled.root.digest,
            manifest: pulled.manifest.digest,
            config: pulled.config.clone(),
            platform: self.what.platform.clone(),
        })
    }

    /// Who says what about the image and who signed that, with the statements of these types.
    pub async fn attestations(&self, statements: &[String], cx: &Context) -> Result<Attestations> {
        let reference = self.reference();
        // Boxed: the future is large, and every caller's would be.
        Box::pin(attestations::read(
            &self.sources,
            &self.what,
            &reference,
            statements,
            cx,
        ))
        .await
    }

    /// Where the image's blobs can be read in this build: here, else where
    /// the image is.
    pub async fn provider(&self, cx: &Context) -> Result<Arc<dyn Provider>> {
        let place = Place::open(&self.sources, &self.what.place, cx).await?;
        let here: Arc<dyn Provider> = Arc::new(self.sources.parts().refs.store().clone());
        Ok(Arc::new(FirstOf(vec![here, Arc::new(place.provider())])))
    }

    /// The documents of the image, read once per build.
    async fn pulled(&self, cx: &Context) -> Result<Arc<Pulled>> {
        let key = format!(
            "image {} {} {:?} {}",
            self.reference(),
            self.what.platform,
            self.what.layer_limit,
            self.variant()
        );
        cx.resolutions
            .get_or(
                key,
                // Boxed: the future is large, and every caller's would be.
                Box::pin(pull::pull(&self.sources, &self.what, &self.reference(), cx)),
            )
            .await
    }

    /// What else makes one lookup differ from another.
    fn variant(&self) -> String {
        match &self.what.place {
            Where::Registry(id) => format!("{:?} {:?}", id.mode, id.checksum),
            Where::Layout(id) => format!("{} {}", id.session, id.store),
        }
    }
}
