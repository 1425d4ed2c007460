//! What a Dockerfile build needs from outside, asked through the bridge: the file
//! itself, `.dockerignore`, the build context, named contexts, images.

mod context;
mod main_context;

pub(crate) use context::{Loaded, LocalContext, NamedContext};

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use frontend::{Bridge, ImageLookup, LayoutStore, ResolvedImage, SolveRequest, SourceFile};
use oci::Platform;
use stdx::Kind;

use crate::plan::{About, Plan, Tree, Work};
use crate::{BuildOptions, Error, ignore};
use main_context::MainContext;

/// A Dockerfile may not be longer.
const LONGEST_FILE: u64 = 64 << 20;

/// The build's view of the outside.
pub(crate) struct Ui<'a> {
    pub(crate) bridge: &'a dyn Bridge,
    pub(crate) options: BuildOptions,
    /// Lines of `.dockerignore`.
    pub(crate) ignored: Vec<String>,
    /// The Dockerfile.
    pub(crate) file: Arc<SourceFile>,
    /// Digest of the step that loads it: warnings are shown there.
    pub(crate) loaded_by: Option<oci::Digest>,
    context: MainContext,
    inputs: BTreeMap<String, llb::Definition>,
}

impl<'a> Ui<'a> {
    /// Loads nothing yet.
    async fn new(bridge: &'a dyn Bridge, options: BuildOptions) -> Result<Ui<'a>, Error> {
        Ok(Ui {
            bridge,
            options,
            ignored: Vec::new(),
            file: Arc::default(),
            loaded_by: None,
            context: MainContext::default(),
            inputs: bridge.inputs().await?,
        })
    }

    /// Loads the Dockerfile. Its name, should it lie somewhere else, becomes known here.
    pub(crate) async fn open(
        bridge: &'a dyn Bridge,
        options: BuildOptions,
    ) -> Result<Ui<'a>, Error> {
        let mut ui = Ui::new(bridge, options).await?;
        ui.find_context().await?;
        ui.load_file().await?;
        Ok(ui)
    }

    /// The platform steps run on.
    pub(crate) fn build_platform(&self) -> Platform {
        self.bridge
            .platforms()
            .into_iter()
            .next()
            .unwrap_or_else(Platform::host)
    }

    /// The session that has the local directory `name`.
    fn session_of(&self, name: &str) -> String {
        let given = self.options.local_sessions.get(name).map(String::as_str);
        given.unwrap_or(self.bridge.session()).to_owned()
    }

    /// Attributes of image sources.
    pub(crate) fn image_attrs(&self) -> Vec<(String, String)> {
        match self.options.resolve_mode {
            frontend::ResolveMode::Default => Vec::new(),
            mode => vec![(
                llb::attr::IMAGE_RESOLVE_MODE.to_owned(),
                mode.name().to_owned(),
            )],
        }
    }

    pub(crate) async fn resolve_image(
        &self,
        name: &str,
        platform: &Platform,
        step_name: String,
        layout: Option<LayoutStore>,
    ) -> Result<ResolvedImage, frontend::Error> {
        let lookup = ImageLookup {
            platform: Some(platform.clone()),
            mode: self.options.resolve_mode,
            step_name,
            layout,
            ..ImageLookup::default()
        };
        self.bridge.resolve_image(name, lookup).await
    }

    /// The Dockerfile as definitions carry it.
    pub(crate) fn source_info(&self) -> llb::SourceInfo {
        llb::SourceInfo {
            filename: self.file.name.clone(),
            data: self.file.data.clone(),
            definition: self.file.definition.clone().map(Box::new),
            language: self.file.language.clone(),
        }
    }

    /// Solves one step and gives its result.
    async fn solve(
        &self,
        work: Work,
        about: About,
    ) -> Result<(llb::Definition, Option<frontend::RefId>), Error> {
        let mut plan = Plan::default();
        let tree = plan.add(work, about);
        self.solve_plan(&plan, tree).await
    }

    async fn solve_plan(
        &self,
        plan: &Plan,
        tree: Tree,
    ) -> Result<(llb::Definition, Option<frontend::RefId>), Error> {
        let definition = plan.definition(Some(tree), None)?;
        let request = SolveRequest {
            definition: definition.clone(),
            ..SolveRequest::default()
        };
        Ok((definition, self.bridge.solve(request).await?))
    }

    /// A file of a result, or `None` if it has none of that name.
    async fn read(
        &self,
        reference: Option<&frontend::RefId>,
        path: &str,
    ) -> Result<Option<Bytes>, Error> {
        let Some(reference) = reference else {
            return Ok(None);
        };
        let range = frontend::FileRange {
            offset: 0,
            length: LONGEST_FILE,
        };
        match self.bridge.read_file(reference, path, Some(range)).await {
            Ok(bytes) => Ok(Some(bytes)),
            // Only this. Where the tree comes from may not be found either, and that is no answer.
            Err(frontend::Error::NoFile { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What the client gave under the name of an image, solved: see [`crate::in_place_of`].
    async fn in_place_of(&self, name: &str) -> Result<Option<InPlace>, Error> {
        let Some(named) = self.named_context(name, &self.build_platform())? else {
            return Ok(None);
        };
        let (work, about, image) = match self.load(&named, 0).await? {
            Loaded::Scratch => return Ok(Some(InPlace::default())),
            Loaded::Local(local) => {
                let (work, about) = local.work(&[]);
                (work, about, None)
            }
            Loaded::Tree { work, about, image } => (*work, about, image),
        };
        let (_, reference) = self.solve(work, about).await?;
        Ok(Some(InPlace {
            reference,
            config: image.map(|image| image.to_json()),
        }))
    }

    async fn load_file(&mut self) -> Result<(), Error> {
        let name = self.options.filename.clone();
        let (folder, base) = name
            .rsplit_once('/')
            .map_or(("", name.as_str()), |(f, b)| (f, b));
        let lower = (base == "Dockerfile").then(|| match folder {
            "" => "dockerfile".to_owned(),
            folder => format!("{folder}/dockerfile"),
        });
        let ignore_name = format!("{name}.dockerignore");
        let mut plan = Plan::default();
        let tree = match self.context.dockerfile(&self.options, &mut plan)? {
            Some(tree) => tree,
            None => {
                let local = self.context.dockerfile_name.clone();
                let mut paths = vec![name.clone(), ignore_name.clone()];
                paths.extend(lower.clone());
                let work = local_source(
                    &local,
                    &[
                        (llb::attr::LOCAL_DIFFER, "none".into()),
                        (llb::attr::LOCAL_FOLLOW, oci::go_json::compact(&paths)),
                        (llb::attr::LOCAL_SESSION, self.session_of(&local)),
                        (llb::attr::LOCAL_SHARED_KEY, local.clone()),
                    ],
                );
                let shown = format!("[internal] load build definition from {name}");
                plan.add(work, About::named(shown))
            }
        };
        let (definition, reference) = self.solve_plan(&plan, tree).await?;
        let reference = reference.as_ref();
        let mut data = self.read(reference, &name).await?;
        if let (None, Some(lower)) = (&data, &lower) {
            data = self.read(reference, lower).await?;
        }
        let Some(data) = data else {
            return Err(Error::NoDockerfile(name));
        };
        self.loaded_by = definition.head().ok().flatten().map(|edge| edge.digest);
        self.file = Arc::new(SourceFile {
            name: name.clone(),
            language: "Dockerfile".into(),
            data,
            definition: Some(definition),
        });
        if let Some(lines) = self.read(reference, &ignore_name).await? {
            self.ignored = ignore::patterns(&lines);
            self.context.ignore_known = true;
        }
        Ok(())
    }

    /// Loads `.dockerignore`, unless the Dockerfile brought its own.
    pub(crate) async fn load_ignore(&mut self) -> Result<(), Error> {
        if self.context.ignore_known || !self.context.is_local() {
            return Ok(());
        }
        let name = self.context.context_name.clone();
        let work = local_source(
            &name,
            &[
                (llb::attr::LOCAL_DIFFER, "none".into()),
                (
                    llb::attr::LOCAL_FOLLOW,
                    oci::go_json::compact(&[".dockerignore"]),
                ),
                (llb::attr::LOCAL_SESSION, self.session_of(&name)),
                (llb::attr::LOCAL_SHARED_KEY, format!("{name}-.dockerignore")),
            ],
        );
        let (_, reference) = self
            .solve(work, About::named("[internal] load .dockerignore"))
            .await?;
        match self.read(reference.as_ref(), ".dockerignore").await {
            Ok(lines) => self.ignored = lines.map_or(Vec::new(), |l| ignore::patterns(&l)),
            // A client that gives no files, or not these, can still build what needs none.
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Unsupported) => {}
            Err(error) => return Err(error),
        }
        self.context.ignore_known = true;
        Ok(())
    }
}

/// A result in place of an image.
#[derive(Clone, Debug, Default)]
pub struct InPlace {
    /// The result; `None` is the empty one.
    pub reference: Option<frontend::RefId>,
    /// The image config, JSON, if one is known.
    pub config: Option<String>,
}

/// What the client gave for the image `name` as a named context (`context:name`), if it
/// did: images of frontends can be replaced like those of stages.
pub async fn in_place_of(
    bridge: &dyn Bridge,
    name: &str,
) -> Result<Option<InPlace>, frontend::Error> {
    let found = async {
        let options = BuildOptions::parse(bridge.options())?;
        Ui::new(bridge, options).await?.in_place_of(name).await
    };
    found.await.map_err(crate::build::without_place)
}

/// A local directory of a client.
fn local_source(name: &str, attrs: &[(&str, String)]) -> Work {
    let attrs = attrs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    Work::Source {
        identifier: format!("local://{name}"),
        attrs,
        platform: None,
    }
}
