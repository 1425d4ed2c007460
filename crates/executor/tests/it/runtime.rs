//! Runtime binaries keep the same promises, where they are installed.

use std::fs::File;
use std::sync::Arc;

use async_trait::async_trait;
use executor::{
    Control, ExecProcess, Executor, Exit, Io, Process, Runtime, RuntimeOptions, testing,
};

/// An executor that the last of all tests which run closes. Closing removes the parent of all
/// cgroups, which the binary does not expect while it makes one in it.
struct LastCloses {
    runtime: Runtime,
    /// The test program itself, locked by all who run, also in other processes of it.
    lock: File,
}

#[async_trait]
impl Executor for LastCloses {
    async fn run(&self, process: Process, io: Io, control: Control) -> executor::Result<Exit> {
        self.runtime.run(process, io, control).await
    }

    async fn exec(
        &self,
        name: &str,
        exec: ExecProcess,
        io: Io,
        control: Control,
    ) -> executor::Result<Exit> {
        self.runtime.exec(name, exec, io, control).await
    }

    async fn close(&self) {
        self.lock.unlock().unwrap();
        if self.lock.try_lock().is_ok() {
            self.runtime.close().await;
            self.lock.unlock().unwrap();
        }
    }
}

async fn start(binary: &str, cgroup_parent: Option<&str>) -> Option<Arc<LastCloses>> {
    if !testing::is_root() {
        return None;
    }
    let state = std::env::temp_dir().join(format!("kiln-test-{binary}"));
    let mut options = RuntimeOptions::new(binary, state);
    if let Some(parent) = cgroup_parent {
        options.cgroup_parent = parent.into();
    }
    match Runtime::start(options).await {
        Ok(runtime) => {
            // Only who may make a cgroup: nobody else keeps the last from closing.
            let lock = File::open(std::env::current_exe().unwrap()).unwrap();
            lock.lock_shared().unwrap();
            Some(Arc::new(LastCloses { runtime, lock }))
        }
        Err(error) => {
            assert_eq!(error.kind(), stdx::Kind::Unsupported, "{error}");
            testing::skip(&error.to_string());
            None
        }
    }
}

async fn runc() -> Option<Arc<dyn Executor>> {
    Some(start("runc", None).await?)
}

async fn crun() -> Option<Arc<dyn Executor>> {
    Some(start("crun", None).await?)
}

macro_rules! promises {
    ($make:ident) => {
        executor::executor_suite!(
            $make: exit_codes_and_streams_arrive,
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
    };
}

mod privileged_runc {
    use super::runc;
    promises!(runc);
}

mod privileged_crun {
    use super::crun;
    promises!(crun);
}

/// Rows: X13
#[tokio::test]
async fn privileged_runc_runs_hooks_and_leaves_no_cgroup() {
    let parent = format!("kiln-runtime/test-{}", std::process::id());
    let Some(runc) = start("runc", Some(&parent)).await else {
        return;
    };
    let rootfs = testing::Rootfs::busybox();
    let dir = tempfile::tempdir().unwrap();
    let told = dir.path().join("told");
    let mut process = rootfs.sh("true");
    process.hooks = vec![executor::Hook {
        stage: "createRuntime".into(),
        path: "/bin/sh".into(),
        args: ["sh", "-c", &format!("echo $WHO > {}", told.display())]
            .map(String::from)
            .into(),
        env: vec!["WHO=hook".into()],
        timeout: Some(10),
    }];
    testing::succeeds(&*runc, process).await;
    assert_eq!(std::fs::read_to_string(told).unwrap(), "hook\n");
    assert!(crate::crash::cgroups(&parent) > 0);
    // When all others are done.
    runc.lock.unlock().unwrap();
    runc.lock.lock().unwrap();
    runc.runtime.close().await;
    assert_eq!(crate::crash::cgroups(&parent), 0);
}
