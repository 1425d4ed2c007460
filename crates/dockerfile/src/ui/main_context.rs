//! The build context: a local directory, a git repository, a download, or a graph the
//! caller handed in.

use super::{Ui, local_source};
use crate::git::GitAddress;
use crate::plan::{About, FileAction, Plan, Tree, Work};
use crate::{BuildOptions, Error};

/// Name of a downloaded context.
const DOWNLOADED: &str = "context";

/// Where the context is.
#[derive(Clone, Debug, Default)]
enum Place {
    /// A directory of the client.
    #[default]
    Local,
    /// A repository; the Dockerfile is in it.
    Git(Box<GitAddress>, String),
    /// A download: an archive, or a Dockerfile.
    Http { url: String, archive: bool },
    /// A graph.
    Input(Box<llb::Definition>),
}

/// The build context and where the Dockerfile is.
#[derive(Clone, Debug)]
pub(super) struct MainContext {
    place: Place,
    /// The client's name for the directory.
    pub(super) context_name: String,
    /// The client's name for the Dockerfile's directory.
    pub(super) dockerfile_name: String,
    /// The Dockerfile is local although the context is not.
    local_dockerfile: bool,
    dockerfile_input: Option<Box<llb::Definition>>,
    subdir: String,
    /// `.dockerignore` was looked for.
    pub(super) ignore_known: bool,
}

impl Default for MainContext {
    fn default() -> MainContext {
        MainContext {
            place: Place::Local,
            context_name: "context".into(),
            dockerfile_name: "dockerfile".into(),
            local_dockerfile: false,
            dockerfile_input: None,
            subdir: String::new(),
            ignore_known: false,
        }
    }
}

impl MainContext {
    pub(super) fn is_local(&self) -> bool {
        matches!(self.place, Place::Local)
    }

    /// The context, unless it is local.
    fn tree(&self, options: &BuildOptions, plan: &mut Plan) -> Result<Option<Tree>, Error> {
        let tree = match &self.place {
            Place::Local => return Ok(None),
            Place::Git(git, written) => {
                let name = format!("[internal] load git source {written}");
                let (work, about) = git.work(options.keep_git_dir, "", &name)?;
                plan.add(work, about)
            }
            Place::Http { url, archive } => {
                let tree = plan.add(
                    download(url),
                    About::named("[internal] load remote build context"),
                );
                if *archive {
                    let copy = llb::Copy {
                        attempt_unpack: true,
                        ..llb::Copy::new("/context", "/")
                    };
                    let actions = vec![FileAction::Copy(Some(tree), copy)];
                    plan.add(
                        Work::Files {
                            base: None,
                            actions,
                        },
                        About::default(),
                    )
                } else {
                    tree
                }
            }
            Place::Input(definition) => plan.add(Work::Given(definition.clone()), About::default()),
        };
        Ok(Some(tree))
    }

    /// The tree the Dockerfile is in, unless that is a local directory.
    pub(super) fn dockerfile(
        &self,
        options: &BuildOptions,
        plan: &mut Plan,
    ) -> Result<Option<Tree>, Error> {
        if self.local_dockerfile {
            return Ok(None);
        }
        if let Some(input) = &self.dockerfile_input {
            return Ok(Some(plan.add(Work::Given(input.clone()), About::default())));
        }
        match self.place {
            Place::Input(_) => Ok(None),
            _ => self.tree(options, plan),
        }
    }
}

fn download(url: &str) -> Work {
    let attrs = vec![(llb::attr::HTTP_FILENAME.to_owned(), DOWNLOADED.to_owned())];
    Work::Source {
        identifier: url.to_owned(),
        attrs,
        platform: None,
    }
}

impl Ui<'_> {
    /// Finds out where the context is.
    pub(super) async fn find_context(&mut self) -> Result<(), Error> {
        let options = self.bridge.options();
        let key = options.get("contextkey").unwrap_or("context").to_owned();
        let address = options.get(&key).unwrap_or_default().to_owned();
        if let Some(name) = options.get("dockerfilekey") {
            self.context.local_dockerfile = true;
            name.clone_into(&mut self.context.dockerfile_name);
        }
        options
            .get("contextsubdir")
            .unwrap_or_default()
            .clone_into(&mut self.context.subdir);
        if let Some(git) = GitAddress::parse(&address)? {
            self.context.place = Place::Git(Box::new(git), address);
        } else if address.starts_with("http://") || address.starts_with("https://") {
            self.find_download(address).await?;
        } else {
            let input = |name: &str| self.inputs.get(name).cloned().map(Box::new);
            self.context.dockerfile_input = input(&self.context.dockerfile_name);
            if let Some(definition) = input("context") {
                self.context.place = Place::Input(definition);
            }
        }
        Ok(())
    }

    /// A download is an archive with the context, or the Dockerfile alone.
    async fn find_download(&mut self, url: String) -> Result<(), Error> {
        let about = About::named("[internal] load remote build context");
        let (_, reference) = self.solve(download(&url), about).await?;
        let range = frontend::FileRange {
            offset: 0,
            length: 1024,
        };
        let head = match &reference {
            Some(reference) => {
                self.bridge
                    .read_file(reference, DOWNLOADED, Some(range))
                    .await?
            }
            None => bytes::Bytes::new(),
        };
        let archive = is_archive(&head);
        if !archive && !self.context.local_dockerfile {
            DOWNLOADED.clone_into(&mut self.options.filename);
        }
        self.context.place = Place::Http { url, archive };
        Ok(())
    }

    /// Fills in the context; of a local one only `paths` are sent, or everything when
    /// there are none.
    pub(crate) fn fill_context(&self, plan: &mut Plan, open: Tree, paths: &[String]) {
        let context = &self.context;
        if !context.is_local() {
            // It was solved once already, so it can be written again.
            let tree = context.tree(&self.options, plan).ok().flatten();
            let (work, about) = self.below_subdir(tree);
            return plan.fill(open, work, about);
        }
        let name = &context.context_name;
        let mut attrs = vec![
            (llb::attr::LOCAL_SESSION, self.session_of(name)),
            (llb::attr::LOCAL_SHARED_KEY, name.clone()),
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
        plan.fill(
            open,
            local_source(name, &attrs),
            About::named("[internal] load build context"),
        );
    }

    fn below_subdir(&self, tree: Option<Tree>) -> (Work, About) {
        if self.context.subdir.is_empty() {
            return (Work::Same(tree), About::default());
        }
        let src = crate::ignore::clean(&format!("/{}", self.context.subdir));
        let copy = llb::Copy {
            dir_copy_contents: true,
            ..llb::Copy::new(src, "/")
        };
        (
            Work::Files {
                base: None,
                actions: vec![FileAction::Copy(tree, copy)],
            },
            About::default(),
        )
    }
}

/// The beginning of a compressed file or of a tar.
fn is_archive(head: &[u8]) -> bool {
    let compressed: [&[u8]; 4] = [b"BZh", b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    if compressed.iter().any(|magic| head.starts_with(magic)) {
        return true;
    }
    let Some(header) = head.get(..512) else {
        return false;
    };
    let octal: String = header[148..156]
        .iter()
        .map(|b| *b as char)
        .filter(|c| ('0'..='7').contains(c))
        .collect();
    let Ok(expected) = u32::from_str_radix(&octal, 8) else {
        return false;
    };
    let sum = |(at, byte): (usize, &u8)| {
        if (148..156).contains(&at) {
            32
        } else {
            u32::from(*byte)
        }
    };
    header.iter().enumerate().map(sum).sum::<u32>() == expected && header[0] != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: F03
    #[test]
    fn archives_are_told_from_dockerfiles() {
        assert!(is_archive(b"\x1f\x8b\x08rest"));
        assert!(!is_archive(b"FROM scratch\n"));
        assert!(!is_archive(&[0; 1024]));
        let mut header = [0u8; 512];
        header[..4].copy_from_slice(b"file");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
        assert!(is_archive(&header));
        header[0] = b'F';
        assert!(!is_archive(&header));
    }
}
