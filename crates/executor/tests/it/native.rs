//! The built-in executor keeps every promise.

use std::sync::Arc;

use executor::testing::Rootfs;
use executor::{Control, Executor, Mount, MountSource, Native, NativeOptions, Process, testing};

async fn native() -> Option<Arc<dyn Executor>> {
    if !testing::is_root() {
        return None;
    }
    let native = Native::start(NativeOptions::default())
        .await
        .expect("root can start it");
    Some(Arc::new(native))
}

mod privileged_native {
    use super::native;

    executor::executor_suite!(
        native: exit_codes_and_streams_arrive,
        a_signal_that_ends_it_is_told,
        a_signal_reaches_its_handler,
        a_program_that_is_not_there_is_an_error,
        much_output_arrives_whole,
        input_arrives_and_ends,
        many_run_at_once,
        nothing_survives_its_end,
        cancelling_kills_it,
        dropping_the_run_kills_it,
        a_terminal_is_one_and_changes_size,
        a_second_process_joins_the_first,
        the_newest_of_a_name_can_be_joined,
        defaults_are_those_of_a_build_step,
        users_groups_and_directories_are_as_asked,
        extra_hosts_are_in_the_hosts_file,
        strange_passwd_files_are_refused,
        mounts_appear_in_order_and_leave_no_stubs,
        a_secret_is_a_file_in_memory,
        a_socket_can_be_mounted,
        a_missing_source_is_an_error,
        networks_are_as_asked,
        a_read_only_root_is_read_only,
        a_read_only_tree_is_never_written,
        links_in_the_root_stay_inside,
        docker_capabilities_and_seccomp_hold,
        kernel_doors_are_closed,
        devices_of_the_host_are_out_of_reach,
        device_nodes_of_the_image_are_dead,
        a_device_asked_for_may_be_used_as_far_as_asked,
        programs_of_32_bits_run,
        insecure_has_everything,
        ulimits_are_set,
        too_much_memory_is_told_apart,
    what_it_uses_is_taken_down,
        a_fork_bomb_meets_its_limit,
        a_proxied_container_reaches_its_proxy_and_nothing_else,
        without_a_network_there_is_no_proxy,
        a_process_that_joins_hears_of_the_proxy,
        the_proxys_authority_is_trusted_for_the_run,
    );
}

/// A host on which no cgroup can be made: here one whose names are too long.
async fn without_cgroups() -> Option<Arc<dyn Executor>> {
    if !testing::is_root() {
        return None;
    }
    let options = NativeOptions {
        cgroup_parent: "x".repeat(300),
        ..NativeOptions::default()
    };
    Some(Arc::new(
        Native::start(options)
            .await
            .expect("it does without cgroups"),
    ))
}

mod privileged_native_without_cgroups {
    use super::without_cgroups;

    executor::executor_suite!(
        without_cgroups: exit_codes_and_streams_arrive,
        nothing_survives_its_end,
        cancelling_kills_it,
        kernel_doors_are_closed,
        devices_of_the_host_are_out_of_reach,
        device_nodes_of_the_image_are_dead,
        a_second_process_joins_the_first,
        the_newest_of_a_name_can_be_joined,
        mounts_appear_in_order_and_leave_no_stubs,
        too_much_memory_is_told_apart,
    );
}

/// How many processes are in a cgroup below `parent`. Told by the processes: not every host has
/// the hierarchy mounted.
fn processes_below(parent: &str) -> usize {
    let below = format!("/{parent}/");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let cgroups =
        processes.filter_map(|one| std::fs::read_to_string(one.path().join("cgroup")).ok());
    let unified = |text: &String| {
        let mut lines = text.lines().filter(|line| line.starts_with("0::"));
        lines.any(|line| line.contains(&below))
    };
    cgroups.filter(unified).count()
}

/// Rows: X12
#[tokio::test]
async fn privileged_a_container_can_ask_for_its_cgroup_parent() {
    let Some(native) = native().await else { return };
    let rootfs = Rootfs::busybox();
    let (control, controller, started) = Control::new();
    let mut process = rootfs.sh("exec sleep 60");
    process.cgroup_parent = Some("kiln-test-parent/inner".into());
    let (result, ()) = tokio::join!(testing::run_with(&*native, process, control), async {
        if started.await.is_ok() {
            assert_eq!(processes_below("kiln-test-parent/inner"), 1);
            controller.cancel();
        }
    });
    let error = result.unwrap_err();
    assert!(
        matches!(error.kind(), stdx::Kind::Canceled | stdx::Kind::Unsupported),
        "{error}"
    );
    for (parent, kind) in [
        ("a.slice:b:c", stdx::Kind::Unsupported),
        ("../up", stdx::Kind::InvalidInput),
    ] {
        let mut process = rootfs.sh("true");
        process.cgroup_parent = Some(parent.into());
        assert_eq!(
            testing::run(&*native, process).await.unwrap_err().kind(),
            kind,
            "{parent}"
        );
    }
    assert_eq!(
        crate::crash::cgroups("kiln-test-parent"),
        0,
        "it goes with the container"
    );
}

/// Parents that containers think up cost nothing once the containers are gone, neither here nor
/// in the helper; also those that share a part of their path, and those that are used at once.
/// Rows: X12
#[tokio::test]
async fn privileged_parents_asked_for_go_with_their_containers() {
    let Some(native) = native().await else { return };
    let rootfs = Rootfs::busybox();
    let run = async |parent: &str| {
        // A root each: two at once would make and remove each other's mount points.
        let rootfs = Rootfs::busybox();
        let mut process = rootfs.sh("true");
        process.remove_mount_stubs_recursive = true;
        process.cgroup_parent = Some(format!("kiln-test-parents/{parent}"));
        testing::run(&*native, process).await
    };
    if let Err(error) = run("0").await {
        assert_eq!(error.kind(), stdx::Kind::Unsupported, "{error}");
        return;
    }
    for n in 0..20 {
        assert!(run(&n.to_string()).await.unwrap().exit.success());
    }
    let (a, b, c) = tokio::join!(run("at-once/a"), run("at-once/b"), run("at-once/a"));
    assert!([a, b, c].into_iter().all(|run| run.unwrap().exit.success()));
    assert_eq!(crate::crash::cgroups("kiln-test-parents"), 0);
    assert!(run("0").await.unwrap().exit.success());
    // The helper hears of what has gone when it is next asked for something.
    testing::succeeds(&*native, rootfs.sh("true")).await;
    let ours = crate::crash::helpers_of(std::process::id())
        .into_iter()
        .map(|pid| pid.as_raw_nonzero().get().cast_unsigned());
    for pid in ours.chain([std::process::id()]) {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        let open = open.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        let open: Vec<_> = open
            .filter(|path| path.to_string_lossy().contains("kiln-test-parents"))
            .collect();
        assert!(open.is_empty(), "open in {pid}: {open:?}");
    }
}

/// A profile one believes to have must not be missing in silence.
/// Rows: X10
#[tokio::test]
async fn privileged_an_apparmor_profile_that_is_not_there_stops_the_step() {
    if !testing::is_root() {
        return;
    }
    let options = NativeOptions {
        apparmor: Some("kiln-no-such-profile".into()),
        ..NativeOptions::default()
    };
    let native = Native::start(options).await.unwrap();
    let rootfs = Rootfs::busybox();
    let error = testing::run(&native, rootfs.sh("touch /ran"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), stdx::Kind::Unsupported, "{error}");
    assert!(
        error.to_string().contains("kiln-no-such-profile"),
        "{error}"
    );
    assert!(!rootfs.path().join("ran").exists());
    let mut process = rootfs.sh("true");
    process.security = executor::Security::Insecure;
    // Profiles are for the sandbox.
    testing::succeeds(&native, process).await;
}

/// Rows: X13
#[tokio::test]
async fn privileged_hooks_are_refused_where_nobody_runs_them() {
    let Some(native) = native().await else { return };
    let rootfs = Rootfs::busybox();
    let mut process = rootfs.sh("touch /ran");
    process.hooks = vec![executor::Hook {
        stage: "createContainer".into(),
        path: "/bin/true".into(),
        args: vec!["true".into()],
        env: Vec::new(),
        timeout: None,
    }];
    let error = testing::run(&*native, process).await.unwrap_err();
    assert_eq!(error.kind(), stdx::Kind::Unsupported, "{error}");
    assert!(!rootfs.path().join("ran").exists());
}

/// Requests that make no sense are refused before anything is touched.
/// Rows: X02, X12
#[tokio::test]
async fn privileged_nonsense_is_refused_with_its_reason() {
    let Some(native) = native().await else { return };
    let rootfs = Rootfs::busybox();
    let tmpfs = |target: &str| Mount {
        target: target.into(),
        source: MountSource::Tmpfs { size: None },
        readonly: false,
    };
    let tree = rootfs.tree();
    type Spoil = Box<dyn Fn(&mut Process)>;
    let cases: Vec<(&str, Spoil)> = vec![
        ("there is no program to run", Box::new(|p| p.args.clear())),
        (
            "it contains a NUL byte",
            Box::new(|p| p.args.push("a\0b".into())),
        ),
        (
            "working directory is not valid: it must be absolute",
            Box::new(|p| p.cwd = "x".into()),
        ),
        (
            "mount point x: it must be absolute",
            Box::new(move |p| p.mounts.push(tmpfs("x"))),
        ),
        (
            "mount point /./..: it is the root",
            Box::new(move |p| p.mounts.push(tmpfs("/./.."))),
        ),
        (
            "mount point /etc/passwd: it is there and not a directory",
            Box::new(move |p| p.mounts.push(tmpfs("/etc/passwd"))),
        ),
        ("host name", Box::new(|p| p.hostname = "a b".into())),
        (
            "is the most",
            Box::new(move |p| {
                p.mounts = (0..300)
                    .map(|n| Mount::tree(format!("/m{n}"), tree.clone()))
                    .collect();
            }),
        ),
    ];
    for (reason, spoil) in cases {
        let mut process = rootfs.sh("true");
        process.remove_mount_stubs_recursive = true;
        spoil(&mut process);
        let error = testing::run(&*native, process).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(error.kind(), stdx::Kind::InvalidInput, "{error}");
    }
    assert!(!rootfs.path().join("m0").exists());
}
