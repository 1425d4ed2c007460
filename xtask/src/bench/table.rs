//! Medians, ratios, and the table.

use std::fmt::Write as _;
use std::time::Duration;

use super::Error;
use super::case::Case;
use super::inputs::Sizes;
use super::measure::Sample;
use super::subject::Who;

/// One case with all its samples.
pub(crate) struct Row {
    title: String,
    samples: Vec<(Who, Sample)>,
    failures: Vec<(Who, String)>,
}

impl Row {
    pub(crate) fn new(case: Case, sizes: &Sizes) -> Row {
        Row {
            title: case.title(sizes),
            samples: Vec::new(),
            failures: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, who: Who, outcome: Result<Sample, Error>) {
        match outcome {
            Ok(sample) => self.samples.push((who, sample)),
            Err(error) => self.failures.push((who, error.to_string())),
        }
    }

    pub(crate) fn failed(&self, who: Who) -> bool {
        self.failures.iter().any(|(failed, _)| *failed == who)
    }

    fn of(&self, who: Who) -> Vec<Sample> {
        let samples = self.samples.iter().filter(|(of, _)| *of == who);
        samples.map(|(_, sample)| *sample).collect()
    }

    fn time(&self, who: Who) -> Option<Duration> {
        median(self.of(who).into_iter().map(|sample| sample.time))
    }

    fn cpu(&self, who: Who) -> Option<Duration> {
        median(self.of(who).into_iter().map(|sample| sample.cpu))
    }

    fn memory(&self, who: Who) -> Option<String> {
        let samples = self.of(who);
        let client = samples.iter().map(|sample| sample.client_bytes).max()?;
        let daemon = samples
            .iter()
            .filter_map(|sample| sample.daemon_bytes)
            .max();
        Some(match daemon {
            Some(daemon) => format!("{} + {}", client >> 20, daemon >> 20),
            None => format!("{}", client >> 20),
        })
    }
}

/// The middle one; of two, the later.
fn median<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut values: Vec<_> = values.collect();
    values.sort();
    values.get(values.len() / 2).copied()
}

/// Three tables: time and processor time with their ratios to BuildKit's, and memory.
pub(crate) fn markdown(machine: &str, tools: &[Who], rows: &[Row]) -> String {
    let mut text = format!("{machine}\n\n");
    times(
        &mut text,
        "wall time, s (part of BuildKit's)",
        tools,
        rows,
        Row::time,
    );
    text.push('\n');
    times(
        &mut text,
        "processor time, s (part of BuildKit's)",
        tools,
        rows,
        Row::cpu,
    );
    text.push('\n');
    head(&mut text, "peak memory, MiB (clients + daemon)", tools);
    for row in rows {
        let _ = write!(text, "| {} |", row.title);
        for who in tools {
            let memory = row.memory(*who);
            let memory = memory.unwrap_or_else(|| absent(row, *who).to_owned());
            let _ = write!(text, " {memory} |");
        }
        text.push('\n');
    }
    for row in rows {
        for (who, why) in &row.failures {
            let _ = write!(text, "\n{}, {}: {why}\n", who.name(), row.title);
        }
    }
    text
}

/// A table of medians.
fn times(
    text: &mut String,
    what: &str,
    tools: &[Who],
    rows: &[Row],
    of: fn(&Row, Who) -> Option<Duration>,
) {
    head(text, what, tools);
    for row in rows {
        let _ = write!(text, "| {} |", row.title);
        let peer = of(row, Who::Buildkit).map(|time| time.as_secs_f64());
        for who in tools {
            let _ = match (of(row, *who), peer) {
                (Some(time), Some(peer)) if *who != Who::Buildkit => {
                    let time = time.as_secs_f64();
                    write!(text, " {time:.2} ({:.2}) |", time / peer)
                }
                (Some(time), _) => write!(text, " {:.2} |", time.as_secs_f64()),
                (None, _) => write!(text, " {} |", absent(row, *who)),
            };
        }
        text.push('\n');
    }
}

fn absent(row: &Row, who: Who) -> &'static str {
    if row.failed(who) { "failed" } else { "–" }
}

fn head(text: &mut String, what: &str, tools: &[Who]) {
    let _ = write!(text, "| {what} |");
    for who in tools {
        let _ = write!(text, " {} |", who.name());
    }
    let _ = writeln!(text, "\n|---|{}", "--:|".repeat(tools.len()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(ms: u64) -> Sample {
        Sample {
            time: Duration::from_millis(ms),
            cpu: Duration::from_millis(2 * ms),
            client_bytes: 5 << 20,
            daemon_bytes: Some(7 << 20),
        }
    }

    #[test]
    fn the_middle_is_neither_mean_nor_extreme() {
        assert_eq!(median([9, 1, 2].into_iter()), Some(2));
        assert_eq!(median([4, 1, 2, 3].into_iter()), Some(3));
        assert_eq!(median(std::iter::empty::<u8>()), None);
    }

    #[test]
    fn a_row_shows_times_ratios_and_who_is_missing() {
        let mut row = Row::new(Case::Rebuild, &Sizes::full());
        for ms in [100, 900, 200] {
            row.add(Who::Kiln, Ok(sample(ms)));
            row.add(Who::Buildkit, Ok(sample(4 * ms)));
        }
        row.add(Who::KilnDaemon, Err(Error::NotRoot));
        let tools = [Who::Kiln, Who::KilnDaemon, Who::Buildkit, Who::Buildah];
        let text = markdown("a machine", &tools, &[row]);
        assert!(
            text.contains("| 0.20 (0.25) | failed | 0.80 | – |"),
            "{text}"
        );
        assert!(text.contains("| 5 + 7 | failed | 5 + 7 | – |"), "{text}");
        assert!(text.contains("kiln-daemon, unchanged rebuild"), "{text}");
    }
}
