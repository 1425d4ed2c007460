//! The source op: fetching is the source's, keys are turned into the solver's here.

use std::sync::Arc;

use async_trait::async_trait;
use llb::preimage;
use oci::{Digest, Platform};
use solver::{CacheMap, KeyDigest, Op, OpContext, OpError};
use source::{Context, Identifier, Pinned, Source};

use crate::{Deeds, Error, Output, Result};

pub(crate) struct SourceOp {
    deeds: Deeds,
    source: Source,
    /// What it was read as, for all builds that share the step.
    pinned: Pinned,
}

impl SourceOp {
    pub(crate) fn new(
        deeds: Deeds,
        vertex: Digest,
        source: &llb::Source,
        platform: Option<&Platform>,
    ) -> Result<SourceOp> {
        let identifier = Identifier::parse(&source.identifier, &source.attrs)?;
        let platform = platform.unwrap_or(&deeds.parts.platform);
        let source = Source::new(&deeds.parts.sources, identifier, platform);
        let pinned = deeds.parts.sources.pins().hold(vertex);
        Ok(SourceOp {
            deeds,
            source,
            pinned,
        })
    }

    fn context(&self, cx: &OpContext) -> Context {
        self.deeds.build.source_context(&cx.step)
    }
}

impl crate::Build {
    /// On whose behalf sources are read.
    pub fn source_context(&self, step: &progress::StepProgress) -> Context {
        Context {
            sessions: self.sessions.clone(),
            group: self.group.clone(),
            credentials: self.credentials.clone(),
            resolutions: self.resolutions.clone(),
            step: step.clone(),
        }
    }
}

#[async_trait]
impl Op for SourceOp {
    type Output = Output;

    async fn cache_map(&self, cx: &OpContext, index: usize) -> Result<CacheMap, OpError> {
        let key = self
            .source
            .cache_key(&self.context(cx), index)
            .await
            .map_err(Error::from)?;
        self.pinned.set(&key.pin);
        let digest = Digest::of(preimage::source(&key.text));
        let digest = match key.text.starts_with("session:") {
            true => KeyDigest::Random(digest),
            false => KeyDigest::Stable(digest),
        };
        Ok(CacheMap {
            digest,
            inputs: Vec::new(),
            last: key.last,
        })
    }

    async fn run(&self, cx: &OpContext, _: Vec<Output>) -> Result<Vec<Output>, OpError> {
        let fetched = self
            .source
            .fetch(&self.context(cx))
            .await
            .map_err(|error| Arc::new(Error::from(error)) as OpError)?;
        Ok(vec![Output(fetched)])
    }
}
