//! Standard input as the context: an archive is sent on as it comes, anything else is
//! a Dockerfile.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use session::{Bytestream, Error as SessionError, Upload};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::Error;

/// As much as tells an archive from text: a tar header.
const HEAD: usize = 512;
/// A Dockerfile is not larger.
const DOCKERFILE: u64 = 8 << 20;
/// Bytes read at a time.
const PIECE: usize = 256 * 1024;

/// What is on a stream.
pub(crate) enum Input {
    /// An archive, to be read once.
    Archive(OneUpload),
    /// A Dockerfile.
    Dockerfile(Bytes),
}

/// Looks at the beginning of a stream.
pub(crate) async fn look(mut stream: Pin<Box<dyn AsyncRead + Send>>) -> Result<Input, Error> {
    let mut head = Vec::with_capacity(HEAD);
    let mut start = (&mut stream).take(HEAD as u64);
    start.read_to_end(&mut head).await.map_err(unreadable)?;
    if head.is_empty() {
        return Err(Error::EmptyInput);
    }
    if is_archive(&head) {
        return Ok(Input::Archive(OneUpload::new(head, stream)));
    }
    rest(head, stream).await.map(Input::Dockerfile)
}

/// All of a stream that is a Dockerfile.
pub(crate) async fn dockerfile(stream: Pin<Box<dyn AsyncRead + Send>>) -> Result<Bytes, Error> {
    let bytes = rest(Vec::new(), stream).await?;
    if bytes.is_empty() {
        Err(Error::EmptyInput)
    } else {
        Ok(bytes)
    }
}

async fn rest(mut bytes: Vec<u8>, stream: Pin<Box<dyn AsyncRead + Send>>) -> Result<Bytes, Error> {
    stream
        .take(DOCKERFILE + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(unreadable)?;
    if bytes.len() as u64 > DOCKERFILE {
        return Err(Error::LargeDockerfile(DOCKERFILE));
    }
    Ok(Bytes::from(bytes))
}

fn unreadable(source: std::io::Error) -> Error {
    Error::File {
        doing: "reading",
        path: "standard input".into(),
        source,
    }
}

/// tar, gzip, bzip2, xz or zstd, by their first bytes.
fn is_archive(head: &[u8]) -> bool {
    const MAGIC: [&[u8]; 4] = [b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    MAGIC.iter().any(|magic| head.starts_with(magic))
        || head.get(257..262) == Some(b"ustar")
        || old_tar(head)
}

/// A tar header without the word `ustar`: its checksum says so.
fn old_tar(head: &[u8]) -> bool {
    let Some(field) = head.get(148..156) else {
        return false;
    };
    let digits: String = field
        .iter()
        .map(|b| char::from(*b))
        .filter(char::is_ascii_digit)
        .collect();
    let Ok(expected) = u32::from_str_radix(&digits, 8) else {
        return false;
    };
    let sum: u32 = head
        .iter()
        .enumerate()
        .map(|(at, b)| {
            if (148..156).contains(&at) {
                32
            } else {
                u32::from(*b)
            }
        })
        .sum();
    head.len() == HEAD && sum == expected
}

/// A stream of which the beginning was read already.
type Started = (Vec<u8>, Pin<Box<dyn AsyncRead + Send>>);

/// A stream the daemon may fetch once, under an address made up for it.
pub(crate) struct OneUpload {
    path: String,
    stream: Mutex<Option<Started>>,
}

impl OneUpload {
    fn new(head: Vec<u8>, stream: Pin<Box<dyn AsyncRead + Send>>) -> OneUpload {
        let path = format!("kiln-stdin-{}", std::process::id());
        OneUpload {
            path,
            stream: Mutex::new(Some((head, stream))),
        }
    }

    /// Where the daemon finds it.
    pub(crate) fn url(&self) -> String {
        format!("http://buildkit-session/{}", self.path)
    }
}

#[async_trait]
impl Upload for OneUpload {
    async fn pull(&self, host: &str, path: &str) -> session::Result<Bytestream> {
        let missing = || SessionError::NotFound {
            what: "upload",
            name: format!("{host}/{path}"),
        };
        if path.trim_start_matches('/') != self.path {
            return Err(missing());
        }
        let taken = self
            .stream
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let (head, stream) = taken.ok_or_else(missing)?;
        let head = futures::stream::once(async move { Ok(Bytes::from(head)) });
        let rest = futures::stream::try_unfold(stream, |mut stream| async move {
            let mut piece = vec![0; PIECE];
            let count = stream
                .read(&mut piece)
                .await
                .map_err(|error| SessionError::Lost(error.to_string()))?;
            piece.truncate(count);
            Ok((count > 0).then(|| (Bytes::from(piece), stream)))
        });
        Ok(head.chain(rest).boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: F03, S18
    #[tokio::test]
    async fn an_archive_is_told_from_a_dockerfile() {
        let Input::Dockerfile(text) = look(Box::pin(&b"FROM scratch\n"[..])).await.unwrap() else {
            panic!()
        };
        assert_eq!(text, "FROM scratch\n");
        let mut tar = vec![0u8; 1024];
        tar[257..262].copy_from_slice(b"ustar");
        let bytes: &'static [u8] = tar.clone().leak();
        let Input::Archive(upload) = look(Box::pin(bytes)).await.unwrap() else {
            panic!()
        };
        let path = upload.url().rsplit_once('/').unwrap().1.to_owned();
        assert!(upload.pull("buildkit-session", "other").await.is_err());
        let pieces: Vec<Bytes> = upload
            .pull("buildkit-session", &path)
            .await
            .unwrap()
            .map(Result::unwrap)
            .collect()
            .await;
        assert_eq!(pieces.concat(), tar);
        assert!(
            upload.pull("buildkit-session", &path).await.is_err(),
            "it can be read once"
        );
        assert!(matches!(
            look(Box::pin(&b""[..])).await,
            Err(Error::EmptyInput)
        ));
        for magic in [
            &b"\x1f\x8b\x08..."[..],
            b"BZh9",
            b"\xfd7zXZ\0",
            b"\x28\xb5\x2f\xfd",
        ] {
            assert!(is_archive(magic));
        }
    }
}
