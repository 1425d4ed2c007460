//! The text form of keys and signatures: base64 between a BEGIN and an END line.

use base64::Engine as _;

use crate::error::Result;
use crate::{Error, MAX_TEXT};

/// What stands between two such lines.
pub(crate) struct Block {
    /// As in `-----BEGIN label-----`.
    pub(crate) label: String,
    pub(crate) bytes: Vec<u8>,
}

/// The one block the text is, and nothing beside it: more could be taken for signed, or for the
/// signature that counts.
pub(crate) fn only_block(text: &[u8]) -> Result<Block> {
    let what = "signature";
    let (mut blocks, beside) = read(text, what)?;
    match (blocks.pop(), blocks.is_empty(), beside) {
        (Some(block), true, false) => Ok(block),
        (None, ..) => Err(malformed(what, "invalid signature format")),
        (Some(_), true, true) => Err(malformed(what, "there is text beside it")),
        (Some(_), false, _) => Err(malformed(what, "there are several")),
    }
}

/// All blocks of the text. What people write between them is left out.
pub(crate) fn blocks(text: &[u8]) -> Result<Vec<Block>> {
    Ok(read(text, "public key")?.0)
}

fn malformed(what: &'static str, reason: &str) -> Error {
    Error::Malformed {
        what,
        reason: reason.into(),
    }
}

/// The blocks, and whether there is anything else.
fn read(text: &[u8], what: &'static str) -> Result<(Vec<Block>, bool)> {
    if text.len() > MAX_TEXT {
        return Err(malformed(what, "it is larger than 1 MiB"));
    }
    let text = std::str::from_utf8(text).map_err(|_| malformed(what, "it is no text"))?;
    let (mut blocks, mut beside) = (Vec::new(), false);
    let mut lines = text.lines().map(str::trim_end);
    while let Some(line) = lines.next() {
        match label(line, "BEGIN") {
            Some(label) => blocks.push(block(label, &mut lines, what)?),
            None => beside |= !line.is_empty(),
        }
    }
    Ok((blocks, beside))
}

fn label<'a>(line: &'a str, edge: &str) -> Option<&'a str> {
    line.strip_prefix("-----")?
        .strip_prefix(edge)?
        .strip_prefix(' ')?
        .strip_suffix("-----")
}

/// The rest of the block that began as `begun`.
fn block<'a>(
    begun: &str,
    lines: &mut impl Iterator<Item = &'a str>,
    what: &'static str,
) -> Result<Block> {
    let (mut base64, mut in_headers) = (String::new(), true);
    for line in lines {
        if let Some(ended) = label(line, "END") {
            if ended != begun {
                return Err(malformed(what, "its END is that of something else"));
            }
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(&base64)
                .map_err(|error| malformed(what, &error.to_string()))?;
            let label = begun.to_owned();
            return Ok(Block { label, bytes });
        }
        // OpenPGP has headers and an empty line first, SSH has neither.
        if in_headers && line.contains(':') {
            continue;
        }
        in_headers = false;
        // The checksum protects from typing errors only; a signature protects from those, too.
        if !(line.starts_with('=') && line.len() == 5) {
            base64.push_str(line);
        }
    }
    Err(malformed(what, "it has no END"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PGP: &str = "-----BEGIN PGP SIGNATURE-----\nComment: x\n\naGVs\nbG8=\n=abcd\n-----END PGP SIGNATURE-----\n";

    fn only(text: &str) -> Result<Vec<u8>, String> {
        only_block(text.as_bytes())
            .map(|block| block.bytes)
            .map_err(|error| error.to_string())
    }

    /// Rows: S16
    #[test]
    fn one_block_and_nothing_else() {
        assert_eq!(only(PGP), Ok(b"hello".to_vec()));
        assert_eq!(only(&PGP.replace('\n', "\r\n")), Ok(b"hello".to_vec()));
        let ssh = "-----BEGIN SSH SIGNATURE-----\naGVsbG8=\n-----END SSH SIGNATURE-----";
        assert_eq!(only(ssh), Ok(b"hello".to_vec()));
        for (text, reason) in [
            (format!("{PGP}{PGP}"), "several"),
            (format!("{PGP}more"), "text beside"),
            (format!("before\n{PGP}"), "text beside"),
            ("nothing".into(), "invalid signature format"),
            (String::new(), "invalid signature format"),
            (PGP.replace("END PGP SIG", "END SSH SIG"), "something else"),
            (PGP.replace("-----END PGP SIGNATURE-----", ""), "no END"),
            (PGP.replace("aGVs", "a!Vs"), "Invalid"),
            ("x".repeat(MAX_TEXT + 1), "1 MiB"),
        ] {
            let error = only(&text).unwrap_err();
            assert!(error.contains(reason), "{reason}: {error}");
        }
    }
}
