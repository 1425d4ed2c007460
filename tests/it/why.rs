//! A step that is done again says why.

use crate::harness::{BaseImage, Memory, Place, Ran};

/// What the step with these words said.
#[track_caller]
fn said(ran: &Ran, words: &str) -> String {
    ran.step(words).why.unwrap_or_default()
}

/// Rows: K4, V5, C13, C06
#[test]
fn a_step_that_is_made_anew_says_why() {
    let place = Place::new();
    let registry = Memory::start();
    BaseImage::put(&registry, "base", "1");
    place.write("ctx/one.txt", "1");
    place.write("ctx/dir/two.txt", "2");
    let dockerfile = |run: &str| {
        place.context(&format!(
            "FROM {}/base:1\nRUN {run}\nCOPY one.txt dir /files/\nARG WORD=a\nRUN cat /files/*\n",
            registry.host()
        ));
    };
    dockerfile("true");
    let first = place.build(&[]).ok();
    assert!(!first.stderr.contains("not cached"), "{first}");
    let again = place.build(&[]).ok();
    assert_eq!(again.made(), Vec::<String>::new());
    assert!(!again.stderr.contains("not cached"), "{again}");

    place.write("ctx/dir/two.txt", "3");
    place.write("ctx/dir/three.txt", "3");
    let files = place.build(&[]).ok();
    let copy = "COPY one.txt dir /files/";
    assert_eq!(
        said(&files, copy),
        "changed in the build context: dir/two.txt, new in the build context: dir/three.txt"
    );
    assert!(said(&files, "RUN cat").ends_with("COPY one.txt dir /files/` was made anew"));

    let argument = place.build(&["--build-arg=WORD=secret"]).ok();
    assert_eq!(
        said(&argument, "RUN cat"),
        "variable or build argument WORD changed"
    );
    assert_eq!(argument.made().len(), 1, "{argument}");

    dockerfile("false || true");
    let edited = place.build(&[]).ok();
    assert_eq!(
        said(&edited, "RUN false"),
        "the instruction changed (it was `RUN true`)"
    );
    let forced = place.build(&["--no-cache"]).ok();
    assert!(said(&forced, copy).contains("--no-cache"), "{forced}");

    BaseImage::put_other(&registry, "base", "1");
    let base = place.build(&[]).ok();
    let expected = format!("image {}/base:1 changed (sha256:", registry.host());
    assert!(said(&base, "RUN false").starts_with(&expected), "{base}");

    place.run(&["prune", "--all"]).ok();
    let pruned = place.build(&[]).ok();
    assert_eq!(said(&pruned, "RUN false"), "its earlier result was pruned");

    // Another directory is another project.
    place.write(
        "other/Dockerfile",
        format!("FROM {}/base:1\nRUN echo else\n", registry.host()),
    );
    let other = place.run(&["build", "--progress=plain", "other"]).ok();
    assert!(!other.stderr.contains("not cached"), "{other}");
    let none = "--cache-from=type=registry,ref=127.0.0.1:1/none";
    place.write(
        "other/Dockerfile",
        format!(
            "FROM {}/base:1\nRUN echo it\nRUN echo more\n",
            registry.host()
        ),
    );
    let imported = place
        .run(&["build", "--progress=plain", none, "other"])
        .ok();
    assert_eq!(
        said(&imported, "RUN echo it"),
        "the instruction changed (it was `RUN echo else`)"
    );
    assert!(said(&imported, "RUN echo more").starts_with("no imported cache has it"));
    place.assert_nothing_left();
}
