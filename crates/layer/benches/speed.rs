//! Bytes per second of the pipeline. `cargo bench -p layer [-- MEGABYTES]`.

use std::io::Write;
use std::time::{Duration, Instant};

use layer::{Algorithm, ApplyOptions, apply, diff, pack};
use stdx::sys::Root;

/// Text and noise in the mix found in system libraries: about 2.5 to 1.
fn fill(dir: &Root, megabytes: usize) {
    let mut state = 1_u64;
    for number in 0..megabytes {
        let name = format!("file-{number}");
        let mut file = dir.create_file(&name, 0o644).expect("the directory is new");
        let mut block = Vec::with_capacity(1 << 20);
        while block.len() < 1 << 20 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            block.extend_from_slice(&(state >> 24).to_le_bytes()[..3]);
            block.extend_from_slice(&b"movq %rax, (%rdi)  call "[..(state >> 61) as usize * 2 + 3]);
        }
        file.write_all(&block).expect("there is space");
    }
}

fn report(what: &str, megabytes: usize, took: Duration, extra: &str) {
    let speed = megabytes as f64 * 1.048_576 / took.as_secs_f64();
    let line = format!(
        "{what:<24} {speed:8.0} MB/s  {:6.2} s  {extra}\n",
        took.as_secs_f64()
    );
    std::io::stdout()
        .write_all(line.as_bytes())
        .expect("stdout is open");
}

fn main() {
    let megabytes = std::env::args()
        .filter_map(|arg| arg.parse().ok())
        .next()
        .unwrap_or(500);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let root = Root::open(dir.path()).expect("it is there");
    fill(&root, megabytes);
    let mut gzip = Vec::new();
    for algorithm in [Algorithm::Uncompressed, Algorithm::Zstd, Algorithm::Gzip] {
        let start = Instant::now();
        let (packed, blob) = pack(algorithm.into(), Vec::new(), |tar| {
            diff(&root, None, tar).map(drop)
        })
        .expect("it can be packed");
        let ratio = packed.uncompressed_size as f64 / packed.size as f64;
        report(
            &format!("export {algorithm}"),
            megabytes,
            start.elapsed(),
            &format!("ratio {ratio:.2}"),
        );
        gzip = blob;
    }
    let into = tempfile::tempdir().expect("a temporary directory");
    let root = Root::open(into.path()).expect("it is there");
    let start = Instant::now();
    apply(&gzip[..], &root, &ApplyOptions::default()).expect("it can be applied");
    report("apply gzip", megabytes, start.elapsed(), "");
}
