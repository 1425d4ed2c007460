//! `# check=skip=Rule,Rule;error=true;experimental=Rule`.

use std::collections::BTreeSet;

use super::Rule;
use crate::Error;

/// Which rules count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LintConfig {
    skip: BTreeSet<String>,
    skip_all: bool,
    experimental: BTreeSet<String>,
    experimental_all: bool,
    /// A warning fails the build.
    pub error: bool,
}

impl LintConfig {
    /// No rule counts.
    pub(crate) fn nothing() -> LintConfig {
        LintConfig {
            skip_all: true,
            ..LintConfig::default()
        }
    }

    /// Reads the value of the directive, or of `BUILDKIT_DOCKERFILE_CHECK`.
    pub fn parse(text: &str) -> Result<LintConfig, Error> {
        let mut config = LintConfig::default();
        for option in text.split(';').map(str::trim).filter(|o| !o.is_empty()) {
            let bad = || Error::BadCheckOption {
                option: option.to_owned(),
            };
            let (name, value) = option.split_once('=').ok_or_else(bad)?;
            let (rules, all) = match name.trim() {
                "skip" => (&mut config.skip, &mut config.skip_all),
                "experimental" => (&mut config.experimental, &mut config.experimental_all),
                "error" => {
                    config.error = stdx::text::go_bool(value.trim()).ok_or_else(bad)?;
                    continue;
                }
                _ => return Err(bad()),
            };
            match value.trim() {
                "all" => *all = true,
                names => rules.extend(names.split(',').map(|n| n.trim().to_owned())),
            }
        }
        Ok(config)
    }

    pub(super) fn wants(&self, rule: Rule) -> bool {
        let chosen = self.experimental_all || self.experimental.contains(rule.name());
        if rule.is_experimental() {
            return chosen;
        }
        chosen || !(self.skip_all || self.skip.contains(rule.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: F12
    #[test]
    fn rules_are_switched_off_and_on() {
        let config = LintConfig::parse("skip=UndefinedVar, StageNameCasing;error=true").unwrap();
        assert!(
            config.error && !config.wants(Rule::UndefinedVar) && config.wants(Rule::FromAsCasing)
        );
        assert!(!config.wants(Rule::InvalidDefinitionDescription));
        let config = LintConfig::parse("skip=all;experimental=all").unwrap();
        assert!(config.wants(Rule::InvalidDefinitionDescription));
        assert!(LintConfig::parse("skip").is_err());
        assert!(LintConfig::parse("error=perhaps").is_err());
        assert!(LintConfig::parse("foo=bar").is_err());
    }
}
