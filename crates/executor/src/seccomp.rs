//! The syscall filter: Docker's default rules as a short BPF program.
//!
//! The kernel verifies a filter and walks it for every syscall number when it is
//! loaded, so its length is what a container pays for it. Neighbouring numbers with
//! the same answer become one range, and a binary search finds the range.

mod table;

use table::{ALLOWED, Abi, CONDITIONAL, Question};

/// One BPF instruction, laid out as the kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Insn {
    code: u16,
    on_true: u8,
    on_false: u8,
    value: u32,
}

const LOAD_WORD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
const DENIED: u32 = ERRNO | libc::EPERM as u32;
const NO_SYSCALL: u32 = ERRNO | libc::ENOSYS as u32;

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
/// Low word of the first argument: all architectures here are little-endian, and
/// the kernel itself looks no further for these arguments.
const OFFSET_FIRST_ARGUMENT: u32 = 16;

const X32_BIT: u32 = 0x4000_0000;
/// Numbers above the newest one the profile knows are "no such syscall" rather than
/// "denied": libraries then use an older one.
const NEWEST: u32 = 466;
/// Namespace flags of `clone`.
const NEW_NAMESPACES: u32 = 0x7e02_0000;
/// Address families `socket` may ask for.
const FAMILIES: &[(u32, u32)] = &[
    (0, 11),
    (13, 18),
    (21, 22),
    (24, 24),
    (26, 33),
    (35, 36),
    (39, 39),
    (41, 45),
];
/// Personalities one may ask for.
const PERSONALITIES: &[(u32, u32)] = &[
    (0, 0),
    (8, 8),
    (0x2_0000, 0x2_0000),
    (0x2_0008, 0x2_0008),
    (u32::MAX, u32::MAX),
];

#[cfg(target_arch = "x86_64")]
const NATIVE: &[(u32, Abi, Option<Abi>)] = &[
    (0xc000_003e, Abi::X86_64, Some(Abi::X32)),
    (0x4000_0003, Abi::I386, None),
];
#[cfg(target_arch = "aarch64")]
const NATIVE: &[(u32, Abi, Option<Abi>)] = &[
    (0xc000_00b7, Abi::Aarch64, None),
    (0x4000_0028, Abi::Arm, None),
];

/// What to answer for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Return(u32),
    Ask(Question),
}

/// The same rules in the words of an OCI runtime's configuration.
pub(crate) fn oci_profile() -> serde_json::Value {
    use serde_json::json;
    let names: Vec<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
    let equal = |name: &str, value: u32| {
        json!({"names": [name], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]})
    };
    let mut rules = vec![json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
    for (first, last) in FAMILIES {
        rules.extend((*first..=*last).map(|family| equal("socket", family)));
    }
    rules.extend(
        PERSONALITIES
            .iter()
            .map(|(value, _)| equal("personality", *value)),
    );
    rules.push(json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": NEW_NAMESPACES, "op": "SCMP_CMP_MASKED_EQ"}]}));
    rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS}));
    let architectures = if cfg!(target_arch = "x86_64") {
        json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])
    } else {
        json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"])
    };
    json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": libc::EPERM,
        "architectures": architectures, "syscalls": rules})
}

/// Docker's default filter for this machine's architectures.
pub(crate) fn default_filter() -> Vec<Insn> {
    let mut program = vec![statement(LOAD_WORD, OFFSET_ARCH)];
    for (audit_arch, abi, with_bit) in NATIVE {
        let mut section = vec![statement(LOAD_WORD, OFFSET_NUMBER)];
        section.extend(search(&ranges(*abi, *with_bit)));
        program.push(Insn {
            code: JUMP_EQUAL,
            on_true: 1,
            on_false: 0,
            value: *audit_arch,
        });
        program.push(statement(JUMP, length(&section)));
        program.extend(section);
    }
    program.push(statement(RETURN, KILL_PROCESS));
    program
}

/// Where each answer begins, ascending from 0, neighbours merged.
fn ranges(abi: Abi, with_bit: Option<Abi>) -> Vec<(u32, Answer)> {
    let mut points = answers(abi, 0);
    if let Some(other) = with_bit {
        points.extend(answers(other, X32_BIT));
    }
    points.sort_by_key(|(start, ..)| *start);
    let mut starts: Vec<(u32, Answer)> = Vec::new();
    let mut push = |start: u32, answer: Answer| match starts.last_mut() {
        Some((_, last)) if *last == answer => {}
        Some((last_start, last)) if *last_start == start => *last = answer,
        _ => starts.push((start, answer)),
    };
    push(0, unlisted(0));
    for (number, answer) in points {
        push(number, answer);
        push(number + 1, unlisted(number + 1));
    }
    push(u32::MAX, Answer::Return(NO_SYSCALL));
    fill(starts)
}

/// Puts the change from "denied" to "no such syscall" where it belongs.
fn fill(starts: Vec<(u32, Answer)>) -> Vec<(u32, Answer)> {
    let mut filled: Vec<(u32, Answer)> = Vec::new();
    for (index, (start, answer)) in starts.iter().enumerate() {
        filled.push((*start, *answer));
        let end = starts.get(index + 1).map_or(u32::MAX, |next| next.0);
        if *answer == Answer::Return(DENIED) {
            let limit = (start & X32_BIT) + NEWEST + 1;
            if *start < limit && limit < end {
                filled.push((limit, Answer::Return(NO_SYSCALL)));
            }
        }
        if *start < X32_BIT && X32_BIT < end {
            filled.push((X32_BIT, unlisted(X32_BIT)));
        }
    }
    filled.dedup_by(|next, kept| next.1 == kept.1);
    filled
}

fn unlisted(number: u32) -> Answer {
    Answer::Return(if number & !X32_BIT > NEWEST {
        NO_SYSCALL
    } else {
        DENIED
    })
}

fn answers(abi: Abi, bit: u32) -> Vec<(u32, Answer)> {
    let allowed = ALLOWED.iter().filter_map(|(_, row)| {
        table::number(row, abi).map(|number| (number | bit, Answer::Return(ALLOW)))
    });
    let conditional = CONDITIONAL.iter().filter_map(|(question, row)| {
        table::number(row, abi).map(|number| (number | bit, Answer::Ask(*question)))
    });
    allowed.chain(conditional).collect()
}

/// Code that finds the answer for the loaded value. Every path ends in a return.
fn search(starts: &[(u32, Answer)]) -> Vec<Insn> {
    if let [(_, answer)] = starts {
        return leaf(*answer);
    }
    let (below, above) = starts.split_at(starts.len() / 2);
    let (left, right) = (search(below), search(above));
    let value = above[0].0;
    let mut code = match u8::try_from(left.len()) {
        Ok(on_true) => vec![Insn {
            code: JUMP_AT_LEAST,
            on_true,
            on_false: 0,
            value,
        }],
        Err(_) => vec![
            Insn {
                code: JUMP_AT_LEAST,
                on_true: 0,
                on_false: 1,
                value,
            },
            statement(JUMP, length(&left)),
        ],
    };
    code.extend(left);
    code.extend(right);
    code
}

fn leaf(answer: Answer) -> Vec<Insn> {
    let load = statement(LOAD_WORD, OFFSET_FIRST_ARGUMENT);
    match answer {
        Answer::Return(value) => vec![statement(RETURN, value)],
        Answer::Ask(Question::Clone3) => vec![statement(RETURN, NO_SYSCALL)],
        Answer::Ask(Question::Clone) => vec![
            load,
            Insn {
                code: JUMP_ANY_BIT,
                on_true: 0,
                on_false: 1,
                value: NEW_NAMESPACES,
            },
            statement(RETURN, DENIED),
            statement(RETURN, ALLOW),
        ],
        Answer::Ask(Question::Socket) => one_of(load, FAMILIES),
        Answer::Ask(Question::Personality) => one_of(load, PERSONALITIES),
    }
}

/// Allows the argument when it is in one of `allowed`.
fn one_of(load: Insn, allowed: &[(u32, u32)]) -> Vec<Insn> {
    let mut starts = Vec::new();
    if allowed[0].0 > 0 {
        starts.push((0, Answer::Return(DENIED)));
    }
    for (first, last) in allowed {
        starts.push((*first, Answer::Return(ALLOW)));
        if let Some(next) = last.checked_add(1) {
            starts.push((next, Answer::Return(DENIED)));
        }
    }
    let mut code = vec![load];
    code.extend(search(&starts));
    code
}

fn statement(code: u16, value: u32) -> Insn {
    Insn {
        code,
        on_true: 0,
        on_false: 0,
        value,
    }
}

fn length(code: &[Insn]) -> u32 {
    u32::try_from(code.len()).expect("a filter is far shorter than that")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `program` as the kernel would.
    fn answer(program: &[Insn], arch: u32, number: u32, first_argument: u32) -> u32 {
        let (mut at, mut loaded) = (0usize, 0u32);
        loop {
            let insn = program[at];
            at += 1;
            let jump = match insn.code {
                LOAD_WORD => {
                    loaded = match insn.value {
                        OFFSET_NUMBER => number,
                        OFFSET_ARCH => arch,
                        OFFSET_FIRST_ARGUMENT => first_argument,
                        other => panic!("loads offset {other}"),
                    };
                    continue;
                }
                RETURN => return insn.value,
                JUMP => insn.value as usize,
                JUMP_EQUAL if loaded == insn.value => insn.on_true.into(),
                JUMP_AT_LEAST if loaded >= insn.value => insn.on_true.into(),
                JUMP_ANY_BIT if loaded & insn.value != 0 => insn.on_true.into(),
                JUMP_EQUAL | JUMP_AT_LEAST | JUMP_ANY_BIT => insn.on_false.into(),
                other => panic!("unknown instruction {other:#x}"),
            };
            at += jump;
        }
    }

    /// Every number of every architecture gets exactly the answer of the table.
    /// Rows: X10
    #[test]
    fn answers_follow_the_table_for_every_number() {
        let program = default_filter();
        for (arch, abi, with_bit) in NATIVE {
            let sides = [(Some(*abi), 0), (*with_bit, X32_BIT)];
            for (abi, bit) in sides.into_iter().filter_map(|(abi, bit)| Some((abi?, bit))) {
                let table = answers(abi, bit);
                for number in (0..2000)
                    .chain(0xf_0000..0xf_0010)
                    .map(|number| number | bit)
                {
                    let expected = table.iter().find(|(listed, _)| *listed == number);
                    let got = answer(&program, *arch, number, 0);
                    match expected.map(|(_, answer)| *answer) {
                        Some(Answer::Ask(Question::Clone3)) => assert_eq!(got, NO_SYSCALL),
                        Some(Answer::Ask(_) | Answer::Return(_)) => {
                            assert_eq!(got, ALLOW, "{number}");
                        }
                        None if number & !X32_BIT > NEWEST => {
                            assert_eq!(got, NO_SYSCALL, "{number}");
                        }
                        None => assert_eq!(got, DENIED, "{abi:?} {number}"),
                    }
                }
            }
        }
        assert_eq!(answer(&program, 0x1234, 0, 0), KILL_PROCESS);
        assert_eq!(answer(&program, NATIVE[0].0, u32::MAX, 0), NO_SYSCALL);
        assert!(program.len() < 800, "{} instructions", program.len());
    }

    /// Rows: X10
    #[test]
    fn arguments_decide_sockets_personalities_and_clones() {
        let program = default_filter();
        let (arch, abi, _) = NATIVE[0];
        let ask = |question: Question, argument: u32| {
            let row = CONDITIONAL
                .iter()
                .find(|(listed, _)| *listed == question)
                .unwrap()
                .1;
            answer(&program, arch, table::number(&row, abi).unwrap(), argument)
        };
        for family in [1, 2, 10, 16, 17] {
            assert_eq!(ask(Question::Socket, family), ALLOW);
        }
        for family in [12, 38, 40, 46, 1000] {
            assert_eq!(ask(Question::Socket, family), DENIED, "AF {family}");
        }
        assert_eq!(ask(Question::Personality, u32::MAX), ALLOW);
        assert_eq!(ask(Question::Personality, 0x0040_0000), DENIED);
        assert_eq!(ask(Question::Clone, libc::SIGCHLD as u32), ALLOW);
        assert_eq!(ask(Question::Clone, libc::CLONE_NEWUSER as u32), DENIED);
        assert_eq!(ask(Question::Clone, libc::CLONE_NEWNS as u32), DENIED);
    }
}
