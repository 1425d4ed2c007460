//! Runs the tests with one fault, until the first of them fails.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::{Error, Result, shell};

/// Of the processor's time: many times what all tests take.
const SECONDS: u32 = 40;
/// Of silence, for one that waits for ever and takes no processor time.
const SILENCE: Duration = Duration::from_secs(90);
/// Kilobytes of memory, for one that fills it.
const MEMORY: u32 = 4_000_000;

/// Which test noticed a fault; 0 is none.
pub(super) fn one(program: &Path, mutant: usize) -> Result<Option<String>> {
    let mut command = Command::new("sh");
    let limits = format!("ulimit -t {SECONDS} -v {MEMORY}; exec \"$0\" --test-threads=2");
    command
        .args(["-c".as_ref(), limits.as_ref(), program.as_os_str()])
        .env("MUTANT", mutant.to_string())
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().map_err(|source| Error::Start {
        command: shell::shown(&command),
        source,
    })?;
    let lines = BufReader::new(child.stdout.take().expect("it was asked for")).lines();
    let (tell, told) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        // Ends with the program, or when nobody listens.
        lines
            .map_while(|line| line.ok())
            .all(|line| tell.send(line).is_ok());
    });
    let noticed = loop {
        match told.recv_timeout(SILENCE) {
            Ok(line) if line.starts_with("test ") && line.ends_with("FAILED") => break Some(line),
            Ok(_) => {}
            Err(mpsc::RecvTimeoutError::Timeout) => break Some("it takes for ever".to_owned()),
            Err(mpsc::RecvTimeoutError::Disconnected) => break None,
        }
    };
    if noticed.is_some() {
        // It may have ended meanwhile.
        let _ = child.kill();
    }
    drop(told);
    let status = child.wait().map_err(Error::file(program))?;
    reader.join().expect("reading does not panic");
    Ok(noticed.or_else(|| (!status.success()).then(|| status.to_string())))
}
