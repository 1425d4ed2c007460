//! What frontends warn of (row G10), on its way to those who watch the build.
//!
//! Each warning is told, and written into the build's story, with the whole file it is about.
//! So there is an end to what a frontend may say.

use std::sync::atomic::{AtomicUsize, Ordering};

use frontend::{Position, SourceFile, Warning};
use oci::Digest;
use progress::{Event, Source};

/// So much is told of the warnings of one build: a thousand of them about a file of 64 KiB.
const MAX_BYTES: usize = 64 << 20;
/// What a warning costs beside its words.
const EACH: usize = 256;

/// The warnings of one build.
#[derive(Default)]
pub(crate) struct Warnings {
    bytes: AtomicUsize,
}

impl Warnings {
    /// A warning as it is told; `None` if there were too many, which is told in place of the
    /// first one.
    pub(crate) fn event(&self, step: Option<&Digest>, warning: Warning) -> Option<Event> {
        let told = told(step, warning);
        let size = size(&told);
        let before = self.bytes.fetch_add(size, Ordering::Relaxed);
        match (before > MAX_BYTES, before + size > MAX_BYTES) {
            (true, _) => {
                // Or it might begin again from the start one day.
                self.bytes.fetch_sub(size, Ordering::Relaxed);
                None
            }
            (false, true) => Some(Event::Warning(no_more(told.step))),
            (false, false) => Some(Event::Warning(told)),
        }
    }
}

fn told(step: Option<&Digest>, warning: Warning) -> progress::Warning {
    let (source, ranges) = match warning.at {
        None => (None, Vec::new()),
        Some(at) => (
            Some(source(&at.file)),
            at.ranges.iter().map(range).collect(),
        ),
    };
    progress::Warning {
        step: step.copied().unwrap_or_else(|| Digest::of(b"")),
        level: u32::from(warning.level),
        short: warning.short,
        detail: warning.detail,
        url: warning.url,
        source,
        ranges,
    }
}

fn source(file: &SourceFile) -> Source {
    let definition = file.definition.as_ref().map(llb::Definition::encode);
    Source {
        filename: file.name.clone(),
        language: file.language.clone(),
        data: file.data.clone(),
        definition: definition.unwrap_or_default(),
    }
}

fn range(range: &frontend::Range) -> progress::Range {
    let position = |at: Position| progress::Position {
        line: at.line,
        character: at.character,
    };
    progress::Range {
        start: position(range.start),
        end: position(range.end),
    }
}

fn size(warning: &progress::Warning) -> usize {
    let file = warning.source.as_ref().map_or(0, |file| {
        let names = file.filename.len() + file.language.len();
        names + file.data.len() + file.definition.len()
    });
    let detail = warning
        .detail
        .iter()
        .map(|line| line.len() + size_of::<String>());
    EACH + warning.short.len()
        + detail.sum::<usize>()
        + warning.url.len()
        + warning.ranges.len() * size_of::<progress::Range>()
        + file
}

fn no_more(step: Digest) -> progress::Warning {
    progress::Warning {
        step,
        level: 1,
        short: format!(
            "Further warnings are left out: a build may have {} MiB of them",
            MAX_BYTES >> 20
        ),
        detail: Vec::new(),
        url: String::new(),
        source: None,
        ranges: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use frontend::SourceLocation;

    use super::*;

    fn about(data: Vec<u8>, short: &str, lines: usize) -> Warning {
        let file = SourceFile {
            name: "Dockerfile".to_owned(),
            data: data.into(),
            ..SourceFile::default()
        };
        Warning {
            level: 2,
            short: short.to_owned(),
            at: Some(SourceLocation {
                file: Arc::new(file),
                ranges: vec![frontend::Range::lines(2, 3); lines],
            }),
            ..Warning::default()
        }
    }

    /// Rows: G10
    #[test]
    fn a_warning_is_told_as_it_is() {
        let definition = llb::Definition {
            def: vec![Bytes::from_static(b"op")],
            ..llb::Definition::default()
        };
        let mut warning = about(b"FROM x".to_vec(), "short", 1);
        warning.detail = vec!["more".to_owned()];
        warning.url = "https://h/".to_owned();
        let at = warning.at.as_mut().unwrap();
        Arc::get_mut(&mut at.file).unwrap().definition = Some(definition.clone());
        let step = Digest::of("step");
        let Some(Event::Warning(told)) = Warnings::default().event(Some(&step), warning) else {
            panic!("it is one")
        };
        assert_eq!(
            (told.step, told.level, &*told.short, &*told.url),
            (step, 2, "short", "https://h/")
        );
        assert_eq!(told.detail, ["more"]);
        let (start, end) = (told.ranges[0].start, told.ranges[0].end);
        assert_eq!((start.line, end.line, told.ranges.len()), (2, 3, 1));
        let source = told.source.unwrap();
        assert_eq!(
            (&*source.filename, &*source.data),
            ("Dockerfile", &b"FROM x"[..])
        );
        assert_eq!(
            llb::Definition::decode(source.definition).unwrap(),
            definition
        );
    }

    /// Rows: G10
    #[test]
    fn there_is_an_end_to_warnings_and_it_is_told_once() {
        let mib = 1 << 20;
        // Whatever it is that is large.
        for (data, short, lines) in [(mib, 0, 1), (0, mib, 1), (0, 0, mib / 8), (mib, mib, 1)] {
            let (warnings, short) = (Warnings::default(), "x".repeat(short));
            let one = || about(vec![b'x'; data], &short, lines);
            let mut count = 0;
            let last = loop {
                let Some(Event::Warning(told)) = warnings.event(None, one()) else {
                    panic!("it ended without a word after {count}")
                };
                if told.short != short {
                    break told;
                }
                count += 1;
                assert!(count <= 64, "without end");
            };
            let says = "Further warnings are left out: a build may have 64 MiB of them";
            assert_eq!((last.short.as_str(), last.source), (says, None));
            for _ in 0..3 {
                assert!(warnings.event(None, about(Vec::new(), "", 0)).is_none());
            }
        }
    }
}
