//! Times as Go shows them; they stand in images' histories.

/// Go's `time.Duration.String`: `1m30s`, `300ms`, `0s`.
pub(super) fn go_duration(ns: i64) -> String {
    let fraction = |whole: u64, part: u64, digits: usize| {
        if part == 0 {
            return whole.to_string();
        }
        format!(
            "{whole}.{}",
            format!("{part:0digits$}").trim_end_matches('0')
        )
    };
    let n = ns.unsigned_abs();
    let sign = if ns < 0 { "-" } else { "" };
    let text = match n {
        0 => return "0s".into(),
        1..1_000 => format!("{n}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(n / 1_000, n % 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(n / 1_000_000, n % 1_000_000, 6)),
        _ => {
            let seconds = n / 1_000_000_000;
            let tail = format!("{}s", fraction(seconds % 60, n % 1_000_000_000, 9));
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => tail,
                (0, minutes) => format!("{minutes}m{tail}"),
                (hours, minutes) => format!("{hours}h{minutes}m{tail}"),
            }
        }
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_go_does() {
        let shown = [
            0,
            999,
            1_500,
            300_000_000,
            10_000_000_000,
            90_500_000_000,
            3_600_000_000_000,
        ];
        let expected = ["0s", "999ns", "1.5µs", "300ms", "10s", "1m30.5s", "1h0m0s"];
        assert_eq!(shown.map(go_duration), expected);
    }
}
