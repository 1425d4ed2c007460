//! The command line as a whole.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use cli::build::flags::BuildFlags;
use cli::du::DuFlags;
use cli::prune::PruneFlags;
use daemon::config::flags::Flags;

/// Builds container images from Dockerfiles.
#[derive(Debug, Parser)]
#[command(
    name = "kiln",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Kiln {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags every command has.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Global {
    /// Daemon to use: unix://path, tcp://host:port; without it kiln builds in this process
    #[arg(long, value_name = "ADDRESS", env = "KILN_HOST")]
    pub(crate) addr: Option<String>,
    /// State directory of builds in this process
    #[arg(long = "state", value_name = "DIR", env = "KILN_STATE")]
    pub(crate) state: Option<PathBuf>,
    /// Settings of builds in this process: a daemon's configuration file (registries, worker)
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Write what happens inside to standard error
    #[arg(long)]
    pub(crate) debug: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    Build(Box<BuildFlags>),
    /// Run the build daemon (takes the flags of buildkitd)
    Daemon(Box<Flags>),
    /// Show how much disk the cache uses
    Du(DuFlags),
    /// Remove what no build uses from the cache
    Prune(PruneFlags),
    /// Show the version
    Version,
}

/// What was started, under which name.
#[derive(Debug)]
pub(crate) enum Started {
    /// `kiln …`
    Kiln(Box<Kiln>),
    /// `buildkitd …`
    Buildkitd(Box<Flags>),
}

/// Parses the command line; the program's own name decides whose flags it has.
pub(crate) fn parse(args: Vec<OsString>) -> Result<Started, clap::Error> {
    let name = args.first().map(PathBuf::from);
    let name = name
        .as_ref()
        .and_then(|path| path.file_name())
        .and_then(|name| name.to_str());
    if name == Some("buildkitd") {
        return Flags::parse_from_args(args).map(|flags| Started::Buildkitd(Box::new(flags)));
    }
    let mut command = Kiln::command();
    let matches = command.try_get_matches_from_mut(args)?;
    let named = matches.value_source("addr") == Some(ValueSource::CommandLine);
    let mut kiln = Kiln::from_arg_matches(&matches)?;
    if let Command::Daemon(flags) = &mut kiln.command {
        if named {
            return Err(command.error(
                ErrorKind::ArgumentConflict,
                "--addr before `daemon` names a daemon to use; where this one listens comes after: kiln daemon --addr ADDRESS",
            ));
        }
        flags.root = flags.root.take().or_else(|| kiln.global.state.clone());
        flags.debug |= kiln.global.debug;
    }
    Ok(Started::Kiln(Box::new(kiln)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(line: &str) -> Result<Started, clap::Error> {
        parse(line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn the_definition_is_sound() {
        Kiln::command().debug_assert();
    }

    /// Rows: D15
    #[test]
    fn settings_are_taken_before_and_after_the_command() {
        for line in ["kiln --config f build .", "kiln build --config f ."] {
            let Ok(Started::Kiln(kiln)) = started(line) else {
                panic!("{line}")
            };
            assert_eq!(kiln.global.config, Some("f".into()), "{line}");
        }
        for line in ["kiln --config f daemon", "kiln daemon --config f"] {
            let Ok(Started::Kiln(kiln)) = started(line) else {
                panic!("{line}")
            };
            let Command::Daemon(flags) = kiln.command else {
                panic!("{line}")
            };
            assert_eq!(flags.config, Some("f".into()), "{line}");
        }
    }

    /// Rows: D02, D15
    #[test]
    fn a_daemon_heeds_what_comes_before_its_name() {
        for (line, root) in [
            ("kiln --state s --debug daemon", "s"),
            ("kiln --state s daemon --debug --root r", "r"),
        ] {
            let Ok(Started::Kiln(kiln)) = started(line) else {
                panic!("{line}")
            };
            let Command::Daemon(flags) = kiln.command else {
                panic!("{line}")
            };
            assert_eq!(
                (flags.root, flags.debug),
                (Some(root.into()), true),
                "{line}"
            );
        }
        let refused = started("kiln --addr unix:///x daemon").unwrap_err();
        assert!(
            refused.to_string().contains("kiln daemon --addr"),
            "{refused}"
        );
    }

    /// Rows: D02, D15
    #[test]
    fn the_name_decides_whose_flags_are_taken() {
        assert!(
            matches!(started("/usr/bin/buildkitd -debug --root /x"), Ok(Started::Buildkitd(flags)) if flags.debug)
        );
        let Ok(Started::Kiln(kiln)) = started("kiln --debug build -t a .") else {
            panic!("kiln build")
        };
        assert!(
            kiln.global.debug
                && matches!(kiln.command, Command::Build(flags) if flags.tag == ["a"])
        );
        assert!(matches!(
            started("kiln daemon --addr unix:///x"),
            Ok(Started::Kiln(_))
        ));
        for wrong in [
            "buildkitd build .",
            "kiln bild .",
            "kiln build --taag x .",
            "kiln",
        ] {
            assert!(started(wrong).is_err(), "{wrong}");
        }
        assert!(
            started("kiln bild .")
                .unwrap_err()
                .to_string()
                .contains("'build'")
        );
    }
}
