//! The built-in executor keeps every promise.

use std::sync::Arc;

use executor::{Executor, Native, NativeOptions, testing};

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
        a_program_that_is_not_there_is_an_error,
        much_output_arrives_whole,
        input_arrives_and_ends,
        many_run_at_once,
        nothing_survives_its_end,
        cancelling_kills_it,
        dropping_the_run_kills_it,
        a_terminal_is_one_and_changes_size,
        a_second_process_joins_the_first,
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
        links_in_the_root_stay_inside,
        docker_capabilities_and_seccomp_hold,
        kernel_doors_are_closed,
        devices_of_the_host_are_out_of_reach,
        device_nodes_of_the_image_are_dead,
        programs_of_32_bits_run,
        insecure_has_everything,
        ulimits_are_set,
        too_much_memory_is_told_apart,
        a_fork_bomb_meets_its_limit,
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
        mounts_appear_in_order_and_leave_no_stubs,
        too_much_memory_is_told_apart,
    );
}
