//! What the daemon may have of this machine while a build runs: the directories,
//! secrets and places the plan names, and nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use registry::docker_config::DockerConfig;
use session::Attachables;
use session::local::{Dirs, SecretSource, SecretValues, SshSockets, Stores, Target, Targets};
use tempfile::TempDir;
use tokio::io::AsyncRead;

use crate::Error;
use crate::build::auth::DockerLogins;
use crate::build::docker_load;
use crate::build::layout::Layout;
use crate::build::output::Dest;
use crate::build::plan::{Environment, Plan, Secret, Stdin};
use crate::build::stdin::{self, Input};

/// What is offered, and what has to live as long.
pub(crate) struct Attached {
    pub(crate) offers: Attachables,
    _temporary: Vec<TempDir>,
}

/// Where standard input is read from.
pub(crate) type Reader = std::pin::Pin<Box<dyn AsyncRead + Send>>;

/// Makes the offers, and completes the plan's options with what standard input is.
pub(crate) async fn attach(
    plan: &mut Plan,
    environment: &Environment,
    input: Reader,
) -> Result<Attached, Error> {
    let mut temporary = Vec::new();
    let mut offers = Attachables::new();
    match plan.stdin {
        Stdin::Unused => {}
        Stdin::Dockerfile => {
            let text = stdin::dockerfile(input).await?;
            temporary.push(lone_dockerfile(plan, &text)?);
        }
        Stdin::Context => match stdin::look(input).await? {
            Input::Archive(upload) => {
                plan.options.insert("context".to_owned(), upload.url());
                offers.upload = Some(Arc::new(upload));
            }
            Input::Dockerfile(text) => {
                temporary.push(lone_dockerfile(plan, &text)?);
                let empty = temporary_dir()?;
                plan.local_dirs
                    .insert("context".to_owned(), empty.path().to_owned());
                temporary.push(empty);
            }
        },
    }
    check_dirs(plan)?;
    let dirs = plan
        .local_dirs
        .iter()
        .fold(Dirs::new(), |dirs, (name, path)| dirs.with(name, path));
    offers = offers.with_dirs(dirs);
    offers.secrets = Some(Arc::new(secrets(plan, environment)?));
    offers.ssh = Some(Arc::new(agents(plan)?));
    offers.auth = Some(Arc::new(DockerLogins(logins(environment)?)));
    offers.content = Some(Arc::new(stores(plan)?));
    offers = offers.with_targets(targets(plan)?);
    Ok(Attached {
        offers,
        _temporary: temporary,
    })
}

fn temporary_dir() -> Result<TempDir, Error> {
    tempfile::Builder::new()
        .prefix("kiln-")
        .tempdir()
        .map_err(|source| Error::File {
            doing: "making a directory in",
            path: std::env::temp_dir(),
            source,
        })
}

fn lone_dockerfile(plan: &mut Plan, text: &Bytes) -> Result<TempDir, Error> {
    let dir = temporary_dir()?;
    let path = dir.path().join("Dockerfile");
    std::fs::write(&path, text).map_err(|source| Error::File {
        doing: "writing",
        path,
        source,
    })?;
    plan.local_dirs
        .insert("dockerfile".to_owned(), dir.path().to_owned());
    plan.options
        .insert("filename".to_owned(), "Dockerfile".to_owned());
    Ok(dir)
}

/// A mistyped path is told here, before anything is started.
fn check_dirs(plan: &Plan) -> Result<(), Error> {
    for (name, path) in &plan.local_dirs {
        if !path.is_dir() {
            return Err(if name == "dockerfile" {
                Error::NoDockerfile(path.clone())
            } else {
                Error::NoContext(path.clone())
            });
        }
    }
    if let (Some(dir), Some(name)) = (
        plan.local_dirs.get("dockerfile"),
        plan.options.get("filename"),
    ) {
        let lower = name == "Dockerfile" && dir.join("dockerfile").exists();
        if !lower && !dir.join(name).exists() {
            return Err(Error::NoDockerfile(dir.join(name)));
        }
    }
    Ok(())
}

fn secrets(plan: &Plan, environment: &Environment) -> Result<SecretValues, Error> {
    let mut values = SecretValues::new();
    for (id, secret) in &plan.secrets {
        let source = match secret {
            Secret::File(path) => {
                readable("--secret", path)?;
                SecretSource::File(path.clone())
            }
            Secret::Env(name) => match environment.variables.get(name) {
                Some(value) => SecretSource::Value(Bytes::copy_from_slice(value.as_bytes())),
                None => {
                    return Err(Error::BadFlag {
                        flag: "--secret",
                        value: format!("id={id},env={name}"),
                        problem: format!("the variable {name} is not set"),
                    });
                }
            },
        };
        values = values.with(id, source);
    }
    Ok(values)
}

fn readable(flag: &'static str, path: &Path) -> Result<(), Error> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::BadFlag {
            flag,
            value: path.display().to_string(),
            problem: format!("cannot read it: {error}"),
        }),
    }
}

/// Sockets of agents. Keys in files would need an agent of our own.
fn agents(plan: &Plan) -> Result<SshSockets, Error> {
    use std::os::unix::fs::FileTypeExt as _;
    let mut sockets = SshSockets::new();
    for (id, paths) in &plan.ssh {
        for path in paths {
            readable("--ssh", path)?;
            let is_socket =
                std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
            if !is_socket {
                return Err(Error::NotYet(format!(
                    "--ssh with a key file ({}); use an agent's socket",
                    path.display()
                )));
            }
            sockets = sockets.with(id, path);
        }
    }
    Ok(sockets)
}

fn logins(environment: &Environment) -> Result<DockerConfig, Error> {
    let files = DockerConfig::usual_files(|name| environment.variables.get(name).map(Into::into));
    DockerConfig::read(&files).map_err(|error| Error::BadLogins(error.reason))
}

/// Layouts of contexts as `oci:<name>`, local caches as `local:<directory>`.
fn stores(plan: &mut Plan) -> Result<Stores, Error> {
    let mut stores = Stores::new();
    for (id, path) in &plan.layouts {
        let layout = Layout::new(path);
        for value in plan.options.values_mut() {
            if let Some(tag) = value.strip_prefix(&format!("oci-layout://{id}:")) {
                let digest = layout.resolve(tag)?.ok_or_else(|| Error::NoTag {
                    path: path.clone(),
                    tag: tag.to_owned(),
                })?;
                *value = format!("oci-layout://{id}@{digest}");
            }
        }
        stores = stores.with(format!("oci:{id}"), Arc::new(layout));
    }
    for entry in plan
        .cache_from
        .iter_mut()
        .filter(|entry| entry.kind == "local")
    {
        let dir = PathBuf::from(
            entry
                .attrs
                .get("src")
                .map(String::as_str)
                .unwrap_or_default(),
        );
        if !entry.attrs.contains_key("digest") {
            let tag = entry.attrs.get("tag").map_or("latest", String::as_str);
            // A cache that is not there yet is no mistake: the first build makes it.
            if let Some(digest) = Layout::new(&dir).resolve(tag)? {
                entry.attrs.insert("digest".to_owned(), digest.to_string());
            }
        }
        stores = stores.with(
            format!("local:{}", dir.display()),
            Arc::new(Layout::new(&dir)),
        );
    }
    // Asking for a digest nobody can name would only fail later.
    plan.cache_from
        .retain(|entry| entry.kind != "local" || entry.attrs.contains_key("digest"));
    for entry in plan.cache_to.iter().filter(|entry| entry.kind == "local") {
        let dir = entry
            .attrs
            .get("dest")
            .map(String::as_str)
            .unwrap_or_default();
        stores = stores.with(format!("local:{dir}"), Arc::new(Layout::new(dir)));
    }
    for (dir, _) in layouts(plan) {
        stores = stores.with(EXPORT, Arc::new(Layout::new(dir)));
    }
    Ok(stores)
}

/// What an engine calls the client's store an image is exported to blob by blob.
const EXPORT: &str = "export";

/// The directories images go to as layouts, `type=oci,tar=false,dest=DIRECTORY`, and the names
/// asked for there.
fn layouts(plan: &Plan) -> impl Iterator<Item = (&Path, &str)> {
    plan.exports.iter().filter_map(|export| match &export.dest {
        Dest::Layout(dir) => {
            let names = export.attrs.get("name").map_or("", String::as_str);
            Some((dir.as_path(), names))
        }
        _ => None,
    })
}

fn targets(plan: &Plan) -> Result<Targets, Error> {
    let mut targets = Targets::new();
    for (place, export) in plan.exports.iter().enumerate() {
        let target = match &export.dest {
            Dest::Nowhere | Dest::Layout(_) => continue,
            Dest::File(path) => Target::File(path.clone()),
            Dest::Dir(path) => {
                let delete = export.attrs.get("mode").map(String::as_str) == Some("delete");
                Target::Dir {
                    path: path.clone(),
                    delete,
                }
            }
            Dest::Stdout => Target::Writer(Arc::new(|_| Ok(Box::new(tokio::io::stdout())))),
            Dest::Docker => docker_load::target()?,
        };
        targets = targets.with(place.to_string(), target);
    }
    Ok(targets)
}

/// After the build: what was written blob by blob gets its names (row B05). Local caches have
/// tags, images in layouts the names they were exported under, or `latest`.
pub(crate) fn name_what_came(
    plan: &Plan,
    response: &BTreeMap<String, String>,
) -> Result<(), Error> {
    for (dir, names) in layouts(plan) {
        name_image(dir, names, response)?;
    }
    tag_caches(plan, response)
}

/// The response has what all exporters said, the last word of each. Another one may have made
/// another image (other layers, other statements), whose digest means nothing here.
fn name_image(dir: &Path, asked: &str, response: &BTreeMap<String, String>) -> Result<(), Error> {
    let descriptor = response
        .get("containerimage.descriptor")
        .and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok())
        .and_then(|json| serde_json::from_slice(&json).ok());
    let Some(descriptor) = descriptor else {
        return Ok(());
    };
    let layout = Layout::new(dir);
    if !layout.has(&descriptor) {
        return Err(Error::OtherImage(dir.to_owned()));
    }
    let named = match asked {
        // What the image is called is known to who made it.
        "*" => response.get("image.name").map_or("", String::as_str),
        asked => asked,
    };
    let names = named.split(',').map(str::trim);
    let names: Vec<oci::ImageName> = names.filter_map(|name| name.parse().ok()).collect();
    if names.is_empty() {
        layout.tag("latest", &descriptor)?;
    }
    for name in names {
        layout.name(&name.or_latest(), &descriptor)?;
    }
    Ok(())
}

fn tag_caches(plan: &Plan, response: &BTreeMap<String, String>) -> Result<(), Error> {
    let Some(manifest) = response.get("cache.manifest") else {
        return Ok(());
    };
    let Ok(descriptor) = serde_json::from_str(manifest) else {
        return Ok(());
    };
    for entry in plan.cache_to.iter().filter(|entry| entry.kind == "local") {
        let dir = entry
            .attrs
            .get("dest")
            .map(String::as_str)
            .unwrap_or_default();
        let tag = entry.attrs.get("tag").map_or("latest", String::as_str);
        Layout::new(dir).tag(tag, &descriptor)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: E04, B05
    #[test]
    fn a_layout_names_only_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = dir.path().join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        let digest = oci::Digest::of("{}");
        std::fs::write(blobs.join(digest.hex()), "{}").unwrap();
        let response = |digest: &oci::Digest| {
            let json = format!(r#"{{"digest":"{digest}","size":2}}"#);
            let descriptor = base64::engine::general_purpose::STANDARD.encode(json);
            let told = [
                ("containerimage.descriptor", descriptor),
                ("image.name", "registry.example/theirs:1".to_owned()),
            ];
            BTreeMap::from(told.map(|(key, value)| (key.to_owned(), value)))
        };
        // The names are those of this export, whatever another one was called.
        for (asked, tag) in [("", "latest"), ("app:2,b:3", "2"), ("*", "1")] {
            name_image(dir.path(), asked, &response(&digest)).unwrap();
            let found = Layout::new(dir.path()).resolve(tag).unwrap();
            assert_eq!(found, Some(digest), "{asked}");
        }
        let before = std::fs::read(dir.path().join("index.json")).unwrap();
        let text = String::from_utf8(before.clone()).unwrap();
        assert!(text.contains("docker.io/library/app:2"), "{text}");
        assert_eq!(text.matches("theirs").count(), 1, "{text}");
        // Another exporter's image is not here.
        let other = response(&oci::Digest::of("another image"));
        let error = name_image(dir.path(), "app:2", &other).unwrap_err();
        assert!(error.to_string().contains("another image"), "{error}");
        let after = std::fs::read(dir.path().join("index.json")).unwrap();
        assert_eq!(before, after);
    }
}
