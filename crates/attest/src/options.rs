//! What a client asks for: `attest:provenance=mode=min,inline-only=true`.

use std::collections::BTreeMap;

use crate::{Error, Result};

/// How much is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// What went in, without build arguments, secrets and steps.
    Min,
    /// Everything.
    #[default]
    Max,
}

/// A version of SLSA provenance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// v0.2
    V02,
    /// v1
    #[default]
    V1,
}

impl Version {
    /// The predicate type of statements of this version.
    pub fn predicate_type(self) -> &'static str {
        match self {
            Version::V02 => "https://slsa.dev/provenance/v0.2",
            Version::V1 => "https://slsa.dev/provenance/v1",
        }
    }
}

/// The settings of provenance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How much is told.
    pub mode: Mode,
    /// In which words.
    pub version: Version,
    /// Who says that it was the builder.
    pub builder_id: String,
    /// The file's name in tar and local exports.
    pub filename: String,
    /// The result is the same every time, says the client.
    pub reproducible: bool,
    /// Only for exporters that keep it in the image.
    pub inline_only: bool,
    /// Fail rather than leave anything out.
    pub complete_materials: bool,
    /// What steps use of the machine is told.
    pub capture_usage: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            mode: Mode::default(),
            version: Version::default(),
            builder_id: String::new(),
            filename: "provenance.json".to_owned(),
            reproducible: false,
            inline_only: false,
            complete_materials: false,
            capture_usage: false,
        }
    }
}

impl Options {
    /// Reads the settings.
    pub fn parse(attrs: &BTreeMap<String, String>) -> Result<Options> {
        let mut options = Options::default();
        for (key, value) in attrs {
            let wrong = |reason| wrong("provenance", key, value, reason);
            let truth =
                || stdx::text::go_bool(value).ok_or_else(|| wrong("neither true nor false"));
            match key.as_str() {
                "mode" => {
                    options.mode = match value.as_str() {
                        "min" => Mode::Min,
                        "max" | "full" => Mode::Max,
                        _ => return Err(wrong("invalid mode: there are min and max")),
                    }
                }
                "version" => {
                    options.version = match value.as_str() {
                        "v1" => Version::V1,
                        "v0.2" => Version::V02,
                        _ => {
                            let reason = "invalid provenance SLSA version: there are v0.2 and v1";
                            return Err(wrong(reason));
                        }
                    }
                }
                "builder-id" => options.builder_id.clone_from(value),
                "filename" => {
                    let name = value.rsplit('/').next().unwrap_or_default();
                    if matches!(name, "" | "." | "..") || name.contains('\0') {
                        return Err(wrong("not the name of a file"));
                    }
                    options.filename = name.to_owned();
                }
                "reproducible" => options.reproducible = truth()?,
                "inline-only" => options.inline_only = truth()?,
                "complete-materials" => options.complete_materials = truth()?,
                "capture-usage" => options.capture_usage = truth()?,
                // buildx repeats what it asks for.
                "type" if value == "provenance" => {}
                _ => return Err(wrong("no such setting")),
            }
        }
        Ok(options)
    }
}

fn wrong(kind: &str, key: &str, value: &str, reason: &'static str) -> Error {
    Error::Value {
        kind: kind.to_owned(),
        key: key.to_owned(),
        value: value.to_owned(),
        reason,
    }
}

/// Finds the statements asked for among the frontend's options, which `each` gives one by
/// one: by kind (`provenance`, `sbom`), with their settings. Those that are disabled are
/// left out.
pub fn requests(
    each: impl FnOnce(&mut dyn FnMut(&str, &str)),
) -> Result<BTreeMap<String, BTreeMap<String, String>>> {
    let mut found = BTreeMap::new();
    each(&mut |name, value| {
        let attest = name.strip_prefix("attest:");
        let kind = attest.or_else(|| name.strip_prefix("build-arg:BUILDKIT_ATTEST_"));
        if let Some(kind) = kind {
            found.insert(kind.to_lowercase(), value.to_owned());
        }
    });
    let mut requests = BTreeMap::new();
    for (kind, text) in found {
        let list = fields(&text).map_err(|reason| Error::List {
            kind: kind.clone(),
            text: text.clone(),
            reason,
        })?;
        let pairs = list.iter().map(|field| {
            let (key, value) = field.split_once('=').unwrap_or((field, ""));
            (key.to_owned(), value.to_owned())
        });
        let mut attrs: BTreeMap<String, String> = pairs.collect();
        match attrs.remove("disabled") {
            None => {}
            Some(value) => match stdx::text::go_bool(&value) {
                Some(true) => continue,
                Some(false) => {}
                None => return Err(wrong(&kind, "disabled", &value, "neither true nor false")),
            },
        }
        requests.insert(kind, attrs);
    }
    Ok(requests)
}

/// The fields of one line of comma-separated values; quotes may enclose a field.
fn fields(line: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, after) = match rest.split_once(',') {
                Some((field, after)) => (field, Some(after)),
                None => (rest, None),
            };
            if field.contains('"') {
                return Err("a quote inside of a field without quotes");
            }
            fields.push(field.to_owned());
            match after {
                Some(after) => rest = after,
                None => break,
            }
            continue;
        };
        let mut field = String::new();
        let mut text = quoted;
        loop {
            let (part, after) = text.split_once('"').ok_or("a quote is not closed")?;
            field.push_str(part);
            match after.strip_prefix('"') {
                Some(more) => {
                    field.push('"');
                    text = more;
                }
                None => {
                    text = after;
                    break;
                }
            }
        }
        fields.push(field);
        match text.strip_prefix(',') {
            Some(after) => rest = after,
            None if text.is_empty() => break,
            None => return Err("text after a closing quote"),
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pairs: &[(&str, &str)]) -> Result<BTreeMap<String, BTreeMap<String, String>>> {
        requests(|visit| pairs.iter().for_each(|(key, value)| visit(key, value)))
    }

    fn provenance(value: &str) -> Result<Options> {
        Options::parse(&asked(&[("attest:provenance", value)])?["provenance"])
    }

    /// Rows: P02
    #[test]
    fn what_buildx_sends_is_understood() {
        let buildx = provenance("type=provenance,mode=min,inline-only=true").unwrap();
        assert_eq!((buildx.mode, buildx.version), (Mode::Min, Version::V1));
        assert!(buildx.inline_only && !buildx.reproducible);
        assert_eq!(provenance("").unwrap(), Options::default());
        let text = "\"builder-id=https://b.example/?a=1,2\",filename=a/b.json,mode=full,version=v0.2,reproducible=1";
        let all = provenance(text).unwrap();
        assert_eq!(all.builder_id, "https://b.example/?a=1,2");
        assert_eq!(all.filename, "b.json");
        assert!(provenance("capture-usage=true").unwrap().capture_usage);
        assert!(!all.capture_usage);
        assert!(all.version == Version::V02 && all.reproducible && all.mode == Mode::Max);
        let old = asked(&[
            ("build-arg:BUILDKIT_ATTEST_PROVENANCE", "mode=min"),
            ("target", "a"),
        ]);
        assert_eq!(old.unwrap()["provenance"]["mode"], "min");
    }

    /// Rows: P02
    #[test]
    fn what_is_disabled_is_not_asked_for() {
        let off = |value| asked(&[("attest:provenance", value)]).map(|all| all.is_empty());
        assert_eq!(off("disabled=true"), Ok(true));
        assert_eq!(off("mode=max,disabled=1"), Ok(true));
        assert_eq!(off("disabled=false"), Ok(false));
        assert!(off("disabled=perhaps").is_err());
        assert!(asked(&[("filename", "Dockerfile")]).unwrap().is_empty());
    }

    /// Rows: P02
    #[test]
    fn nonsense_is_refused_with_its_reason() {
        for (value, expected) in [
            ("mode=most", "invalid mode"),
            ("version=v3", "invalid provenance SLSA version"),
            ("reproducible=maybe", "neither true nor false"),
            ("filename=..", "not the name of a file"),
            ("filename=a/", "not the name of a file"),
            ("colour=red", "no such setting"),
            ("capture-usage=perhaps", "neither true nor false"),
            ("a\"b", "a quote inside"),
            ("\"mode=min", "not closed"),
            ("\"mode=min\"x", "after a closing quote"),
        ] {
            let error = provenance(value).expect_err(value).to_string();
            assert!(error.contains(expected), "{value}: {error}");
        }
    }
}
