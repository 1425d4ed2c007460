//! `ARG`s above the first `FROM`, and the ones that are always there.

use std::collections::{BTreeMap, BTreeSet};

use oci::Platform;

use super::outline::ArgInfo;
use super::{At, Lowering, Result};
use crate::Error;
use crate::instruction::{Command, File};
use crate::shell::{Env, Expanded, Lexer};

impl Lowering<'_> {
    /// Sets the arguments that `FROM` may use.
    pub(super) fn global_args(&mut self, file: &File, target: &str) -> Result<()> {
        let defaults = self.platform_args(target);
        self.args = defaults.clone();
        let without = self.declared_args(file, false).map(|(args, _)| args);
        self.check_default_bases(file, without.ok());
        self.args = defaults;
        let (args, declared) = self.declared_args(file, true)?;
        (self.args, self.declared) = (args, declared);
        Ok(())
    }

    /// Arguments as declared, with or without what the client gave.
    fn declared_args(&self, file: &File, given: bool) -> Result<(Env, BTreeMap<String, ArgInfo>)> {
        let (mut env, mut infos) = (self.args.clone(), BTreeMap::<String, ArgInfo>::new());
        for instruction in &file.args {
            let Command::Arg(args) = &instruction.command else {
                continue;
            };
            for arg in args {
                let mut info = ArgInfo::new(arg, instruction.lines);
                let value = match (self.options.build_args.get(&arg.name), &arg.value) {
                    (Some(value), _) if given => Some(value.clone()),
                    (_, Some(value)) => {
                        let expanded = self.expand_with(value, &env).at(instruction.lines)?;
                        info.needs = expanded.matched;
                        // Built on its own earlier value, it needs what that one needed.
                        if info.needs.remove(&arg.name)
                            && let Some(earlier) = infos.get(&arg.name)
                        {
                            info.needs.extend(earlier.needs.iter().cloned());
                        }
                        Some(expanded.text)
                    }
                    _ => None,
                };
                if let Some(value) = value {
                    info.value.clone_from(&value);
                    env.set(&arg.name, value);
                }
                infos.insert(arg.name.clone(), info);
            }
        }
        Ok((env, infos))
    }

    /// `BUILDPLATFORM` and its kin.
    fn platform_args(&self, target: &str) -> Env {
        let mut env = Env::default();
        let target = if target.is_empty() { "default" } else { target };
        let build = self.ui.build_platform();
        for (prefix, platform) in [("BUILD", &build), ("TARGET", &self.target_platform)] {
            for (name, value) in [
                ("PLATFORM", show_all(platform)),
                ("OS", platform.os.clone()),
                ("OSVERSION", platform.os_version.clone()),
                ("ARCH", platform.architecture.clone()),
                ("VARIANT", platform.variant.clone()),
            ] {
                env.set(format!("{prefix}{name}"), value);
            }
        }
        env.set("TARGETSTAGE", target);
        for (name, value) in &self.options.build_args {
            if env.get(name).is_some() {
                // The place stays: only the value changes.
                env = env
                    .iter()
                    .map(|(k, v)| (k, if k == name { value } else { v }))
                    .collect();
            }
        }
        env
    }

    pub(super) fn expand_global(&self, word: &str) -> Result<Expanded, Error> {
        self.expand_with(word, &self.args)
    }

    pub(super) fn expand_with(&self, word: &str, env: &Env) -> Result<Expanded, Error> {
        self.lex(self.lexer, word, env)
    }

    /// Text for people, its variables expanded; what cannot be stays as it is.
    pub(super) fn shown(&self, lexer: Lexer, text: &str, env: &Env) -> String {
        let expanded = self.lex(lexer, text, env);
        expanded.map_or_else(|_| text.to_owned(), |expanded| expanded.text)
    }

    pub(super) fn lex(&self, lexer: Lexer, word: &str, env: &Env) -> Result<Expanded, Error> {
        let expanded = lexer.expand(word, env).map_err(|fault| Error::Expansion {
            word: word.to_owned(),
            fault,
        })?;
        self.budget.spend(expanded.text.len())?;
        Ok(expanded)
    }

    /// Names of all arguments `FROM` may use.
    pub(super) fn names_for_from(&self) -> BTreeSet<String> {
        self.args
            .names()
            .map(str::to_owned)
            .chain(self.declared.keys().cloned())
            .collect()
    }
}

/// A platform with its OS version: `windows(10.0.1)/amd64`.
pub(crate) fn show_all(platform: &Platform) -> String {
    if platform.os_version.is_empty() {
        return platform.to_string();
    }
    let Platform {
        os,
        os_version,
        architecture,
        variant,
        ..
    } = platform;
    let slash = if variant.is_empty() { "" } else { "/" };
    format!("{os}({os_version})/{architecture}{slash}{variant}")
}
