//! Which devices a container sees and may touch.
//!
//! A device node is a number anyone with `CAP_MKNOD` can make up, so the nodes in
//! `/dev` are only half of it: a program attached to the container's cgroup answers
//! each access by number.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::process::{Device, DeviceKind};

/// Character devices in every container's `/dev`.
pub(crate) const NODES: &[(&str, u32, u32)] = &[
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Further character devices for insecure containers, if the host has them.
pub(crate) const INSECURE_NODES: &[(&str, u32, u32)] = &[
    ("kmsg", 1, 11),
    ("cuse", 10, 203),
    ("fuse", 10, 229),
    ("kvm", 10, 232),
    ("net/tun", 10, 200),
    ("loop-control", 10, 237),
];

/// One eBPF instruction as the kernel lays it out.
#[repr(C)]
#[derive(Clone, Copy)]
struct Insn {
    code: u8,
    registers: u8,
    offset: i16,
    value: i32,
}

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const ACCESS_MKNOD: i32 = 1;

/// The rules: any node may be made; null, zero, full, random, urandom, tty, console,
/// ptmx, pseudo-terminals and what is `allowed` may be used.
fn program(allowed: &[Device]) -> Vec<Insn> {
    let insn = |code, registers, offset, value| Insn {
        code,
        registers,
        offset,
        value,
    };
    let load = |to: u8, offset: i16| insn(0x61, to | 0x10, offset, 0);
    let unless_equal = |register: u8, value: i32, skip: i16| insn(0x55, register, skip, value);
    let if_equal = |register: u8, value: i32, skip: i16| insn(0x15, register, skip, value);
    let mut program = vec![
        load(2, 0),                  // r2 = access << 16 | type
        load(4, 4),                  // r4 = major
        load(5, 8),                  // r5 = minor
        insn(0xbc, 0x23, 0, 0),      // r3 = r2
        insn(0x54, 0x03, 0, 0xffff), // r3 &= 0xffff: the type
        insn(0x74, 0x02, 0, 16),     // r2 >>= 16: the access
    ];
    for device in allowed {
        let kind = match device.kind {
            DeviceKind::Block => BLOCK,
            DeviceKind::Character => CHARACTER,
        };
        program.extend([
            unless_equal(3, kind, 7),
            unless_equal(4, device.major.cast_signed(), 6),
            unless_equal(5, device.minor.cast_signed(), 5),
            insn(0xbc, 0x26, 0, 0), // r6 = r2
            insn(0x54, 0x06, 0, !access_bits(&device.access)),
            unless_equal(6, 0, 2), // more than is allowed: the rules for all decide
            insn(0xb7, 0x00, 0, 1),
            insn(0x95, 0, 0, 0),
        ]);
    }
    program.extend([
        if_equal(2, ACCESS_MKNOD, 12), // making a node: allow
        unless_equal(3, CHARACTER, 9), // block devices: deny
        if_equal(4, 136, 10),          // pseudo-terminals: allow
        unless_equal(4, 1, 5),         // memory devices ...
        if_equal(5, 3, 8),
        if_equal(5, 5, 7),
        if_equal(5, 7, 6),
        if_equal(5, 8, 5),
        if_equal(5, 9, 4),
        unless_equal(4, 5, 1),  // tty devices ...
        insn(0xb5, 0x05, 2, 2), // ... tty, console, ptmx: allow when minor <= 2
        insn(0xb7, 0x00, 0, 0), // deny
        insn(0x95, 0, 0, 0),
        insn(0xb7, 0x00, 0, 1), // allow
        insn(0x95, 0, 0, 0),
    ]);
    program
}

/// The kernel's bits of an access such as `rwm`.
fn access_bits(access: &str) -> i32 {
    access.chars().fold(0, |bits, letter| match letter {
        'm' => bits | ACCESS_MKNOD,
        'r' => bits | 2,
        'w' => bits | 4,
        _ => bits,
    })
}

/// Attaches the rules to a cgroup (v2) directory and all beneath it.
pub(crate) fn attach(cgroup: BorrowedFd<'_>, allowed: &[Device]) -> io::Result<()> {
    let program = load_program(allowed)?;
    let attributes: [u32; 4] = [
        cgroup.as_raw_fd().cast_unsigned(),
        program.as_raw_fd().cast_unsigned(),
        ATTACH_CGROUP_DEVICE,
        ALLOW_MULTI,
    ];
    bpf(8, attributes.as_ptr().cast(), size_of_val(&attributes)).map(drop)
}

fn load_program(allowed: &[Device]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        program_type: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    let program = program(allowed);
    let load = Load {
        program_type: PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).expect("a short program"),
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    let fd = bpf(5, (&raw const load).cast(), size_of::<Load>())?;
    // SAFETY: BPF_PROG_LOAD returned a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf(command: libc::c_int, attributes: *const libc::c_void, size: usize) -> io::Result<i32> {
    // SAFETY: `attributes` points to `size` readable bytes laid out for this command,
    // and everything it points to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(i32::try_from(result).expect("descriptors are small"))
}
