//! Instructions, right and wrong.

use super::*;

fn read(text: &str) -> File {
    instructions(&parse(text.as_bytes()))
}

fn faults(text: &str) -> Vec<String> {
    let say = |f: Fault| format!("{}: {}", f.lines.first, f.error);
    read(text).faults.into_iter().map(say).collect()
}

/// Rows: F15, F16
#[test]
fn every_mistake_is_found_at_once() {
    let text = "FRMO a\nFROM a\nCPY a b\nCOPY --form=x a b\nCOPY --link=maybe a b\nRUN <<E\nx\n";
    assert_eq!(
        faults(text),
        [
            "1: unknown instruction: FRMO (did you mean FROM?)",
            "3: unknown instruction: CPY (did you mean COPY?)",
            "4: unknown flag: --form (did you mean from?)",
            "5: invalid value \"maybe\" on flag --link: expecting true or false",
            "6: unterminated heredoc: no line is \"E\"",
        ]
    );
}

/// Rows: F20, F27, F28, F29
#[test]
fn wrong_arguments_are_said() {
    let say = |line: &str| faults(&format!("FROM a\n{line}\n")).join("; ");
    assert_eq!(
        say("FROM a b"),
        "2: FROM requires either one or three arguments"
    );
    assert!(say("FROM a AS 1x").contains("invalid name for build stage: \"1x\""));
    assert!(say("COPY a").contains("requires at least two arguments"));
    assert_eq!(say("ENV"), "2: ENV requires at least one argument");
    assert_eq!(say("ENV =a"), "2: ENV names can not be blank");
    assert_eq!(say("USER"), "2: USER requires exactly one argument");
    assert_eq!(
        say("SHELL a b"),
        "2: SHELL requires the arguments to be in JSON form"
    );
    assert_eq!(
        say("HEALTHCHECK CMD"),
        "2: missing command after HEALTHCHECK CMD"
    );
    assert_eq!(
        say("HEALTHCHECK FOO x"),
        "2: unknown type \"FOO\" in HEALTHCHECK (try CMD)"
    );
    assert!(say("HEALTHCHECK --interval=1us CMD x").contains("not less than 1ms"));
    assert_eq!(
        say("ONBUILD ONBUILD RUN x"),
        "2: chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"
    );
    assert_eq!(
        say("ONBUILD FROM x"),
        "2: FROM isn't allowed as an ONBUILD trigger"
    );
    assert!(say("ONBUILD CPY a b").contains("unknown instruction: CPY"));
    assert_eq!(
        say("COPY --from=a --from=b x y"),
        "2: duplicate flag specified: --from"
    );
    assert_eq!(say("COPY --from x y"), "2: missing a value on flag: --from");
    assert_eq!(
        faults("RUN x\nFROM a"),
        ["1: no build stage in current context: RUN stands before the first FROM"]
    );
}

/// Rows: F28
#[test]
fn times_are_read_as_go_does() {
    assert_eq!(duration_ns("1h1m1.5s"), Some(3_661_500_000_000));
    assert_eq!(duration_ns("0"), Some(0));
    assert_eq!(duration_ns("1"), None);
    assert_eq!(duration_ns(""), None);
    assert_eq!(duration_ns("1x"), None);
}

/// Rows: F29
#[test]
fn a_trigger_keeps_its_heredoc() {
    let file = read("FROM a\nONBUILD COPY <<E /x\nhi\nE\n");
    let Command::Onbuild(text) = &file.stages[0].instructions[0].command else {
        panic!()
    };
    assert_eq!(text, "COPY <<E /x\nhi\nE");
    let Command::Copy(copy) = trigger(text, Lines::one(9)).unwrap().command else {
        panic!()
    };
    assert_eq!(copy.contents[0].data, "hi\n");
}
