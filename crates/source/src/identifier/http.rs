//! `http://` and `https://`.

use llb::attr;
use oci::Digest;

use super::attrs::Attrs;
use crate::error::Result;

/// Request headers a definition may set; others are left out, as BuildKit does.
const SETTABLE: [(&str, &str); 2] = [("accept", "Accept"), ("user-agent", "User-Agent")];

/// Name, mode and owner of a file made from bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileAttrs {
    /// Its name; empty to take the source's own.
    pub filename: String,
    /// Permission bits; zero for the default.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl FileAttrs {
    pub(super) fn parse(attrs: &mut Attrs<'_>) -> Result<FileAttrs> {
        Ok(FileAttrs {
            filename: attrs.text_or_empty(attr::HTTP_FILENAME),
            mode: attrs.number(attr::HTTP_PERM)?.unwrap_or(0),
            uid: attrs.number(attr::HTTP_UID)?.unwrap_or(0),
            gid: attrs.number(attr::HTTP_GID)?.unwrap_or(0),
        })
    }
}

/// The signature a download must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSignature {
    /// OpenPGP keys in armor.
    pub keys: String,
    /// A detached signature in armor.
    pub signature: String,
}

impl HttpSignature {
    fn parse(attrs: &mut Attrs<'_>) -> Result<Option<HttpSignature>> {
        let names = [attr::HTTP_SIGNATURE_KEYS, attr::HTTP_SIGNATURE];
        // One that is there and empty asks for a signature, too.
        if !names.iter().any(|name| attrs.has(name)) {
            return Ok(None);
        }
        let [keys, signature] = names.map(|name| attrs.text_or_empty(name));
        let missing = match (keys.trim().is_empty(), signature.trim().is_empty()) {
            (false, false) => return Ok(Some(HttpSignature { keys, signature })),
            (true, _) => attr::HTTP_SIGNATURE_KEYS,
            (false, true) => attr::HTTP_SIGNATURE,
        };
        Err(attrs.wrong(format!("{missing} is missing")))
    }
}

/// A download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpId {
    /// The address.
    pub url: String,
    /// What it must be.
    pub checksum: Option<Digest>,
    /// The file it becomes.
    pub file: FileAttrs,
    /// The secret with the `Authorization` header.
    pub auth_header_secret: String,
    /// Request headers, sorted by name.
    pub headers: Vec<(String, String)>,
    /// The signature it must have.
    pub signature: Option<HttpSignature>,
}

impl HttpId {
    pub(super) fn parse(identifier: &str, attrs: &mut Attrs<'_>) -> Result<HttpId> {
        let url =
            reqwest::Url::parse(identifier).map_err(|error| attrs.wrong(error.to_string()))?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err(attrs.wrong("it has no host"));
        }
        let mut headers: Vec<(String, String)> = attrs
            .all(attr::HTTP_HEADER)
            .into_iter()
            .filter_map(|(name, value)| {
                let known = SETTABLE
                    .iter()
                    .find(|(lower, _)| name.eq_ignore_ascii_case(lower));
                known.map(|(_, canonical)| ((*canonical).to_owned(), value))
            })
            .collect();
        headers.sort();
        Ok(HttpId {
            url: identifier.to_owned(),
            checksum: attrs.parsed(attr::HTTP_CHECKSUM)?,
            file: FileAttrs::parse(attrs)?,
            auth_header_secret: attrs.text_or_empty(attr::HTTP_AUTH_HEADER),
            headers,
            signature: HttpSignature::parse(attrs)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Identifier;

    /// Rows: S17
    #[test]
    fn an_empty_key_or_signature_is_a_missing_one() {
        let parse = |keys: Option<&str>, signature: Option<&str>| {
            let attrs = [("http.sig.pubkey", keys), ("http.sig.signature", signature)];
            let attrs: BTreeMap<_, _> = attrs
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
                .collect();
            match Identifier::parse("https://h/f", &attrs) {
                Ok(Identifier::Http(id)) => Ok(id.signature),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error.to_string()),
            }
        };
        assert_eq!(parse(None, None), Ok(None));
        let both = parse(Some("K"), Some("S")).unwrap().unwrap();
        assert_eq!((both.keys.as_str(), both.signature.as_str()), ("K", "S"));
        for (keys, signature, missing) in [
            (Some(""), Some(""), "http.sig.pubkey is missing"),
            (Some(""), None, "http.sig.pubkey is missing"),
            (None, Some(""), "http.sig.pubkey is missing"),
            (Some(" "), Some("S"), "http.sig.pubkey is missing"),
            (Some("K"), Some(""), "http.sig.signature is missing"),
            (Some("K"), None, "http.sig.signature is missing"),
        ] {
            let error = parse(keys, signature).unwrap_err();
            assert!(error.contains(missing), "{error}");
        }
    }
}
