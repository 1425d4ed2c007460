//! The side that has the files.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt as _;
use prost::Message as _;
use proto::fsutil::types::{Packet, packet::PacketType};
use stdx::sys::Root;

use super::link::Batches;
use super::{Entry, Filter, Link, PIECE, packet, sorry, stat_of, walk};
use crate::{Error, Observer, Result};

/// A file that was asked for, with the number of its entry.
type File = (u32, PathBuf);

/// Files the other side may still ask for, by the number of their entry.
type Offered = Arc<Mutex<HashMap<u32, PathBuf>>>;

/// Who is told how much was sent, by two tasks at once.
struct Sent {
    bytes: Mutex<u64>,
    observer: Option<Observer>,
}

impl Sent {
    /// A packet counts with all its fields, as at the receiver ([`Observer`]).
    fn count(&self, packet: &Packet) {
        let Some(observer) = &self.observer else {
            return;
        };
        // Told while it is held, so that a smaller sum is not told last.
        let mut bytes = self.bytes.lock().expect("nothing panics holding it");
        *bytes += packet.encoded_len() as u64;
        observer(*bytes);
    }
}

/// Sends a directory until the other side has all it wants. `change` may alter an
/// entry or leave it out.
pub async fn send(
    link: Link,
    root: Root,
    filter: Filter,
    change: impl FnMut(&mut Entry) -> bool + Send + 'static,
    observer: Option<Observer>,
) -> Result<()> {
    let Link { out, mut incoming } = link;
    let root = Arc::new(root);
    let offered = Offered::default();
    let sent = Arc::new(Sent {
        bytes: Mutex::new(0),
        observer,
    });
    let (ask, asked) = std::sync::mpsc::channel();

    let teller = {
        let (root, offered, sent) = (root.clone(), offered.clone(), sent.clone());
        let out = Batches::new(out.clone());
        stdx::task::spawn(
            "walk",
            stdx::task::blocking(move || tell(&root, &filter, change, &offered, out, &sent)),
        )
    };
    let reader = {
        let out = Batches::new(out.clone());
        stdx::task::spawn(
            "read",
            stdx::task::blocking(move || fill(&root, &asked, out, &sent)),
        )
    };

    let listen = async move {
        while let Some(batch) = incoming.next().await {
            let mut files = Vec::new();
            let mut end = None;
            for message in batch? {
                match message.r#type() {
                    // Each once: what waits is no more than what was told.
                    PacketType::PacketReq => match take(&offered, message.id) {
                        Ok(file) => files.push(file),
                        Err(error) => end = Some(Err(error)),
                    },
                    PacketType::PacketFin => end = Some(Ok(())),
                    PacketType::PacketErr => {
                        let said = String::from_utf8_lossy(&message.data).into_owned();
                        end = Some(Err(Error::Peer(said)));
                    }
                    other => {
                        let sent = format!("{} from a receiver", other.as_str_name());
                        end = Some(Err(Error::Protocol(sent)));
                    }
                }
                if end.is_some() {
                    break;
                }
            }
            if let Some(end) = end {
                return end;
            }
            // A reader that failed says so itself.
            let _ = ask.send(files);
        }
        Err(Error::Lost(
            "the receiver left before it had everything".into(),
        ))
    };

    // Whatever fails first is the reason; the other side is told of ours.
    let result = tokio::select! {
        heard = listen => heard,
        failed = only_failures(teller) => failed,
        failed = only_failures(reader) => failed,
    };
    let last = match &result {
        Ok(()) => packet(PacketType::PacketFin),
        Err(error) => sorry(error),
    };
    // If the other side is gone it needs no goodbye.
    let _ = out.send(vec![last]).await;
    result
}

/// A change for [`send`]: everything was changed at this second.
pub fn dated(modified: Option<i64>) -> impl FnMut(&mut Entry) -> bool + Send + 'static {
    move |entry| {
        if let Some(seconds) = modified {
            (entry.stat.mtime.seconds, entry.stat.mtime.nanos) = (seconds, 0);
        }
        true
    }
}

/// The file that is asked for.
fn take(offered: &Offered, id: u32) -> Result<File> {
    let mut offered = offered.lock().expect("nothing panics holding it");
    match offered.remove(&id) {
        Some(path) => Ok((id, path)),
        None => Err(Error::Protocol(format!("entry {id} cannot be asked for"))),
    }
}

/// Comes back only when the task failed.
async fn only_failures(task: stdx::task::Task<Result<()>>) -> Result<()> {
    match task.await {
        Ok(()) => std::future::pending().await,
        Err(error) => Err(error),
    }
}

fn tell(
    root: &Root,
    filter: &Filter,
    mut change: impl FnMut(&mut Entry) -> bool,
    offered: &Offered,
    mut out: Batches,
    sent: &Sent,
) -> Result<()> {
    let mut id = 0_u32;
    walk(root, filter, &mut |mut entry| {
        if !change(&mut entry) {
            return Ok(());
        }
        if entry.stat.is_file() {
            offered
                .lock()
                .expect("nothing panics holding it")
                .insert(id, entry.path.clone());
        }
        id = id
            .checked_add(1)
            .ok_or_else(|| Error::Protocol("more entries than numbers".into()))?;
        let stat = Packet {
            stat: Some(stat_of(&entry)),
            ..packet(PacketType::PacketStat)
        };
        sent.count(&stat);
        out.put(stat)
    })?;
    out.put(packet(PacketType::PacketStat))?;
    out.flush()
}

fn fill(
    root: &Root,
    asked: &std::sync::mpsc::Receiver<Vec<File>>,
    mut out: Batches,
    sent: &Sent,
) -> Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut files = Vec::new().into_iter();
    loop {
        let Some((id, path)) = files.next() else {
            // Nobody waits for what lies here while this waits for more to do.
            files = match asked.try_recv() {
                Ok(more) => more.into_iter(),
                Err(_) => {
                    out.flush()?;
                    let Ok(more) = asked.recv() else { break };
                    more.into_iter()
                }
            };
            continue;
        };
        send_file(root, &path, id, &mut out, &mut buffer, sent)?;
    }
    Ok(())
}

fn send_file(
    root: &Root,
    path: &Path,
    id: u32,
    out: &mut Batches,
    buffer: &mut [u8],
    sent: &Sent,
) -> Result<()> {
    use rustix::fs::OFlags;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let what = || format!("reading {}", path.display());
    let mut file = match root.open_with(path, flags) {
        Ok(fd) => Some(std::fs::File::from(fd)),
        // Deleted since it was told: an empty file is what the other side gets.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io(what(), error)),
    };
    while let Some(open) = &mut file {
        let count = match open.read(buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io(what(), error)),
        };
        if count == 0 {
            break;
        }
        // Most files are small: what waits to be sent is no larger than they are.
        let data = Packet {
            id,
            data: Bytes::copy_from_slice(&buffer[..count]),
            ..packet(PacketType::PacketData)
        };
        sent.count(&data);
        out.put(data)?;
    }
    out.put(Packet {
        id,
        ..packet(PacketType::PacketData)
    })
}
