//! What is built: made from a seed, so that each machine measures the same bytes.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::Error;
use super::aside::set_aside;
use super::case::Case;
use super::daemons::{self, Registry};
use super::measure;
use super::peers::Peers;

/// How large everything is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    quick: bool,
    pub(crate) image_mb: usize,
    pub(crate) layer_mb: usize,
    pub(crate) files: usize,
    stages: usize,
    steps_per_stage: usize,
    pub(crate) clients: u32,
}

impl Sizes {
    pub(crate) fn full() -> Sizes {
        Sizes {
            quick: false,
            image_mb: 500,
            layer_mb: 500,
            files: 50_000,
            stages: 40,
            steps_per_stage: 24,
            clients: 50,
        }
    }

    pub(crate) fn quick() -> Sizes {
        Sizes {
            quick: true,
            image_mb: 20,
            layer_mb: 20,
            files: 1_000,
            stages: 5,
            steps_per_stage: 3,
            clients: 5,
        }
    }

    pub(crate) fn runs(&self, full: usize) -> usize {
        if self.quick { full / 10 } else { full }
    }

    /// Each stage's steps, and one to collect it.
    pub(crate) fn vertices(&self) -> usize {
        self.stages * (self.steps_per_stage + 1)
    }
}

/// All inputs, below one directory.
pub(crate) struct Inputs {
    dir: PathBuf,
    registry: String,
    sizes: Sizes,
}

impl Inputs {
    pub(crate) fn new(dir: &Path, registry: String, sizes: Sizes) -> Result<Inputs, Error> {
        let inputs = Inputs {
            dir: dir.to_owned(),
            registry,
            sizes,
        };
        for each in ["home", "state", "input", "output"] {
            make_dir(&dir.join(each))?;
        }
        Ok(inputs)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    pub(crate) fn outputs(&self) -> PathBuf {
        self.dir.join("output")
    }

    pub(crate) fn context(&self, case: Case) -> PathBuf {
        self.dir.join("input").join(case.input())
    }

    /// Makes room for the next results.
    pub(crate) fn clear_outputs(&self) -> Result<(), Error> {
        let outputs = self.outputs();
        set_aside(&self.dir, &outputs)?;
        make_dir(&outputs)
    }

    /// Pushes the two images builds start from: `base` with busybox, and `big`.
    pub(crate) fn push_images(&self, peers: &Peers, registry: &Registry) -> Result<(), Error> {
        let dir = self.dir.join("state/pusher");
        make_dir(&dir)?;
        let dockerd = daemons::dockerd(peers, &dir)?;
        let base = self.dir.join("input/base");
        make_dir(&base)?;
        let mut copy = peers.command("cp");
        copy.arg("/usr/bin/busybox").arg(base.join("busybox"));
        measure::untimed(copy, &dir.join("copy.log"))?;
        write(
            &base.join("Dockerfile"),
            "FROM scratch\nCOPY busybox /bin/sh\n",
        )?;

        let big = self.dir.join("input/big");
        let mut text = format!("FROM {}/base:1\n", registry.host);
        // Layers of real images differ in size a lot.
        for (layer, percent) in [40, 25, 15, 10, 6, 4].into_iter().enumerate() {
            let folder = big.join(format!("layer{layer}"));
            fill(
                &folder,
                self.sizes.image_mb * 10_000 * percent,
                layer as u64,
            )?;
            let _ = writeln!(text, "COPY layer{layer} /layer{layer}");
        }
        write(&big.join("Dockerfile"), &text)?;
        for (name, context) in [("base", &base), ("big", &big)] {
            let mut build = peers.command("docker");
            let host = format!("unix://{}", daemons::docker_socket(&dir).display());
            build
                .args([
                    "--host",
                    &host,
                    "buildx",
                    "build",
                    "--provenance=false",
                    "--push",
                ])
                .args(["--tag", &format!("{}/{name}:1", registry.host)])
                .arg(context);
            measure::untimed(build, &dir.join("push.log"))?;
        }
        drop(dockerd);
        set_aside(&self.dir, &dir)?;
        set_aside(&self.dir, &big)
    }

    /// Makes the context of a case, if it is not there.
    pub(crate) fn make(&self, case: Case) -> Result<(), Error> {
        let context = self.context(case);
        if context.join("Dockerfile").exists() {
            return Ok(());
        }
        make_dir(&context)?;
        let from = format!("FROM {}/base:1\n", self.registry);
        let text = match case {
            Case::Rebuild => self.twenty_steps(&context, from)?,
            Case::Run50 => from + &"RUN :\n".repeat(self.sizes.runs(50)),
            Case::Run200 => from + &"RUN :\n".repeat(self.sizes.runs(200)),
            Case::Pull => format!("FROM {}/big:1\nRUN :\n", self.registry),
            Case::Export => {
                fill(&context.join("data"), self.sizes.layer_mb * 1_000_000, 99)?;
                "FROM scratch\nARG NUMBER\nCOPY data /data$NUMBER\n".to_owned()
            }
            Case::ContextFirst | Case::ContextChanged | Case::Local => {
                for file in 0..self.sizes.files {
                    write_small(&self.small_file(file), file as u64, 0)?;
                }
                "FROM scratch\nCOPY . /\n".to_owned()
            }
            Case::Vertices => self.wide_graph(&context)?,
            Case::Clients => {
                write(&context.join("file"), "some words\n")?;
                from + "ARG NUMBER\nCOPY file /one\nRUN echo $NUMBER >/two\nRUN :\nRUN :\n"
            }
        };
        write(&context.join("Dockerfile"), &text)
    }

    /// What a person might write: folders, files, commands, and words about them.
    fn twenty_steps(&self, context: &Path, from: String) -> Result<String, Error> {
        let mut text = from + "WORKDIR /app\nENV ONE=1\n";
        for step in 0..9 {
            let name = format!("part{step}");
            fill(&context.join(&name), 200_000, step)?;
            let _ = write!(
                text,
                "COPY {name} /app/{name}\nRUN echo {step} >>/app/log\n"
            );
        }
        Ok(text + "USER 1000\nCMD [\"sh\"]\n")
    }

    fn wide_graph(&self, context: &Path) -> Result<String, Error> {
        let mut stages = String::new();
        let mut last = "FROM scratch\n".to_owned();
        for step in 0..self.sizes.steps_per_stage {
            write_small(&context.join(format!("file{step}")), step as u64, 0)?;
        }
        for stage in 0..self.sizes.stages {
            let _ = writeln!(stages, "FROM scratch AS stage{stage}");
            for step in 0..self.sizes.steps_per_stage {
                let _ = writeln!(stages, "COPY file{step} /stage{stage}/file{step}");
            }
            let _ = writeln!(last, "COPY --from=stage{stage} /stage{stage} /stage{stage}");
        }
        Ok(stages + &last)
    }

    pub(crate) fn change_one_file(&self, run: u32) -> Result<(), Error> {
        let middle = self.sizes.files / 2;
        // Each tool sees another change, each time: nobody may have met it before.
        let salt = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(u64::from(run), |since| since.as_nanos() as u64);
        write_small(&self.small_file(middle), middle as u64, salt)
    }

    fn small_file(&self, number: usize) -> PathBuf {
        let folder = number / 100;
        self.context(Case::Local).join(format!(
            "group{:02}/folder{folder:03}/file{number:05}.txt",
            folder / 25
        ))
    }
}

fn write_small(path: &Path, seed: u64, salt: u64) -> Result<(), Error> {
    let mut random = Random::new(seed ^ salt.rotate_left(32));
    let size = 200 + random.below(1800);
    let mut bytes = Vec::new();
    words(&mut bytes, size, &mut random);
    if let Some(parent) = path.parent() {
        make_dir(parent)?;
    }
    fs::write(path, bytes).map_err(Error::io("writing", path))
}

/// Fills a directory with about so many bytes: files from a few bytes to some megabytes, some of
/// words, some of noise, some of both; all in all gzip halves them.
fn fill(dir: &Path, bytes: usize, seed: u64) -> Result<(), Error> {
    let mut random = Random::new(seed);
    let mut left = bytes;
    let mut number = 0;
    while left > 0 {
        let largest = 1 << (9 + random.below(14));
        let size = (largest / 2 + random.below(largest)).min(left);
        let folder = dir.join(format!("folder{:03}", number / 50));
        make_dir(&folder)?;
        let mut content = Vec::with_capacity(size);
        let kind = random.below(4);
        while content.len() < size {
            let part = (size - content.len()).min(4096);
            match (kind, random.below(2)) {
                (0 | 1, _) | (2, 0) => words(&mut content, part, &mut random),
                _ => noise(&mut content, part, &mut random),
            }
        }
        let path = folder.join(format!("file{number:05}"));
        fs::write(&path, content).map_err(Error::io("writing", &path))?;
        left -= size;
        number += 1;
    }
    Ok(())
}

fn words(out: &mut Vec<u8>, size: usize, random: &mut Random) {
    const WORDS: [&str; 16] = [
        "layer", "digest", "the", "of", "return", "value", "0x", "error", "\n    ", "path", "=",
        "(", ")", "size_t", "import", "when",
    ];
    let end = out.len() + size;
    while out.len() < end {
        out.extend_from_slice(WORDS[random.below(16)].as_bytes());
        out.extend_from_slice(random.below(100).to_string().as_bytes());
        out.push(b' ');
    }
    out.truncate(end);
}

fn noise(out: &mut Vec<u8>, size: usize, random: &mut Random) {
    let end = out.len() + size;
    while out.len() < end {
        out.extend_from_slice(&random.next().to_le_bytes());
    }
    out.truncate(end);
}

/// splitmix64: the same numbers everywhere, without a dependency.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6b69_6c6e)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

fn make_dir(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(Error::io("making", path))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(Error::io("writing", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_the_bytes() {
        let bytes = |seed| {
            let mut out = Vec::new();
            let mut random = Random::new(seed);
            words(&mut out, 100, &mut random);
            noise(&mut out, 100, &mut random);
            out
        };
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
        assert_eq!(bytes(3).len(), 200);
    }

    #[test]
    fn the_full_graph_has_a_thousand_vertices() {
        assert_eq!(Sizes::full().vertices(), 1000);
    }
}
