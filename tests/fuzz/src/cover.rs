//! Which edges of the program an input ran over, if it was built with counters
//! (`rustc-with-coverage`). Without, nothing is ever new.

use std::sync::{Mutex, PoisonError};

/// Where counters lie, as each crate's start-up code says.
static AREAS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// Called before `main` by what the compiler adds to instrumented crates.
///
/// # Safety
/// `start..stop` has to be one array of counters that lives as long as the program.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    let (start, stop) = (start as usize, stop as usize);
    let mut areas = AREAS.lock().unwrap_or_else(PoisonError::into_inner);
    if start < stop && !areas.contains(&(start, stop)) {
        areas.push((start, stop));
    }
}

/// What all inputs so far ran over.
#[derive(Default)]
pub(crate) struct Coverage {
    /// A bit for each class of how often, for each edge.
    seen: Vec<u8>,
    /// Edges seen at all.
    pub(crate) edges: usize,
}

impl Coverage {
    /// Whether the program was built with counters.
    pub(crate) fn is_there() -> bool {
        !areas().is_empty()
    }

    /// Before an input: all counters to zero.
    pub(crate) fn reset() {
        each(|_, counter| {
            // SAFETY: `each` gives places in arrays of counters that live as long as the program;
            // other threads may count at the same time, which loses a count at worst.
            unsafe { std::ptr::write_volatile(counter, 0) };
        });
    }

    /// After an input: whether it ran over an edge as often as none before.
    pub(crate) fn is_new(&mut self) -> bool {
        let mut new = false;
        each(|at, counter| {
            // SAFETY: as in `reset`.
            let count = unsafe { std::ptr::read_volatile(counter) };
            if count == 0 {
                return;
            }
            if at >= self.seen.len() {
                self.seen.resize(at + 1, 0);
            }
            let class = 1 << (7 - count.leading_zeros());
            if self.seen[at] & class == 0 {
                self.edges += usize::from(self.seen[at] == 0);
                self.seen[at] |= class;
                new = true;
            }
        });
        new
    }
}

fn areas() -> Vec<(usize, usize)> {
    AREAS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn each(mut look: impl FnMut(usize, *mut u8)) {
    let mut at = 0;
    for (start, stop) in areas() {
        for counter in start..stop {
            look(at, counter as *mut u8);
            at += 1;
        }
    }
}
