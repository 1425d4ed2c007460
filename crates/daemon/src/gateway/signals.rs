//! Signals by the names they have on the wire: without `SIG`, as Docker's clients say them.

use rustix::process::Signal;

/// The first and last real-time signals a program can count on.
const REAL_TIME: (i32, i32) = (34, 64);

/// A signal's number.
pub(super) fn number(name: &str) -> Option<i32> {
    let known = NAMES.iter().find(|(known, _)| *known == name);
    known
        .map(|(_, signal)| signal.as_raw())
        .or_else(|| real_time(name))
}

/// `RTMIN`, `RTMIN+1` to `RTMIN+15`, `RTMAX-14` to `RTMAX-1`, `RTMAX`.
fn real_time(name: &str) -> Option<i32> {
    let (first, last) = REAL_TIME;
    let distance = |text: &str, most: i32| {
        let number: i32 = text.parse().ok()?;
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        (plain && number <= most).then_some(number)
    };
    match name {
        "RTMIN" => Some(first),
        "RTMAX" => Some(last),
        name => match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
            (Some(above), _) => Some(first + distance(above, 15)?),
            (_, Some(below)) => Some(last - distance(below, 14)?),
            _ => None,
        },
    }
}

const NAMES: &[(&str, Signal)] = &[
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("BUS", Signal::BUS),
    ("CHLD", Signal::CHILD),
    ("CLD", Signal::CHILD),
    ("CONT", Signal::CONT),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("IO", Signal::IO),
    ("IOT", Signal::ABORT),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("POLL", Signal::IO),
    ("PROF", Signal::PROF),
    ("PWR", Signal::POWER),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    ("STKFLT", Signal::STKFLT),
    ("STOP", Signal::STOP),
    ("SYS", Signal::SYS),
    ("TERM", Signal::TERM),
    ("TRAP", Signal::TRAP),
    ("TSTP", Signal::TSTP),
    ("TTIN", Signal::TTIN),
    ("TTOU", Signal::TTOU),
    ("URG", Signal::URG),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("VTALRM", Signal::VTALARM),
    ("WINCH", Signal::WINCH),
    ("XCPU", Signal::XCPU),
    ("XFSZ", Signal::XFSZ),
];

#[cfg(test)]
mod tests {
    use super::number;

    /// Rows: G09
    #[test]
    fn signals_have_the_names_clients_send() {
        for (name, expected) in [
            ("KILL", Some(9)),
            ("TERM", Some(15)),
            ("WINCH", Some(28)),
            ("IOT", Some(6)),
            ("RTMIN", Some(34)),
            ("RTMIN+15", Some(49)),
            ("RTMAX-14", Some(50)),
            ("RTMAX", Some(64)),
            ("RTMIN+16", None),
            ("RTMIN+-1", None),
            ("RTMAX-01", None),
            ("SIGKILL", None),
            ("kill", None),
            ("9", None),
            ("", None),
        ] {
            assert_eq!(number(name), expected, "{name}");
        }
    }
}
