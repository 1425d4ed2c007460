//! Questions to the frontend instead of a build (`--call`, row F07).

use std::collections::BTreeMap;

use crate::Error;
use crate::build::csv;
use crate::build::flags::BuildFlags;
use crate::build::plan::bad;

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// What is asked.
    pub method: Method,
    /// Print the answer as JSON.
    pub json: bool,
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// What is wrong with the Dockerfile.
    Check,
    /// Which arguments, secrets and mounts the target takes.
    Outline,
    /// Which targets there are.
    Targets,
}

impl Call {
    pub(crate) fn from_flags(flags: &BuildFlags) -> Result<Option<Call>, Error> {
        const FLAG: &str = "--call";
        let text = match (&flags.call, flags.check) {
            (Some(_), true) => {
                return Err(Error::Conflict {
                    one: "--call",
                    other: "--check",
                });
            }
            (Some(text), false) => text.as_str(),
            (None, true) => "check",
            (None, false) => return Ok(None),
        };
        let fields = csv::fields(FLAG, text)?;
        let (name, rest) = fields
            .split_first()
            .map_or(("", &[][..]), |(name, rest)| (name.as_str(), rest));
        let mut json = false;
        for field in rest {
            match field.as_str() {
                "format=json" => json = true,
                "format=text" => json = false,
                other => {
                    return Err(bad(
                        FLAG,
                        text,
                        &format!("{other:?} is not format=json or format=text"),
                    ));
                }
            }
        }
        let method = match name.strip_prefix("method=").unwrap_or(name) {
            "" | "build" => return Ok(None),
            "check" | "lint" => Method::Check,
            "outline" => Method::Outline,
            "targets" => Method::Targets,
            other => {
                return Err(bad(
                    FLAG,
                    text,
                    &format!("{other:?} is not one of build, check, outline, targets"),
                ));
            }
        };
        Ok(Some(Call { method, json }))
    }

    /// What the frontend is told.
    pub(crate) fn options(self) -> BTreeMap<String, String> {
        let request = match self.method {
            Method::Check => "frontend.lint",
            Method::Outline => "frontend.outline",
            Method::Targets => "frontend.targets",
        };
        BTreeMap::from([
            ("requestid".to_owned(), request.to_owned()),
            (
                "frontend.caps".to_owned(),
                "moby.buildkit.frontend.subrequests".to_owned(),
            ),
        ])
    }
}
