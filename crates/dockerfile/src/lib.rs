//! Dockerfile text to tree to LLB, with warnings. Never opens a file: everything from
//! outside comes through a [`frontend::Bridge`].
//!
//! The way of a file: [`syntax::parse`] reads lines into a [`syntax::Tree`],
//! [`instruction::instructions`] understands them, and [`build`] turns them into a graph,
//! has it solved and gives back the images' configs. Parsing never stops at a mistake:
//! tree and list of faults come together.
//!
//! ```
//! let tree = dockerfile::syntax::parse(b"FRMO alpine\nRUN echo hi\n");
//! let file = dockerfile::instruction::instructions(&tree);
//! assert_eq!(file.faults[0].error.to_string(), "unknown instruction: FRMO (did you mean FROM?)");
//! assert_eq!(file.faults[0].lines.first, 1);
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod build;
mod error;
mod git;
pub mod ignore;
mod image;
pub mod instruction;
mod json;
mod lint;
mod lower;
mod options;
mod plan;
mod reference;
mod request;
pub mod shell;
mod suggest;
pub mod syntax;
mod ui;

pub use build::build;
pub use error::Error;
pub use ignore::Ignore;
pub use image::{Config, Empty, Healthcheck, History, Image, RootFs};
pub use lint::{LintConfig, LintWarning, Rule};
pub use options::BuildOptions;
pub use ui::{InPlace, in_place_of};
