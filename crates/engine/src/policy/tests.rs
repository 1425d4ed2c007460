//! Rules, and what becomes of sources.

use frontend::policy::{Action, AttrTest, Constraint, Match, Rule, Update};

use super::pattern::MAX_NAME;
use super::*;

fn rule(action: Action, matching: Match, identifier: &str) -> Rule {
    Rule {
        action,
        matching,
        identifier: identifier.into(),
        constraints: Vec::new(),
        update: None,
    }
}

fn to(identifier: &str) -> Option<Update> {
    Some(Update {
        identifier: identifier.into(),
        attrs: BTreeMap::new(),
    })
}

fn source(identifier: &str) -> llb::Source {
    llb::Source {
        identifier: identifier.into(),
        attrs: BTreeMap::new(),
    }
}

fn decide(rules: Vec<Rule>, identifier: &str) -> Result<Option<llb::Source>, Error> {
    let policy = Policy {
        rules,
        session: String::new(),
    };
    let policies = Policies::new(&policy, &Sessions::new())?;
    let look: Look<'_> = Box::new(|_, _| Box::pin(async { Ok(Facts::Nothing) }));
    futures::executor::block_on(policies.decide(&source(identifier), None, &look))
}

/// What a proxy is told that asks for a request.
///
/// Rows: X08
#[test]
fn a_request_is_decided_on_as_a_source() {
    use netproxy::Gate as _;
    let asked = |rules: Vec<Rule>| {
        let policy = Policy {
            rules,
            session: String::new(),
        };
        let gate = crate::proxy::PolicyGate(Policies::new(&policy, &Sessions::new()).unwrap());
        futures::executor::block_on(gate.decide("GET", "http://h.example/a"))
    };
    let convert = |attrs: &[(&str, &str)]| {
        let attrs = attrs.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        let mut rule = rule(Action::Convert, Match::Exact, "http://h.example/a");
        rule.update = Some(Update {
            identifier: "http://h.example/b".into(),
            attrs: attrs.collect(),
        });
        vec![rule]
    };
    assert_eq!(asked(Vec::new()), Ok(None));
    let deny = vec![rule(Action::Deny, Match::Wildcard, "http://h.example/*")];
    let why = asked(deny).unwrap_err();
    assert!(why.contains("denied by policy"), "{why}");
    assert_eq!(asked(convert(&[])), Ok(Some("http://h.example/b".into())));
    let why = asked(convert(&[("http.checksum", "sha256:00")])).unwrap_err();
    assert!(why.contains("with attributes"), "{why}");
}

const ALPINE: &str = "docker-image://docker.io/library/alpine:latest";

/// Rows: P05
#[test]
fn the_last_rule_that_matches_counts() {
    use Action::{Allow, Deny};
    use Match::{Exact, Regex, Wildcard};
    let all = || rule(Deny, Wildcard, "*");
    for (rules, allowed) in [
        (vec![], true),
        (vec![all()], false),
        (vec![all(), rule(Allow, Exact, ALPINE)], true),
        (vec![rule(Allow, Exact, ALPINE), all()], false),
        (vec![all(), rule(Allow, Regex, "alpine")], true),
        (
            vec![all(), rule(Allow, Wildcard, "docker-image://*/alpine:*")],
            true,
        ),
        (
            vec![all(), rule(Allow, Wildcard, "docker-image://*/alpine")],
            false,
        ),
        (vec![rule(Deny, Exact, "docker-image://*")], true),
    ] {
        let shown = format!("{rules:?}");
        match decide(rules, ALPINE) {
            Ok(other) => assert!(allowed && other.is_none(), "{shown}"),
            Err(error) => {
                assert!(!allowed, "{shown}: {error}");
                assert_eq!(
                    error.to_string(),
                    format!("source {ALPINE:?} denied by policy")
                );
                assert_eq!(error.kind(), Kind::Denied);
            }
        }
    }
}

/// Rows: P05
#[test]
fn sources_are_converted_until_no_rule_wants_more() {
    use Action::{Convert, Deny};
    let convert = |matching, from: &str, into: &str| Rule {
        update: to(into),
        ..rule(Convert, matching, from)
    };
    let wild = convert(
        Match::Wildcard,
        "docker-image://docker.io/*:*",
        "docker-image://mirror.io/${1}:$2",
    );
    let next = convert(
        Match::Regex,
        "^docker-image://mirror.io/(.*)$",
        "docker-image://last.io/$1",
    );
    let found = decide(vec![wild.clone(), next.clone()], ALPINE)
        .unwrap()
        .unwrap();
    assert_eq!(
        found.identifier,
        "docker-image://last.io/library/alpine:latest"
    );
    let denied = decide(
        vec![
            rule(Deny, Match::Wildcard, "docker-image://last.io/*"),
            wild,
            next,
        ],
        ALPINE,
    );
    assert_eq!(denied.unwrap_err().kind(), Kind::Denied);
    let there = convert(Match::Exact, "a", "b");
    let back = convert(Match::Exact, "b", "a");
    assert!(matches!(
        decide(vec![there, back], "a"),
        Err(Error::Circle(_))
    ));
    let mut pinned = rule(Convert, Match::Exact, "https://x/y");
    pinned.update = Some(Update {
        identifier: String::new(),
        attrs: [("http.checksum".into(), "sha256:1".into())].into(),
    });
    let found = decide(vec![pinned.clone()], "https://x/y")
        .unwrap()
        .unwrap();
    assert_eq!(
        (
            found.identifier.as_str(),
            found.attrs["http.checksum"].as_str()
        ),
        ("https://x/y", "sha256:1")
    );
    pinned.update = None;
    assert!(matches!(
        decide(vec![pinned], "https://x/y"),
        Err(Error::BadRule(_))
    ));
}

/// Rows: P05
#[test]
fn names_are_made_in_one_pass_and_bounded() {
    let convert = |matching, from: &str, into: &str| Rule {
        update: to(into),
        ..rule(Action::Convert, matching, from)
    };
    let into = |matching, from: &str, into: &str, name: &str| {
        let policy = convert(matching, from, into);
        let pattern = Pattern::new(&policy, &mut Budget::default())?;
        let found = pattern.convert(&Named::of(&source(name)))?;
        Ok::<_, Error>(found.identifier)
    };
    for (matching, from, to, name, made) in [
        // What the first star took is no template.
        (
            Match::Wildcard,
            "https://*/*",
            "https://m/$1/$2",
            "https://$2/x",
            "https://m/$2/x",
        ),
        // Ten is not one and a nought.
        (Match::Wildcard, "*", "a/${1}0/$10/$0", "n", "a/n0//n"),
        (Match::Regex, "b(.)", "<$1>", "ab$b2", "a<$><2>"),
        (Match::Regex, "^a$", "<$1>", "b", "b"),
    ] {
        assert_eq!(into(matching, from, to, name).unwrap(), made, "{from} {to}");
    }
    for (matching, from) in [(Match::Wildcard, "*"), (Match::Regex, "(.*)")] {
        let long = "x".repeat(MAX_NAME);
        assert_eq!(into(matching, from, "$1", &long).unwrap().len(), MAX_NAME);
        for (template, name) in [
            ("$1$1".to_owned(), long.clone()),
            ("$1".repeat(MAX_NAME / 2), long.clone()),
            ("$1".to_owned(), format!("{long}x")),
            (format!("{long}x"), "x".to_owned()),
        ] {
            let error = into(matching, from, &template, &name).unwrap_err();
            assert!(
                error.to_string().contains("more than 8192 bytes"),
                "{error}"
            );
        }
    }
}

/// Rows: P05
#[test]
fn rules_may_ask_for_attributes_and_must_be_readable() {
    let with = |test: AttrTest| Rule {
        constraints: vec![Constraint {
            key: "git.keepgitdir".into(),
            test,
        }],
        ..rule(Action::Deny, Match::Wildcard, "git://*")
    };
    for (test, denied) in [
        (AttrTest::Equal("true".into()), false),
        (AttrTest::NotEqual("true".into()), true),
        (AttrTest::Matches("^$".into()), true),
    ] {
        assert_eq!(
            decide(vec![with(test.clone())], "git://a").is_err(),
            denied,
            "{test:?}"
        );
    }
    for wrong in [
        with(AttrTest::Matches("(".into())),
        rule(Action::Allow, Match::Regex, "("),
        rule(Action::Allow, Match::Wildcard, "a**"),
    ] {
        assert!(matches!(decide(vec![wrong], "x"), Err(Error::BadRule(_))));
    }
}

/// Whoever may build may send rules. What reading them takes is bounded.
///
/// Rows: P05
#[tokio::test]
async fn rules_take_no_more_than_a_bounded_time_and_memory() {
    use Match::{Exact, Regex, Wildcard};
    let deny = |matching, identifier: &str| rule(Action::Deny, matching, identifier);
    let read = |rules: Vec<Rule>| {
        let session = String::new();
        Policies::new(&Policy { rules, session }, &Sessions::new())
    };
    let refused = |rules| {
        let Err(error) = read(rules) else {
            panic!("it is too much")
        };
        assert_eq!(error.kind(), Kind::InvalidInput);
        error.to_string()
    };
    let many = || vec![deny(Exact, "https://a/*"); 10_000];
    let all = read(many()).unwrap();
    let more = vec![SourcePolicy {
        rules: vec![deny(Exact, "b")],
    }];
    // Those of a question come on top.
    assert!(all.and(more).await.is_err());
    let one_more = [many(), vec![deny(Exact, "b")]].concat();
    let (rules, sizes, text) = ("10000 rules", "larger than 1 MiB", "256 KiB altogether");
    let wide = |count| vec![deny(Regex, r"(?i)\w{20}"); count];
    for (rules, says) in [
        (one_more, rules),
        (vec![deny(Regex, r"\w{300}")], sizes),
        (vec![deny(Wildcard, &"a".repeat(9 << 10))], "8 KiB"),
        (vec![deny(Wildcard, &"a".repeat(8000)); 40], text),
        (wide(200), "too large to be made ready together"),
    ] {
        let said = refused(rules);
        assert!(said.contains(says), "{said}");
    }
    // What people write is far from all of this.
    read(vec![deny(Wildcard, "docker-image://*/alpine:*"); 3000]).unwrap();
    read(vec![
        deny(
            Regex,
            r"^docker-image://ghcr\.io/[\w.-]+/[^@]+@sha256:"
        );
        100
    ])
    .unwrap();
    read(wide(10)).unwrap();
}

/// Whoever writes a graph may write a source in many ways.
///
/// Rows: P05
#[test]
fn a_source_is_decided_on_by_what_it_leads_to() {
    use Action::{Allow, Convert, Deny};
    let wild = |action, identifier: &str| rule(action, Match::Wildcard, identifier);
    let denied = |rules: Vec<Rule>, identifier: &str| decide(rules, identifier).is_err();
    for (pattern, hidden) in [
        (
            "docker-image://docker.io/library/*",
            "docker-image://alpine:latest",
        ),
        (
            "docker-image://ghcr.io/*",
            "docker-image://GHCR.io:443/a/b:1",
        ),
        (
            "git://github.com/bad/*",
            "git://https://u@GitHub.com/bad/r.git#main",
        ),
        ("git://github.com/bad/*", "git://git@github.com:bad/r.git"),
        (
            "git://github.com/bad/*",
            "git://github.com/good/%2e%2e/bad/r",
        ),
        ("https://bad.com/*", "https://good.com@bad.com/f"),
        ("https://h/bad/*", "https://h/good/../bad/f"),
    ] {
        assert!(denied(vec![wild(Deny, pattern)], hidden), "{hidden}");
        let all_but = || vec![wild(Deny, "*"), wild(Allow, pattern)];
        assert!(!denied(all_but(), hidden), "{hidden}");
    }
    for (pattern, hidden) in [
        (
            "docker-image://docker.io/*",
            "docker-image://docker.io:5000/a:1",
        ),
        ("git://github.com/good/*", "git://github.com/good/../bad/r"),
        ("https://good.com*", "https://good.com@bad.com/f"),
        ("https://h/good/*", "https://h/good/../bad/f"),
    ] {
        let all_but = vec![wild(Deny, "*"), wild(Allow, pattern)];
        assert!(denied(all_but, hidden), "{hidden}");
    }
    // A rule that names one source names it in any way it can be written.
    for (named, source) in [
        (
            "docker-image://r.example:443/app:1",
            "docker-image://r.example:443/app:1",
        ),
        ("https://H.example", "https://h.example/"),
        (
            "git://https://u@h.example:443/r",
            "git://https://u@h.example:443/r",
        ),
    ] {
        for matching in [Match::Exact, Match::Wildcard] {
            let all_but = vec![wild(Deny, "*"), rule(Allow, matching, named)];
            assert!(!denied(all_but, source), "{named}");
        }
    }
    // Its login stays with it, but not with what comes in its place.
    let mut pinned = wild(Convert, "https://h/*");
    pinned.update = Some(Update {
        identifier: "https://h/${1}".into(),
        attrs: [("http.checksum".into(), "sha256:1".into())].into(),
    });
    let found = decide(vec![pinned.clone()], "https://u:p@H/f")
        .unwrap()
        .unwrap();
    assert_eq!(found.identifier, "https://u:p@H/f");
    assert_eq!(found.attrs["http.checksum"], "sha256:1");
    pinned.update = to("https://mirror/${1}");
    let found = decide(vec![pinned], "https://u:p@H/f").unwrap().unwrap();
    assert_eq!(found.identifier, "https://mirror/f");
}

/// What a frontend sends along comes after the client's, and cannot lift it.
///
/// Rows: P05, G03
#[tokio::test]
async fn each_policy_decides_on_its_own() {
    use Action::{Allow, Convert, Deny};
    let convert = |from: &str, into: &str| Rule {
        update: to(into),
        ..rule(Convert, Match::Exact, from)
    };
    let exact = |action, identifier: &str| rule(action, Match::Exact, identifier);
    for (client, frontends, wanted) in [
        (vec![exact(Deny, "a")], vec![vec![exact(Allow, "a")]], None),
        (vec![exact(Allow, "a")], vec![vec![exact(Deny, "a")]], None),
        (vec![], vec![vec![], vec![exact(Deny, "a")]], None),
        (vec![], vec![vec![exact(Deny, "b")]], Some("a")),
        // The client's come first, and again for what others made of a source.
        (
            vec![convert("a", "b")],
            vec![vec![convert("a", "c")]],
            Some("b"),
        ),
        (
            vec![convert("c", "b")],
            vec![vec![convert("a", "c")]],
            Some("b"),
        ),
        (vec![exact(Deny, "c")], vec![vec![convert("a", "c")]], None),
        (
            vec![],
            vec![vec![convert("a", "c")], vec![exact(Deny, "a")]],
            Some("c"),
        ),
    ] {
        let shown = format!("{client:?} {frontends:?}");
        let policy = Policy {
            rules: client,
            session: String::new(),
        };
        let more = frontends.into_iter().map(|rules| SourcePolicy { rules });
        let client = Policies::new(&policy, &Sessions::new()).unwrap();
        let policies = client.and(more.collect()).await.unwrap();
        let look: Look<'_> = Box::new(|_, _| Box::pin(async { Ok(Facts::Nothing) }));
        match policies.decide(&source("a"), None, &look).await {
            Ok(other) => {
                let other = other.unwrap_or(source("a"));
                assert_eq!(Some(other.identifier.as_str()), wanted, "{shown}");
            }
            Err(error) => {
                assert_eq!(error.kind(), Kind::Denied, "{shown}");
                assert_eq!(wanted, None, "{shown}");
            }
        }
    }
    let client = Policies::new(&Policy::default(), &Sessions::new()).unwrap();
    let wrong = SourcePolicy {
        rules: vec![rule(Allow, Match::Regex, "(")],
    };
    let Err(error) = client.and(vec![wrong]).await else {
        panic!("the rule cannot be read");
    };
    assert_eq!(error.kind(), Kind::InvalidInput);
}

/// Rows: P05, S16
#[test]
fn a_bundle_of_git_is_a_blob_of_its_registry() {
    let locator = |host: &str| format!("docker-image+blob://{host}/b@{}", oci::Digest::of("b"));
    let bundled = |host: &str| llb::Source {
        identifier: "git://example.com/r.git".into(),
        attrs: [
            ("git.bundle".to_owned(), locator(host)),
            ("git.checksum".to_owned(), "1".repeat(40)),
        ]
        .into(),
    };
    let decide = |rules: Vec<Rule>, source: &llb::Source| {
        let policy = Policy {
            rules,
            session: String::new(),
        };
        let policies = Policies::new(&policy, &Sessions::new()).unwrap();
        let look: Look<'_> = Box::new(|_, _| Box::pin(async { Ok(Facts::Nothing) }));
        futures::executor::block_on(policies.decide(source, None, &look))
    };
    let bad = || {
        rule(
            Action::Deny,
            Match::Wildcard,
            "docker-image+blob://bad.io/*",
        )
    };
    let error = decide(vec![bad()], &bundled("bad.io")).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.to_string().contains("bad.io"), "{error}");
    assert_eq!(decide(vec![bad()], &bundled("good.io")).unwrap(), None);
    let mut converting = rule(Action::Convert, Match::Exact, &locator("bad.io"));
    converting.update = to(&locator("good.io"));
    let other = decide(vec![converting], &bundled("bad.io")).unwrap();
    assert_eq!(other, Some(bundled("good.io")));
}
