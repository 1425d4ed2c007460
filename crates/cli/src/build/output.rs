//! Where the result goes: `--output`, `--push`, `--load`, `--tag`, `--annotation`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::Error;
use crate::build::csv;
use crate::build::flags::BuildFlags;
use crate::build::plan::{Environment, bad};

const FLAG: &str = "--output";

/// One exporter and what becomes of what it sends back.
#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    /// `image`, `local`, `tar`, `oci`, `docker`.
    pub kind: String,
    /// Its settings.
    pub attrs: BTreeMap<String, String>,
    /// Where on this machine.
    pub dest: Dest,
}

/// Where on this machine the result goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dest {
    /// Nowhere: it stays with the daemon, or goes to a registry.
    Nowhere,
    /// A file, for archives.
    File(PathBuf),
    /// Standard output, for archives.
    Stdout,
    /// A directory, for trees.
    Dir(PathBuf),
    /// A directory that becomes an OCI layout, for images blob by blob (`tar=false`).
    Layout(PathBuf),
    /// Into `docker load`.
    Docker,
}

/// All exports that are asked for.
pub(crate) fn exports(flags: &BuildFlags, environment: &Environment) -> Result<Vec<Export>, Error> {
    if flags.push && flags.load {
        return Err(Error::Conflict {
            one: "--push",
            other: "--load",
        });
    }
    let mut exports: Vec<Export> = flags
        .output
        .iter()
        .map(|text| parse(text, environment))
        .collect::<Result<_, Error>>()?;
    if flags.push {
        match exports.iter_mut().find(|export| export.kind == "image") {
            Some(export) => {
                export.attrs.insert("push".to_owned(), "true".to_owned());
            }
            None => exports.push(image(true)),
        }
    }
    if flags.load && !exports.iter().any(|export| export.dest == Dest::Docker) {
        exports.push(Export {
            kind: "docker".to_owned(),
            attrs: BTreeMap::new(),
            dest: Dest::Docker,
        });
    }
    let wants_image = !flags.tag.is_empty()
        || flags.quiet
        || flags.iidfile.is_some()
        || flags.metadata_file.is_some();
    if exports.is_empty() && wants_image {
        exports.push(image(false));
    }
    names(flags, &mut exports)?;
    annotations(flags, &mut exports)?;
    if exports
        .iter()
        .filter(|export| export.dest == Dest::Stdout)
        .count()
        > 1
    {
        return Err(bad(FLAG, "-", "only one result can go to standard output"));
    }
    let layouts = exports
        .iter()
        .filter(|export| matches!(export.dest, Dest::Layout(_)));
    if layouts.count() > 1 {
        return Err(bad(
            FLAG,
            "tar=false",
            "only one image can go out blob by blob",
        ));
    }
    Ok(exports)
}

fn image(push: bool) -> Export {
    let mut attrs = BTreeMap::new();
    if push {
        attrs.insert("push".to_owned(), "true".to_owned());
    }
    Export {
        kind: "image".to_owned(),
        attrs,
        dest: Dest::Nowhere,
    }
}

fn parse(text: &str, environment: &Environment) -> Result<Export, Error> {
    let fields = csv::fields(FLAG, text)?;
    // `-o dir` and `-o -`.
    if let [only] = fields.as_slice()
        && !only.starts_with("type=")
    {
        let (kind, dest) = match only.as_str() {
            "" => return Err(bad(FLAG, text, "it is empty")),
            "-" => ("tar", stdout(text, environment)?),
            dir => ("local", Dest::Dir(PathBuf::from(dir))),
        };
        return Ok(Export {
            kind: kind.to_owned(),
            attrs: BTreeMap::new(),
            dest,
        });
    }
    let mut attrs = csv::pairs(FLAG, text)?;
    let kind = attrs
        .remove("type")
        .ok_or_else(|| bad(FLAG, text, "it has no type"))?;
    let dest = attrs.remove("dest");
    let (kind, dest) = match (kind.as_str(), dest) {
        ("registry", None) => {
            attrs.insert("push".to_owned(), "true".to_owned());
            ("image", Dest::Nowhere)
        }
        ("image", None) => ("image", Dest::Nowhere),
        ("image" | "registry", Some(_)) => return Err(bad(FLAG, text, "an image has no dest")),
        ("local", Some(dir)) => ("local", Dest::Dir(PathBuf::from(dir))),
        ("local", None) => return Err(bad(FLAG, text, "type=local needs dest=DIRECTORY")),
        ("docker", None) if !blob_by_blob("docker", &attrs, text)? => ("docker", Dest::Docker),
        ("cacheonly", None) => {
            return Err(bad(
                FLAG,
                text,
                "leave out --output to keep the result in the cache only",
            ));
        }
        (kind @ ("tar" | "oci" | "docker"), dest) => {
            let dest = match dest.as_deref() {
                None | Some("-") if blob_by_blob(kind, &attrs, text)? => {
                    return Err(bad(FLAG, text, "tar=false needs dest=DIRECTORY"));
                }
                None | Some("-") => stdout(text, environment)?,
                Some(path) if blob_by_blob(kind, &attrs, text)? => Dest::Layout(path.into()),
                Some(path) => Dest::File(PathBuf::from(path)),
            };
            (kind, dest)
        }
        (other, _) => {
            let problem =
                format!("type {other:?} is not one of image, registry, local, tar, oci, docker");
            return Err(bad(FLAG, text, &problem));
        }
    };
    Ok(Export {
        kind: kind.to_owned(),
        attrs,
        dest,
    })
}

/// Whether the blobs of an image go into a directory instead of an archive.
fn blob_by_blob(kind: &str, attrs: &BTreeMap<String, String>, text: &str) -> Result<bool, Error> {
    match attrs.get("tar").map(String::as_str) {
        None => Ok(false),
        Some(_) if kind == "tar" => Err(bad(FLAG, text, "tar= is for type=oci and type=docker")),
        Some("true" | "1") => Ok(false),
        Some("false" | "0") => Ok(true),
        Some(_) => Err(bad(FLAG, text, "tar= is true or false")),
    }
}

fn stdout(text: &str, environment: &Environment) -> Result<Dest, Error> {
    if environment.stdout_is_terminal {
        return Err(bad(
            FLAG,
            text,
            "standard output is a terminal; use dest=FILE or a pipe",
        ));
    }
    Ok(Dest::Stdout)
}

/// Gives the tags to every export that has names and none yet.
fn names(flags: &BuildFlags, exports: &mut [Export]) -> Result<(), Error> {
    let mut names = Vec::new();
    for tag in &flags.tag {
        let name: oci::ImageName = match tag.parse() {
            Ok(name) => name,
            Err(error) => return Err(bad("--tag", tag, &format!("{error}"))),
        };
        names.push(name.or_latest().to_string());
    }
    for export in exports.iter_mut() {
        let named = matches!(export.kind.as_str(), "image" | "oci" | "docker");
        if named && !names.is_empty() {
            export
                .attrs
                .entry("name".to_owned())
                .or_insert_with(|| names.join(","));
        }
        let pushes = export.attrs.get("push").map(String::as_str) == Some("true");
        if pushes && !export.attrs.contains_key("name") {
            return Err(bad("--push", "true", "the image has no name; add --tag"));
        }
    }
    Ok(())
}

/// `[type[platform],…:]key=value` becomes `annotation-type[platform].key`.
fn annotations(flags: &BuildFlags, exports: &mut [Export]) -> Result<(), Error> {
    const FLAG: &str = "--annotation";
    for text in &flags.annotation {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| bad(FLAG, text, "it is not like [TYPE:]KEY=VALUE"))?;
        let (types, key) = match key.split_once(':') {
            Some((types, key)) => (types, key),
            None => ("manifest", key),
        };
        for kind in types.split(',') {
            let name = kind.split_once('[').map_or(kind, |(name, _)| name);
            if !matches!(
                name,
                "manifest" | "index" | "manifest-descriptor" | "index-descriptor"
            ) || key.is_empty()
            {
                let problem =
                    "its type is not manifest, index, manifest-descriptor or index-descriptor";
                return Err(bad(FLAG, text, problem));
            }
            for export in exports
                .iter_mut()
                .filter(|e| matches!(e.kind.as_str(), "image" | "oci" | "docker"))
            {
                export
                    .attrs
                    .insert(format!("annotation-{kind}.{key}"), value.to_owned());
            }
        }
    }
    Ok(())
}
