//! One build played to each display.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cli::display::{Display, Mode, Settings, Size, color::Palette};
use expect_test::{Expect, expect};
use oci::Digest;
use progress::{Event, Group, Log, Position, Range, Source, Status, Step, Stream, Warning};

/// A stream that keeps what is written to it.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// Milliseconds after the build began, which was a good while ago.
fn at(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + Duration::from_millis(ms)
}

fn digest(name: &str) -> Digest {
    Digest::of(name)
}

fn step(name: &str, started: Option<u64>, completed: Option<u64>) -> Step {
    Step {
        digest: digest(name),
        name: name.to_owned(),
        inputs: Vec::new(),
        group: None,
        cached: false,
        started: started.map(at),
        completed: completed.map(at),
        error: String::new(),
    }
}

fn log(name: &str, ms: u64, text: &str) -> Event {
    Event::Log(Log {
        step: digest(name),
        stream: Stream::Out,
        data: Bytes::copy_from_slice(text.as_bytes()),
        at: at(ms),
    })
}

fn status(name: &str, id: &str, current: u64, total: u64, ms: u64, done: bool) -> Event {
    Event::Status(Status {
        step: digest(name),
        id: id.to_owned(),
        name: String::new(),
        current,
        total,
        at: at(ms),
        started: Some(at(0)),
        completed: done.then(|| at(ms)),
    })
}

fn cached(name: &str, ms: u64) -> Event {
    Event::Step(Step {
        cached: true,
        ..step(name, Some(ms), Some(ms))
    })
}

fn failed(name: &str, from: u64, to: u64, error: &str) -> Event {
    Event::Step(Step {
        error: error.to_owned(),
        ..step(name, Some(from), Some(to))
    })
}

/// A build that loads, hits the cache, runs two steps at once and fails in one.
fn a_failing_build() -> Vec<(u64, Vec<Event>)> {
    let (load, from, make, test) = (
        "[internal] load build definition",
        "[1/3] FROM base",
        "[2/3] RUN make",
        "[3/3] RUN test",
    );
    vec![
        (
            0,
            vec![
                Event::Step(step(load, None, None)),
                Event::Step(step(load, Some(0), None)),
            ],
        ),
        (
            50,
            vec![
                status(load, "transferring dockerfile:", 123, 0, 50, true),
                Event::Step(step(load, Some(0), Some(50))),
            ],
        ),
        (
            60,
            vec![
                cached(from, 60),
                Event::Step(step(make, Some(60), None)),
                Event::Step(step(test, Some(60), None)),
            ],
        ),
        (
            500,
            vec![
                log(make, 500, "cc main.c\ncc ut"),
                log(test, 510, "testing\r\n"),
            ],
        ),
        (
            900,
            vec![log(make, 900, "il.c\n"), log(make, 910, "unfinished")],
        ),
        (1300, vec![Event::Step(step(make, Some(60), Some(1260)))]),
        (
            1500,
            vec![
                log(test, 1500, "\x1b[31mboom\x1b[0m\n"),
                failed(
                    test,
                    60,
                    1500,
                    "process \"/bin/sh -c test\" did not complete successfully: exit code: 1",
                ),
            ],
        ),
    ]
}

fn play(
    mode: Mode,
    settings: Settings,
    build: &[(u64, Vec<Event>)],
    size: Option<Size>,
) -> Written {
    let written = Written::default();
    let size = size.map(|size| Box::new(move || size) as Box<dyn Fn() -> Size + Send>);
    let mut display = Display::new(mode, settings, Box::new(written.clone()), size).unwrap();
    for (ms, events) in build {
        display.update(events).unwrap();
        display.refresh(at(*ms)).unwrap();
    }
    display.finish(at(build.last().unwrap().0)).unwrap();
    written
}

/// The one place where tests meet the plain display.
#[track_caller]
fn check_plain(build: &[(u64, Vec<Event>)], expected: Expect) {
    let text = play(Mode::Plain, Settings::default(), build, None).text();
    // What a source file cannot hold is shown as a picture.
    expected.assert_eq(&text.replace('\r', "␍").replace('\x1b', "␛"));
}

/// Rows: B06, F08
#[test]
fn plain_lines_read_like_buildkits() {
    check_plain(
        &a_failing_build(),
        expect![[r##"
            #1 [internal] load build definition
            #1 transferring dockerfile: 123B 0.1s done
            #1 DONE 0.1s

            #2 [1/3] FROM base
            #2 CACHED

            #3 [2/3] RUN make
            #3 0.440 cc main.c
            #3 0.440 cc util.c
            #3 0.850 unfinished
            #3 DONE 1.2s

            #4 [3/3] RUN test
            #4 0.450 testing␍
            #4 1.440 ␛[31mboom␛[0m
            #4 ERROR: process "/bin/sh -c test" did not complete successfully: exit code: 1
            ------
             > [3/3] RUN test:
            testing
            boom
            ------
        "##]],
    );
}

/// Rows: B06
#[test]
fn plain_cancelled_steps_and_transfers() {
    let pull = "[1/2] FROM base";
    let mut build = vec![(0, vec![Event::Step(step(pull, Some(0), None))])];
    for tenth in 0..=10 {
        build.push((
            tenth * 100,
            vec![status(
                pull,
                "sha256:abc",
                tenth * 1_000_000,
                10_000_000,
                tenth * 100,
                tenth == 10,
            )],
        ));
        // Too little to be told.
        build.push((
            tenth * 100 + 10,
            vec![status(
                pull,
                "sha256:def",
                tenth,
                10_000_000,
                tenth * 100,
                false,
            )],
        ));
    }
    build.push((
        1200,
        vec![failed(pull, 0, 1200, "reading blob: context canceled")],
    ));
    check_plain(
        &build,
        expect![[r#"
        #1 [1/2] FROM base
        #1 sha256:abc 0B / 10.00MB
        #1 sha256:def 0B / 10.00MB
        #1 sha256:abc 1.00MB / 10.00MB 0.1s
        #1 sha256:abc 2.00MB / 10.00MB 0.2s
        #1 sha256:abc 3.00MB / 10.00MB 0.3s
        #1 sha256:abc 4.00MB / 10.00MB 0.4s
        #1 sha256:abc 5.00MB / 10.00MB 0.5s
        #1 sha256:abc 6.00MB / 10.00MB 0.6s
        #1 sha256:abc 7.00MB / 10.00MB 0.7s
        #1 sha256:abc 8.00MB / 10.00MB 0.8s
        #1 sha256:abc 9.00MB / 10.00MB 0.9s
        #1 sha256:abc 10.00MB / 10.00MB 1.0s done
        #1 CANCELED
    "#]],
    );
}

/// Rows: B06, V15
#[test]
fn rawjson_is_the_solve_status_of_go() {
    let mut with_warning = a_failing_build()[..2].to_vec();
    with_warning.push((
        60,
        vec![
            Event::Warning(Warning {
                step: digest("x"),
                level: 1,
                short: "StageNameCasing".into(),
                detail: vec!["more".into()],
                url: "https://docs.docker.com/go/".into(),
                source: Some(Source {
                    filename: "Dockerfile".into(),
                    language: "Dockerfile".into(),
                    data: Bytes::from_static(b"FROM x"),
                    definition: Bytes::from_static(b"\x0a\x02in"),
                }),
                ranges: vec![Range {
                    start: Position {
                        line: 1,
                        character: 0,
                    },
                    end: Position {
                        line: 1,
                        character: 0,
                    },
                }],
            }),
            log("[2/3] RUN make", 123, "hi\n"),
            Event::Step(Step {
                group: Some(Group {
                    id: "g".into(),
                    name: "G".into(),
                    weak: true,
                }),
                inputs: vec![digest("in")],
                ..step("member", None, None)
            }),
        ],
    ));
    let text = play(Mode::RawJson, Settings::default(), &with_warning, None).text();
    expect![[r#"
        {"vertexes":[{"digest":"sha256:323d8b104b46bd32f93ccc3eff2c0021ab4a22290a4c40a905b35587e074c1a1","name":"[internal] load build definition"},{"digest":"sha256:323d8b104b46bd32f93ccc3eff2c0021ab4a22290a4c40a905b35587e074c1a1","name":"[internal] load build definition","started":"2023-11-14T22:13:20Z"}]}
        {"vertexes":[{"digest":"sha256:323d8b104b46bd32f93ccc3eff2c0021ab4a22290a4c40a905b35587e074c1a1","name":"[internal] load build definition","started":"2023-11-14T22:13:20Z","completed":"2023-11-14T22:13:20.05Z"}],"statuses":[{"id":"transferring dockerfile:","vertex":"sha256:323d8b104b46bd32f93ccc3eff2c0021ab4a22290a4c40a905b35587e074c1a1","current":123,"timestamp":"2023-11-14T22:13:20.05Z","started":"2023-11-14T22:13:20Z","completed":"2023-11-14T22:13:20.05Z"}]}
        {"vertexes":[{"digest":"sha256:e31ab643c44f7a0ec824b59d1194d60dac334200d845e61d2d289daa0f087ea4","inputs":["sha256:582967534d0f909d196b97f9e6921342777aea87b46fa52df165389db1fb8ccf"],"name":"member","progressGroup":{"id":"g","name":"G","weak":true}}],"logs":[{"vertex":"sha256:5e8475839e82e3d5cc483481029deb84e2c11473582007b8cc6d10b306e6d041","stream":1,"data":"aGkK","timestamp":"2023-11-14T22:13:20.123Z"}],"warnings":[{"vertex":"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","level":1,"short":"U3RhZ2VOYW1lQ2FzaW5n","detail":["bW9yZQ=="],"url":"https://docs.docker.com/go/","sourceInfo":{"filename":"Dockerfile","data":"RlJPTSB4","definition":{"def":["aW4="]},"language":"Dockerfile"},"range":[{"start":{"line":1},"end":{"line":1}}]}]}
    "#]].assert_eq(&text);
}

/// Rows: B06
#[test]
fn quiet_says_only_what_failed() {
    let text = play(Mode::Quiet, Settings::default(), &a_failing_build(), None).text();
    expect![[r#"
        ------
         > [3/3] RUN test:
        testing
        boom
        ------
    "#]]
    .assert_eq(&text);
}

/// What a terminal of this size shows after these bytes, with what scrolled away.
fn screen(written: &Written, size: Size) -> String {
    let mut terminal = vt100::Parser::new(
        size.height.try_into().unwrap(),
        size.width.try_into().unwrap(),
        1000,
    );
    terminal.process(written.text().replace('\n', "\r\n").as_bytes());
    terminal.screen().contents()
}

fn bare() -> Settings {
    Settings {
        palette: Palette::none(),
        ..Settings::default()
    }
}

/// Rows: B06
#[test]
fn a_terminal_shows_what_runs_with_its_last_lines() {
    let size = Size {
        width: 72,
        height: 24,
    };
    let written = Written::default();
    let mut display = Display::new(
        Mode::Tty,
        bare(),
        Box::new(written.clone()),
        Some(Box::new(move || size)),
    )
    .unwrap();
    for (ms, events) in &a_failing_build()[..5] {
        display.update(events).unwrap();
        display.refresh(at(*ms)).unwrap();
    }
    expect![[r#"
         ✓ [internal] load build definition                           123B 0.1s
         = [1/3] FROM base                                               cached
         ⠴ [2/3] RUN make                                                  0.8s
           │ cc main.c
           │ cc util.c
           │ unfinished
         ⠴ [3/3] RUN test                                                  0.8s
           │ testing
        [+] building 0.9s: 2/4 steps, 1 cached, 123B moved"#]]
    .assert_eq(&screen(&written, size));
}

/// Rows: B06
#[test]
fn a_terminal_keeps_the_story_and_the_failure() {
    let size = Size {
        width: 72,
        height: 24,
    };
    let written = play(Mode::Auto, bare(), &a_failing_build(), Some(size));
    expect![[r#"
         ✓ [internal] load build definition                           123B 0.1s
         = [1/3] FROM base                                               cached
         ✓ [2/3] RUN make                                                  1.2s
         ✗ [3/3] RUN test                                                  1.4s
        [+] built 1.5s: 4/4 steps, 1 cached, 123B moved
        ------
         > [3/3] RUN test:
        testing
        boom
        ------"#]]
    .assert_eq(&screen(&written, size));
}

/// Rows: B06
#[test]
fn a_small_terminal_is_never_outgrown() {
    let size = Size {
        width: 40,
        height: 8,
    };
    let mut build = vec![(0, Vec::new())];
    for number in 0..50 {
        build[0].1.push(Event::Step(step(
            &format!("[stage {number}] RUN something with a long name"),
            Some(0),
            None,
        )));
    }
    for ms in [500, 1000, 1500] {
        let noise: Vec<Event> = (0..50)
            .map(|n| {
                log(
                    &format!("[stage {n}] RUN something with a long name"),
                    ms,
                    "noise\nnoise\nnoise\n",
                )
            })
            .collect();
        build.push((ms, noise));
    }
    let written = Written::default();
    let mut display = Display::new(
        Mode::Tty,
        bare(),
        Box::new(written.clone()),
        Some(Box::new(move || size)),
    )
    .unwrap();
    for (ms, events) in &build {
        display.update(events).unwrap();
        display.refresh(at(*ms)).unwrap();
    }
    let mut terminal = vt100::Parser::new(
        size.height.try_into().unwrap(),
        size.width.try_into().unwrap(),
        1000,
    );
    terminal.process(written.text().replace('\n', "\r\n").as_bytes());
    terminal.screen_mut().set_scrollback(1000);
    assert_eq!(
        terminal.screen().scrollback(),
        0,
        "nothing of the region scrolled away"
    );
    expect![[r#"
         ⠼ [stage 0] RUN something with a… 1.5s
         ⠼ [stage 1] RUN something with a… 1.5s
         ⠼ [stage 2] RUN something with a… 1.5s
         ⠼ [stage 3] RUN something with a… 1.5s
         ⠼ [stage 4] RUN something with a… 1.5s
        [+] building 1.5s: 0/50 steps, 45 more …"#]]
    .assert_eq(&terminal.screen().contents());
}

/// Rows: B06
#[test]
fn colors_mark_how_steps_ended() {
    let size = Size {
        width: 40,
        height: 24,
    };
    let mut settings = Settings::default();
    settings.palette.customize("error=light-red");
    let text = play(Mode::Tty, settings, &a_failing_build(), Some(size)).text();
    assert!(text.contains("\x1b[91m ✗ [3/3] RUN test"), "{text:?}");
    assert!(text.contains("\x1b[36m = [1/3] FROM base"), "{text:?}");
}

#[test]
fn a_view_without_terminal_is_refused() {
    let error = Display::new(
        Mode::Tty,
        Settings::default(),
        Box::new(Written::default()),
        None,
    )
    .err()
    .unwrap();
    assert_eq!(
        error.to_string(),
        "--progress=tty needs a terminal on standard error"
    );
    assert!("ttty".parse::<Mode>().is_err());
}

/// Rows: K4, B06
#[test]
fn a_step_that_was_not_cached_says_why() {
    let copy = "[1/1] COPY . .";
    let why = "not cached: changed in the build context: main.rs";
    let build = vec![
        (
            0,
            vec![
                Event::Step(step(copy, Some(0), None)),
                status(copy, why, 0, 0, 20, true),
            ],
        ),
        (100, vec![Event::Step(step(copy, Some(0), Some(100)))]),
    ];
    check_plain(
        &build,
        expect![[r#"
            #1 [1/1] COPY . .
            #1 not cached: changed in the build context: main.rs
            #1 DONE 0.1s
        "#]],
    );
    let size = Size {
        width: 72,
        height: 24,
    };
    let written = play(Mode::Auto, bare(), &build, Some(size));
    expect![[r#"
         ✓ [1/1] COPY . .                                                  0.1s
           · not cached: changed in the build context: main.rs
        [+] built 0.1s: 1/1 steps"#]]
    .assert_eq(&screen(&written, size));
}
