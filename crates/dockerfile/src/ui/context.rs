//! Named contexts: `--build-context name=…`, in place of stages and images.

use frontend::LayoutStore;
use oci::Platform;

use super::{Ui, local_source};
use crate::Error;
use crate::git::GitAddress;
use crate::image::Image;
use crate::lower::show_platform;
use crate::plan::{About, Work};
use crate::reference::Reference;

/// So often may one named context lead to another.
const DEEPEST: usize = 10;

/// A named context that was asked for and not looked at yet.
#[derive(Clone, Debug)]
pub(crate) struct NamedContext {
    name: String,
    /// With `::platform` if it was given for that one only.
    key: String,
    value: String,
    platform: Platform,
}

/// A named context, looked at.
pub(crate) enum Loaded {
    /// The empty tree.
    Scratch,
    /// A tree, and its config if it is an image's.
    Tree {
        work: Box<Work>,
        about: About,
        image: Option<Box<Image>>,
    },
    /// A directory of a client.
    Local(LocalContext),
}

/// A directory of a client.
#[derive(Clone, Debug)]
pub(crate) struct LocalContext {
    directory: String,
    key: String,
    session: String,
    shared_key: String,
    ignored: Vec<String>,
}

impl LocalContext {
    /// The step that loads `paths`, or everything when there are none.
    pub(crate) fn work(&self, paths: &[String]) -> (Work, About) {
        let mut attrs = vec![
            (llb::attr::LOCAL_SESSION, self.session.clone()),
            (
                llb::attr::LOCAL_SHARED_KEY,
                format!("context:{}-{}", self.key, self.shared_key),
            ),
        ];
        if !self.ignored.is_empty() {
            attrs.push((
                llb::attr::LOCAL_EXCLUDE,
                oci::go_json::compact(&self.ignored),
            ));
        }
        if !paths.is_empty() {
            attrs.push((llb::attr::LOCAL_FOLLOW, oci::go_json::compact(&paths)));
        }
        let name = format!("[context {}] load from client", self.key);
        (local_source(&self.directory, &attrs), About::named(name))
    }
}

impl Ui<'_> {
    /// The context given for a stage's or image's name, if there is one.
    pub(crate) fn named_context(
        &self,
        name: &str,
        platform: &Platform,
    ) -> Result<Option<NamedContext>, Error> {
        if name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context") {
            return Ok(None);
        }
        let Some(reference) = Reference::parse(name) else {
            return Ok(None);
        };
        let familiar = reference.familiar();
        let name = familiar.strip_suffix(":latest").unwrap_or(&familiar);
        let with_platform = format!("{name}::{}", show_platform(&platform.clone().normalized()));
        for key in [with_platform.as_str(), name] {
            if let Some(value) = self.bridge.options().get(&format!("context:{key}")) {
                return Ok(Some(NamedContext {
                    name: name.to_owned(),
                    key: key.to_owned(),
                    value: value.to_owned(),
                    platform: platform.clone(),
                }));
            }
        }
        Ok(None)
    }

    /// Looks at a named context.
    pub(crate) async fn load(&self, named: &NamedContext, depth: usize) -> Result<Loaded, Error> {
        if depth > DEEPEST {
            return Err(named.bad("it leads to others, and they to others, too often"));
        }
        let Some((kind, rest)) = named.value.split_once(':') else {
            return Err(
                named.bad("it has no kind: docker-image, oci-layout, local, git, https or input")
            );
        };
        match kind {
            "docker-image" => {
                let name = rest.trim_start_matches("//");
                self.load_image(named, name, depth).await
            }
            "oci-layout" => self.load_layout(named, rest.trim_start_matches("//")).await,
            "local" => self.load_local(named, rest).await,
            "input" => self.load_input(named, rest),
            "http" | "https" if !is_git(&named.value) => {
                let filename = (llb::attr::HTTP_FILENAME.to_owned(), "context".to_owned());
                let work = Work::Source {
                    identifier: named.value.clone(),
                    attrs: vec![filename],
                    platform: None,
                };
                let about = About::named(format!("[context {}] {}", named.key, named.value));
                Ok(Loaded::Tree {
                    work: Box::new(work),
                    about,
                    image: None,
                })
            }
            _ => match GitAddress::parse(&named.value)? {
                Some(git) => {
                    let name = format!("[internal] load git source {}", named.value);
                    let (work, about) = git.work(None, "", &name)?;
                    Ok(Loaded::Tree {
                        work: Box::new(work),
                        about,
                        image: None,
                    })
                }
                None => Err(named.bad(
                    "it is of no known kind: docker-image, oci-layout, local, git, https or input",
                )),
            },
        }
    }

    async fn load_image(
        &self,
        named: &NamedContext,
        name: &str,
        depth: usize,
    ) -> Result<Loaded, Error> {
        if name == "scratch" {
            return Ok(Loaded::Scratch);
        }
        let reference =
            Reference::parse(name).ok_or_else(|| named.bad("no image has such a name"))?;
        let reference = reference.tagged().to_string();
        let step = format!("[context {}] load metadata for {name}", named.key);
        let resolved = self.resolve_image(&reference, &named.platform, step, None);
        let resolved = match resolved.await {
            Err(frontend::Error::NotAnImage { instead, .. }) => {
                return self.load_instead(named, *instead, depth + 1).await;
            }
            resolved => resolved?,
        };
        // A policy may have sent us elsewhere.
        let image = image_of(&reference, &resolved.config)?;
        let mut full = Reference::parse(&resolved.name)
            .ok_or_else(|| named.bad("no image has such a name"))?;
        full.digest = Some(resolved.digest.to_string());
        let work = Work::Source {
            identifier: format!("docker-image://{full}"),
            attrs: self.image_attrs(),
            platform: Some(named.platform.clone()),
        };
        let about = About::named(format!("[context {}] {name}", named.key));
        Ok(Loaded::Tree {
            work: Box::new(work),
            about,
            image: Some(Box::new(image)),
        })
    }

    /// Looks at what a policy puts in the place of an image.
    async fn load_instead(
        &self,
        named: &NamedContext,
        instead: llb::Source,
        depth: usize,
    ) -> Result<Loaded, Error> {
        // What a directory and a layout are besides files is found out as if they had been named.
        if let Some((kind @ ("local" | "oci-layout"), rest)) = instead.identifier.split_once("://")
        {
            let named = NamedContext {
                value: format!("{kind}:{rest}"),
                ..named.clone()
            };
            return Box::pin(self.load(&named, depth)).await;
        }
        let about = About::named(format!("[context {}] {}", named.key, instead.identifier));
        let work = Work::Source {
            identifier: instead.identifier,
            attrs: instead.attrs.into_iter().collect(),
            platform: None,
        };
        Ok(Loaded::Tree {
            work: Box::new(work),
            about,
            image: None,
        })
    }

    async fn load_layout(&self, named: &NamedContext, name: &str) -> Result<Loaded, Error> {
        let Some((store, digest)) = name.split_once('@') else {
            return Err(named.bad("an oci-layout needs a digest: oci-layout://name@sha256:…"));
        };
        let store = store
            .split_once(':')
            .map_or(store, |(store, _)| store)
            .to_owned();
        let dummy =
            Reference::parse(&named.name).ok_or_else(|| named.bad("no image has such a name"))?;
        let dummy = Reference {
            digest: Some(digest.to_owned()),
            ..dummy
        }
        .to_string();
        let session = self.bridge.session().to_owned();
        let step = format!("[context {}] load metadata for {dummy}", named.key);
        let layout = LayoutStore {
            session: session.clone(),
            store: store.clone(),
        };
        let resolved = self
            .resolve_image(&dummy, &named.platform, step, Some(layout))
            .await?;
        let image = image_of(&dummy, &resolved.config)?;
        let work = Work::Source {
            identifier: format!("oci-layout://{dummy}"),
            attrs: vec![
                (llb::attr::OCI_SESSION.to_owned(), session),
                (llb::attr::OCI_STORE.to_owned(), store),
            ],
            platform: Some(named.platform.clone()),
        };
        let about = About::named(format!("[context {}] OCI load from client", named.key));
        Ok(Loaded::Tree {
            work: Box::new(work),
            about,
            image: Some(Box::new(image)),
        })
    }

    async fn load_local(&self, named: &NamedContext, directory: &str) -> Result<Loaded, Error> {
        let session = self.session_of(directory);
        let work = local_source(
            directory,
            &[
                (llb::attr::LOCAL_DIFFER, "none".into()),
                (
                    llb::attr::LOCAL_FOLLOW,
                    oci::go_json::compact(&[".dockerignore"]),
                ),
                (llb::attr::LOCAL_SESSION, session.clone()),
                (
                    llb::attr::LOCAL_SHARED_KEY,
                    format!("context:{}-.dockerignore", named.key),
                ),
            ],
        );
        let about = About::named(format!("[context {}] load .dockerignore", named.key));
        let (_, reference) = self.solve(work, about).await?;
        let ignored = self.read(reference.as_ref(), ".dockerignore").await?;
        let shared_key = format!("sharedkey:localdir:{}", named.key);
        Ok(Loaded::Local(LocalContext {
            directory: directory.to_owned(),
            key: named.key.clone(),
            session,
            shared_key: self
                .bridge
                .options()
                .get(&shared_key)
                .unwrap_or_default()
                .to_owned(),
            ignored: ignored
                .map(|lines| crate::ignore::patterns(&lines))
                .unwrap_or_default(),
        }))
    }

    fn load_input(&self, named: &NamedContext, name: &str) -> Result<Loaded, Error> {
        let Some(definition) = self.inputs.get(name) else {
            return Err(named.bad("there is no such input"));
        };
        let metadata = self.bridge.options().get(&format!("input-metadata:{name}"));
        let image = metadata
            .map(|json| input_image(named, json))
            .transpose()?
            .flatten();
        let work = Box::new(Work::Given(Box::new(definition.clone())));
        Ok(Loaded::Tree {
            work,
            about: About::default(),
            image: image.map(Box::new),
        })
    }
}

/// The image config in an input's metadata: JSON whose values are base64.
fn input_image(named: &NamedContext, json: &str) -> Result<Option<Image>, Error> {
    let map: std::collections::BTreeMap<String, String> =
        serde_json::from_str(json).map_err(|_| named.bad("its metadata is no JSON object"))?;
    let Some(config) = map.get(frontend::metadata_key::IMAGE_CONFIG) else {
        return Ok(None);
    };
    let config =
        base64_decoded(config).ok_or_else(|| named.bad("its image config is no base64"))?;
    image_of(&named.name, &config).map(Some)
}

fn base64_decoded(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

fn image_of(name: &str, config: &[u8]) -> Result<Image, Error> {
    serde_json::from_slice(config).map_err(|error| Error::BadImageConfig {
        image: name.to_owned(),
        reason: error.to_string(),
    })
}

fn is_git(address: &str) -> bool {
    matches!(GitAddress::parse(address), Ok(Some(_)) | Err(_))
}

impl NamedContext {
    fn bad(&self, reason: &str) -> Error {
        Error::BadContext {
            name: self.key.clone(),
            value: self.value.clone(),
            reason: reason.to_owned(),
        }
    }
}
