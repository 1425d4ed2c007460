//! Text nobody should write: no panic, no hang, no stack that ends.

use std::time::{Duration, Instant};

use dockerfile::instruction::instructions;
use dockerfile::shell::{Env, Lexer};
use dockerfile::syntax::{detect_syntax, parse};
use proptest::prelude::*;

use testkit::bridge::FakeBridge;

/// Words that make trouble more often than letters drawn by lot.
fn trouble() -> impl Strategy<Value = String> {
    let words = [
        "FROM a\n",
        "RUN ",
        "COPY ",
        "<<E",
        "E\n",
        "\\\n",
        "#",
        "# escape=`\n",
        "ONBUILD ",
        "[\"",
        "\"]",
        "${",
        "}",
        ":-",
        "//",
        "$",
        "'",
        "\"",
        "--mount=",
        "type=",
        ",",
        "=",
        "\u{feff}",
        "\0",
        "é",
        "ENV ",
        "HEALTHCHECK ",
        "--",
        " ",
        "\n",
        "\t",
        "ARG ",
        "`",
        "LABEL ",
        "!",
    ];
    proptest::collection::vec(proptest::sample::select(words.to_vec()), 0..60)
        .prop_map(|w| w.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Rows: F15
    #[test]
    fn any_bytes_are_parsed(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        instructions(&parse(&bytes));
        detect_syntax(&String::from_utf8_lossy(&bytes));
    }

    /// Rows: F13, F15
    #[test]
    fn troublesome_text_is_parsed_and_built(text in trouble()) {
        let file = instructions(&parse(text.as_bytes()));
        for fault in file.faults {
            prop_assert!(fault.lines.first <= fault.lines.last);
        }
        let bridge = FakeBridge::new(&format!("FROM base:1\n{text}"));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _either = runtime.block_on(dockerfile::build(&bridge));
    }

    /// Rows: F14
    #[test]
    fn any_word_is_expanded_or_refused(word in trouble()) {
        let env = Env::from_iter([("a", "b")]);
        for raw in [false, true] {
            let lexer = Lexer { raw_quotes: raw, raw_escapes: raw, skip_unset: raw, ..Lexer::new('\\') };
            let _either = lexer.expand(&word, &env);
        }
    }

    /// Rows: F05
    #[test]
    fn any_pattern_is_read(lines in "[a-z*?\\[\\]!/\\\\.\n -]{0,60}", path in "[a-z/.]{0,20}") {
        let patterns = dockerfile::ignore::patterns(lines.as_bytes());
        if let Ok(ignore) = dockerfile::Ignore::new(&patterns) {
            ignore.hides(&path);
        }
    }
}

/// Does it twice, with ten times as much the second time: time may not grow with the
/// square. Short times say nothing.
fn grows_gently(what: &str, text: impl Fn(usize) -> String) {
    let time = |size: usize| {
        let text = text(size);
        let start = Instant::now();
        instructions(&parse(text.as_bytes()));
        start.elapsed()
    };
    let (small, large) = (time(10_000), time(100_000));
    assert!(
        large < Duration::from_millis(500) || large < small * 40,
        "{what}: {small:?}, then {large:?}"
    );
}

/// Rows: F15
#[test]
fn long_files_and_long_lines_take_linear_time() {
    grows_gently("lines", |n| {
        format!("FROM a\n{}", "RUN echo hi\n".repeat(n))
    });
    grows_gently("one line", |n| {
        format!("FROM a\nRUN {}\n", "echo ".repeat(n))
    });
    grows_gently("continuations", |n| {
        format!("FROM a\nRUN {}x\n", "a \\\n".repeat(n))
    });
    grows_gently("comments inside", |n| {
        format!("FROM a\nRUN x \\\n{}y\n", "# c\n".repeat(n))
    });
    grows_gently("a here-doc", |n| {
        format!("FROM a\nRUN <<E\n{}E\n", "line\n".repeat(n))
    });
    grows_gently("flags", |n| {
        format!("FROM a\nRUN {}x\n", "--mount=target=/a ".repeat(n))
    });
    grows_gently("pairs", |n| format!("FROM a\nENV {}\n", "a=b ".repeat(n)));
    grows_gently("open quotes", |n| {
        format!("FROM a\nENV a=\"{}\n", "'\"\\".repeat(n))
    });
    grows_gently("onbuilds", |n| {
        format!("FROM a\n{}RUN x\n", "ONBUILD ".repeat(n))
    });
    grows_gently("here-doc signs", |n| {
        format!("FROM a\nCOPY {}x\n", "<<".repeat(n))
    });
}

/// Rows: F15
#[test]
fn a_line_of_many_kilobytes_is_whole() {
    let long = "x".repeat(300_000);
    let tree = parse(format!("FROM a\nRUN echo {long}\n").as_bytes());
    assert_eq!(tree.nodes[1].text.len(), "RUN echo ".len() + long.len());
}

/// Rows: F20
#[tokio::test]
async fn a_thousand_stages_in_a_row_are_lowered() {
    let mut text = String::from("FROM base:1 AS s0\nRUN x\n");
    for n in 1..1000 {
        text.push_str(&format!(
            "FROM s{} AS s{n}\nRUN x{n}\nCOPY --from=s{} /a /b\n",
            n - 1,
            n / 2
        ));
    }
    let bridge = FakeBridge::new(&text);
    dockerfile::build(&bridge).await.unwrap();
    assert_eq!(bridge.ops().len(), 1 + 1 + 999 * 2);
}

/// What a client sends within a moment may not fill the memory of the machine.
///
/// Rows: F14, F15
#[tokio::test]
async fn a_small_file_does_not_become_a_large_one() {
    let tenfold = format!("ARG A={}\n", "$A".repeat(10));
    let bomb = "ARG A=xxxxxxxxxxxxxxxx\n".to_owned() + &tenfold.repeat(10);
    let inside = format!("FROM base:1\n{bomb}");
    let replaced = "FROM base:1\nARG A=xxxxxxxxxxxxxxxx\n".to_owned()
        + &"ARG A=${A//x/xxxxxxxxxxxxxxxx}\n".repeat(10);
    let million = "ARG A=x\n".to_owned() + &tenfold.repeat(6);
    let steps = format!(
        "{million}FROM base:1\nARG A\nENV B=$A\n{}",
        "RUN true\n".repeat(1000)
    );
    let stages: String = (1..20_000)
        .map(|n| format!("FROM s{} AS s{n}\nRUN {}\n", n - 1, "x".repeat(1000)))
        .collect();
    let stages = format!("FROM base:1 AS s0\n{stages}");
    let variables: String = (0..50_000).map(|n| format!("ENV V{n}=x\n")).collect();
    let variables = format!("FROM base:1\n{variables}");
    let longer = "longer than 16 MiB";
    let more = "more than 128 MiB";
    for (text, what) in [
        (format!("{bomb}FROM base:1\n"), longer),
        (inside, longer),
        (replaced, longer),
        (steps, more),
        (stages, more),
        (variables, more),
    ] {
        let error = dockerfile::build(&FakeBridge::new(&text))
            .await
            .unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
}

/// Rows: F15
#[tokio::test]
async fn warnings_take_linear_time_and_end() {
    let text = |n: usize| format!("FROM base:1\n{}", "MAINTAINER me\n".repeat(n));
    let time = async |n: usize| {
        let bridge = FakeBridge::new(&text(n));
        let start = Instant::now();
        dockerfile::build(&bridge).await.unwrap();
        (start.elapsed(), bridge.warnings.lock().unwrap().len())
    };
    let ((small, few), (large, many)) = (time(5_000).await, time(50_000).await);
    assert!(few > 4_000 && many <= 10_000, "{few}, then {many}");
    assert!(
        large < Duration::from_millis(500) || large < small * 40,
        "{small:?}, then {large:?}"
    );
}
