//! The top of the cgroup hierarchy as a container sees it. There the kernel lets nobody hand
//! controllers down while processes are in the top itself, and a daemon that is its container's
//! first process is.

use std::io;

use super::Dir;

/// Where the processes of the top go; BuildKit's own name for it.
const INIT: &str = "init";

/// Moves all processes at the top into a directory beneath, and hands all controllers down. Hosts
/// whose hierarchies are of the first version stay as they are.
pub fn free_top() -> io::Result<()> {
    if !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return Ok(());
    }
    let top = super::dir::open("/sys/fs/cgroup")?;
    free(&Dir::root(std::os::fd::AsFd::as_fd(&top))?)
}

fn free(top: &Dir) -> io::Result<()> {
    let (init, _) = top.make_or_find(INIT)?;
    for process in top.read("cgroup.procs")?.lines() {
        match init.write("cgroup.procs", process) {
            // It has ended meanwhile, or is the kernel's own.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)) => {}
            moved => moved?,
        }
    }
    let controllers = top.read("cgroup.controllers")?;
    let controllers: Vec<&str> = controllers.split_whitespace().collect();
    top.enable(&controllers);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// In a folder that looks like one: that is all one can do without being in a container.
    ///
    /// Rows: D37
    #[test]
    fn processes_move_down_and_controllers_are_handed_down() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("init")).unwrap();
        for (file, text) in [
            ("cgroup.procs", "1\n17\n"),
            ("cgroup.controllers", "cpu io memory\n"),
            ("cgroup.subtree_control", ""),
            ("init/cgroup.procs", ""),
        ] {
            std::fs::write(path(file), text).unwrap();
        }
        let top = crate::cgroup::dir::open(dir.path().to_str().unwrap()).unwrap();
        free(&Dir::root(top.as_fd()).unwrap()).unwrap();
        // Each write begins at the start of what is no real file of the kernel's.
        assert_eq!(
            std::fs::read_to_string(path("init/cgroup.procs")).unwrap(),
            "17"
        );
        let on = std::fs::read_to_string(path("cgroup.subtree_control")).unwrap();
        assert_eq!(on, "+memory");
    }
}
