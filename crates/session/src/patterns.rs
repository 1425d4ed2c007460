//! The patterns of .dockerignore and file sync: those of [`stdx::patterns`], which
//! content digests are filtered by as well.

pub use stdx::patterns::{Above, Filter, InvalidPattern, Matched, Patterns, clean};

impl From<InvalidPattern> for crate::Error {
    fn from(invalid: InvalidPattern) -> crate::Error {
        let InvalidPattern { pattern, reason } = invalid;
        crate::Error::Pattern { pattern, reason }
    }
}
