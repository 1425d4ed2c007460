//! Output as earlier releases of BuildKit made it (row A17): who wants an image of then bit by
//! bit asks for the version of then. Only what comes out is older, not how it is made.

use std::borrow::Cow;
use std::collections::BTreeMap;

use exporter::{ImageOptions, Source};
use layer::Algorithm;

use crate::Failure;
use crate::export::Exporter;

/// A generation of output, by the first release that made it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compatibility {
    /// v0.13 and v0.14: files of git repositories can be written by all; zstd was another.
    V013,
    /// v0.15 to v0.30: Docker's documents unless there are statements, which are images.
    V015,
    /// The newest, from v0.31 on.
    #[default]
    V031,
}

/// There is no such version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownCompatibility {
    /// It may come one day.
    #[error("unsupported compatibility-version {0}: upgrade kiln (max supported: {max})", max = Compatibility::default().number())]
    TooNew(i64),
    /// It never was.
    #[error("unsupported compatibility-version {0} (supported: 10, 20, 30)")]
    Never(i64),
}

impl Compatibility {
    /// The version clients know by this number; 0 is whatever is newest.
    pub fn of(number: i64) -> Result<Compatibility, UnknownCompatibility> {
        match number {
            10 => Ok(Compatibility::V013),
            20 => Ok(Compatibility::V015),
            0 | 30 => Ok(Compatibility::V031),
            newer if newer > Compatibility::default().number() => {
                Err(UnknownCompatibility::TooNew(newer))
            }
            other => Err(UnknownCompatibility::Never(other)),
        }
    }

    /// Its number.
    pub fn number(self) -> i64 {
        match self {
            Compatibility::V013 => 10,
            Compatibility::V015 => 20,
            Compatibility::V031 => 30,
        }
    }

    /// That what an exporter is asked for can be given as it was then. The zstd of then would
    /// give other bytes than ours (row W8).
    pub(crate) fn check(self, exporter: &Exporter) -> Result<(), Failure> {
        let algorithm = exporter
            .image()
            .map(|options| options.compression.algorithm);
        if self > Compatibility::V013 || algorithm != Some(Algorithm::Zstd) {
            return Ok(());
        }
        let feature = format!("{} exporter compression=zstd", exporter.name());
        Err(Failure::lacks_feature(self, feature))
    }

    /// What is written where the options say nothing (rows E08, P03). `layout` are archives
    /// that can only have OCI's documents.
    pub(crate) fn options<'a>(
        self,
        options: &'a ImageOptions,
        source: &Source,
        layout: bool,
    ) -> Result<Cow<'a, ImageOptions>, exporter::Error> {
        if self >= Compatibility::V031 {
            return Ok(Cow::Borrowed(options));
        }
        let attested = source.results.iter().any(|one| !one.statements.is_empty());
        let old = options.clone().or_as_before_artifacts(layout || attested);
        Ok(Cow::Owned(old?))
    }

    /// A graph whose sources give what they gave then. Those are other steps than today's, and
    /// all that rests on them is, so that builds of both kinds can run side by side.
    pub(crate) fn graph(
        self,
        definition: llb::Definition,
        graph: llb::Graph,
    ) -> Result<(llb::Definition, llb::Graph), llb::Error> {
        if self > Compatibility::V013 {
            return Ok((definition, graph));
        }
        let old = |vertex: &llb::Vertex| match &vertex.op.kind {
            llb::OpKind::Source(source) if source.identifier.starts_with("git://") => {
                let mut source = source.clone();
                let attr = llb::attr::GIT_OLD_MODES.to_owned();
                source.attrs.insert(attr, "true".to_owned());
                Some((vertex.digest, source))
            }
            _ => None,
        };
        let old: BTreeMap<_, _> = graph.vertices().iter().filter_map(old).collect();
        match old.is_empty() {
            true => Ok((definition, graph)),
            false => crate::policy::replaced(&definition, &graph, &old),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: A17
    #[test]
    fn versions_are_known_by_their_numbers_and_others_are_refused() {
        for number in [10, 20, 30] {
            assert_eq!(Compatibility::of(number).unwrap().number(), number);
        }
        assert_eq!(Compatibility::of(0), Ok(Compatibility::default()));
        for (number, message) in [
            (
                11,
                "unsupported compatibility-version 11 (supported: 10, 20, 30)",
            ),
            (
                -10,
                "unsupported compatibility-version -10 (supported: 10, 20, 30)",
            ),
            (
                40,
                "unsupported compatibility-version 40: upgrade kiln (max supported: 30)",
            ),
        ] {
            assert_eq!(Compatibility::of(number).unwrap_err().to_string(), message);
        }
    }

    /// Rows: A17, E08, P03
    #[test]
    fn documents_were_dockers_unless_there_was_a_reason() {
        let plain = Source::new(None, BTreeMap::new(), &BTreeMap::new()).unwrap();
        let mut attested = plain.clone();
        attested.results[0]
            .statements
            .push(exporter::Statement::default());
        let options = ImageOptions::default();
        let written = |version: Compatibility, source: &Source, layout| {
            let options = version.options(&options, source, layout).unwrap();
            (options.oci(), options.artifact())
        };
        for old in [Compatibility::V013, Compatibility::V015] {
            assert_eq!(written(old, &plain, false), (false, false));
            assert_eq!(written(old, &attested, false), (true, false));
            assert_eq!(written(old, &plain, true), (true, false));
        }
        for source in [&plain, &attested] {
            assert_eq!(written(Compatibility::V031, source, false), (true, true));
        }
    }

    /// Rows: A17
    #[test]
    fn only_the_oldest_version_has_other_git_sources() {
        let mut builder = llb::Builder::new();
        let sources = ["docker-image://h/a:1", "git://h/r"];
        let sources = sources
            .map(|name| Some(builder.source(name, BTreeMap::new(), None, llb::Meta::default())));
        let both = builder.merge(&sources, llb::Meta::default());
        let definition = builder.definition(both.as_ref());
        let graph = llb::Graph::load(&definition).unwrap();
        let aged = |version: Compatibility| {
            let (definition, graph) = (definition.clone(), graph.clone());
            version.graph(definition, graph).unwrap().1
        };
        let digests = |graph: &llb::Graph| -> Vec<_> {
            graph.vertices().iter().map(|one| one.digest).collect()
        };
        for same in [Compatibility::V015, Compatibility::V031] {
            assert_eq!(digests(&aged(same)), digests(&graph));
        }
        let old = aged(Compatibility::V013);
        let kept = digests(&graph)
            .into_iter()
            .filter(|digest| digests(&old).contains(digest));
        assert_eq!(kept.count(), 1, "the image");
        let again = Compatibility::V013.graph(old.definition(), old.clone());
        assert_eq!(digests(&again.unwrap().1), digests(&old));
    }
}
