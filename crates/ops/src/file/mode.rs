//! Permission bits as `chmod` takes them: `u+x,go-w`, `a=rX`, `g=u`.

use llb::Mode;

use crate::{Error, Result};

const SPECIAL: u32 = 0o7000;
const SUID: u32 = 0o4000;
const SGID: u32 = 0o2000;
const STICKY: u32 = 0o1000;
const ALL: u32 = 0o6777;

/// What happens to permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Keep,
    Set(u32),
    Steps(Vec<Step>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    sign: Sign,
    /// The bits that the step is about.
    who: u32,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Add,
    Take,
    Set,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// These bits.
    Bits(u32),
    /// These, and execute if it is a directory or somebody may execute it.
    BitsAndExecute(u32),
    /// What those whose bits begin at this place have.
    As(u32),
}

impl Change {
    pub(super) fn of(mode: &Mode) -> Result<Change> {
        Ok(match mode {
            Mode::Keep => Change::Keep,
            Mode::Bits(bits) => Change::Set(bits & (SPECIAL | 0o777)),
            Mode::Symbolic(text) => match u32::from_str_radix(text, 8) {
                Ok(bits) if bits <= 0o7777 => Change::Set(bits),
                _ => Change::Steps(
                    parse(text).ok_or_else(|| Error::Invalid(format!("invalid mode {text:?}")))?,
                ),
            },
        })
    }

    /// The bits of something that had `mode`.
    pub(super) fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Change::Keep => mode,
            Change::Set(bits) => *bits,
            Change::Steps(steps) => steps
                .iter()
                .fold(mode, |now, step| step.apply(now, mode, is_dir)),
        }
    }

    /// The bits of directories that are made on the way.
    pub(super) fn of_parents(&self) -> u32 {
        match self {
            Change::Set(bits) => bits & 0o777,
            Change::Keep | Change::Steps(_) => 0o755,
        }
    }
}

impl Step {
    fn apply(self, now: u32, before: u32, is_dir: bool) -> u32 {
        let bits = match self.what {
            What::Bits(bits) => bits,
            What::BitsAndExecute(bits) if is_dir || before & 0o111 != 0 => bits | 0o111,
            What::BitsAndExecute(bits) => bits,
            What::As(place) => ((now >> place) & 7) * 0o111,
        };
        let bits = bits & self.who;
        match self.sign {
            Sign::Add => now | bits,
            Sign::Take => now & !bits,
            Sign::Set => (now & !self.who) | bits,
        }
    }
}

fn parse(text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    for clause in text.split(',') {
        let mut rest = clause.chars().peekable();
        let mut who = 0;
        while let Some(c) = rest.next_if(|c| "ugoa".contains(*c)) {
            who |= match c {
                'u' => SUID | 0o700,
                'g' => SGID | 0o070,
                'o' => 0o007,
                _ => ALL,
            };
        }
        let nobody = who == 0;
        let who = if nobody { ALL } else { who };
        rest.peek()?;
        while let Some(sign) = rest.next() {
            let sign = match sign {
                '+' => Sign::Add,
                '-' => Sign::Take,
                '=' => Sign::Set,
                _ => return None,
            };
            let mut step = Step {
                sign,
                who,
                what: What::Bits(0),
            };
            if let Some(place) = rest.peek().and_then(|c| "ogu".find(*c)) {
                rest.next();
                step.what = What::As(place as u32 * 3);
            } else {
                bits(&mut step, nobody, &mut rest);
            }
            steps.push(step);
        }
    }
    Some(steps)
}

fn bits(step: &mut Step, nobody: bool, rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    let (mut bits, mut execute) = (0, false);
    let others_only = !nobody && step.who == 0o007;
    while let Some(c) = rest.next_if(|c| "rwxXst".contains(*c)) {
        match c {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            'X' => execute = true,
            // Others have neither of these.
            _ if others_only => {}
            's' => bits |= SUID | SGID,
            _ => {
                bits |= STICKY;
                step.who |= STICKY;
            }
        }
    }
    step.what = if execute {
        What::BitsAndExecute(bits)
    } else {
        What::Bits(bits)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str, mode: u32, is_dir: bool) -> u32 {
        Change::of(&Mode::Symbolic(text.into()))
            .unwrap()
            .apply(mode, is_dir)
    }

    /// Rows: L10, F24
    #[test]
    fn modes_change_as_chmod_would() {
        let cases = [
            ("u+x,go-w", 0o644, false, 0o744),
            ("a=rX", 0o640, false, 0o444),
            ("a=rX", 0o640, true, 0o555),
            ("a=rX", 0o744, false, 0o555),
            ("+x", 0o644, false, 0o755),
            ("g=u", 0o640, false, 0o660),
            ("go=", 0o755, false, 0o700),
            ("u+s,+t", 0o755, true, 0o5755),
            ("g+s-w", 0o775, true, 0o2755),
            ("o+s", 0o755, false, 0o755),
            ("u-s", 0o4755, false, 0o755),
            ("u=rw,g=r,o=", 0o777, false, 0o640),
            ("0640", 0o777, false, 0o640),
        ];
        for (text, before, is_dir, after) in cases {
            assert_eq!(changed(text, before, is_dir), after, "{text} on {before:o}");
        }
        assert_eq!(
            Change::of(&Mode::Bits(0o104755)).unwrap(),
            Change::Set(0o4755)
        );
        for bad in ["", "u", "x+", "u+q", "u+x,", "99", "u*x"] {
            assert!(Change::of(&Mode::Symbolic(bad.into())).is_err(), "{bad}");
        }
    }
}
