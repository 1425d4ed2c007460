//! Keys of downloads, in BuildKit's form.

use oci::Digest;
use serde::Serialize;

use crate::identifier::HttpId;
use oci::go_json;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Header<'a> {
    name: &'a str,
    value: &'a str,
}

fn headers(id: &HttpId) -> Vec<Header<'_>> {
    id.headers
        .iter()
        .map(|(name, value)| Header { name, value })
        .collect()
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Preimage<'a> {
    filename: &'a str,
    perm: u32,
    #[serde(rename = "UID")]
    uid: u32,
    #[serde(rename = "GID")]
    gid: u32,
    checksum: &'a Digest,
    #[serde(skip_serializing_if = "str::is_empty")]
    last_mod_time: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    auth_header_secret: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    header: Vec<Header<'a>>,
}

/// The cache key of these bytes as this file.
pub(super) fn of(id: &HttpId, filename: &str, checksum: &Digest, modified: Option<&str>) -> Digest {
    go_json::digest(&preimage(id, filename, checksum, modified))
}

fn preimage<'a>(
    id: &'a HttpId,
    filename: &'a str,
    checksum: &'a Digest,
    modified: Option<&'a str>,
) -> Preimage<'a> {
    Preimage {
        filename,
        perm: id.file.mode,
        uid: id.file.uid,
        gid: id.file.gid,
        checksum,
        last_mod_time: modified.unwrap_or(""),
        auth_header_secret: &id.auth_header_secret,
        header: headers(id),
    }
}

/// A name for the request itself, under which its ETags are kept. Ours alone.
pub(super) fn request(id: &HttpId) -> Digest {
    let file = &id.file;
    let headers: Vec<_> = id.headers.iter().collect();
    go_json::digest(&(
        &id.url,
        &file.filename,
        file.mode,
        file.uid,
        file.gid,
        &id.auth_header_secret,
        headers,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identifier;

    fn id(url: &str, attrs: &[(&str, &str)]) -> HttpId {
        let attrs = attrs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        match Identifier::parse(url, &attrs) {
            Ok(Identifier::Http(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    /// Rows: S17
    #[test]
    fn the_preimage_is_gos() {
        let digest = Digest::of("x");
        let plain = id("https://h/a", &[]);
        assert_eq!(
            go_json::compact(&preimage(&plain, "a&b", &digest, None)),
            format!(r#"{{"Filename":"a\u0026b","Perm":0,"UID":0,"GID":0,"Checksum":"{digest}"}}"#)
        );
        let full = id(
            "https://h/a",
            &[
                ("http.perm", "0644"),
                ("http.uid", "7"),
                ("http.header.accept", "x"),
                ("http.header.Cookie", "dropped"),
                ("http.authheadersecret", "s"),
            ],
        );
        let time = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(
            go_json::compact(&preimage(&full, "a", &digest, Some(time))),
            format!(
                r#"{{"Filename":"a","Perm":420,"UID":7,"GID":0,"Checksum":"{digest}","LastModTime":"{time}","AuthHeaderSecret":"s","Header":[{{"Name":"Accept","Value":"x"}}]}}"#
            )
        );
        assert_ne!(request(&plain), request(&full));
    }
}
