//! `RUN --mount=type=…,…`.

use crate::suggest::{closest, hint};

/// A mount as written: variables in it are expanded where the step runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountText {
    /// The flag's value.
    pub text: String,
    /// Its fields.
    fields: Vec<String>,
    /// Where it comes from: known before everything else, no variables.
    pub from: String,
    /// Its type, if it says so without variables.
    pub kind: MountKind,
}

/// What is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountKind {
    /// Files of a stage, an image or the context.
    #[default]
    Bind,
    /// A directory kept between builds.
    Cache,
    /// A directory in memory.
    Tmpfs,
    /// A file or variable the client holds.
    Secret,
    /// The client's SSH agent.
    Ssh,
}

/// Who may use a cache mount at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Everybody.
    #[default]
    Shared,
    /// Each gets its own.
    Private,
    /// One after the other.
    Locked,
}

/// A mount, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// What it is.
    pub kind: MountKind,
    /// A stage, an image, a context; empty is the build context.
    pub from: String,
    /// Path there; for a secret its id.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// Cannot be written.
    pub readonly: bool,
    /// Id of a cache, a secret or an agent.
    pub id: String,
    /// For caches.
    pub sharing: Sharing,
    /// Without the secret or agent the step fails.
    pub required: bool,
    /// For tmpfs, in bytes; 0 is no limit.
    pub size: i64,
    /// Permissions of a cache, secret or socket.
    pub mode: Option<u32>,
    /// Owner of it.
    pub uid: Option<u32>,
    /// Group of it.
    pub gid: Option<u32>,
    /// The secret becomes this variable.
    pub env: Option<String>,
}

/// Why a mount makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountFault {
    /// Quotes that do not fit.
    #[error("its fields cannot be told apart: a quote is not closed")]
    OpenQuote,
    /// No such type.
    #[error("unsupported mount type {value:?}{}", hint(.suggestion))]
    Kind {
        /// As written.
        value: String,
        /// A type that is close.
        suggestion: Option<String>,
    },
    /// No such key.
    #[error("unexpected key '{key}' in '{field}'{}", hint(.suggestion))]
    Key {
        /// The key.
        key: String,
        /// The field.
        field: String,
        /// A key that is close.
        suggestion: Option<String>,
    },
    /// The key belongs to another type.
    #[error("unexpected key '{key}' for mount type '{kind}'")]
    NotForKind {
        /// The key.
        key: String,
        /// The type.
        kind: &'static str,
    },
    /// A word where a pair should be.
    #[error("invalid field '{0}' must be a key=value pair")]
    NoPair(String),
    /// A value that cannot be.
    #[error("invalid value for {key}: {value}")]
    Value {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// `from=$x`
    #[error("'from' doesn't support variable expansion, define alias stage instead")]
    FromVariable,
    /// Any other rule.
    #[error("{0}")]
    Rule(&'static str),
}

const KINDS: [(&str, MountKind); 5] = [
    ("bind", MountKind::Bind),
    ("cache", MountKind::Cache),
    ("tmpfs", MountKind::Tmpfs),
    ("secret", MountKind::Secret),
    ("ssh", MountKind::Ssh),
];

const KEYS: [&str; 20] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "required",
    "size",
    "id",
    "sharing",
    "mode",
    "uid",
    "gid",
    "env",
    "name",
];

impl MountKind {
    /// As written after `type=`.
    pub fn name(self) -> &'static str {
        KINDS
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("bind", |(name, _)| name)
    }

    fn parse(value: &str) -> Result<MountKind, MountFault> {
        let lower = value.to_lowercase();
        KINDS
            .iter()
            .find(|(name, _)| *name == lower)
            .map(|(_, kind)| *kind)
            .ok_or_else(|| MountFault::Kind {
                value: value.to_owned(),
                suggestion: closest(&lower, KINDS.map(|k| k.0)),
            })
    }
}

impl MountText {
    /// Divides the text and reads what must be known early.
    pub(super) fn parse(text: String) -> Result<MountText, MountFault> {
        let fields = csv(&text)?;
        let mut mount = MountText {
            text,
            fields: Vec::new(),
            from: String::new(),
            kind: MountKind::Bind,
        };
        for field in &fields {
            let (key, value) = field.split_once('=').unwrap_or((field, ""));
            match key.to_lowercase().as_str() {
                "from" if value.contains('$') && !value.ends_with('$') => {
                    return Err(MountFault::FromVariable);
                }
                "from" => mount.from = value.to_owned(),
                "type" if !value.contains('$') => mount.kind = MountKind::parse(value)?,
                _ => {}
            }
        }
        mount.fields = fields;
        Ok(mount)
    }

    /// The mount, with its values passed through `expand`.
    pub(crate) fn resolve<E: From<MountFault>>(
        &self,
        mut expand: impl FnMut(&str) -> Result<String, E>,
    ) -> Result<Mount, E> {
        let mut reader = Reader {
            mount: Mount::default(),
            readonly: None,
        };
        let mut fields: Vec<(String, Option<String>, &str)> = Vec::new();
        for field in &self.fields {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key, Some(expand(value)?)),
                None => (field.as_str(), None),
            };
            fields.push((key.to_lowercase(), value, field));
        }
        // What other keys mean depends on the type, wherever it stands.
        if let Some((_, Some(value), _)) = fields.iter().rfind(|(key, ..)| key == "type") {
            reader.mount.kind = MountKind::parse(value)?;
        }
        for (key, value, field) in fields {
            match value {
                Some(value) => reader.pair(&key, value, field)?,
                None => reader.word(&key, field)?,
            }
        }
        Ok(reader.finish()?)
    }
}

struct Reader {
    mount: Mount,
    readonly: Option<bool>,
}

impl Reader {
    fn word(&mut self, key: &str, field: &str) -> Result<(), MountFault> {
        match key {
            "readonly" | "ro" => self.readonly = Some(true),
            "readwrite" | "rw" => self.readonly = Some(false),
            "required" => self.required(true)?,
            _ => return Err(MountFault::NoPair(field.to_owned())),
        }
        Ok(())
    }

    fn required(&mut self, required: bool) -> Result<(), MountFault> {
        self.only("required", &[MountKind::Secret, MountKind::Ssh])?;
        self.mount.required = required;
        Ok(())
    }

    fn only(&self, key: &str, kinds: &[MountKind]) -> Result<(), MountFault> {
        match kinds.contains(&self.mount.kind) {
            true => Ok(()),
            false => Err(MountFault::NotForKind {
                key: key.into(),
                kind: self.mount.kind.name(),
            }),
        }
    }

    fn pair(&mut self, key: &str, value: String, field: &str) -> Result<(), MountFault> {
        let wrong = |value: &str| MountFault::Value {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        let flag = |value: &str| stdx::text::go_bool(value).ok_or_else(|| wrong(value));
        let number = |base: u32| u32::from_str_radix(&value, base).map_err(|_| wrong(&value));
        match key {
            "type" => {}
            "from" => self.mount.from = value,
            "source" | "src" => self.mount.source = value,
            "target" | "dst" | "destination" => self.mount.target = value,
            "readonly" | "ro" => self.readonly = Some(flag(&value)?),
            "readwrite" | "rw" => self.readonly = Some(!flag(&value)?),
            "required" => self.required(flag(&value)?)?,
            "size" => {
                self.only("size", &[MountKind::Tmpfs])?;
                self.mount.size = ram_in_bytes(&value).ok_or_else(|| wrong(&value))?;
            }
            "id" => self.mount.id = value,
            "sharing" => {
                self.only("sharing", &[MountKind::Cache])?;
                self.mount.sharing = sharing(&value).ok_or_else(|| wrong(&value))?;
            }
            "mode" => self.mount.mode = Some(number(8)?),
            "uid" => self.mount.uid = Some(number(10)?),
            "gid" => self.mount.gid = Some(number(10)?),
            "env" => {
                self.only("env", &[MountKind::Secret])?;
                self.mount.env = Some(value);
            }
            _ => {
                let suggestion = closest(key, KEYS);
                return Err(MountFault::Key {
                    key: key.into(),
                    field: field.into(),
                    suggestion,
                });
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Mount, MountFault> {
        let mount = &mut self.mount;
        let owned = mount.mode.is_some() || mount.uid.is_some() || mount.gid.is_some();
        let (writable, ownable) = match mount.kind {
            MountKind::Bind => (false, false),
            MountKind::Tmpfs => (true, false),
            MountKind::Cache => (true, true),
            MountKind::Secret | MountKind::Ssh => (false, true),
        };
        if owned && !ownable {
            return Err(MountFault::Rule(
                "mode, uid and gid are for secret, ssh and cache mounts",
            ));
        }
        mount.readonly = self.readonly.unwrap_or(!writable);
        if mount.kind == MountKind::Secret {
            if !mount.from.is_empty() {
                return Err(MountFault::Rule("secret mount should not have a from"));
            }
            if !mount.source.is_empty() && !mount.id.is_empty() {
                return Err(MountFault::Rule("both source and id can't be set"));
            }
            if mount.source.is_empty() && mount.target.is_empty() && mount.id.is_empty() {
                return Err(MountFault::Rule(
                    "invalid secret mount. one of source, target required",
                ));
            }
        }
        let needs_target = matches!(
            mount.kind,
            MountKind::Bind | MountKind::Cache | MountKind::Tmpfs
        );
        if needs_target && mount.target.is_empty() {
            return Err(MountFault::Rule("target is required"));
        }
        Ok(self.mount)
    }
}

fn sharing(value: &str) -> Option<Sharing> {
    match value.to_lowercase().as_str() {
        "shared" => Some(Sharing::Shared),
        "private" => Some(Sharing::Private),
        "locked" => Some(Sharing::Locked),
        _ => None,
    }
}

/// `64m`, `1.5GiB`: sizes of memory, in powers of 1024.
fn ram_in_bytes(text: &str) -> Option<i64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim_start().to_lowercase();
    let unit = unit
        .strip_suffix("ib")
        .or(unit.strip_suffix('b'))
        .unwrap_or(&unit);
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    Some((number * 1024f64.powi(power)) as i64)
}

/// Fields divided by commas; a quoted field may hold commas and doubled quotes.
fn csv(text: &str) -> Result<Vec<String>, MountFault> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    if quoted {
        return Err(MountFault::OpenQuote);
    }
    fields.push(field);
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Mount, MountFault> {
        MountText::parse(text.into())?.resolve(|value| Ok(value.replace("$X", "x")))
    }

    /// Rows: F23
    #[test]
    fn defaults_depend_on_the_type() {
        assert!(read("target=/a").unwrap().readonly);
        assert!(!read("type=cache,target=/a").unwrap().readonly);
        assert!(!read("type=tmpfs,target=/a,size=1m").unwrap().readonly);
        assert_eq!(read("size=1.5GiB,type=tmpfs,dst=/a").unwrap().size, 3 << 29);
        let secret = read("type=secret,id=$X,required,mode=0444,env=TOK").unwrap();
        assert_eq!(
            (secret.id.as_str(), secret.required, secret.mode),
            ("x", true, Some(0o444))
        );
        assert!(!read("target=/a,rw").unwrap().readonly);
    }

    /// Rows: F16, F23
    #[test]
    fn what_makes_no_sense_is_said() {
        let say = |text| read(text).unwrap_err().to_string();
        assert_eq!(
            say("type=bnd,target=/a"),
            "unsupported mount type \"bnd\" (did you mean bind?)"
        );
        assert_eq!(
            say("targt=/a"),
            "unexpected key 'targt' in 'targt=/a' (did you mean target?)"
        );
        assert_eq!(
            say("target=/a,size=1"),
            "unexpected key 'size' for mount type 'bind'"
        );
        assert_eq!(
            say("target=/a,from=$Y"),
            "'from' doesn't support variable expansion, define alias stage instead"
        );
        assert_eq!(
            say("type=secret"),
            "invalid secret mount. one of source, target required"
        );
        assert_eq!(
            say("type=tmpfs,target=/a,uid=1"),
            "mode, uid and gid are for secret, ssh and cache mounts"
        );
        assert_eq!(
            say("target=/a,mood"),
            "invalid field 'mood' must be a key=value pair"
        );
        assert_eq!(
            say("type=cache,target=/a,mode=9"),
            "invalid value for mode: 9"
        );
        assert_eq!(read("target=/a,\"source=a,b\"").unwrap().source, "a,b");
    }
}
