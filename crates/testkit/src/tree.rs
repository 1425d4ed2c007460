//! Folders full of files from a seed.

use std::io;
use std::path::Path;

use crate::dice::Dice;
use crate::tar::Entry;

/// `files` files of about `bytes` bytes each, a hundred to a folder, as tar entries.
pub fn entries(seed: u64, files: usize, bytes: usize) -> Vec<Entry> {
    let mut dice = Dice::new(seed);
    let mut entries = Vec::new();
    for at in 0..files {
        let folder = format!("s{seed}/d{:03}", at / 100);
        if at % 100 == 0 {
            if at == 0 {
                entries.push(Entry::folder(format!("s{seed}/")));
            }
            entries.push(Entry::folder(format!("{folder}/")));
        }
        let length = bytes / 2 + dice.roll(bytes as u64 + 1) as usize;
        let mode = if dice.roll(10) == 0 { 0o755 } else { 0o644 };
        entries.push(Entry::file(format!("{folder}/f{at:05}"), dice.bytes(length)).mode(mode));
    }
    entries
}

/// The same files written below `folder`.
pub fn write(folder: &Path, seed: u64, files: usize, bytes: usize) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for entry in entries(seed, files, bytes) {
        let path = folder.join(String::from_utf8_lossy(&entry.name).as_ref());
        if entry.kind == b'5' {
            std::fs::create_dir_all(&path)?;
        } else {
            std::fs::write(&path, &entry.bytes)?;
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(entry.mode))?;
    }
    Ok(())
}
