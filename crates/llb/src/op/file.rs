//! The file op: changes to trees, each an action on the tree before it.

use bytes::Bytes;

/// Changes to trees without running anything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct File {
    /// In order.
    pub actions: Vec<Action>,
}

/// One change. Numbers below the op's input count are inputs, the others are
/// earlier actions (`inputs + n`). `None` is the empty tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// The tree that is changed.
    pub input: Option<u32>,
    /// The tree that is copied from.
    pub secondary: Option<u32>,
    /// Which output the changed tree becomes.
    pub output: Option<u32>,
    /// The change.
    pub kind: ActionKind,
}

/// The kinds of change.
#[derive(Clone, Debug, PartialEq)]
pub enum ActionKind {
    /// Copy from the secondary tree.
    Copy(Copy),
    /// Write a file.
    Mkfile(Mkfile),
    /// Make a directory.
    Mkdir(Mkdir),
    /// Remove.
    Rm(Rm),
    /// Make a symlink.
    Symlink(Symlink),
}

/// An owner that overrides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chown {
    /// The user.
    pub user: Option<User>,
    /// The group.
    pub group: Option<User>,
}

/// A user or group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// By number.
    Id(u32),
    /// By name in `/etc/passwd` or `/etc/group` of a tree.
    Name {
        /// The name.
        name: String,
        /// Which tree, counted like [`Action::input`]; negative is the empty tree.
        input: i64,
    },
}

/// Permission bits of what is copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// As they are.
    #[default]
    Keep,
    /// These.
    Bits(u32),
    /// As chmod writes it: `u+x,go-w`.
    Symbolic(String),
}

/// Copy files from one tree into another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copy {
    /// In the secondary tree.
    pub src: String,
    /// In the tree that is changed.
    pub dest: String,
    /// Owner of what is made.
    pub owner: Option<Chown>,
    /// Mode of what is made.
    pub mode: Mode,
    /// `src` itself may be a symlink, and what it leads to is copied.
    pub follow_symlink: bool,
    /// Of a directory, copy what is in it.
    pub dir_copy_contents: bool,
    /// Unpack archives as `ADD` does.
    pub attempt_unpack: bool,
    /// Make the directories above `dest`.
    pub create_dest_path: bool,
    /// `src` is a pattern.
    pub allow_wildcard: bool,
    /// A pattern that matches nothing is fine.
    pub allow_empty_wildcard: bool,
    /// Modification time in nanoseconds; `None` keeps each file's own.
    pub timestamp: Option<i64>,
    /// Only these.
    pub include: Vec<String>,
    /// Not these.
    pub exclude: Vec<String>,
    /// Put a file where a directory was, and the other way round.
    pub always_replace: bool,
    /// Each of these must match something.
    pub required_paths: Vec<String>,
}

impl Copy {
    /// A copy with nothing else said.
    pub fn new(src: impl Into<String>, dest: impl Into<String>) -> Copy {
        Copy {
            src: src.into(),
            dest: dest.into(),
            ..Copy::default()
        }
    }
}

/// Write a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mkfile {
    /// Where.
    pub path: String,
    /// Permission bits; -1 is 0644.
    pub mode: i32,
    /// What is in it.
    pub data: Bytes,
    /// Owner.
    pub owner: Option<Chown>,
    /// Modification time in nanoseconds; `None` is now.
    pub timestamp: Option<i64>,
}

/// Make a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mkdir {
    /// Where.
    pub path: String,
    /// Permission bits; -1 is 0755.
    pub mode: i32,
    /// The directories above too.
    pub make_parents: bool,
    /// Owner.
    pub owner: Option<Chown>,
    /// Modification time in nanoseconds; `None` is now.
    pub timestamp: Option<i64>,
}

/// Remove a file or a directory with all in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rm {
    /// What.
    pub path: String,
    /// Fine when it is not there.
    pub allow_not_found: bool,
    /// `path` is a pattern.
    pub allow_wildcard: bool,
}

/// Make a symlink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symlink {
    /// What it leads to.
    pub target: String,
    /// Where it is.
    pub path: String,
    /// Owner.
    pub owner: Option<Chown>,
    /// Modification time in nanoseconds; `None` is now.
    pub timestamp: Option<i64>,
}
