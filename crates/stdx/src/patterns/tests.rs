//! What matches what. The cases follow Docker's documentation of .dockerignore and
//! the behaviour of its matcher.

use super::*;

#[track_caller]
fn check(pattern: &str, yes: &[&str], no: &[&str]) {
    let patterns = Patterns::new([pattern]).unwrap();
    for path in yes {
        assert!(patterns.matches(path), "{pattern:?} should match {path:?}");
    }
    for path in no {
        assert!(
            !patterns.matches(path),
            "{pattern:?} should not match {path:?}"
        );
    }
}

/// Rows: N03
#[test]
fn one_pattern() {
    check("a", &["a", "a/b", "a/b/c"], &["b", "b/a", "ab"]);
    check("*", &["a", "a/b"], &[]);
    check("*.md", &["x.md", ".md"], &["d/x.md", "x.mdx"]);
    check("*/*.md", &["d/x.md", "d/x.md/y"], &["x.md", "d/e/x.md"]);
    check("**", &["a", "a/b", "a/b/c"], &[]);
    check("**/", &["a", "a/b"], &[]);
    check("**/x", &["x", "a/x", "a/b/x", "a/x/c"], &["ax", "a/bx"]);
    check("a/**", &["a/b", "a/b/c"], &["a", "b"]);
    check("a/**/z", &["a/z", "a/b/z", "a/b/c/z"], &["az", "a/bz"]);
    check("a**z", &["az", "abz", "ab/cz"], &["ab", "baz"]);
    check("temp?", &["tempa", "temp1/x"], &["temp", "temp/a"]);
    check("[a-c]x", &["ax", "cx"], &["dx", "x"]);
    check("[^a-c]x", &["dx"], &["ax", "/x"]);
    check(r"\*", &["*"], &["a"]);
    check("a.b", &["a.b"], &["aXb"]);
    check("/a/b", &["a/b"], &["b"]);
    check("./a//b/../c/", &["a/c"], &["a/b"]);
    check("?", &["é"], &["éé"]);
    check("$x(y)+|", &["$x(y)+|"], &["x"]);
}

/// Rows: N03
#[test]
fn later_patterns_weigh_more() {
    let patterns = Patterns::new(["*", "!docs", "docs/secret*", "!docs/secret-ok"]).unwrap();
    assert!(patterns.has_negations());
    for (path, excluded) in [
        ("src", true),
        ("docs", false),
        ("docs/a", false),
        ("docs/secret", true),
        ("docs/secret/x", true),
        ("docs/secret-ok", false),
    ] {
        assert_eq!(patterns.matches(path), excluded, "{path}");
    }
    let patterns = Patterns::new(["*.md", "! README*.md", "README-secret.md"]).unwrap();
    assert!(!patterns.matches("README.md") && patterns.matches("README-secret.md"));
    assert!(patterns.matches("other.md"));
}

/// Rows: N03
#[test]
fn a_walk_knows_where_it_need_not_look() {
    let patterns = Patterns::new(["node_modules", "!node_modules/keep/**/x", "!other"]).unwrap();
    assert!(patterns.may_take_back_in("node_modules"));
    assert!(patterns.may_take_back_in("node_modules/keep"));
    assert!(patterns.may_take_back_in("node_modules/keep/deep/down"));
    assert!(!patterns.may_take_back_in("node_modules/lose"));
    let patterns = Patterns::new(["a/b/c", "d*/e"]).unwrap();
    assert!(patterns.may_match_in("a") && patterns.may_match_in("a/b/c"));
    assert!(patterns.may_match_in("dir") && !patterns.may_match_in("a/x"));
}

/// Rows: N03
#[test]
fn nonsense_is_refused() {
    for pattern in ["!", "[", "[]", "[a-", "[b-a]", "a\\"] {
        let error = Patterns::new([pattern]).unwrap_err();
        assert_eq!(error.kind(), crate::Kind::InvalidInput, "{pattern}");
    }
    assert!(Patterns::new(["", "  "]).unwrap().is_empty());
}

/// Rows: N03
#[test]
fn no_pattern_is_slow() {
    let patterns = Patterns::new(["**/*a*a*a*a*a*a*a*a*a*a*b"]).unwrap();
    let path = "a".repeat(5_000);
    let begin = std::time::Instant::now();
    assert!(!patterns.matches(&path));
    assert!(begin.elapsed() < std::time::Duration::from_secs(5));
}
