//! Tars with exactly the entries one asks for, hostile ones too: nothing is checked.

/// One entry of a tar.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name as it is written.
    pub name: Vec<u8>,
    /// `0` file, `1` hard link, `2` symlink, `3` char device, `4` block device, `5` folder, `6` fifo.
    pub kind: u8,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u64,
    /// What a link points at.
    pub link: Vec<u8>,
    /// Device numbers.
    pub device: (u32, u32),
    /// The contents.
    pub bytes: Vec<u8>,
    /// The size the header claims, if that shall not be the truth.
    pub claimed_size: Option<u64>,
    /// PAX records written before it.
    pub pax: Vec<(String, Vec<u8>)>,
}

impl Entry {
    fn new(name: impl AsRef<[u8]>, kind: u8, mode: u32) -> Entry {
        Entry {
            name: name.as_ref().to_vec(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: 1_700_000_000,
            link: Vec::new(),
            device: (0, 0),
            bytes: Vec::new(),
            claimed_size: None,
            pax: Vec::new(),
        }
    }

    /// A file.
    pub fn file(name: impl AsRef<[u8]>, bytes: impl Into<Vec<u8>>) -> Entry {
        Entry {
            bytes: bytes.into(),
            ..Entry::new(name, b'0', 0o644)
        }
    }

    /// A folder.
    pub fn folder(name: impl AsRef<[u8]>) -> Entry {
        Entry::new(name, b'5', 0o755)
    }

    /// A symlink.
    pub fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
        Entry {
            link: target.as_ref().to_vec(),
            ..Entry::new(name, b'2', 0o777)
        }
    }

    /// A hard link.
    pub fn hard_link(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
        Entry {
            link: target.as_ref().to_vec(),
            ..Entry::new(name, b'1', 0o644)
        }
    }

    /// A device (`kind` is `b'3'` or `b'4'`).
    pub fn device(name: impl AsRef<[u8]>, kind: u8, major: u32, minor: u32) -> Entry {
        Entry {
            device: (major, minor),
            ..Entry::new(name, kind, 0o600)
        }
    }

    /// The same with these permission bits.
    pub fn mode(self, mode: u32) -> Entry {
        Entry { mode, ..self }
    }

    /// The same with this owner.
    pub fn owner(self, uid: u32, gid: u32) -> Entry {
        Entry { uid, gid, ..self }
    }

    /// The same with one PAX record more.
    pub fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Entry {
        self.pax.push((key.to_owned(), value.as_ref().to_vec()));
        self
    }
}

/// The tar of these entries, with its two empty blocks at the end.
pub fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        write(&mut out, entry);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// The tar, in gzip.
pub fn tar_gz(entries: &[Entry]) -> Vec<u8> {
    gzip(&tar(entries))
}

/// Bytes in gzip, always the same.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("a Vec takes everything");
    encoder.finish().expect("a Vec takes everything")
}

fn write(out: &mut Vec<u8>, entry: &Entry) {
    let mut pax = entry.pax.clone();
    if entry.name.len() > 100 {
        pax.push(("path".into(), entry.name.clone()));
    }
    if entry.link.len() > 100 {
        pax.push(("linkpath".into(), entry.link.clone()));
    }
    if !pax.is_empty() {
        let records: Vec<u8> = pax
            .iter()
            .flat_map(|(key, value)| record(key, value))
            .collect();
        let header = Entry {
            bytes: records,
            ..Entry::new("PaxHeaders/0", b'x', 0o644)
        };
        write_plain(out, &header);
    }
    write_plain(out, entry);
}

/// `length key=value\n`, where the length counts itself.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = 3 + key.len() + value.len();
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

fn write_plain(out: &mut Vec<u8>, entry: &Entry) {
    let mut header = [0u8; 512];
    fn text(field: &mut [u8], bytes: &[u8]) {
        let length = bytes.len().min(field.len());
        field[..length].copy_from_slice(&bytes[..length]);
    }
    fn octal(field: &mut [u8], value: u64) {
        let width = field.len() - 1;
        if value < 1 << (3 * width) {
            text(field, format!("{value:0width$o}").as_bytes());
        } else {
            // GNU's base-256 form for what octal cannot hold.
            let start = field.len() - 8;
            field[start..].copy_from_slice(&value.to_be_bytes());
            field[0] |= 0x80;
        }
    }
    text(&mut header[0..100], &entry.name);
    octal(&mut header[100..108], u64::from(entry.mode));
    octal(&mut header[108..116], u64::from(entry.uid));
    octal(&mut header[116..124], u64::from(entry.gid));
    octal(
        &mut header[124..136],
        entry.claimed_size.unwrap_or(entry.bytes.len() as u64),
    );
    octal(&mut header[136..148], entry.mtime);
    header[156] = entry.kind;
    text(&mut header[157..257], &entry.link);
    text(&mut header[257..265], b"ustar\x0000");
    octal(&mut header[329..337], u64::from(entry.device.0));
    octal(&mut header[337..345], u64::from(entry.device.1));
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    text(&mut header[148..156], format!("{sum:06o}\0 ").as_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(&entry.bytes);
    out.resize(out.len().next_multiple_of(512), 0);
}
