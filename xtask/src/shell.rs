//! Other programs: started, watched, their end reported.

use std::process::{Command, Stdio};
use std::time::Instant;

use crate::{Error, Result};

/// A program and its arguments, started in the repository.
pub(crate) fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(crate::repo::root());
    command
}

/// Cargo, the one that started us.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    command(&cargo, args)
}

/// How a command reads on a terminal.
pub(crate) fn shown(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    std::iter::once(program)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs it with our terminal; anything but success is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = shown(command);
    let begun = Instant::now();
    println!("\n$ {name}");
    let status = command.status().map_err(|source| Error::Start {
        command: name.clone(),
        source,
    })?;
    if !status.success() {
        return Err(Error::Failed {
            command: name,
            status: status.to_string(),
        });
    }
    println!("  ok, {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Runs it and gives what it printed; on failure shows both its outputs.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = shown(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start {
            command: name.clone(),
            source,
        })?;
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stdout));
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        return Err(Error::Failed {
            command: name,
            status: output.status.to_string(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program is in the path.
pub(crate) fn has(program: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|dir| dir.join(program).is_file())
}
