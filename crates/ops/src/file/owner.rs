//! Owners by number, or by a name that files of a tree explain (row L11).

use std::io::{self, Read};

use llb::{Action, ActionKind, Chown, User};
use stdx::sys::Root;

use super::describe::failed;
use crate::{Error, Result};

const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";
/// No file of users is longer.
const MAX_FILE: u64 = 10 << 20;

/// User and group.
pub(super) type Owner = (u32, u32);

fn of(action: &Action) -> Option<&Chown> {
    match &action.kind {
        ActionKind::Copy(copy) => copy.owner.as_ref(),
        ActionKind::Mkfile(mkfile) => mkfile.owner.as_ref(),
        ActionKind::Mkdir(mkdir) => mkdir.owner.as_ref(),
        ActionKind::Symlink(link) => link.owner.as_ref(),
        ActionKind::Rm(_) => None,
    }
}

/// The files that explain an action's owner, and the number of the tree they are in.
pub(super) fn files(action: &Action) -> impl Iterator<Item = (i64, &'static str)> + '_ {
    let owner = of(action);
    let user = owner.and_then(|owner| owner.user.as_ref());
    let group = owner.and_then(|owner| owner.group.as_ref());
    let named = [(user, USERS), (group, GROUPS)];
    named.into_iter().filter_map(|(user, file)| match user {
        Some(User::Name { input, .. }) => Some((*input, file)),
        _ => None,
    })
}

/// The numbers of the trees that explain an action's owner.
pub(super) fn trees(action: &Action) -> impl Iterator<Item = u64> + '_ {
    files(action).filter_map(|(number, _)| u64::try_from(number).ok())
}

/// The owner an action gives to what it makes. `with` opens a tree by its number.
pub(super) fn resolve<T: AsRef<Root>>(
    action: &Action,
    mut with: impl FnMut(u64) -> Result<T>,
) -> Result<Option<Owner>> {
    let Some(chown) = of(action) else {
        return Ok(None);
    };
    let mut tree = |input: i64| {
        with(
            u64::try_from(input)
                .map_err(|_| Error::Invalid(format!("invalid user index {input}")))?,
        )
    };
    let (mut uid, mut gid) = (0, 0);
    match &chown.user {
        None => {}
        Some(User::Id(id)) => (uid, gid) = (*id, *id),
        Some(User::Name { name, input }) => {
            let line = find(tree(*input)?.as_ref(), "user", name, USERS, 4)?;
            (uid, gid) = (line[0], line[1]);
        }
    }
    match &chown.group {
        None => {}
        Some(User::Id(id)) => gid = *id,
        Some(User::Name { name, input }) => {
            gid = find(tree(*input)?.as_ref(), "group", name, GROUPS, 3)?[0];
        }
    }
    Ok(Some((uid, gid)))
}

/// The numbers on the line of a name: those from the third field to before `fields`.
fn find(
    root: &Root,
    what: &'static str,
    name: &str,
    file: &'static str,
    fields: usize,
) -> Result<Vec<u32>> {
    let missing = || Error::NoUser {
        what,
        name: name.to_owned(),
        file,
    };
    let opened = match root.open_file(file) {
        Ok(opened) => opened,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Err(missing());
        }
        Err(error) => return Err(failed("reading", file)(error)),
    };
    let mut text = Vec::new();
    opened
        .take(MAX_FILE + 1)
        .read_to_end(&mut text)
        .map_err(failed("reading", file))?;
    if text.len() as u64 > MAX_FILE {
        return Err(Error::Invalid(format!("{file} is larger than 10 MiB")));
    }
    let text = String::from_utf8_lossy(&text);
    let numbers = |line: &str| -> Option<Vec<u32>> {
        let parts: Vec<&str> = line.trim().split(':').collect();
        let fits = parts.first() == Some(&name) && parts.len() >= fields;
        let numbers = || {
            parts[2..fields]
                .iter()
                .map(|part| part.parse().ok())
                .collect()
        };
        if fits { numbers() } else { None }
    };
    text.lines().find_map(numbers).ok_or_else(missing)
}
