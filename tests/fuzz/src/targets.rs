//! The doors, one file each.

mod cache;
mod dockerfile;
mod documents;
mod fsutil;
mod layer;
mod llb;
mod names;
mod requests;
mod session;
mod signatures;

use crate::mutate::Shape;

/// A door: something that takes bytes from outside.
pub struct Target {
    /// Name on the command line and in `corpus/`.
    pub name: &'static str,
    /// Takes any bytes; panics when a promise is broken.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    pub(crate) shape: Shape,
    /// What the target's language is made of.
    pub(crate) words: &'static [&'static str],
    /// The longest input the mutator makes.
    pub(crate) longest: usize,
    /// The most bytes one input may have allocated at one time.
    pub(crate) memory: usize,
}

/// Every target.
pub fn all() -> [Target; 10] {
    [
        llb::TARGET,
        dockerfile::TARGET,
        layer::TARGET,
        fsutil::TARGET,
        session::TARGET,
        requests::TARGET,
        documents::TARGET,
        cache::TARGET,
        names::TARGET,
        signatures::TARGET,
    ]
}

/// Runs to the end in virtual time: waiting costs nothing, waiting for ever is a fault.
fn to_the_end<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let day = std::time::Duration::from_secs(24 * 60 * 60);
    let ended = runtime.block_on(async { tokio::time::timeout(day, what).await });
    ended.expect("it ends within a day")
}

/// Runs to the end by the clock, where a thread waits for what comes: virtual time stands still
/// as long as one does.
fn by_the_clock<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let minute = std::time::Duration::from_secs(60);
    let ended = runtime.block_on(async { tokio::time::timeout(minute, what).await });
    ended.expect("it ends within a minute")
}

/// A directory with a neighbour that nobody may touch.
struct Fenced {
    outer: tempfile::TempDir,
}

impl Fenced {
    fn new() -> Fenced {
        let outer = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(outer.path().join("in")).expect("a directory");
        std::fs::write(outer.path().join("secret"), "untouched").expect("a file");
        Fenced { outer }
    }

    fn path(&self) -> std::path::PathBuf {
        self.outer.path().join("in")
    }

    fn root(&self) -> stdx::sys::Root {
        stdx::sys::Root::open(self.path()).expect("it is there")
    }

    /// Nothing came out.
    fn check(&self) {
        let secret = std::fs::read(self.outer.path().join("secret")).expect("it is there");
        assert_eq!(secret, b"untouched", "a file outside was written");
        let names = std::fs::read_dir(self.outer.path()).expect("it is there");
        assert_eq!(names.count(), 2, "something came out");
        for path in ["/kiln-fuzz-escaped", "/tmp/kiln-fuzz-escaped"] {
            assert!(!std::path::Path::new(path).exists(), "{path} was made");
        }
    }
}
