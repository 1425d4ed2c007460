//! Nodes to instructions. Whatever is wrong with one is noted and the rest is read.

use std::sync::LazyLock;

use regex::Regex;

use super::flags::Flags;
use super::{
    Arg, Command, CommandLine, Content, Copy, Device, File, Health, Instruction, KEYWORDS,
    MountText, Network, Run, Stage, description,
};
use crate::Error;
use crate::suggest::closest;
use crate::syntax::{Arguments, Fault, Lines, Node, Pair, Tree, chomp, parse, parse_heredoc};

static STAGE_NAME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("^[a-z][a-z0-9-_.]*$").expect("a constant pattern"));

/// Health checks may not come faster than this.
const SHORTEST_NS: i64 = 1_000_000;

/// Reads the stages of a file. The tree's own faults come along.
pub fn instructions(tree: &Tree) -> File {
    let mut file = File {
        faults: tree.faults.clone(),
        ..File::default()
    };
    for node in &tree.nodes {
        if let Err(error) = add(&mut file, node) {
            file.faults.push(Fault {
                error,
                lines: node.lines,
            });
        }
    }
    file.faults.sort_by_key(|fault| fault.lines);
    file
}

/// Reads an `ONBUILD` trigger; it stands at the lines of the `FROM` that sets it off.
pub fn trigger(text: &str, lines: Lines) -> Result<Instruction, Error> {
    let tree = parse(text.as_bytes());
    if let Some(fault) = tree.faults.into_iter().next() {
        return Err(fault.error);
    }
    let [node] = &tree.nodes[..] else {
        return Err(Error::BadTrigger {
            trigger: text.to_owned(),
        });
    };
    check_trigger(&node.keyword)?;
    Ok(Instruction {
        lines,
        ..instruction(node)?
    })
}

fn add(file: &mut File, node: &Node) -> Result<(), Error> {
    if node.keyword.eq_ignore_ascii_case("from") {
        file.stages.push(stage(node)?);
        return Ok(());
    }
    let is_arg = node.keyword.eq_ignore_ascii_case("arg");
    let instruction = instruction(node)?;
    match file.stages.last_mut() {
        Some(stage) => stage.instructions.push(instruction),
        None if is_arg => file.args.push(instruction),
        None => {
            return Err(Error::BeforeFrom {
                instruction: node.keyword.to_uppercase(),
            });
        }
    }
    Ok(())
}

fn stage(node: &Node) -> Result<Stage, Error> {
    let words = words(node);
    let (base, as_keyword, written_name) = match words.as_slice() {
        [base] => (base, "", ""),
        [base, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
            (base, keyword.as_str(), name.as_str())
        }
        _ => return Err(Error::FromArguments),
    };
    let name = written_name.to_lowercase();
    if !name.is_empty() && !STAGE_NAME.is_match(&name) {
        return Err(Error::BadStageName {
            name: written_name.to_owned(),
        });
    }
    let mut flags = Flags::new(&node.flags);
    let platform = flags.text("platform")?;
    flags.finish()?;
    Ok(Stage {
        keyword: node.keyword.clone(),
        as_keyword: as_keyword.to_owned(),
        base: base.clone(),
        name,
        written_name: written_name.to_owned(),
        platform,
        text: node.text.trim().to_owned(),
        lines: node.lines,
        comments: node.comments.clone(),
        instructions: Vec::new(),
    })
}

fn instruction(node: &Node) -> Result<Instruction, Error> {
    Ok(Instruction {
        keyword: node.keyword.clone(),
        text: node.text.trim().to_owned(),
        lines: node.lines,
        comments: node.comments.clone(),
        command: command(node)?,
    })
}

fn command(node: &Node) -> Result<Command, Error> {
    let keyword = node.keyword.to_uppercase();
    let mut flags = Flags::new(&node.flags);
    let one = || match &node.arguments {
        Arguments::Text(text) => Ok(text.clone()),
        _ => Err(Error::NeedsOneArgument {
            instruction: keyword.clone(),
        }),
    };
    let some = |words: Vec<String>| match words.is_empty() {
        true => Err(Error::NeedsArgument {
            instruction: keyword.clone(),
        }),
        false => Ok(words),
    };
    let command = match keyword.as_str() {
        "ADD" | "COPY" => Command::Copy(copy(node, keyword == "ADD", &mut flags)?),
        "ARG" => Command::Arg(args(node, some(words(node))?)?),
        "CMD" => Command::Cmd(command_line(node)),
        "ENTRYPOINT" => Command::Entrypoint(command_line(node)),
        "ENV" => Command::Env(pairs(node)?),
        "EXPOSE" => {
            let mut ports = some(words(node))?;
            ports.sort();
            Command::Expose(ports)
        }
        "HEALTHCHECK" => Command::Healthcheck(health(node, &mut flags)?),
        "LABEL" => Command::Label(pairs(node)?),
        "MAINTAINER" => Command::Maintainer(one()?),
        "ONBUILD" => {
            // Flags in front of the trigger's keyword make no sense; the trigger has its own.
            Command::Onbuild(onbuild(node)?)
        }
        "RUN" => Command::Run(run(node, &mut flags)?),
        "SHELL" => match &node.arguments {
            Arguments::Json(words) => Command::Shell(some(words.clone())?),
            Arguments::None => {
                return Err(Error::NeedsArgument {
                    instruction: keyword,
                });
            }
            _ => return Err(Error::ShellNotJson),
        },
        "STOPSIGNAL" => Command::StopSignal(one()?),
        "USER" => Command::User(one()?),
        "VOLUME" => {
            let volumes = some(words(node))?;
            let volumes: Vec<String> = volumes.iter().map(|v| v.trim().to_owned()).collect();
            if volumes.iter().any(String::is_empty) {
                return Err(Error::EmptyVolume);
            }
            Command::Volume(volumes)
        }
        "WORKDIR" => Command::Workdir(one()?),
        _ => {
            let suggestion = closest(&node.keyword, KEYWORDS);
            return Err(Error::UnknownInstruction {
                name: node.keyword.clone(),
                suggestion,
            });
        }
    };
    flags.finish()?;
    Ok(command)
}

fn words(node: &Node) -> Vec<String> {
    match &node.arguments {
        Arguments::Words(words) | Arguments::Json(words) => words.clone(),
        _ => Vec::new(),
    }
}

fn command_line(node: &Node) -> CommandLine {
    line_of(&node.arguments)
}

fn line_of(arguments: &Arguments) -> CommandLine {
    match arguments {
        Arguments::Json(words) => CommandLine {
            words: words.clone(),
            shell: false,
        },
        Arguments::Text(text) => CommandLine {
            words: vec![text.clone()],
            shell: true,
        },
        _ => CommandLine {
            words: Vec::new(),
            shell: true,
        },
    }
}

fn pairs(node: &Node) -> Result<Vec<Pair>, Error> {
    let instruction = || node.keyword.to_uppercase();
    match &node.arguments {
        Arguments::Pairs(pairs) if pairs.iter().any(|p| p.key.is_empty()) => {
            Err(Error::BlankName {
                instruction: instruction(),
            })
        }
        Arguments::Pairs(pairs) => Ok(pairs.clone()),
        _ => Err(Error::NeedsArgument {
            instruction: instruction(),
        }),
    }
}

fn args(node: &Node, words: Vec<String>) -> Result<Vec<Arg>, Error> {
    let arg = |word: String| {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word, None),
        };
        if name.is_empty() {
            return Err(Error::BlankName {
                instruction: "ARG".into(),
            });
        }
        let description = description(&node.comments, &name).unwrap_or_default();
        Ok(Arg {
            name,
            value,
            description,
        })
    };
    words.into_iter().map(arg).collect()
}

fn copy(node: &Node, add: bool, flags: &mut Flags) -> Result<Copy, Error> {
    let instruction = || node.keyword.to_uppercase();
    let mut words = words(node);
    let destination = words.pop();
    let Some(destination) = destination.filter(|_| !words.is_empty()) else {
        return Err(Error::NoDestination {
            instruction: instruction(),
        });
    };
    if parse_heredoc(&destination).is_some() {
        return Err(Error::HeredocDestination {
            instruction: instruction(),
        });
    }
    let mut copy = Copy {
        add,
        destination,
        chown: flags.text("chown")?,
        chmod: flags.text("chmod")?,
        link: flags.switch("link")?.unwrap_or(false),
        exclude: flags.all("exclude")?,
        ..Copy::default()
    };
    if add {
        copy.keep_git_dir = flags.switch("keep-git-dir")?;
        copy.checksum = flags.text("checksum")?;
        copy.unpack = flags.switch("unpack")?;
    } else {
        copy.from = flags.text("from")?;
        copy.parents = flags.switch("parents")?.unwrap_or(false);
    }
    for word in words {
        match parse_heredoc(&word).filter(|_| !node.heredocs.is_empty()) {
            Some(named) => copy.contents.push(content(node, &named.name, named.expand)),
            None => copy.sources.push(word),
        }
    }
    Ok(copy)
}

fn content(node: &Node, name: &str, expand: bool) -> Content {
    let heredoc = node.heredocs.iter().find(|h| h.name == name);
    let data = heredoc.map(|h| {
        if h.chomp {
            chomp(&h.content)
        } else {
            h.content.clone()
        }
    });
    Content {
        name: name.to_owned(),
        data: data.unwrap_or_default(),
        expand,
    }
}

fn run(node: &Node, flags: &mut Flags) -> Result<Run, Error> {
    let mut run = Run {
        command: command_line(node),
        heredocs: node.heredocs.clone(),
        ..Run::default()
    };
    for text in flags.all("mount")? {
        let mount = MountText::parse(text.clone());
        run.mounts
            .push(mount.map_err(|fault| Error::Mount { mount: text, fault })?);
    }
    let wrong = |flag: &str, value: String, expected: &str| Error::BadFlagValue {
        flag: flag.to_owned(),
        value,
        expected: expected.to_owned(),
    };
    run.network = match flags.text("network")?.to_lowercase().as_str() {
        "" | "default" => Network::Default,
        "none" => Network::None,
        "host" => Network::Host,
        other => return Err(wrong("--network", other.into(), "default, none or host")),
    };
    run.insecure = match flags.text("security")?.to_lowercase().as_str() {
        "" | "sandbox" => false,
        "insecure" => true,
        other => return Err(wrong("--security", other.into(), "sandbox or insecure")),
    };
    for text in flags.all("device")? {
        run.devices.push(device(&text));
    }
    Ok(run)
}

/// `name`, `name=…` or `name,required`.
fn device(text: &str) -> Device {
    let mut device = Device {
        name: String::new(),
        required: false,
    };
    for field in text.split(',') {
        match field.split_once('=') {
            None if field == "required" => device.required = true,
            Some(("required", value)) => device.required = matches!(value, "1" | "true"),
            Some(("name", name)) => device.name = name.to_owned(),
            _ => device.name = field.to_owned(),
        }
    }
    device
}

fn onbuild(node: &Node) -> Result<String, Error> {
    let Arguments::Trigger(inner) = &node.arguments else {
        return Err(Error::NeedsArgument {
            instruction: "ONBUILD".into(),
        });
    };
    check_trigger(&inner.keyword)?;
    // A trigger with a mistake in it is better found here than in the build that uses it.
    command(&Node {
        heredocs: node.heredocs.clone(),
        ..(**inner).clone()
    })?;
    let mut text = inner.text.clone();
    for heredoc in &node.heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    Ok(text)
}

fn check_trigger(keyword: &str) -> Result<(), Error> {
    let instruction = keyword.to_uppercase();
    match instruction.as_str() {
        "ONBUILD" => Err(Error::OnbuildChained),
        "MAINTAINER" | "FROM" => Err(Error::NotATrigger { instruction }),
        _ => Ok(()),
    }
}

fn health(node: &Node, flags: &mut Flags) -> Result<Health, Error> {
    let Arguments::Health(kind, arguments) = &node.arguments else {
        return Err(Error::NeedsArgument {
            instruction: "HEALTHCHECK".into(),
        });
    };
    let line = line_of(arguments);
    if kind.eq_ignore_ascii_case("none") {
        return match line.words.is_empty() {
            true => Ok(Health {
                test: vec!["NONE".into()],
                ..Health::default()
            }),
            false => Err(Error::HealthNoneArguments),
        };
    }
    if !kind.eq_ignore_ascii_case("cmd") {
        return Err(Error::HealthUnknown { kind: kind.clone() });
    }
    if line.words.is_empty() {
        return Err(Error::HealthNoCommand);
    }
    let mut test = vec![if line.shell { "CMD-SHELL" } else { "CMD" }.to_owned()];
    test.extend(line.words);
    let mut time = |flag: &'static str| -> Result<i64, Error> {
        let text = flags.text(flag)?;
        if text.is_empty() {
            return Ok(0);
        }
        match duration_ns(&text) {
            Some(0) => Ok(0),
            Some(ns) if ns >= SHORTEST_NS => Ok(ns),
            _ => Err(Error::BadFlagValue {
                flag: format!("--{flag}"),
                value: text,
                expected: "a time like 30s or 1m30s, not less than 1ms".into(),
            }),
        }
    };
    let mut health = Health {
        test,
        interval_ns: time("interval")?,
        timeout_ns: time("timeout")?,
        start_period_ns: time("start-period")?,
        start_interval_ns: time("start-interval")?,
        retries: 0,
    };
    let retries = flags.text("retries")?;
    if !retries.is_empty() {
        health.retries = retries
            .parse::<i32>()
            .ok()
            .filter(|n| *n >= 0)
            .map(i64::from)
            .ok_or(Error::BadFlagValue {
                flag: "--retries".into(),
                value: retries,
                expected: "a whole number, not negative".into(),
            })?;
    }
    Ok(health)
}

/// Go's `time.ParseDuration`: `1h15m30.5s`, `300ms`, `0`.
fn duration_ns(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty() && total < i64::MAX as f64).then_some((sign * total) as i64)
}

#[cfg(test)]
mod tests;
