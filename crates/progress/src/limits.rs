//! How much a step may print (row D36), and the counting that keeps it.

use std::time::Instant;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// How much each output stream of a step may print before it is clipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Bytes in all; `None` for no limit.
    pub size: Option<u64>,
    /// Bytes per second since the step began; `None` for no limit.
    pub speed: Option<u64>,
}

impl Default for LogLimits {
    /// 2 MiB in all and 200 KiB a second.
    fn default() -> LogLimits {
        LogLimits {
            size: Some(2 * MIB),
            speed: Some(200 * KIB),
        }
    }
}

impl LogLimits {
    /// From the texts of `BUILDKIT_STEP_LOG_MAX_SIZE` and `BUILDKIT_STEP_LOG_MAX_SPEED`
    /// (bytes; `-1` for no limit). What is absent or no number leaves the default.
    pub fn parse(size: Option<&str>, speed: Option<&str>) -> LogLimits {
        let default = LogLimits::default();
        let limit =
            |text: Option<&str>, default| match text.and_then(|t| t.trim().parse::<i64>().ok()) {
                Some(number) => u64::try_from(number).ok(),
                None => default,
            };
        LogLimits {
            size: limit(size, default.size),
            speed: limit(speed, default.speed),
        }
    }
}

/// How much one stream of one step has printed.
#[derive(Debug)]
pub(crate) struct Meter {
    limits: LogLimits,
    since: Instant,
    printed: u64,
    clipping: bool,
}

impl Meter {
    pub(crate) fn new(limits: LogLimits, since: Instant) -> Meter {
        Meter {
            limits,
            since,
            printed: 0,
            clipping: false,
        }
    }

    /// How many of `len` more bytes may pass, and the notice to print after them
    /// when clipping begins here.
    pub(crate) fn admit(&mut self, len: usize, now: Instant) -> (usize, Option<String>) {
        let before = self.printed;
        self.printed = before.saturating_add(len as u64);
        let (allowed, reason) = self.allowance(now);
        let pass = self.printed.min(allowed).saturating_sub(before) as usize;
        if pass == len {
            self.clipping = false;
            return (pass, None);
        }
        let notice =
            (!self.clipping).then(|| format!("\n[output clipped, log limit {reason} reached]\n"));
        self.clipping = true;
        (pass, notice)
    }

    fn allowance(&self, now: Instant) -> (u64, String) {
        let seconds = now
            .saturating_duration_since(self.since)
            .as_secs_f64()
            .ceil()
            .max(1.0) as u64;
        let by_speed = self.limits.speed.map(|speed| speed.saturating_mul(seconds));
        match (by_speed, self.limits.size) {
            (Some(by_speed), size) if size.is_none_or(|size| by_speed <= size) => (
                by_speed,
                format!("{}/s", bytes_text(self.limits.speed.unwrap_or_default())),
            ),
            (_, Some(size)) => (size, bytes_text(size)),
            (_, None) => (u64::MAX, String::new()),
        }
    }
}

/// `2MiB`, `200KiB`, `1000B`: whole units when they fit, else one with a fraction.
fn bytes_text(bytes: u64) -> String {
    for (unit, name) in [(MIB * KIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")] {
        if bytes >= unit {
            let value = bytes as f64 / unit as f64;
            let text = format!("{value:.2}");
            return format!("{}{name}", text.trim_end_matches('0').trim_end_matches('.'));
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Rows: D36
    #[test]
    fn the_environment_sets_and_lifts_the_limits() {
        assert_eq!(LogLimits::parse(None, None), LogLimits::default());
        assert_eq!(
            LogLimits::parse(Some("-1"), Some("-1")),
            LogLimits {
                size: None,
                speed: None
            }
        );
        assert_eq!(LogLimits::parse(Some("10"), Some("x")).size, Some(10));
        assert_eq!(
            LogLimits::parse(Some("10"), Some("x")).speed,
            LogLimits::default().speed
        );
    }

    /// Rows: D36
    #[test]
    fn the_total_is_clipped_once_with_a_notice() {
        let start = Instant::now();
        let mut meter = Meter::new(
            LogLimits {
                size: Some(10),
                speed: None,
            },
            start,
        );
        assert_eq!(meter.admit(8, start), (8, None));
        let (pass, notice) = meter.admit(8, start);
        assert_eq!(pass, 2);
        assert_eq!(
            notice.as_deref(),
            Some("\n[output clipped, log limit 10B reached]\n")
        );
        assert_eq!(meter.admit(8, start), (0, None), "the notice comes once");
    }

    /// Rows: D36
    #[test]
    fn a_fast_step_is_clipped_and_heard_again_later() {
        let start = Instant::now();
        let mut meter = Meter::new(
            LogLimits {
                size: Some(100 * MIB),
                speed: Some(200 * KIB),
            },
            start,
        );
        let (pass, notice) = meter.admit(300 * KIB as usize, start);
        assert_eq!(pass, 200 * KIB as usize);
        assert_eq!(
            notice.as_deref(),
            Some("\n[output clipped, log limit 200KiB/s reached]\n")
        );
        let later = start + Duration::from_secs(10);
        assert_eq!(meter.admit(1000, later), (1000, None));
    }

    #[test]
    fn no_limit_lets_everything_pass() {
        let start = Instant::now();
        let mut meter = Meter::new(
            LogLimits {
                size: None,
                speed: None,
            },
            start,
        );
        assert_eq!(meter.admit(usize::MAX >> 1, start), (usize::MAX >> 1, None));
    }

    #[test]
    fn sizes_read_like_units() {
        assert_eq!(bytes_text(2 * MIB), "2MiB");
        assert_eq!(bytes_text(200 * KIB), "200KiB");
        assert_eq!(bytes_text(1536), "1.5KiB");
    }
}
