//! A state directory and a build with its session.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use content::Memory;
use progress::StepProgress;
use refs::{Ref, Refs};
use registry::{Anonymous, Hosts, Registry};
use session::{Attachables, Group, Registration, Session, Sessions};
use source::{Context, Identifier, Parts, Resolutions, Result, Source, Sources};

/// A daemon's state.
pub(crate) struct State {
    pub(crate) sources: Sources,
    pub(crate) refs: Refs,
    pub(crate) dir: tempfile::TempDir,
    sessions: Sessions,
}

/// A build in it.
pub(crate) struct Build {
    pub(crate) cx: Context,
    _session: Registration,
}

/// A fresh state; `None`, with the reason said, when we are not root.
pub(crate) fn state() -> Option<State> {
    if !rustix::process::geteuid().is_root() {
        tracing::warn!("skipped: layers of others' files need root");
        return None;
    }
    Some(open(tempfile::tempdir().unwrap(), "git".into()))
}

/// The same, which writes down what it asks of git, one line each time.
pub(crate) fn state_that_notes_git() -> Option<(State, PathBuf)> {
    use std::os::unix::fs::PermissionsExt;
    state()?;
    let dir = tempfile::tempdir().unwrap();
    let (program, notes) = (dir.path().join("noting-git"), dir.path().join("notes"));
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {}\nexec git \"$@\"\n",
        notes.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    Some((open(dir, program), notes))
}

fn open(dir: tempfile::TempDir, git: PathBuf) -> State {
    let db = Arc::new(db::Db::open(dir.path().join("state.db")).unwrap());
    let refs = Refs::open(refs::Parts {
        db: Arc::clone(&db),
        store: content::Store::open(dir.path().join("content"), Arc::clone(&db)).unwrap(),
        snapshots: snapshot::open(dir.path().join("snapshots"), snapshot::Choice::Overlay).unwrap(),
        leases: lease::Leases::open(dir.path().join("leases"), Arc::clone(&db)).unwrap(),
    })
    .unwrap();
    let hosts = Hosts {
        retry_delays: vec![Duration::from_millis(1); 3],
        ..Hosts::default()
    };
    let sources = Sources::open(Parts {
        refs: refs.clone(),
        registry: Registry::new(hosts),
        db,
        git,
        scratch: dir.path().into(),
    })
    .unwrap();
    State {
        sources,
        refs,
        dir,
        sessions: Sessions::new(),
    }
}

impl State {
    /// The same state in the next process.
    pub(crate) fn restarted(self) -> State {
        let State {
            sources,
            refs,
            dir,
            sessions,
        } = self;
        drop((sources, refs, sessions));
        open(dir, "git".into())
    }

    /// A build whose client offers these things.
    pub(crate) fn build(&self, offers: Attachables) -> Build {
        let session = self
            .sessions
            .register(Session::direct("s1", "test", offers));
        let cx = Context {
            sessions: self.sessions.clone(),
            group: Group::of("s1"),
            credentials: Anonymous::shared(),
            resolutions: Arc::new(Resolutions::default()),
            step: StepProgress::none(),
        };
        Build {
            cx,
            _session: session,
        }
    }

    /// The source of an op.
    pub(crate) fn source(&self, identifier: &str, attrs: &[(&str, &str)]) -> Result<Source> {
        let attrs: BTreeMap<_, _> = attrs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let platform = "linux/amd64".parse().unwrap();
        Ok(Source::new(
            &self.sources,
            Identifier::parse(identifier, &attrs)?,
            &platform,
        ))
    }
}

/// Every file below the top with its contents, folders with a slash.
pub(crate) async fn files(fetched: &Ref) -> BTreeMap<String, String> {
    let nowhere = Memory::default();
    let tree = fetched.tree(&nowhere, &StepProgress::none()).await.unwrap();
    let mut found = BTreeMap::new();
    walk(tree.root(), Path::new(""), &mut found);
    found
}

fn walk(root: &stdx::sys::Root, at: &Path, found: &mut BTreeMap<String, String>) {
    use std::io::Read;
    let here = if at.as_os_str().is_empty() {
        Path::new(".")
    } else {
        at
    };
    for entry in root.read_dir(here).unwrap() {
        let path = at.join(&entry.name);
        let name = path.display().to_string();
        let stat = root.lstat(&path).unwrap();
        if stat.is_dir() {
            found.insert(format!("{name}/"), String::new());
            walk(root, &path, found);
        } else if stat.is_symlink() {
            found.insert(
                name,
                format!("-> {}", root.read_link(&path).unwrap().display()),
            );
        } else {
            let mut bytes = Vec::new();
            root.open_file(&path)
                .unwrap()
                .read_to_end(&mut bytes)
                .unwrap();
            found.insert(name, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}
