//! Readings of text that many in the field agree on.

use std::error::Error;

/// An error and all its causes as one line. A cause that the line ends with already is not
/// said again: a transparent wrapper says what its cause says.
///
/// ```
/// let cause = std::io::Error::other("no such host");
/// let error = std::io::Error::other(cause);
/// assert_eq!(stdx::text::sentence(&error), "no such host");
/// ```
pub fn sentence(error: &(dyn Error + '_)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// True or false in the spellings of Go's `strconv.ParseBool`, which every client's flags go
/// by; anything else is neither.
pub fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits =
        |byte: &u8| [byte >> 4, byte & 15].map(|digit| char::from(DIGITS[usize::from(digit)]));
    bytes.iter().flat_map(digits).collect()
}

/// The bytes behind percent escapes; what only looks like an escape stays as it is.
pub fn percent_decoded(text: &str) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = match (first, after) {
            (b'%', [high, low, ..]) => digit(high).zip(digit(low)),
            _ => None,
        };
        match escaped.and_then(|(high, low)| u8::try_from(high * 16 + low).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Told(&'static str, Option<Box<Told>>);

    impl std::fmt::Display for Told {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Told {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|told| told as _)
        }
    }

    #[test]
    fn causes_are_said_once() {
        let cause = Told("no space", None);
        let same = Told("writing: no space", Some(Box::new(cause)));
        let error = Told("saving", Some(Box::new(same)));
        assert_eq!(sentence(&error), "saving: writing: no space");
    }

    #[test]
    fn escapes_are_two_hex_digits() {
        for (text, bytes) in [
            ("a%20b%C3%A4", "a bä"),
            ("%", "%"),
            ("%4", "%4"),
            ("%zz%+1%ä", "%zz%+1%ä"),
            ("%25%2", "%%2"),
        ] {
            assert_eq!(percent_decoded(text), bytes.as_bytes(), "{text}");
        }
        assert_eq!(percent_decoded("%ff"), [0xff]);
    }

    #[test]
    fn every_byte_is_two_digits() {
        assert_eq!(hex(&[0, 0x0a, 0x5f, 0xff]), "000a5fff");
        assert_eq!(hex(b""), "");
    }

    #[test]
    fn booleans_are_those_of_go() {
        for (text, truth) in [
            ("1", Some(true)),
            ("True", Some(true)),
            ("FALSE", Some(false)),
            ("f", Some(false)),
            ("tRue", None),
            ("yes", None),
            ("", None),
        ] {
            assert_eq!(go_bool(text), truth, "{text}");
        }
    }
}
