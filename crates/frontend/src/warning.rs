//! Something a person should know that does not stop the build.

use crate::SourceLocation;

/// A warning, with the line it is about.
#[derive(Clone, Debug, Default)]
pub struct Warning {
    /// 1 is for everybody; higher numbers for those who ask.
    pub level: u8,
    /// One line: what is the matter.
    pub short: String,
    /// More, a paragraph each.
    pub detail: Vec<String>,
    /// Where to read about it; may be empty.
    pub url: String,
    /// The lines it is about.
    pub at: Option<SourceLocation>,
}
