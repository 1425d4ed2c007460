//! The environment, read once.

use std::path::PathBuf;

use daemon::config::Surroundings;

pub(crate) fn read() -> Surroundings {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let path = |name: &str| variable(name).map(PathBuf::from);
    let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
    let own_pid = std::process::id().to_string();
    let for_us = text("LISTEN_PID").as_deref() == Some(own_pid.as_str());
    let listen_fds = text("LISTEN_FDS")
        .filter(|_| for_us)
        .and_then(|count| count.parse().ok())
        .unwrap_or(0);
    let truth =
        |name: &str| text(name).is_some_and(|text| stdx::text::go_bool(&text) == Some(true));
    let (size, speed) = (
        text("BUILDKIT_STEP_LOG_MAX_SIZE"),
        text("BUILDKIT_STEP_LOG_MAX_SPEED"),
    );
    Surroundings {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        home: path("HOME"),
        runtime_dir: path("XDG_RUNTIME_DIR"),
        data_home: path("XDG_DATA_HOME"),
        config_home: path("XDG_CONFIG_HOME"),
        notify_socket: path("NOTIFY_SOCKET"),
        listen_fds,
        cni_init_lock: path("BUILDKIT_CNI_INIT_LOCK_PATH"),
        bridge_auto: truth("BUILDKIT_NETWORK_BRIDGE_AUTO"),
        free_cgroup_top: truth("BUILDKIT_SETUP_CGROUPV2_ROOT"),
        scheduler_debug: truth("BUILDKIT_SCHEDULER_DEBUG"),
        unheeded: std::env::vars_os()
            .filter_map(|(key, _)| key.into_string().ok())
            .filter(|key| is_unheeded(key))
            .collect(),
        otel: std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(key, _)| key.starts_with("OTEL_"))
            .collect(),
        log_limits: progress::LogLimits::parse(size.as_deref(), speed.as_deref()),
    }
}

/// Whether a variable means something to BuildKit's daemon and nothing to us.
fn is_unheeded(key: &str) -> bool {
    const UNHEEDED: &[&str] = &[
        "BUILDKIT_SCHEDULER_DEBUG_STEPS",
        "BUILDKIT_DEBUG_EXEC_OUTPUT",
        "BUILDKIT_DEBUG_FORCE_OVERLAY_DIFF",
        "BUILDKIT_DEBUG_PANIC_ON_ERROR",
    ];
    UNHEEDED.contains(&key) || key.starts_with("BUILDKIT_AZURE_STORAGE_")
}
