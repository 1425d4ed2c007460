//! Promises about what a process sees: root, mounts, user, environment, host files.

use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::Arc;

use bytes::Bytes;
use snapshot::Tree;

use super::{Rootfs, output, run};
use crate::{Executor, HostIp, Mount, MountSource, Network, Process};

/// What a process gets that asks for nothing.
///
/// Rows: X11, X15
pub async fn defaults_are_those_of_a_build_step(executor: Arc<dyn Executor>) {
    let out = output(
        &*executor,
        "pwd; id -u; hostname; echo $PATH; echo $HOME; cat /etc/hosts; test ! -e /run",
    )
    .await;
    let expected = "/\n0\nbuildkitsandbox\n\
        /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n/root\n\
        127.0.0.1\tlocalhost buildkitsandbox\n";
    assert!(out.starts_with(expected), "{out}");
}

/// User, groups, home and working directory.
///
/// Rows: X15
pub async fn users_groups_and_directories_are_as_asked(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let mut process =
        rootfs.sh("id; pwd; echo $HOME; stat -c %u:%g /work; touch mine; echo x > /dev/stderr");
    process.user = "web".into();
    process.cwd = "/work/deep".into();
    process.hostname = "box".into();
    let ran = run(&*executor, process.clone()).await.unwrap();
    assert!(ran.exit.success(), "{ran:?}");
    let expected =
        "uid=33(web) gid=34(web) groups=29(audio),34(web)\n/work/deep\n/home/web\n33:34\n";
    assert_eq!(ran.out, expected);
    process.user = "nobody".into();
    let error = run(&*executor, process).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "unable to find user nobody: no matching entries in passwd file"
    );
}

/// Files of a hostile image that would block, never end, or do something when opened.
/// Rows: X15
pub async fn strange_passwd_files_are_refused(executor: Arc<dyn Executor>) {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let rootfs = Rootfs::busybox();
    let passwd = rootfs.path().join("etc/passwd");
    let group = rootfs.path().join("etc/group");
    let mode = Mode::from_raw_mode(0o644);
    for (kind, device) in [
        (FileType::Fifo, 0),
        (FileType::CharacterDevice, makedev(1, 5)),
    ] {
        std::fs::remove_file(&passwd).unwrap();
        mknodat(CWD, &passwd, kind, mode, device).unwrap();
        let error = run(&*executor, rootfs.sh("true")).await.unwrap_err();
        assert!(
            error
                .to_string()
                .contains("/etc/passwd is not a regular file"),
            "{error}"
        );
    }
    std::fs::remove_file(&passwd).unwrap();
    std::fs::remove_file(&group).unwrap();
    symlink("/proc/self/environ", &passwd).unwrap();
    std::fs::File::create(&group)
        .unwrap()
        .set_len(10 << 30)
        .unwrap();
    let error = run(&*executor, rootfs.sh("true")).await.unwrap_err();
    assert!(
        error.to_string().contains("/etc/group is larger"),
        "{error}"
    );
}

/// Extra hosts are in `/etc/hosts`, which cannot be written.
///
/// Rows: X11
pub async fn extra_hosts_are_in_the_hosts_file(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let mut process = rootfs.sh("cat /etc/hosts; hostname; : > /etc/hosts");
    process.hostname = "box".into();
    process.extra_hosts = vec![HostIp {
        host: "db".into(),
        ip: Some(IpAddr::from([10, 9, 8, 7])),
    }];
    let ran = run(&*executor, process).await.unwrap();
    assert!(
        ran.out.contains("localhost box\n") && ran.out.contains("10.9.8.7\tdb\nbox\n"),
        "{ran:?}"
    );
    assert!(!ran.exit.success(), "the hosts file is not theirs to write");
}

/// Mounts show what they should and leave no trace in the root.
///
/// Rows: X02, X04
pub async fn mounts_appear_in_order_and_leave_no_stubs(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let other = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(other.path().join("sub/dir")).unwrap();
    std::fs::write(other.path().join("sub/file"), "content").unwrap();
    let tree = Arc::new(Tree::open(other.path()).unwrap());
    let part = |target: &str, subpath: &str| Mount {
        target: target.into(),
        source: MountSource::Tree {
            tree: tree.clone(),
            subpath: subpath.into(),
        },
        readonly: false,
    };
    let mut process = rootfs.sh(
        "cat /a/b/one /mnt/file; echo new > /mnt/dir/made; echo no > /ro/x; df -k /t | tail -n 1 | awk '{print $2}'; touch /t/fits",
    );
    process.mounts = vec![
        part("/a/b/one", "sub/file"),
        part("/mnt", "sub"),
        part("/ro", "/sub/").readonly(),
        Mount {
            target: "/t".into(),
            source: MountSource::Tmpfs {
                size: Some(1 << 20),
            },
            readonly: false,
        },
    ];
    process.remove_mount_stubs_recursive = true;
    let before = std::fs::metadata(rootfs.path()).unwrap();
    let ran = run(&*executor, process).await.unwrap();
    assert_eq!(ran.out, "contentcontent1024\n", "{ran:?}");
    assert!(ran.err.contains("Read-only file system"), "{ran:?}");
    assert_eq!(
        std::fs::read_to_string(other.path().join("sub/dir/made")).unwrap(),
        "new\n"
    );
    let mut left: Vec<_> = std::fs::read_dir(rootfs.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(
        left,
        ["bin", "etc", "home", "root", "tmp"],
        "mount stubs stay"
    );
    assert!(!rootfs.path().join("etc/hosts").exists());
    let after = std::fs::metadata(rootfs.path()).unwrap();
    assert_eq!(
        (before.mtime(), before.mtime_nsec()),
        (after.mtime(), after.mtime_nsec())
    );
}

/// A file made of bytes has its content, owner and mode.
///
/// Rows: X05
pub async fn a_secret_is_a_file_in_memory(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let mut process = rootfs.sh("cat /run/secrets/key; stat -c %a:%u:%g /run/secrets/key");
    process.mounts = vec![Mount {
        target: "/run/secrets/key".into(),
        source: MountSource::File {
            bytes: Bytes::from(vec![b'k'; 300_000]),
            mode: 0o400,
            uid: 33,
            gid: 34,
        },
        readonly: true,
    }];
    let ran = run(&*executor, process).await.unwrap();
    assert_eq!(ran.out, format!("{}400:33:34\n", "k".repeat(300_000)));
    assert!(!rootfs.path().join("run/secrets/key").exists());
}

/// A socket of the host can be reached.
///
/// Rows: X06
pub async fn a_socket_can_be_mounted(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut process = rootfs.sh("test -S /run/agent");
    process.mounts = vec![Mount {
        target: "/run/agent".into(),
        source: MountSource::Host {
            path,
            restrict: crate::Restrict::default(),
        },
        readonly: false,
    }];
    assert!(run(&*executor, process).await.unwrap().exit.success());
}

/// A mount source that is not there is named.
///
/// Rows: X02
pub async fn a_missing_source_is_an_error(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let mut process = rootfs.sh("true");
    let source = MountSource::Tree {
        tree: rootfs.tree(),
        subpath: "nowhere".into(),
    };
    process.mounts = vec![Mount {
        target: "/x".into(),
        source,
        readonly: false,
    }];
    let error = run(&*executor, process).await.unwrap_err();
    assert_eq!(error.kind(), stdx::Kind::NotFound);
    assert_eq!(error.to_string(), "mount source \"nowhere\" for /x");
}

/// Host, default and no network.
///
/// Rows: X07
pub async fn networks_are_as_asked(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let script =
        "readlink /proc/self/ns/net; ls /sys/class/net; ip addr show lo | grep -c 'inet 127.0.0.1'";
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    for (network, shared) in [
        (Network::Host, true),
        (Network::Sandbox, true),
        (Network::None, false),
    ] {
        let process = Process {
            network,
            ..rootfs.sh(script)
        };
        let ran = run(&*executor, process).await.unwrap();
        let same = ran.out.lines().next() == host.to_str();
        assert_eq!(same, shared, "{network:?}: {ran:?}");
        if !shared {
            assert_eq!(
                ran.out.lines().skip(1).collect::<Vec<_>>(),
                ["lo", "1"],
                "{ran:?}"
            );
        }
    }
}

/// A read-only root refuses writes; `/dev/shm` does not.
pub async fn a_read_only_root_is_read_only(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    for name in ["proc", "dev", "sys"] {
        std::fs::create_dir(rootfs.path().join(name)).unwrap();
    }
    let mut process = rootfs.sh("touch /x; touch /dev/shm/ok && echo shm");
    process.readonly_root = true;
    let ran = run(&*executor, process).await.unwrap();
    assert!(
        ran.err.contains("Read-only file system") && ran.out == "shm\n",
        "{ran:?}"
    );
}

/// A tree that is only to be read, such as a layer shared by many, is not even written
/// to make mount points or a working directory.
///
/// Rows: X02
pub async fn a_read_only_tree_is_never_written(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let tree = || {
        let root = stdx::sys::Root::open(rootfs.path()).unwrap();
        Arc::new(Tree::plain(root, true))
    };
    let error = run(&*executor, Process::new(tree(), ["/bin/true"]))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("/proc: it is missing and the root is read-only"),
        "{error}"
    );
    for name in ["proc", "dev", "sys"] {
        std::fs::create_dir(rootfs.path().join(name)).unwrap();
    }
    let ran = run(
        &*executor,
        Process::new(tree(), ["/bin/sh", "-c", "touch /x || echo refused"]),
    )
    .await;
    assert_eq!(ran.unwrap().out, "refused\n");
    let mut process = Process::new(tree(), ["/bin/true"]);
    process.cwd = "/new".into();
    assert!(matches!(
        run(&*executor, process).await.unwrap_err(),
        crate::Error::Cwd { .. }
    ));
    for name in ["x", "new", "etc/hosts", "etc/resolv.conf"] {
        assert!(!rootfs.path().join(name).exists(), "{name}");
    }
}

/// Mount targets through links of the root stay in the root.
///
/// Rows: X02
pub async fn links_in_the_root_stay_inside(executor: Arc<dyn Executor>) {
    let outside = tempfile::tempdir().unwrap();
    let rootfs = Rootfs::busybox();
    symlink("../../../../../../../../../..", rootfs.path().join("up")).unwrap();
    symlink(outside.path(), rootfs.path().join("out")).unwrap();
    let mut process = rootfs.sh("true");
    for target in ["/up/escaped", "/out/escaped"] {
        let source = MountSource::Tmpfs { size: None };
        process.mounts.push(Mount {
            target: target.into(),
            source,
            readonly: false,
        });
    }
    process.remove_mount_stubs_recursive = true;
    assert!(run(&*executor, process).await.unwrap().exit.success());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    assert!(!std::path::Path::new("/escaped").exists());
}
