//! An executor without containers: it understands a few words of shell and
//! does them in the step's tree. With the feature `executor`.

use std::sync::Mutex;

use ::executor::{Control, Error, ExecProcess, Executor, Exit, Io, Output, Process};
use async_trait::async_trait;
use bytes::Bytes;
use stdx::sys::Root;

/// Does `echo TEXT > FILE`, `cat FILE > FILE`, `mkdir DIR`, `rm FILE`, `echo TEXT`,
/// `true`, `false` and `exit N`, joined by `&&`, and keeps what it was asked.
#[derive(Default)]
pub struct Fake {
    ran: Mutex<Vec<String>>,
}

impl Fake {
    /// One that ran nothing yet.
    pub fn new() -> Fake {
        Fake::default()
    }

    /// The commands run so far.
    pub fn ran(&self) -> Vec<String> {
        self.ran.lock().expect("not poisoned").clone()
    }

    fn note(&self, args: &[String]) -> String {
        let script = match args {
            [_, option, script] if option == "-c" => script.clone(),
            args => args.join(" "),
        };
        self.ran.lock().expect("not poisoned").push(script.clone());
        script
    }
}

#[async_trait]
impl Executor for Fake {
    async fn run(&self, process: Process, io: Io, _control: Control) -> Result<Exit, Error> {
        let script = self.note(&process.args);
        let (mut code, mut told) = (0, Vec::new());
        for command in script.split("&&") {
            code = perform(process.root.root(), command.trim(), &mut told).unwrap_or(1);
            if code != 0 {
                break;
            }
        }
        if let Output::Channel(stdout) = io.stdout {
            let _ = stdout.send(Bytes::from(told)).await;
        }
        Ok(Exit {
            code,
            signal: None,
            oom: false,
        })
    }

    async fn exec(
        &self,
        _name: &str,
        exec: ExecProcess,
        _io: Io,
        _control: Control,
    ) -> Result<Exit, Error> {
        self.note(&exec.args);
        Ok(Exit {
            code: 0,
            signal: None,
            oom: false,
        })
    }
}

/// One command; its exit code.
fn perform(root: &Root, command: &str, told: &mut Vec<u8>) -> std::io::Result<i32> {
    let (words, target) = match command.split_once('>') {
        Some((words, target)) => (words.trim(), Some(target.trim())),
        None => (command, None),
    };
    let (verb, rest) = words.split_once(' ').unwrap_or((words, ""));
    let mut put = |bytes: &[u8]| -> std::io::Result<()> {
        use std::io::Write;
        match target {
            Some(target) => {
                let _ = root.unlink(target);
                root.create_file(target, 0o644)?.write_all(bytes)
            }
            None => {
                told.extend_from_slice(bytes);
                Ok(())
            }
        }
    };
    match verb {
        "true" => {}
        "false" => return Ok(1),
        "exit" => return Ok(rest.parse().unwrap_or(2)),
        "echo" => put(format!("{rest}\n").as_bytes())?,
        "cat" => {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut root.open_file(rest)?, &mut bytes)?;
            put(&bytes)?;
        }
        "mkdir" => drop(root.create_dir_all(rest, 0o755)?),
        "rm" => root.unlink(rest)?,
        _ => return Ok(127),
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_words_of_shell_are_done_beneath_the_root() {
        let dir = std::env::temp_dir().join(format!("testkit-fake-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let root = Root::open(&dir).unwrap();
        let mut told = Vec::new();
        for (command, code) in [
            ("mkdir a/b", 0),
            ("echo hi > a/b/c", 0),
            ("cat a/b/c", 0),
            ("exit 7", 7),
            ("wget x", 127),
            ("rm a/b/c", 0),
        ] {
            assert_eq!(
                perform(&root, command, &mut told).unwrap(),
                code,
                "{command}"
            );
        }
        assert!(perform(&root, "cat a/b/c", &mut told).is_err());
        assert_eq!(told, b"hi\n");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
