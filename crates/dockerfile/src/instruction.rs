//! Instructions with their arguments understood, and the stages they stand in.

mod flags;
mod mount;
mod parse;

pub use mount::{Mount, MountFault, MountKind, MountText, Sharing};
pub use parse::{instructions, trigger};

use crate::syntax::{Fault, Heredoc, Lines};

/// All keywords, for suggestions.
pub(crate) const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A file as stages.
#[derive(Clone, Debug, Default)]
pub struct File {
    /// `ARG`s above the first `FROM`.
    pub args: Vec<Instruction>,
    /// The stages, in order.
    pub stages: Vec<Stage>,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

/// `FROM` and what follows it.
#[derive(Clone, Debug, Default)]
pub struct Stage {
    /// The keyword as written.
    pub keyword: String,
    /// `AS` as written.
    pub as_keyword: String,
    /// An image, a stage or `scratch`, before expansion.
    pub base: String,
    /// The name in lower case, empty when there is none.
    pub name: String,
    /// The name as written.
    pub written_name: String,
    /// `--platform`, before expansion.
    pub platform: String,
    /// The instruction's text.
    pub text: String,
    /// Where `FROM` stands.
    pub lines: Lines,
    /// Comment lines right above.
    pub comments: Vec<String>,
    /// What follows.
    pub instructions: Vec<Instruction>,
}

impl Stage {
    /// What the comment above says about the stage.
    pub fn description(&self) -> String {
        description(&self.comments, &self.name).unwrap_or_default()
    }
}

/// One instruction.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// The keyword as written.
    pub keyword: String,
    /// The instruction's text, on one line, without here-docs.
    pub text: String,
    /// Where it stands, here-docs included.
    pub lines: Lines,
    /// Comment lines right above.
    pub comments: Vec<String>,
    /// What it says.
    pub command: Command,
}

/// What an instruction says.
#[derive(Clone, Debug)]
pub enum Command {
    /// `ADD` and `COPY`.
    Copy(Copy),
    /// `ARG name[=value] …`
    Arg(Vec<Arg>),
    /// `CMD`
    Cmd(CommandLine),
    /// `ENTRYPOINT`
    Entrypoint(CommandLine),
    /// `ENV key=value …`
    Env(Vec<crate::syntax::Pair>),
    /// `EXPOSE port …`
    Expose(Vec<String>),
    /// `HEALTHCHECK`
    Healthcheck(Health),
    /// `LABEL key=value …`
    Label(Vec<crate::syntax::Pair>),
    /// `MAINTAINER name`
    Maintainer(String),
    /// `ONBUILD instruction`: the instruction's text with its here-docs.
    Onbuild(String),
    /// `RUN`
    Run(Run),
    /// `SHELL ["…"]`
    Shell(Vec<String>),
    /// `STOPSIGNAL signal`
    StopSignal(String),
    /// `USER name`
    User(String),
    /// `VOLUME path …`
    Volume(Vec<String>),
    /// `WORKDIR path`
    Workdir(String),
}

/// `ARG name[=value]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    /// Its name.
    pub name: String,
    /// Its default.
    pub value: Option<String>,
    /// What the comment above says about it.
    pub description: String,
}

/// A command in shell form or exec form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// The words, or one text for the shell.
    pub words: Vec<String>,
    /// The shell runs it.
    pub shell: bool,
}

/// `RUN`
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// What to run.
    pub command: CommandLine,
    /// Its here-docs.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`, before expansion.
    pub mounts: Vec<MountText>,
    /// `--network`
    pub network: Network,
    /// `--security=insecure`
    pub insecure: bool,
    /// `--device`
    pub devices: Vec<Device>,
}

/// `RUN --network`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The build's own choice.
    #[default]
    Default,
    /// No network.
    None,
    /// The host's.
    Host,
}

/// `RUN --device=name,required`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// A CDI device.
    pub name: String,
    /// Without it the step fails.
    pub required: bool,
}

/// `HEALTHCHECK`; times in nanoseconds, 0 means inherited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// `NONE`, `CMD …` or `CMD-SHELL …`.
    pub test: Vec<String>,
    /// Between two checks.
    pub interval_ns: i64,
    /// One check may take.
    pub timeout_ns: i64,
    /// Failures count only after this.
    pub start_period_ns: i64,
    /// Between two checks until then.
    pub start_interval_ns: i64,
    /// So many failures make it unhealthy.
    pub retries: i64,
}

/// `ADD` and `COPY`
#[derive(Clone, Debug, Default)]
pub struct Copy {
    /// `ADD`, not `COPY`.
    pub add: bool,
    /// What to copy.
    pub sources: Vec<String>,
    /// Here-docs to copy.
    pub contents: Vec<Content>,
    /// Where to.
    pub destination: String,
    /// `--from`
    pub from: String,
    /// `--chown`
    pub chown: String,
    /// `--chmod`
    pub chmod: String,
    /// `--link`
    pub link: bool,
    /// `--parents`
    pub parents: bool,
    /// `--exclude`
    pub exclude: Vec<String>,
    /// `--keep-git-dir`
    pub keep_git_dir: Option<bool>,
    /// `--checksum`
    pub checksum: String,
    /// `--unpack`
    pub unpack: Option<bool>,
}

/// A here-doc that becomes a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its name.
    pub name: String,
    /// Its text.
    pub data: String,
    /// Variables in it are expanded.
    pub expand: bool,
}

/// What the comments right above say about `name`: `# name what it is`.
pub(crate) fn description(comments: &[String], name: &str) -> Option<String> {
    if name.is_empty() {
        return None;
    }
    comments
        .iter()
        .find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(' ')?.to_owned()))
}
