//! What of a directory is wanted: included, and not excluded. The one rule by which trees are
//! sent, copied and given digests, so that none of these sees other files than the others.

use super::{Matched, Patterns, Result};

/// Which paths beneath a directory are wanted. The directory itself is not asked about.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    include: Patterns,
    exclude: Patterns,
}

/// What the patterns said about the directory one is in; the default at the top.
#[derive(Clone, Debug, Default)]
pub struct Above {
    include: Matched,
    exclude: Matched,
}

/// What they say about one path.
#[derive(Clone, Debug)]
pub struct Judged {
    included: bool,
    excluded: bool,
    /// For what is in it, if it is a directory.
    pub here: Above,
}

impl Judged {
    /// Whether it is wanted.
    pub fn taken(&self) -> bool {
        self.included && !self.excluded
    }
}

impl Filter {
    /// Wanted is what `include` matches, or anything where there is no such pattern, unless
    /// `exclude` matches it.
    pub fn new<S: AsRef<str>>(
        include: impl IntoIterator<Item = S>,
        exclude: impl IntoIterator<Item = S>,
    ) -> Result<Filter> {
        Ok(Filter {
            include: Patterns::new(include)?,
            exclude: Patterns::new(exclude)?,
        })
    }

    /// Whether everything is wanted.
    pub fn is_empty(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// The patterns of what is included.
    pub fn include(&self) -> &Patterns {
        &self.include
    }

    /// The same with other patterns of what is included.
    pub fn including(self, include: Patterns) -> Filter {
        Filter { include, ..self }
    }

    /// Judges a path relative to the top, with slashes: `a/b`.
    pub fn judge(&self, path: &str, above: &Above) -> Judged {
        let mut judged = Judged {
            included: true,
            excluded: false,
            here: Above::default(),
        };
        if !self.include.is_empty() {
            (judged.included, judged.here.include) = self.include.matches_in(path, &above.include);
        }
        if !self.exclude.is_empty() {
            (judged.excluded, judged.here.exclude) = self.exclude.matches_in(path, &above.exclude);
        }
        judged
    }

    /// Whether nothing in a directory is wanted, which then need not be looked into.
    pub fn nothing_in(&self, path: &str, judged: &Judged) -> bool {
        let excluded = judged.excluded && !self.exclude.may_take_back_in(path);
        // Where the directory itself is included, so is all in it that is not excluded.
        let left_out = !judged.included && !self.include.may_match_in(path);
        excluded || left_out
    }
}
