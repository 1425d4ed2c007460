//! Bad input for every door of the program.
//!
//! A [`Target`] takes any bytes and panics when a promise is broken: not only that the code
//! does not panic itself, but that what it accepted obeys its limits, that what it writes it
//! reads again as the same, that nothing appears outside the directory it was given, and that
//! it ends. [`run`] feeds targets: first the kept corpus (`corpus/<target>/`, each file a fault
//! that was, or a way to go deep), then what the mutator makes of it. How many bytes were
//! allocated and how long it took is measured for each input (`meter`).
//!
//! Built with counters (`cargo xtask fuzz TARGET`) the mutator keeps what reaches something new
//! and goes on from there; without, in the tests, it goes on from the corpus and the seeds.
//! docs/decisions/0009-own-fuzzer.md says why this is our own.
#![warn(missing_docs)]

mod cover;
mod meter;
mod mutate;
mod run;
mod targets;

pub use run::{Budget, Outcome, Until, run};
pub use targets::{Target, all};
