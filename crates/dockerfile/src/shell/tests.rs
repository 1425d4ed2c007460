//! Every form of expansion, beside what bash would say.

use super::*;

fn env() -> Env {
    Env::from_iter([
        ("A", "a.b.c"),
        ("E", ""),
        ("P", "/usr/lib/x.tar.gz"),
        ("S", "x y"),
        ("N", "1"),
    ])
}

fn expand(word: &str) -> String {
    Lexer::new('\\').expand(word, &env()).unwrap().text
}

fn fault(word: &str) -> String {
    Lexer::new('\\')
        .expand(word, &env())
        .unwrap_err()
        .to_string()
}

/// Rows: F14
#[test]
fn plain_variables() {
    assert_eq!(expand("$A-${A}x$U$"), "a.b.c-a.b.cx$");
    assert_eq!(
        expand(r#"'$A' "$A" \$A "\$A" "'$N'""#),
        r#"$A a.b.c $A $A '1'"#
    );
    assert_eq!(
        expand("$1x$A_B$"),
        "x$",
        "digits are a name of their own, letters go on"
    );
    assert_eq!(expand(r#""a\b" a\b"#), r#"a\b ab"#);
}

/// Rows: F14
#[test]
fn defaults_alternatives_and_demands() {
    assert_eq!(
        expand("${U:-w}|${E:-w}|${E-w}|${U-w}|${A:-w}"),
        "w|w||w|a.b.c"
    );
    assert_eq!(expand("${U:+w}|${E:+w}|${E+w}|${U+w}|${A:+w}"), "||w||w");
    assert_eq!(expand("${A:?no}${E?no}"), "a.b.c");
    assert_eq!(fault("${U:?}"), "U: is not allowed to be unset");
    assert_eq!(fault("${E:?}"), "E: is not allowed to be empty");
    assert_eq!(fault("${U?give it}"), "U: give it");
    assert_eq!(expand("${U:-${E:-$N}}"), "1");
}

/// Rows: F14
#[test]
fn trimming_and_replacing() {
    assert_eq!(expand("${A#*.}|${A##*.}|${A%.*}|${A%%.*}"), "b.c|c|a.b|a");
    assert_eq!(
        expand("${P##*/}|${P%/*}|${P%.gz}|${P#nope}"),
        "x.tar.gz|/usr/lib|/usr/lib/x.tar|/usr/lib/x.tar.gz"
    );
    assert_eq!(
        expand("${A/./-}|${A//./-}|${A//?./}|${A/b*/!}"),
        "a-b.c|a-b-c|c|a.!"
    );
    assert_eq!(expand(r"${P//\//_}"), "_usr_lib_x.tar.gz");
    assert_eq!(expand("${U#x}${U/x/y}"), "");
}

/// Rows: F14
#[test]
fn what_cannot_be_read_is_said() {
    assert_eq!(
        fault("'a"),
        "unexpected end of statement while looking for matching single-quote"
    );
    assert_eq!(
        fault("\"a"),
        "unexpected end of statement while looking for matching double-quote"
    );
    assert_eq!(fault("${A"), "syntax error: missing '}'");
    assert_eq!(fault("${A:-x"), "syntax error: missing '}'");
    assert_eq!(fault("${}"), "syntax error: bad substitution");
    assert_eq!(fault("${A!x}"), "unsupported modifier (!) in substitution");
    assert_eq!(
        fault("${A:=x}"),
        "unsupported modifier (:=) in substitution"
    );
    assert_eq!(fault("${A/x}"), "syntax error: missing '/' in ${}");
    assert_eq!(
        fault(&"${A:-".repeat(100_000)),
        "substitutions are nested more than 100 deep"
    );
}

#[test]
fn unset_variables_can_stay() {
    let lexer = Lexer {
        skip_unset: true,
        raw_quotes: true,
        ..Lexer::new('\\')
    };
    let text = |word| lexer.expand(word, &env()).unwrap().text;
    assert_eq!(
        text("echo \"$U\" '$A' $A ${U:-x} ${U}"),
        "echo \"$U\" '$A' a.b.c ${U:-x} ${U}"
    );
}

#[test]
fn words_are_split_outside_of_quotes() {
    let words = |text| Lexer::new('\\').words(text, &env()).unwrap();
    assert_eq!(
        words("a \"b c\" $S 'd e'f \\ g"),
        ["a", "b c", "x", "y", "d ef", " g"]
    );
    assert_eq!(words("  "), Vec::<String>::new());
}

#[test]
fn what_was_used_is_told() {
    let used = Lexer::new('\\').expand("$A ${U:-$X} $E", &env()).unwrap();
    assert_eq!(used.matched.into_iter().collect::<Vec<_>>(), ["A", "E"]);
    assert_eq!(used.unmatched.into_iter().collect::<Vec<_>>(), ["U", "X"]);
}
