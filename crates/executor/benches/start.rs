//! From asking for a container to the end of `true` in it.
//!
//! A sketch of what the machine could do: fork and exec of a static program take about
//! half a millisecond; namespaces, a dozen mounts, the syscall filter and taking all of
//! it down again cost about as much each, so two to three milliseconds are to be had.
//!
//! `cargo bench -p executor` prints medians for the built-in executor and for each
//! runtime binary that is installed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use executor::testing::Rootfs;
use executor::{Control, Executor, Io, Native, NativeOptions, Process, Runtime, RuntimeOptions};

const ROUNDS: usize = 100;

async fn measure(name: &str, executor: &dyn Executor) {
    let rootfs = Rootfs::busybox();
    let process = Process::new(rootfs.tree(), ["/bin/true"]);
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..ROUNDS + 5 {
        let begun = Instant::now();
        let exit = executor
            .run(process.clone(), Io::none(), Control::none())
            .await;
        times.push(begun.elapsed());
        assert!(exit.expect("it runs").success());
    }
    let mut times = times.split_off(5);
    times.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    say(&format!(
        "{name:10} p50 {:7.2} ms   p90 {:7.2} ms",
        ms(times[ROUNDS / 2]),
        ms(times[ROUNDS * 9 / 10])
    ));
}

fn say(line: &str) {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}").expect("standard output");
}

#[tokio::main]
async fn bench() {
    let native = Native::start(NativeOptions::default())
        .await
        .expect("root, and a host that can");
    measure("built-in", &native).await;
    let state = std::env::temp_dir().join(format!("kiln-bench-{}", std::process::id()));
    for binary in ["runc", "crun"] {
        match Runtime::start(RuntimeOptions::new(binary, &state)).await {
            Ok(runtime) => {
                let runtime: Arc<dyn Executor> = Arc::new(runtime);
                measure(binary, &*runtime).await;
            }
            Err(error) => say(&format!("{binary:10} skipped: {error}")),
        }
    }
    let _state_is_empty = std::fs::remove_dir(&state);
}

fn main() {
    executor::helper_main();
    bench();
}
