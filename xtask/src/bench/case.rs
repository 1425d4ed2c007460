//! The cases: what is built, and what is measured of it.

use super::Error;
use super::inputs::{Inputs, Sizes};
use super::subject::{Build, Output, Who};

/// One case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// A Dockerfile of 20 steps, built again with nothing changed.
    Rebuild,
    /// 50 steps that do nothing, each run.
    Run50,
    /// 200 steps that do nothing, each run.
    Run200,
    /// An image is pulled and unpacked, with nothing of it here.
    Pull,
    /// An archive is written of an image with one large layer that was never packed before.
    Export,
    /// A context of many small files, never seen before.
    ContextFirst,
    /// The same with one file changed.
    ContextChanged,
    /// A result of many small files is written to a directory.
    Local,
    /// A graph of 1,000 vertices, all cached.
    Vertices,
    /// Many clients at one daemon at once, each with a few steps of its own.
    Clients,
}

impl Case {
    const ALL: [Case; 10] = [
        Case::Rebuild,
        Case::Run50,
        Case::Run200,
        Case::Pull,
        Case::Export,
        Case::ContextFirst,
        Case::ContextChanged,
        Case::Local,
        Case::Vertices,
        Case::Clients,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Case::Rebuild => "rebuild",
            Case::Run50 => "run50",
            Case::Run200 => "run200",
            Case::Pull => "pull",
            Case::Export => "export",
            Case::ContextFirst => "context-first",
            Case::ContextChanged => "context-changed",
            Case::Local => "local",
            Case::Vertices => "vertices",
            Case::Clients => "clients",
        }
    }

    /// For the table.
    pub(crate) fn title(self, sizes: &Sizes) -> String {
        match self {
            Case::Rebuild => "unchanged rebuild of a 20-step Dockerfile".to_owned(),
            Case::Run50 => format!("{} trivial RUN steps, none cached", sizes.runs(50)),
            Case::Run200 => format!("{} trivial RUN steps, none cached", sizes.runs(200)),
            Case::Pull => format!("pull and unpack of a {} MB image", sizes.image_mb),
            Case::Export => format!("OCI archive of one {} MB layer, gzip", sizes.layer_mb),
            Case::ContextFirst => format!("context of {} small files, first time", sizes.files),
            Case::ContextChanged => format!("context of {} files, one changed", sizes.files),
            Case::Local => format!("local export of {} files", sizes.files),
            Case::Vertices => format!("{} vertices, all cached", sizes.vertices()),
            Case::Clients => format!("{} clients at once on one daemon", sizes.clients),
        }
    }

    pub(crate) fn names() -> Vec<&'static str> {
        Case::ALL.into_iter().map(Case::name).collect()
    }

    /// All of them if none is named.
    pub(crate) fn chosen(names: &[String]) -> Result<Vec<Case>, Error> {
        if names.is_empty() {
            return Ok(Case::ALL.to_vec());
        }
        let find = |name: &String| {
            let found = Case::ALL.into_iter().find(|case| case.name() == name);
            found.ok_or_else(|| Error::NoCase(name.clone()))
        };
        names.iter().map(find).collect()
    }

    /// Whether the question makes sense for a tool.
    pub(crate) fn suits(self, who: Who) -> bool {
        let has_daemon = !matches!(who, Who::Kiln | Who::Buildah);
        has_daemon || self != Case::Clients
    }

    /// Whether each run starts with nothing.
    pub(crate) fn needs_empty_state(self) -> bool {
        matches!(self, Case::Pull | Case::ContextFirst)
    }

    /// The folder of its inputs.
    pub(crate) fn input(self) -> &'static str {
        match self {
            Case::ContextFirst | Case::ContextChanged | Case::Local => "files",
            _ => self.name(),
        }
    }

    /// What is built before, and not measured.
    pub(crate) fn before(self, inputs: &Inputs, run: u32) -> Vec<Build> {
        let timed = self.timed(inputs, run);
        match self {
            Case::Rebuild | Case::ContextChanged | Case::Vertices => timed,
            // Made, but packed by nobody yet.
            Case::Export | Case::Local => timed
                .into_iter()
                .map(|build| Build {
                    output: Output::Nowhere,
                    ..build
                })
                .collect(),
            Case::Run50 | Case::Run200 | Case::Pull | Case::ContextFirst | Case::Clients => {
                Vec::new()
            }
        }
    }

    /// What is done between that and the measured build.
    pub(crate) fn change_input(self, inputs: &Inputs, run: u32) -> Result<(), Error> {
        match self {
            Case::ContextChanged => inputs.change_one_file(run),
            _ => Ok(()),
        }
    }

    /// What is measured: these builds, all at once.
    pub(crate) fn timed(self, inputs: &Inputs, run: u32) -> Vec<Build> {
        let build = Build {
            context: inputs.context(self),
            number: None,
            no_cache: false,
            output: Output::Nowhere,
        };
        let one = match self {
            Case::Rebuild => Build {
                output: Output::Image("bench"),
                ..build
            },
            Case::Run50 | Case::Run200 => Build {
                no_cache: true,
                ..build
            },
            Case::Export => Build {
                number: Some(run),
                output: Output::Oci(inputs.outputs().join("image.tar")),
                ..build
            },
            Case::Local => Build {
                output: Output::Local(inputs.outputs().join("files")),
                ..build
            },
            Case::Clients => {
                let clients = 0..inputs.sizes().clients;
                return clients
                    .map(|client| Build {
                        number: Some(run * 1000 + client),
                        ..build.clone()
                    })
                    .collect();
            }
            Case::Pull | Case::ContextFirst | Case::ContextChanged | Case::Vertices => build,
        };
        vec![one]
    }
}
