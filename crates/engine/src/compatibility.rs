//! Output as earlier releases of BuildKit made it (row A17): who wants an image of then bit by
//! bit asks for the version of then. Only what comes out is older, not how it is made.

use std::borrow::Cow;

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

    /// A source that gives what it gave then, if that was anything else. It is another step than
    /// today's, and all that rests on it is, so that builds of both kinds can run side by side.
    pub(crate) fn source(self, source: &llb::Source) -> Option<llb::Source> {
        let old = self == Compatibility::V013 && source.identifier.starts_with("git://");
        let mark = (llb::attr::GIT_OLD_MODES, "true");
        let marked = source.attrs.get(mark.0).is_some_and(|it| it == mark.1);
        if !old || marked {
            return None;
        }
        let mut source = source.clone();
        source.attrs.insert(mark.0.to_owned(), mark.1.to_owned());
        Some(source)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
}
