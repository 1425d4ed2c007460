//! Promises about what a process cannot do.

use std::sync::Arc;

use super::{Rootfs, output, run};
use crate::{Executor, Resources, Security, Ulimit};

/// Exactly Docker's capabilities, and a filter.
///
/// Rows: X10
pub async fn docker_capabilities_and_seccomp_hold(executor: Arc<dyn Executor>) {
    let out = output(
        &*executor,
        "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|Seccomp:|NoNewPrivs' /proc/self/status",
    )
    .await;
    let value = |key: &str| -> String {
        let line = out
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default();
        line.split_whitespace()
            .last()
            .unwrap_or_default()
            .to_string()
    };
    assert_eq!(value("CapEff"), "00000000a80425fb", "{out}");
    assert_eq!(value("CapBnd"), "00000000a80425fb");
    assert_eq!(value("CapInh"), "0000000000000000", "CVE-2022-29162");
    assert_eq!(value("CapAmb"), "0000000000000000");
    assert_eq!(value("Seccomp"), "2");
    assert_eq!(value("NoNewPrivs"), "0", "sudo works in a build step");
}

/// Mounting, namespaces, kernel settings and secrets are out of reach.
///
/// Rows: X10
pub async fn kernel_doors_are_closed(executor: Arc<dyn Executor>) {
    let script = "
        mount -t tmpfs x /tmp 2>/dev/null && echo mounted
        unshare -n true 2>/dev/null && echo unshared
        hostname evil 2>/dev/null && echo renamed
        echo 1 > /proc/sys/kernel/panic 2>/dev/null && echo sysctl
        echo b > /proc/sysrq-trigger 2>/dev/null && echo sysrq
        for d in $(find /sys/fs/cgroup -maxdepth 2 -name cgroup.procs); do mkdir ${d%/*}/evil 2>/dev/null && echo cgroup; done
        touch /sys/kernel/x 2>/dev/null && echo sysfs
        [ -s /proc/kcore ] && echo kcore
        [ -n \"$(cat /proc/keys 2>/dev/null)\" ] && echo keys
        [ -n \"$(ls /sys/firmware 2>/dev/null)\" ] && echo firmware
        [ -n \"$(cat /proc/timer_list 2>/dev/null)\" ] && echo timers
        echo end";
    assert_eq!(output(&*executor, script).await, "end\n");
}

/// Nodes may be made; only those of `/dev` may be opened.
///
/// Rows: X10
pub async fn devices_of_the_host_are_out_of_reach(executor: Arc<dyn Executor>) {
    let script = "
        echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c
        mknod /kmsg c 1 11 && head -c 1 /kmsg >/dev/null 2>&1 && echo kmsg
        mknod /mem c 1 1 && head -c 1 /mem 2>/dev/null && echo mem
        for disk in '8 0' '253 0' '254 0' '259 0' '7 0'; do
          rm -f /disk; mknod /disk b $disk && head -c 1 /disk 2>/dev/null && echo disk
        done
        echo end";
    let out = output(&*executor, script).await;
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(words, ["4", "4", "end"], "{out}");
}

/// A device that is asked for has its node and can be used, but only as was asked.
/// Rows: X13
pub async fn a_device_asked_for_may_be_used_as_far_as_asked(executor: Arc<dyn Executor>) {
    use crate::{Device, DeviceKind};
    let rootfs = Rootfs::busybox();
    let script = "
        stat -c '%F %a %u %t %T' /dev/deep/log
        echo kiln-test > /dev/deep/log && echo written
        head -c 1 /dev/deep/log 2>/dev/null && echo read
        mknod /mem c 1 1 && head -c 1 /mem 2>/dev/null && echo mem
        echo x > /dev/null && echo end";
    let mut process = rootfs.sh(script);
    process.devices = vec![Device {
        path: "/dev/deep/log".into(),
        kind: DeviceKind::Character,
        major: 1,
        minor: 11,
        mode: 0o620,
        uid: Some(33),
        gid: None,
        access: "w".into(),
    }];
    let ran = run(&*executor, process).await.unwrap();
    assert_eq!(
        ran.out, "character special file 620 33 1 b\nwritten\nend\n",
        "{ran:?}"
    );
    let mut process = rootfs.sh("true");
    process.devices = vec![Device {
        path: "/dev/../etc/x".into(),
        kind: DeviceKind::Character,
        major: 1,
        minor: 11,
        mode: 0o600,
        uid: None,
        gid: None,
        access: "rw".into(),
    }];
    let error = run(&*executor, process).await.unwrap_err();
    assert_eq!(error.kind(), stdx::Kind::InvalidInput, "{error}");
}

/// An image may bring device nodes; they are as dead as made ones.
/// Rows: X10
pub async fn device_nodes_of_the_image_are_dead(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let node = |name: &str, major, minor| {
        use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
        let path = rootfs.path().join(name);
        let mode = Mode::from_raw_mode(0o666);
        mknodat(
            CWD,
            path,
            FileType::CharacterDevice,
            mode,
            makedev(major, minor),
        )
        .unwrap();
    };
    node("kmsg", 1, 11);
    node("mem", 1, 1);
    let script = "for d in kmsg mem; do head -c 1 /$d >/dev/null 2>&1 && echo $d; done; echo end";
    assert_eq!(
        run(&*executor, rootfs.sh(script)).await.unwrap().out,
        "end\n"
    );
}

/// `Security::Insecure` lifts it all.
///
/// Rows: X09
pub async fn insecure_has_everything(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let mut process = rootfs.sh(
        "grep -E 'Seccomp:' /proc/self/status; mount -t tmpfs x /tmp && echo mounted; unshare -n true && echo unshared; mknod /kmsg c 1 11 && cat /dev/null > /kmsg && echo kmsg; su web -c 'grep CapEff /proc/self/status'",
    );
    process.security = Security::Insecure;
    let ran = run(&*executor, process).await.unwrap();
    assert!(
        ran.out.contains("Seccomp:\t0\nmounted\nunshared\nkmsg\n"),
        "{ran:?}"
    );
    assert!(rootfs.path().join("kmsg").exists());
}

/// 32-bit programs run: the filter knows their numbers too.
/// Rows: X10
#[cfg(target_arch = "x86_64")]
pub async fn programs_of_32_bits_run(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let program = rootfs.path().join("bin/tiny");
    std::fs::write(&program, tiny_elf()).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    if std::process::Command::new(&program).status().is_err() {
        return super::skip("this kernel runs no 32-bit programs");
    }
    let ran = run(&*executor, rootfs.sh("tiny")).await.unwrap();
    assert_eq!((ran.exit.code, ran.out.as_str()), (7, "32\n"), "{ran:?}");
}

/// An i386 program that writes "32" and exits with 7.
#[cfg(target_arch = "x86_64")]
fn tiny_elf() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const CODE: u32 = BASE + 84;
    let text = CODE + 34;
    let mut code = vec![0xb8, 4, 0, 0, 0, 0xbb, 1, 0, 0, 0, 0xb9];
    code.extend(text.to_le_bytes());
    code.extend([0xba, 3, 0, 0, 0, 0xcd, 0x80]);
    code.extend([0xb8, 1, 0, 0, 0, 0xbb, 7, 0, 0, 0, 0xcd, 0x80]);
    code.extend(*b"32\n");
    let size = 84 + u32::try_from(code.len()).expect("tiny");
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    for word in [1, CODE, 52, 0, 0, 0x0020_0034, 1, 0] {
        elf.extend(u32::to_le_bytes(word));
    }
    for word in [1, 0, BASE, BASE, size, size, 5, 0x1000] {
        elf.extend(u32::to_le_bytes(word));
    }
    elf.extend(code);
    elf
}

/// Limits per process, by name.
///
/// Rows: X12
pub async fn ulimits_are_set(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let mut process = rootfs.sh("grep 'Max open files' /proc/self/limits | tr -s ' '");
    process.ulimits = vec![Ulimit {
        name: "nofile".into(),
        soft: 123,
        hard: 456,
    }];
    let ran = run(&*executor, process.clone()).await.unwrap();
    assert_eq!(ran.out.trim(), "Max open files 123 456 files");
    process.ulimits[0].name = "nothing".into();
    assert_eq!(
        run(&*executor, process).await.unwrap_err().kind(),
        stdx::Kind::InvalidInput
    );
}

/// A container that runs out of its memory says so.
///
/// Rows: X12, X17
pub async fn too_much_memory_is_told_apart(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let mut process = rootfs.sh("tail /dev/zero");
    process.resources = Resources {
        memory: Some(32 << 20),
        ..Resources::default()
    };
    match run(&*executor, process).await {
        Ok(ran) => assert!(ran.exit.oom && ran.exit.code == 137, "{ran:?}"),
        Err(error) => assert_eq!(error.kind(), stdx::Kind::Unsupported, "{error}"),
    }
}

/// The limit of processes holds.
///
/// Rows: X12
pub async fn a_fork_bomb_meets_its_limit(executor: Arc<dyn Executor>) {
    let rootfs = Rootfs::busybox();
    let mut process = rootfs.sh("for i in $(seq 1 60); do sleep 30 & done; echo survived");
    process.resources = Resources {
        pids: Some(20),
        ..Resources::default()
    };
    match run(&*executor, process).await {
        Ok(ran) => assert!(
            !ran.out.contains("survived") || ran.err.contains("fork"),
            "{ran:?}"
        ),
        Err(error) => assert_eq!(error.kind(), stdx::Kind::Unsupported, "{error}"),
    }
}
