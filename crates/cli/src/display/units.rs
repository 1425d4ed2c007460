//! Numbers as people read them.

use std::time::{Duration, SystemTime};

/// `581B`, `1.85kB`, `29.54MB`: as BuildKit's clients write sizes.
pub fn bytes(count: u64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    for (unit, name) in UNITS {
        if count as f64 >= unit {
            return format!("{:.2}{name}", count as f64 / unit);
        }
    }
    format!("{count}B")
}

/// `current / total`, or what is known of it.
pub fn amount(current: u64, total: u64) -> Option<String> {
    match (current, total) {
        (0, 0) => None,
        (current, 0) => Some(bytes(current)),
        (current, total) => Some(format!("{} / {}", bytes(current), bytes(total))),
    }
}

/// The time from `from` to `to`; nothing if clocks went backwards.
pub fn between(from: SystemTime, to: SystemTime) -> Duration {
    to.duration_since(from).unwrap_or_default()
}

/// `0.3s`, `2m05s`, `1h02m`: for the live view.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.1}s", time.as_secs_f64()),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// Seconds in front of a line of output: three digits after the point when short.
pub fn log_time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let precision = match seconds {
        s if s < 10.0 => 3,
        s if s < 100.0 => 2,
        _ => 1,
    };
    format!("{seconds:.precision$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_read_as_people_write_them() {
        assert_eq!(bytes(581), "581B");
        assert_eq!(bytes(1850), "1.85kB");
        assert_eq!(bytes(29_540_000), "29.54MB");
        assert_eq!(duration(Duration::from_millis(340)), "0.3s");
        assert_eq!(duration(Duration::from_secs(125)), "2m05s");
        assert_eq!(duration(Duration::from_secs(3725)), "1h02m");
        assert_eq!(log_time(Duration::from_millis(1234)), "1.234");
        assert_eq!(log_time(Duration::from_millis(61_234)), "61.23");
    }
}
