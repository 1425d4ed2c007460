//! A build's story as those who follow it see it.

use oci::Digest;
use progress::{Event, LogLimits, Options, Progress, StepProgress, Stream};

/// A story in one line per event, without times.
async fn told(build: &Progress) -> Vec<String> {
    let mut follower = build.follow();
    let mut lines = Vec::new();
    while let Some(event) = follower.next().await {
        lines.push(line(&event));
    }
    lines
}

fn line(event: &Event) -> String {
    match event {
        Event::Step(s) => format!(
            "step {} started={} completed={} cached={} {}",
            s.name,
            s.started.is_some(),
            s.completed.is_some(),
            s.cached,
            s.error
        ),
        Event::Status(s) => format!(
            "status {} {}/{} {}",
            s.id,
            s.current,
            s.total,
            s.completed.is_some()
        ),
        Event::Log(l) => format!("log {:?}", String::from_utf8_lossy(&l.data)),
        Event::Warning(w) => format!("warning {}", w.short),
    }
}

/// Rows: A04
#[tokio::test]
async fn a_late_follower_sees_the_story_from_the_start() {
    let build = Progress::default();
    let step = build.step(Digest::of(b"a"), "RUN make", &[]);
    step.start();
    step.log(Stream::Out, b"hello\n");
    step.complete(false);
    build.close();
    assert_eq!(
        told(&build).await,
        [
            "step RUN make started=false completed=false cached=false ",
            "step RUN make started=true completed=false cached=false ",
            "log \"hello\\n\"",
            "step RUN make started=true completed=true cached=false ",
        ]
    );
}

/// Rows: C01, C10
#[tokio::test]
async fn a_second_build_on_a_shared_step_sees_all_of_it_once() {
    let (first, second) = (Progress::default(), Progress::default());
    let step = first.step(Digest::of(b"a"), "RUN make", &[]);
    step.start();
    step.log(Stream::Out, b"one\n");
    step.attach(&second);
    step.attach(&second);
    step.log(Stream::Out, b"two\n");
    step.complete(false);
    first.close();
    second.close();
    let story = told(&second).await;
    assert_eq!(story, told(&first).await);
    assert_eq!(story.iter().filter(|line| line.contains("two")).count(), 1);
}

#[tokio::test]
async fn only_the_newest_status_of_a_transfer_is_kept() {
    let build = Progress::default();
    let step = build.step(Digest::of(b"a"), "pull", &[]);
    let transfer = step.transfer("layer");
    for at in 1..=1000 {
        transfer.set(at, 1000);
    }
    transfer.done();
    build.close();
    assert_eq!(told(&build).await[1..], ["status layer 1000/1000 true"]);
}

/// Rows: Z12
#[tokio::test]
async fn a_large_log_goes_to_the_spool_and_comes_back_whole() {
    let dir = tempfile_dir();
    let options = Options {
        limits: LogLimits {
            size: None,
            speed: None,
        },
        spool_dir: Some(dir.clone()),
        trace: None,
    };
    let build = Progress::new(options);
    let step = build.step(Digest::of(b"a"), "RUN noise", &[]);
    let line = [b'x'; 4096];
    for _ in 0..1000 {
        step.log(Stream::Err, line);
    }
    build.close();
    assert_eq!(
        std::fs::read_dir(&dir).unwrap().count(),
        0,
        "the spool has no name"
    );
    std::fs::remove_dir(&dir).unwrap();
    let mut follower = build.follow();
    let mut bytes = 0;
    while let Some(event) = follower.next().await {
        if let Event::Log(log) = event {
            assert!(log.data.iter().all(|b| *b == b'x'));
            bytes += log.data.len();
        }
    }
    assert_eq!(bytes, 4096 * 1000);
}

fn tempfile_dir() -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("kiln-progress-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

#[tokio::test]
async fn a_follower_wakes_for_new_events_and_ends_with_the_build() {
    let build = Progress::default();
    let mut follower = build.follow();
    let teller = build.clone();
    let task = stdx::task::spawn("teller", async move {
        tokio::task::yield_now().await;
        teller.internal_step("load").start();
        tokio::task::yield_now().await;
        teller.close();
        teller.internal_step("after the end").start();
    });
    let mut events = 0;
    while follower.next().await.is_some() {
        events += 1;
    }
    task.await;
    assert_eq!(events, 2, "what is told after the end is dropped");
}

#[tokio::test]
async fn a_step_of_no_build_can_be_told_anything() {
    let step = StepProgress::none();
    step.start();
    step.log(Stream::Out, b"nobody hears");
    step.transfer("x").done();
    step.cancel();
}

#[tokio::test]
async fn a_closed_and_dropped_build_is_let_go_by_its_steps() {
    let first = Progress::default();
    let step = first.step(Digest::of(b"a"), "x", &[]);
    drop(first);
    let second = Progress::default();
    step.attach(&second);
    step.complete(true);
    second.close();
    assert_eq!(told(&second).await.len(), 2);
}
