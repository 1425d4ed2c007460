//! `provenanceEnvDir` (row D04): what the builder's owner says about where it runs. Each
//! `*.json` of the directory is an object; they count in the order of their names, and a
//! later one replaces what an earlier one said of the same name. Read once, at the start.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use attest::Environment;

use crate::Error;

/// All of it is beside every image that is built: more is a mistake.
const MAX_SIZE: u64 = 16 << 20;

/// What the files of `dir` say; nothing when it is not there.
pub(crate) fn read(dir: &Path) -> Result<Environment, Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| Error::File {
            doing: "reading",
            path,
            source,
        }
    };
    let mut environment = Environment::default();
    let mut left = MAX_SIZE;
    for name in names(dir).map_err(failed(dir))? {
        let path = dir.join(name);
        let document = document(&path, left).map_err(failed(&path))?;
        left -= document.len() as u64;
        environment
            .add(&document)
            .map_err(|problem| Error::Environment { path, problem })?;
    }
    Ok(environment)
}

/// The names of the documents, in order. Directories are none, whatever they are called.
fn names(dir: &Path) -> io::Result<Vec<OsString>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_bytes().ends_with(b".json") && !entry.file_type()?.is_dir() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn document(path: &Path, left: u64) -> io::Result<Vec<u8>> {
    // Links are followed: that is how settings are often mounted. A pipe would never end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(left + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > left {
        let text = format!("the files of its directory are larger than {MAX_SIZE} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[track_caller]
    fn refused(dir: &Path) -> String {
        stdx::text::sentence(&read(dir).unwrap_err())
    }

    /// Rows: D04
    #[test]
    fn every_json_file_counts_in_the_order_of_the_names() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        assert!(read(&dir.path().join("none")).unwrap().is_empty());
        write("20.json", r#"{"who":"second","only":"second"}"#);
        write("10.json", r#"{"who":"first","first":true}"#);
        write("9.txt", "no JSON at all");
        write(".json", r#"{"hidden":1}"#);
        fs::create_dir(dir.path().join("dir.json")).unwrap();
        let linked = tempfile::NamedTempFile::new().unwrap();
        fs::write(linked.path(), r#"{"linked":[1]}"#).unwrap();
        symlink(linked.path(), dir.path().join("link.json")).unwrap();
        let mut expected = Environment::default();
        let all = r#"{"hidden":1,"who":"second","first":true,"only":"second","linked":[1]}"#;
        expected.add(all.as_bytes()).unwrap();
        assert_eq!(read(dir.path()).unwrap(), expected);
    }

    /// Rows: D04
    #[test]
    fn what_cannot_be_told_is_refused_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let shown = path.display();
        fs::write(&path, "[1]").unwrap();
        let said = refused(dir.path());
        assert!(
            said.starts_with(&format!("{shown}: it is no JSON object: ")),
            "{said}"
        );
        fs::write(&path, r#"{"builderPlatform":"x"}"#).unwrap();
        assert_eq!(
            refused(dir.path()),
            format!(
                "{shown}: key \"builderPlatform\" is builtin: the builder itself says what it is"
            )
        );
        let big = format!("{{\"a\":\"{}\"}}", "x".repeat(9 << 20));
        fs::write(&path, &big).unwrap();
        assert!(!read(dir.path()).unwrap().is_empty());
        fs::write(dir.path().join("b.json"), &big).unwrap();
        let said = refused(dir.path());
        assert!(said.ends_with("larger than 16777216 bytes"), "{said}");
        assert!(said.contains("b.json"), "{said}");
        fs::remove_file(dir.path().join("b.json")).unwrap();
        fs::remove_file(&path).unwrap();
        symlink("/dev/zero", &path).unwrap();
        assert!(refused(dir.path()).ends_with("it is no file"));
        fs::remove_file(&path).unwrap();
        symlink("nowhere", &path).unwrap();
        assert_eq!(
            read(dir.path()).unwrap_err().kind(),
            stdx::Kind::Unavailable
        );
    }
}
