//! What a single op may say (features L19): numbers lead somewhere, and what has to
//! be there is there.

use crate::op::exec::{ContentCache, Exec, MountKind};
use crate::op::file::{Action, ActionKind, Chown, File, User};
use crate::{Error, Op, OpKind, Result};

/// More mounts, actions or inputs than this nobody needs in one op.
const MANY: usize = 65_536;

/// Checks an op by itself.
pub(crate) fn check(op: &Op) -> Result<()> {
    let inputs = op.inputs.len();
    at_most("inputs of one op", inputs)?;
    match &op.kind {
        OpKind::Exec(exec) => check_exec(exec, inputs),
        OpKind::File(file) => check_file(file, inputs),
        OpKind::Source(source) if source.identifier.is_empty() => {
            Err(Error::op("source", "no identifier"))
        }
        OpKind::Source(_) if inputs > 0 => Err(Error::op("source", "a source has no inputs")),
        OpKind::Source(_) => Ok(()),
        OpKind::Merge(merge) if merge.inputs.is_empty() => Err(Error::op("merge", "no inputs")),
        OpKind::Merge(merge) => merge
            .inputs
            .iter()
            .try_for_each(|n| input("merge", *n, inputs)),
        OpKind::Diff(diff) => {
            input("diff", diff.lower, inputs)?;
            input("diff", diff.upper, inputs)
        }
        OpKind::Passthrough(p) if p.outputs.is_empty() => {
            Err(Error::op("passthrough", "no outputs"))
        }
        OpKind::Passthrough(p) => p
            .outputs
            .iter()
            .try_for_each(|n| input("passthrough", *n, inputs)),
        OpKind::Build(build) => {
            let numbers = build.inputs.values().copied().chain([build.builder]);
            for number in numbers {
                if number < -1 || number >= inputs as i64 {
                    return Err(Error::op("build", format!("input {number} of {inputs}")));
                }
            }
            Ok(())
        }
    }
}

fn check_exec(exec: &Exec, inputs: usize) -> Result<()> {
    at_most("mounts of one op", exec.mounts.len())?;
    if exec.args.is_empty() {
        return Err(Error::op("exec", "no args"));
    }
    if !exec.cwd.starts_with('/') {
        return Err(Error::op(
            "exec",
            format!("working directory {:?} is not absolute", exec.cwd),
        ));
    }
    if !exec
        .mounts
        .iter()
        .any(|m| m.target == "/" && m.kind == MountKind::Bind)
    {
        return Err(Error::op("exec", "no root mount"));
    }
    let mut outputs = vec![false; exec.mounts.len()];
    for mount in &exec.mounts {
        input("exec", mount.input, inputs)?;
        if mount.target.is_empty() {
            return Err(Error::op("exec", "a mount without a target"));
        }
        if mount.content_cache == ContentCache::On && !mount.readonly && mount.becomes().is_some() {
            return Err(Error::op(
                "exec",
                format!("content cache on writable mount {}", mount.target),
            ));
        }
        let Some(number) = mount.becomes() else {
            continue;
        };
        match outputs.get_mut(number as usize) {
            Some(taken) if !*taken => *taken = true,
            Some(_) => return Err(Error::op("exec", format!("output {number} is made twice"))),
            None => return Err(Error::op("exec", format!("output {number} leaves a gap"))),
        }
    }
    no_gap("exec", &outputs)
}

fn check_file(file: &File, inputs: usize) -> Result<()> {
    at_most("actions of one op", file.actions.len())?;
    if file.actions.is_empty() {
        return Err(Error::op("file", "no actions"));
    }
    let mut outputs = vec![false; file.actions.len()];
    for (at, action) in file.actions.iter().enumerate() {
        // Only inputs, and what earlier actions made.
        let known = inputs + at;
        input("file", action.input, known)?;
        input("file", action.secondary, known)?;
        check_owner(action, known)?;
        let Some(number) = action.output else {
            continue;
        };
        match outputs.get_mut(number as usize) {
            Some(taken) if !*taken => *taken = true,
            Some(_) => return Err(Error::op("file", format!("output {number} is made twice"))),
            None => return Err(Error::op("file", format!("output {number} leaves a gap"))),
        }
    }
    if !outputs.contains(&true) {
        return Err(Error::op("file", "no action becomes an output"));
    }
    no_gap("file", &outputs)
}

fn check_owner(action: &Action, known: usize) -> Result<()> {
    let owner: Option<&Chown> = match &action.kind {
        ActionKind::Copy(c) => c.owner.as_ref(),
        ActionKind::Mkfile(m) => m.owner.as_ref(),
        ActionKind::Mkdir(m) => m.owner.as_ref(),
        ActionKind::Symlink(s) => s.owner.as_ref(),
        ActionKind::Rm(_) => None,
    };
    let Some(owner) = owner else { return Ok(()) };
    for user in [&owner.user, &owner.group].into_iter().flatten() {
        if let User::Name { input, .. } = user
            && *input >= known as i64
        {
            return Err(Error::op(
                "file",
                format!("owner from input {input} of {known}"),
            ));
        }
    }
    Ok(())
}

fn input(kind: &'static str, number: Option<u32>, count: usize) -> Result<()> {
    match number {
        Some(n) if n as usize >= count => Err(Error::op(kind, format!("input {n} of {count}"))),
        _ => Ok(()),
    }
}

fn no_gap(kind: &'static str, outputs: &[bool]) -> Result<()> {
    let made = outputs.iter().filter(|made| **made).count();
    match outputs[..made].iter().all(|made| *made) {
        true => Ok(()),
        false => Err(Error::op(kind, "output numbers leave a gap")),
    }
}

fn at_most(what: &'static str, count: usize) -> Result<()> {
    match count > MANY {
        true => Err(Error::TooLarge { what, limit: MANY }),
        false => Ok(()),
    }
}
