//! The file op on the wire.

use proto::pb;

use super::{from_number, number};
use crate::op::file::{Action, ActionKind, Chown, Copy, Mkdir, Mkfile, Mode, Rm, Symlink, User};
use crate::{Error, Result};

pub(super) fn action_to(action: &Action) -> pb::FileAction {
    use pb::file_action::Action as Wire;
    let change = match &action.kind {
        ActionKind::Copy(c) => Wire::Copy(pb::FileActionCopy {
            src: c.src.clone(),
            dest: c.dest.clone(),
            owner: c.owner.as_ref().map(chown_to),
            mode: c.mode.number(),
            follow_symlink: c.follow_symlink,
            dir_copy_contents: c.dir_copy_contents,
            attempt_unpack_docker_compatibility: c.attempt_unpack,
            create_dest_path: c.create_dest_path,
            allow_wildcard: c.allow_wildcard,
            allow_empty_wildcard: c.allow_empty_wildcard,
            timestamp: c.timestamp.unwrap_or(-1),
            include_patterns: c.include.clone(),
            exclude_patterns: c.exclude.clone(),
            always_replace_existing_dest_paths: c.always_replace,
            mode_str: c.mode.text().to_owned(),
            required_paths: c.required_paths.clone(),
        }),
        ActionKind::Mkfile(m) => Wire::Mkfile(pb::FileActionMkFile {
            path: m.path.clone(),
            mode: m.mode,
            data: m.data.clone(),
            owner: m.owner.as_ref().map(chown_to),
            timestamp: m.timestamp.unwrap_or(-1),
        }),
        ActionKind::Mkdir(m) => Wire::Mkdir(pb::FileActionMkDir {
            path: m.path.clone(),
            mode: m.mode,
            make_parents: m.make_parents,
            owner: m.owner.as_ref().map(chown_to),
            timestamp: m.timestamp.unwrap_or(-1),
        }),
        ActionKind::Rm(r) => Wire::Rm(pb::FileActionRm {
            path: r.path.clone(),
            allow_not_found: r.allow_not_found,
            allow_wildcard: r.allow_wildcard,
        }),
        ActionKind::Symlink(s) => Wire::Symlink(pb::FileActionSymlink {
            oldpath: s.target.clone(),
            newpath: s.path.clone(),
            owner: s.owner.as_ref().map(chown_to),
            timestamp: s.timestamp.unwrap_or(-1),
        }),
    };
    pb::FileAction {
        input: number(action.input),
        secondary_input: number(action.secondary),
        output: number(action.output),
        action: Some(change),
    }
}

pub(super) fn action_from(action: pb::FileAction) -> Result<Action> {
    use pb::file_action::Action as Wire;
    let kind = match action
        .action
        .ok_or_else(|| Error::op("file", "action without a change"))?
    {
        Wire::Copy(c) => ActionKind::Copy(Copy {
            src: c.src,
            dest: c.dest,
            owner: c.owner.map(chown_from),
            mode: if !c.mode_str.is_empty() {
                Mode::Symbolic(c.mode_str)
            } else {
                u32::try_from(c.mode).map_or(Mode::Keep, Mode::Bits)
            },
            follow_symlink: c.follow_symlink,
            dir_copy_contents: c.dir_copy_contents,
            attempt_unpack: c.attempt_unpack_docker_compatibility,
            create_dest_path: c.create_dest_path,
            allow_wildcard: c.allow_wildcard,
            allow_empty_wildcard: c.allow_empty_wildcard,
            timestamp: timestamp(c.timestamp),
            include: c.include_patterns,
            exclude: c.exclude_patterns,
            always_replace: c.always_replace_existing_dest_paths,
            required_paths: c.required_paths,
        }),
        Wire::Mkfile(m) => ActionKind::Mkfile(Mkfile {
            path: m.path,
            mode: m.mode,
            data: m.data,
            owner: m.owner.map(chown_from),
            timestamp: timestamp(m.timestamp),
        }),
        Wire::Mkdir(m) => ActionKind::Mkdir(Mkdir {
            path: m.path,
            mode: m.mode,
            make_parents: m.make_parents,
            owner: m.owner.map(chown_from),
            timestamp: timestamp(m.timestamp),
        }),
        Wire::Rm(r) => ActionKind::Rm(Rm {
            path: r.path,
            allow_not_found: r.allow_not_found,
            allow_wildcard: r.allow_wildcard,
        }),
        Wire::Symlink(s) => ActionKind::Symlink(Symlink {
            target: s.oldpath,
            path: s.newpath,
            owner: s.owner.map(chown_from),
            timestamp: timestamp(s.timestamp),
        }),
    };
    Ok(Action {
        input: from_number("file", action.input)?,
        secondary: from_number("file", action.secondary_input)?,
        output: from_number("file", action.output)?,
        kind,
    })
}

impl Mode {
    /// The mode as a number on the wire.
    pub(crate) fn number(&self) -> i32 {
        match self {
            Mode::Keep => -1,
            Mode::Bits(bits) => i32::try_from(*bits).unwrap_or(-1),
            Mode::Symbolic(_) => 0,
        }
    }

    /// The mode as text on the wire.
    pub(crate) fn text(&self) -> &str {
        match self {
            Mode::Symbolic(text) => text,
            _ => "",
        }
    }
}

fn timestamp(nanoseconds: i64) -> Option<i64> {
    (nanoseconds != -1).then_some(nanoseconds)
}

fn chown_to(chown: &Chown) -> pb::ChownOpt {
    pb::ChownOpt {
        user: chown.user.as_ref().map(user_to),
        group: chown.group.as_ref().map(user_to),
    }
}

fn user_to(user: &User) -> pb::UserOpt {
    use pb::user_opt::User as Wire;
    pb::UserOpt {
        user: Some(match user {
            User::Id(id) => Wire::ById(*id),
            User::Name { name, input } => Wire::ByName(pb::NamedUserOpt {
                name: name.clone(),
                input: *input,
            }),
        }),
    }
}

fn chown_from(chown: pb::ChownOpt) -> Chown {
    Chown {
        user: chown.user.and_then(user_from),
        group: chown.group.and_then(user_from),
    }
}

fn user_from(user: pb::UserOpt) -> Option<User> {
    use pb::user_opt::User as Wire;
    user.user.map(|user| match user {
        Wire::ById(id) => User::Id(id),
        Wire::ByName(n) => User::Name {
            name: n.name,
            input: n.input,
        },
    })
}
