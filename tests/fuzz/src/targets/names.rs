//! Short texts that people and documents contain: names, addresses, patterns.

use std::collections::BTreeMap;

use dockerfile::shell::{Env, Lexer};
use oci::{Digest, ImageName, Platform};

use super::Target;
use crate::mutate::Shape;

pub(super) const TARGET: Target = Target {
    name: "names",
    run,
    seeds,
    shape: Shape::Bytes,
    words: &[
        "docker-image://",
        "git://",
        "https://",
        "oci-layout://",
        "local://",
        "sha256:",
        "@",
        ":",
        "/",
        "#",
        "?",
        "=",
        "[::1]",
        "localhost:5000",
        "%2f",
        "..",
        "**",
        "!",
        "{a,b}",
        "[^a-]",
        "\\",
        "linux/arm/v7",
        "(1.2)",
        "${a:-b}",
        "\u{e9}",
        "\0",
    ],
    longest: 600,
    memory: 16 << 20,
};

/// What is understood is written as something that is understood as the same.
fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(name) = text.parse::<ImageName>() {
        let again: ImageName = name.to_string().parse().expect("a written name is a name");
        assert_eq!(name, again);
        assert!(!name.repository().is_empty());
        let short: ImageName = name.familiar().parse().expect("a short name is a name");
        assert_eq!(name.name(), short.name());
    }
    if let Ok(platform) = text.parse::<Platform>() {
        let again: Platform = platform
            .to_string()
            .parse()
            .expect("a written platform is one");
        assert_eq!(platform.clone().normalized(), again.normalized());
        assert!(
            platform.suits(&platform).is_some(),
            "{platform} does not suit itself"
        );
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string().parse::<Digest>().ok(), Some(digest));
    }
    // Attributes behind a zero byte, one a line.
    let (identifier, attrs) = text.split_once('\0').unwrap_or((&text, ""));
    let attrs = attrs.lines().filter_map(|line| line.split_once('='));
    let attrs: BTreeMap<String, String> =
        attrs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    if let Err(error) = source::Identifier::parse(identifier, &attrs) {
        assert!(!error.to_string().is_empty());
    }
    // Either is fine.
    let _ = client::Address::parse(&text);
    if let Ok(patterns) = session::patterns::Patterns::new(text.lines()) {
        assert!(patterns.texts().count() <= text.lines().count());
    }
    if let Ok(ignore) = dockerfile::Ignore::new(&dockerfile::ignore::patterns(input)) {
        ignore.hides("a/b.c/d");
    }
    let env = Env::from_iter([("a", "b"), ("B", "c d")]);
    for raw in [false, true] {
        let lexer = Lexer {
            raw_quotes: raw,
            raw_escapes: raw,
            skip_unset: raw,
            ..Lexer::new('\\')
        };
        let _ = lexer.expand(&text, &env);
        let _ = lexer.words(&text, &env);
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "docker.io/library/alpine:3.20@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "localhost:5000/a/b_c/d--e:tag",
        "alpine",
        "linux/arm64/v8",
        "windows(10.0.1+a+b)/amd64",
        "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
        "git://git@github.com:a/b.git#refs/heads/main:sub/dir",
        "git://github.com/a/b#v1\0git.fullurl=https://github.com/a/b\ngit.checksum=0123456789012345678901234567890123456789",
        "https://example.com:8443/a/b?c=d\0http.checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\nhttp.perm=0644",
        "docker-image://a/b:c\0image.resolvemode=pull\nimage.layerlimit=3",
        "local://context\0local.includepattern=[\"a\"]\nlocal.differ=none",
        "oci-layout://a/b@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\0oci.store=x\noci.session=y",
        "unix:///run/kiln.sock",
        "tcp://127.0.0.1:1234",
        "**/*.go\n!a/b\n[a-c]?\\*",
        "echo \"${a:-x}\" '$B' ${B#c*} ${B/ /_}",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
