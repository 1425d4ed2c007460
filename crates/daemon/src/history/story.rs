//! A build's progress as a blob: each status message after its length in four bytes, the
//! lowest first. Clients read the blob themselves, so its form is BuildKit's.

use std::io::{BufReader, Read, Write};

use progress::Progress;
use prost::Message as _;
use proto::moby::buildkit::v1::StatusResponse;

use crate::to_proto;

/// What the blob is.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.buildkit.status.v0";

/// No message of ours comes near; a longer one is damage.
const MAX_MESSAGE: usize = 64 << 20;

/// Writes all that was told of a build that ended.
pub(crate) fn write(progress: &Progress, out: &mut dyn Write) -> std::io::Result<()> {
    let mut follower = progress.follow();
    let mut frame = Vec::new();
    loop {
        let events = follower.ready(to_proto::EVENTS);
        if events.is_empty() {
            return Ok(());
        }
        for message in to_proto::progress(events) {
            frame.clear();
            frame.extend_from_slice(&[0; 4]);
            // Writing to a vector that grows cannot fail.
            let _ = message.encode(&mut frame);
            let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
            frame[..4].copy_from_slice(&length.to_le_bytes());
            out.write_all(&frame)?;
        }
    }
}

/// Reads messages back, one by one.
pub(crate) struct Reader<R>(BufReader<R>);

impl<R: Read> Reader<R> {
    pub(crate) fn new(inner: R) -> Reader<R> {
        Reader(BufReader::new(inner))
    }

    fn read(&mut self) -> std::io::Result<Option<StatusResponse>> {
        let mut length = [0_u8; 4];
        match self.0.read(&mut length[..1])? {
            0 => return Ok(None),
            _ => self.0.read_exact(&mut length[1..])?,
        }
        let length = u32::from_le_bytes(length) as usize;
        let damaged =
            |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
        if length > MAX_MESSAGE {
            return Err(damaged("a stored message is too long"));
        }
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes)?;
        StatusResponse::decode(&bytes[..])
            .map(Some)
            .map_err(|_| damaged("a stored message cannot be read"))
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = std::io::Result<StatusResponse>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: A04, A14
    #[test]
    fn a_story_is_read_back_as_it_was_told() {
        let progress = Progress::default();
        let step = progress.step(oci::Digest::of("s"), "[1/1] RUN x", &[]);
        step.start();
        for _ in 0..3000 {
            step.log(progress::Stream::Out, "a line\n");
        }
        step.complete(false);
        progress.close();
        let mut bytes = Vec::new();
        write(&progress, &mut bytes).unwrap();
        let messages: Vec<_> = Reader::new(&bytes[..]).collect::<Result<_, _>>().unwrap();
        assert!(messages.len() > 1);
        let lines: usize = messages
            .iter()
            .flat_map(|m| &m.logs)
            .map(|log| log.msg.len())
            .sum();
        assert_eq!(lines, 3000 * 7);
        for cut in [1, 3, 5, bytes.len() - 1] {
            assert!(
                Reader::new(&bytes[..cut]).any(|read| read.is_err()),
                "cut at {cut}"
            );
        }
        let huge = [0xff_u8; 8];
        assert!(Reader::new(&huge[..]).next().unwrap().is_err());
    }
}
