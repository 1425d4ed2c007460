//! What is known about a source without having its files, for frontends and for the client's policy.

use std::borrow::Cow;

use llb::attr;
use llb::facts::{Facts, ImageFacts, Questions};
use oci::Platform;
use progress::StepProgress;
use source::{Identifier, Image, Source};

use crate::bridge::Shared;
use crate::error::asked;

impl Shared {
    /// The facts, and the image they are about if it is one.
    pub(crate) async fn facts(
        &self,
        of: &llb::Source,
        platform: Option<&Platform>,
        questions: &Questions,
    ) -> frontend::Result<(Facts, Option<Image>)> {
        let failed = |error: source::Error| {
            let doing = format!("resolving {}", of.identifier);
            asked(doing, error.kind(), error)
        };
        let mut attrs = Cow::Borrowed(&of.attrs);
        if let Some(mode) = &questions.mode
            && of.identifier.starts_with("docker-image://")
        {
            let name = attr::IMAGE_RESOLVE_MODE.to_owned();
            attrs.to_mut().insert(name, mode.clone());
        }
        let identifier = Identifier::parse(&of.identifier, &attrs).map_err(failed)?;
        let platform = questions.platform.as_ref().or(platform);
        let platform = platform.unwrap_or(&self.deeds.parts.platform);
        let source = Source::new(&self.deeds.parts.sources, identifier, platform);
        let cx = self.deeds.build.source_context(&StepProgress::none());
        let facts = match &source {
            Source::Image(image) => {
                let found = image.config(&cx).await.map_err(failed)?;
                let attestations = match questions.attestations {
                    true => {
                        let read = image.attestations(&questions.statements, &cx);
                        Some(read.await.map_err(failed)?)
                    }
                    false => None,
                };
                Facts::Image(ImageFacts {
                    digest: found.digest,
                    config: match questions.no_config {
                        true => bytes::Bytes::new(),
                        false => found.config,
                    },
                    attestations,
                })
            }
            Source::Git(git) => {
                Facts::Git(git.facts(questions.objects, &cx).await.map_err(failed)?)
            }
            Source::Http(http) => {
                let question = questions.checksum.as_ref();
                Facts::Download(http.facts(question, &cx).await.map_err(failed)?)
            }
            Source::Blob(_) | Source::Local(_) => {
                // Its key is nobody's business; that it is asked for finds mistakes early.
                source.cache_key(&cx, 0).await.map_err(failed)?;
                Facts::Nothing
            }
        };
        let image = match source {
            Source::Image(image) => Some(image),
            _ => None,
        };
        Ok((facts, image))
    }
}
