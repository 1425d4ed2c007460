//! Bytes that become a result of one file: downloads and single blobs.

use futures::{Stream, StreamExt};
use oci::{Digest, Hasher};
use progress::Transfer;
use refs::{RecordMeta, Ref, Refs};
use stdx::sys::Time;
use tokio::io::AsyncWriteExt;

use crate::error::{Error, Result};
use crate::identifier::FileAttrs;

/// A file's mode when none is asked for.
const DEFAULT_MODE: u32 = 0o600;
/// The name when nothing better is known.
const DEFAULT_NAME: &str = "download";

/// Writes `bytes` into a new result as file `name`. Gives it with the bytes' sha256.
pub(crate) async fn keep(
    refs: &Refs,
    meta: RecordMeta,
    name: &str,
    attrs: &FileAttrs,
    modified: i64,
    mut bytes: impl Stream<Item = Result<bytes::Bytes>> + Unpin + Send,
    (transfer, total): (&Transfer, u64),
) -> Result<(Ref, Digest)> {
    let failed = || Error::io(format!("writing {name}"));
    let mutable = refs.begin(None, meta)?;
    let tree = mutable.tree();
    let mode = if attrs.mode == 0 {
        DEFAULT_MODE
    } else {
        attrs.mode & 0o7777
    };
    let file = tree.root().create_file(name, 0o600).map_err(failed())?;
    let mut file = tokio::fs::File::from_std(file);
    let (mut hasher, mut written) = (Hasher::default(), 0);
    while let Some(piece) = bytes.next().await {
        let piece = piece?;
        hasher.update(&piece);
        file.write_all(&piece).await.map_err(failed())?;
        written += piece.len() as u64;
        transfer.set(written, total.max(written));
    }
    file.flush().await.map_err(failed())?;
    drop(file);
    let (name, attrs) = (name.to_owned(), attrs.clone());
    let done = stdx::task::blocking(move || {
        let failed = || Error::io(format!("finishing {name}"));
        let root = tree.root();
        if (attrs.uid, attrs.gid) != (0, 0) {
            root.chown(&name, attrs.uid, attrs.gid).map_err(failed())?;
        }
        // After the owner: a change of owner drops the set-id bits.
        root.chmod(&name, mode).map_err(failed())?;
        let time = Time::from_seconds(modified);
        root.set_times(&name, time, time).map_err(failed())?;
        drop(tree);
        Ok::<_, Error>(mutable.commit()?)
    });
    Ok((done.await?, hasher.finish()))
}

/// A file name that stays in its folder, whatever it was.
pub(crate) fn safe_name(name: &str) -> String {
    let last = name
        .trim()
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or("");
    let usable = !matches!(last, "" | "." | "..")
        && last.len() <= 255
        && !last.chars().any(char::is_control);
    if usable {
        last.to_owned()
    } else {
        DEFAULT_NAME.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_in_its_folder() {
        for (name, safe) in [
            ("a.txt", "a.txt"),
            ("  資料.txt ", "資料.txt"),
            ("../../etc/passwd", "passwd"),
            ("..", "download"),
            ("", "download"),
            ("a/", "a"),
            ("a\0b", "download"),
            ("/", "download"),
            ("x/..", "download"),
        ] {
            assert_eq!(safe_name(name), safe, "{name}");
        }
    }
}
