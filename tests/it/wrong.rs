//! What people get wrong, and what they are told: a sentence, the line, a hint. Never a
//! panic, never something left behind.

use std::fs;
use std::process::Command;

use crate::harness::{BaseImage, Place, Ran};

/// Builds this Dockerfile, which cannot be built.
#[track_caller]
fn refused(dockerfile: &str, args: &[&str], words: &[&str]) -> Ran {
    let place = Place::new();
    place.context(&dockerfile.replace("BASE", &BaseImage::name()));
    let ran = place.build(args).fails().says(words);
    place.assert_nothing_left();
    ran
}

/// Rows: F16, L17
#[test]
fn an_unknown_instruction_is_shown_with_what_was_meant() {
    refused(
        "FROM BASE\nENV a=1\nRUNN make\nCMD x\n",
        &[],
        &[
            "Dockerfile:3",
            ">>> RUNN make",
            "unknown instruction",
            "RUN",
        ],
    );
}

/// Rows: F20
#[test]
fn a_target_that_is_no_stage_is_named() {
    refused("FROM BASE AS one\nRUN true\n", &["--target=two"], &["two"]);
}

/// Rows: F20, L19
#[test]
fn stages_that_need_each_other_are_refused() {
    refused(
        "FROM BASE AS a\nCOPY --from=b /x /x\nFROM BASE AS b\nCOPY --from=a /x /x\n",
        &[],
        &["circular", "Dockerfile:"],
    );
}

/// Rows: F24, C07, V5
#[test]
fn a_missing_file_is_named_with_its_line() {
    refused(
        "FROM BASE\nCOPY no-such-file /x\n",
        &[],
        &[
            "error: failed to compute cache key: \"/no-such-file\": not found in the build context\n",
            "Dockerfile:2",
            ">>> COPY no-such-file",
        ],
    );
    refused(
        "FROM BASE AS one\nRUN true\nFROM BASE\nCOPY --from=one /none /x\n",
        &[],
        &[
            "\"/none\": not found in `[one 2/2] RUN true`",
            "Dockerfile:4",
        ],
    );
}

/// Rows: F05, F24, V5
#[test]
fn a_file_hidden_by_dockerignore_is_told_so() {
    let place = Place::new();
    place.write("ctx/.dockerignore", "*.log\n");
    place.write("ctx/app.log", "there");
    place.context(&format!("FROM {}\nCOPY app.log /x\n", BaseImage::name()));
    place.build(&[]).fails().says(&[
        "\"/app.log\": not found in the build context",
        "`*.log` in .dockerignore keeps /app.log out of the build context.",
    ]);
    place.assert_nothing_left();
}

#[test]
fn no_dockerfile_and_no_context_are_said_before_anything_starts() {
    let place = Place::new();
    fs::create_dir(place.path("ctx")).expect("a folder");
    place.build(&[]).fails().says(&["Dockerfile"]);
    let nowhere = place.path("nowhere");
    let nowhere = nowhere.to_str().expect("text");
    place.run(&["build", nowhere]).fails().says(&["nowhere"]);
}

/// Rows: X17, A16
#[test]
fn a_failing_step_shows_its_lines_its_output_and_its_code() {
    let ran = refused(
        "FROM BASE\nRUN true\nRUN echo some output && echo more >&2 && exit 3\nRUN echo never > /x\n",
        &[],
        &[
            "exit code: 3",
            "Dockerfile:3",
            ">>> RUN echo some output",
            "some output",
            "more",
        ],
    );
    assert!(
        !ran.stderr.contains("] RUN echo never >"),
        "it never started: {ran}"
    );
}

/// Rows: X17
#[test]
fn a_program_that_is_not_there_gives_a_hint() {
    refused(
        "FROM BASE\nRUN no-such-program\n",
        &[],
        &["exit code: 127", "hint:", "PATH"],
    );
    refused(
        "FROM BASE\nRUN [\"/no/such\"]\n",
        &[],
        &[
            "Dockerfile:2",
            "exec \"/no/such\"",
            "hint:",
            "no such file in the image",
        ],
    );
}

/// Rows: A16, X09
#[test]
fn what_a_step_may_not_have_is_said_with_its_line() {
    refused(
        "FROM BASE\nRUN true\nRUN --security=insecure true\n",
        &[],
        &[
            "Dockerfile:3",
            "security.insecure is not allowed",
            "--allow",
        ],
    );
}

/// Rows: X17
#[test]
fn a_step_that_is_killed_says_so() {
    refused(
        "FROM BASE\nRUN sh -c 'kill -9 $$'; exit $?\n",
        &[],
        &["exit code: 137", "Dockerfile:2"],
    );
}

/// Rows: X17, X10
#[test]
fn what_a_step_leaves_running_is_ended_with_it() {
    let place = Place::new();
    place.context(&format!(
        "FROM {}\nRUN sleep 1000 & (setsid sleep 1001 &) ; trap '' TERM; echo started > /s\n",
        BaseImage::name()
    ));
    place.build(&[]).ok();
    place.assert_nothing_left();
}

/// Rows: X17, C11
#[test]
fn a_full_disk_is_said_and_leaves_nothing_half() {
    let place = Place::new();
    place.context(&format!(
        "FROM {}\nRUN dd if=/dev/zero of=/big bs=1M count=100\n",
        BaseImage::name()
    ));
    // The small disk is there for this process only.
    let script = "mkdir -p state && mount -t tmpfs -o size=40m small state && \
        ! kiln build --progress=plain ctx && \
        printf 'FROM BASE\\nRUN echo small > /f\\n' > ctx/Dockerfile && \
        kiln build --progress=plain ctx && \
        ! (find state -name big | grep .)";
    let script = script.replace("BASE", &BaseImage::name());
    let kiln = place.kiln(&[]);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-ec"])
        .arg(format!(
            "kiln() {{ \"{}\" \"$@\"; }}; {script}",
            kiln.get_program().display()
        ))
        .current_dir(place.root());
    for (name, value) in kiln.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    place.start(command).wait().ok().says(&["No space left"]);
    place.assert_nothing_left();
}
