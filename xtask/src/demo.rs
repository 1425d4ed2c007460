//! `cargo xtask demo`: the main job, on a machine that has nothing but Rust and root.
//!
//! No Docker Hub and no other container tool is needed: the base image is made from
//! Debian's busybox-static, the registry is Debian's docker-registry on a free local port.

mod registry;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde::Deserialize;

use self::registry::Registry;
use crate::{Error, Result, repo, setup, shell};

/// How to build kiln for it.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Build kiln with all optimisations (takes longer to begin)
    #[arg(long)]
    release: bool,
    /// Use this kiln instead of building one
    #[arg(long, value_name = "FILE")]
    kiln: Option<PathBuf>,
}

/// What an image says about how it is run.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RunConfig {
    env: Vec<String>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: String,
    user: String,
}

/// The whole story, step by step; everything it made is gone afterwards.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !setup::is_root() {
        return Err(Error::Missing(
            "root: kiln mounts and starts containers".to_owned(),
        ));
    }
    setup::ensure(&[&setup::BUSYBOX, &setup::REGISTRY])?;
    let kiln = match &args.kiln {
        Some(kiln) => kiln.clone(),
        None => build_kiln(args.release)?,
    };
    let dir = tempfile::Builder::new()
        .prefix("kiln-demo-")
        .tempdir()
        .map_err(Error::file(std::env::temp_dir()))?;
    let registry = Registry::start(dir.path())?;
    let demo = Demo {
        kiln,
        dir: dir.path().to_owned(),
        registry: &registry,
    };
    let told = demo.story();
    drop(registry);
    dir.close().map_err(Error::file("the demo's directory"))?;
    for line in told? {
        println!("{line}");
    }
    println!("Everything the demo made is removed again.");
    Ok(())
}

/// Compiles kiln and says where it is.
fn build_kiln(release: bool) -> Result<PathBuf> {
    let mut build = shell::cargo(&["build", "--package", "kiln"]);
    if release {
        build.arg("--release");
    }
    shell::run(&mut build)?;
    let metadata = shell::output(&mut shell::cargo(&[
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
    ]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)
        .map_err(|error| Error::Chore(format!("cargo metadata: {error}")))?;
    let target = metadata["target_directory"].as_str().unwrap_or("target");
    let profile = if release { "release" } else { "debug" };
    Ok(Path::new(target).join(profile).join("kiln"))
}

struct Demo<'a> {
    kiln: PathBuf,
    dir: PathBuf,
    registry: &'a Registry,
}

impl Demo<'_> {
    fn story(&self) -> Result<Vec<String>> {
        let base = self.registry.name("base");
        let app = self.registry.name("app");

        title("a base image from nothing: busybox-static on scratch, pushed to a local registry");
        self.base(&base)?;

        title("examples/app on it: four stages, RUN in containers, pushed");
        let context = repo::root().join("examples/app");
        let (first, _) = self.app(&context, &base, &app)?;
        let pushed = self.registry.digest("app")?;

        title("the same from a fresh copy of the files, with other times: everything from cache");
        let copy = self.copy(&context)?;
        let (again, said) = self.app(&copy, &base, &app)?;
        let cached = said.matches(" CACHED").count();
        let ran: Vec<&str> = said
            .lines()
            .filter(|line| is_executed(line, &said))
            .collect();
        if !ran.is_empty() || cached == 0 {
            return Err(Error::Chore(format!(
                "not everything was cached:\n{}",
                ran.join("\n")
            )));
        }
        if self.registry.digest("app")? != pushed {
            return Err(Error::Chore(
                "the second build gave another image".to_owned(),
            ));
        }

        title("the image, pulled from the registry into an empty state, and its command run");
        let output = self.run_image(&app)?;

        Ok(vec![
            String::new(),
            format!("What this showed, with {}:", self.kiln.display()),
            format!("  built   a base image from nothing and {app} on it in {first:.1} s"),
            format!("  pushed  {pushed}"),
            format!(
                "  cached  {cached} of {cached} steps the second time, in {again:.1} s: same image"
            ),
            format!(
                "  ran     the image as it came back from the registry: {}",
                output.trim().replace('\n', " / ")
            ),
        ])
    }

    fn base(&self, name: &str) -> Result<()> {
        let dir = self.subdir("base")?;
        let busybox = dir.join("busybox");
        std::fs::copy("/bin/busybox", &busybox).map_err(Error::file("/bin/busybox"))?;
        let text = "FROM scratch\n\
            COPY busybox /bin/busybox\n\
            RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
            ENV PATH=/bin\n\
            CMD [\"sh\"]\n";
        write(&dir.join("Dockerfile"), text)?;
        self.kiln(&["build", "--push", "-t", name], &dir).map(drop)
    }

    fn app(&self, context: &Path, base: &str, name: &str) -> Result<(f64, String)> {
        let begun = Instant::now();
        let base = format!("BASE={base}");
        let said = self.kiln(
            &[
                "build",
                "--push",
                "-t",
                name,
                "--build-arg",
                &base,
                "--build-arg",
                "VERSION=1.0",
            ],
            context,
        )?;
        Ok((begun.elapsed().as_secs_f64(), said))
    }

    /// The same files, made now.
    fn copy(&self, from: &Path) -> Result<PathBuf> {
        let to = self.subdir("copy")?;
        for entry in std::fs::read_dir(from).map_err(Error::file(from))? {
            let entry = entry.map_err(Error::file(from))?;
            std::fs::copy(entry.path(), to.join(entry.file_name()))
                .map_err(Error::file(entry.path()))?;
        }
        Ok(to)
    }

    /// Does what a container runtime would: reads the image's config from the registry and
    /// runs its command in its files.
    fn run_image(&self, name: &str) -> Result<String> {
        let config: RunConfig = serde_json::from_value(self.registry.config("app")?)
            .map_err(|error| Error::Chore(format!("the image's config: {error}")))?;
        let command = [config.entrypoint, config.cmd]
            .into_iter()
            .flatten()
            .flatten();
        let command: Vec<String> = command.collect();
        println!(
            "config says: env {:?}, user {:?}, in {}, run {command:?}",
            config.env, config.user, config.working_dir
        );
        let quoted: Vec<String> = command
            .iter()
            .map(|word| format!("'{}'", word.replace('\'', r"'\''")))
            .collect();
        let text = format!("FROM {name}\nRUN {}\n", quoted.join(" "));
        let dir = self.subdir("run")?;
        write(&dir.join("Dockerfile"), &text)?;
        let fresh = self.dir.join("fresh-state");
        let said = self.kiln_in(&fresh, &["build"], &dir)?;
        let output: Vec<&str> = said.lines().filter_map(printed).collect();
        match output
            .iter()
            .any(|line| line.starts_with("hello from version 1.0"))
        {
            true => Ok(output.join("\n")),
            false => Err(Error::Chore(format!("the image's command said {output:?}"))),
        }
    }

    fn subdir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        std::fs::create_dir(&dir).map_err(Error::file(&dir))?;
        Ok(dir)
    }

    fn kiln(&self, args: &[&str], context: &Path) -> Result<String> {
        self.kiln_in(&self.dir.join("state"), args, context)
    }

    /// Runs kiln, shows what it says, and gives it back.
    fn kiln_in(&self, state: &Path, args: &[&str], context: &Path) -> Result<String> {
        let mut command = Command::new(&self.kiln);
        command
            .args(args)
            .arg("--progress=plain")
            .arg(context)
            .env("KILN_STATE", state)
            .env_remove("KILN_HOST")
            .env_remove("BUILDKIT_PROGRESS")
            .stdin(Stdio::null());
        let name = shell::shown(&command);
        println!("$ {name}");
        let output = command.output().map_err(|source| Error::Start {
            command: name.clone(),
            source,
        })?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        print!("{said}");
        if !output.status.success() {
            return Err(Error::Failed {
                command: name,
                status: output.status.to_string(),
            });
        }
        Ok(said)
    }
}

fn title(words: &str) {
    println!("\n== {words}");
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(Error::file(path))
}

/// Whether a plain progress line begins a RUN or COPY step that was done, not found:
/// `#7 [page 3/3] RUN …`, and no `#7 CACHED` anywhere.
fn is_executed(line: &str, said: &str) -> bool {
    let Some((number, rest)) = line.split_once(' ') else {
        return false;
    };
    let is_step =
        number.starts_with('#') && rest.starts_with('[') && !rest.starts_with("[internal]");
    let does = ["] RUN ", "] COPY ", "] WORKDIR "]
        .iter()
        .any(|it| rest.contains(it));
    is_step && does && !said.lines().any(|it| it == format!("{number} CACHED"))
}

/// What a step printed, from a plain progress line: `#5 0.123 text`.
fn printed(line: &str) -> Option<&str> {
    let (number, rest) = line.split_once(' ')?;
    let (time, text) = rest.split_once(' ')?;
    let is_time = time.contains('.') && time.parse::<f64>().is_ok();
    (number.starts_with('#') && is_time).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_progress_is_understood() {
        let said = "#7 [page 3/3] RUN make\n#7 CACHED\n#8 [page 2/3] COPY a b\n#8 DONE 0.1s\n#9 [internal] load x";
        let ran: Vec<&str> = said
            .lines()
            .filter(|line| is_executed(line, said))
            .collect();
        assert_eq!(ran, ["#8 [page 2/3] COPY a b"]);
        assert_eq!(printed("#5 0.123 hello you"), Some("hello you"));
        assert_eq!(printed("#5 DONE 0.1s"), None);
    }
}
