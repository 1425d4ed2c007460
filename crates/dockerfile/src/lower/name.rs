//! Names of steps in the progress display. Other programs read them: every character
//! counts.

use oci::Platform;

use super::args::show_all;
use super::stage::Stage;
use crate::shell::Env;

impl Stage {
    /// `[stage 2/5] COPY a b`, and counts the step.
    pub(super) fn step_name(
        &mut self,
        text: &str,
        with_platform: bool,
        platform: &Platform,
        env: &Env,
        on_build: bool,
    ) -> String {
        if self.step_total == 0 {
            return text.to_owned();
        }
        let mut name = String::from("[");
        if with_platform {
            name.push_str(&show_all(platform));
            name.push_str(&cross(platform, env));
            name.push(' ');
        }
        if !self.shown.is_empty() {
            name.push_str(&self.shown);
            name.push(' ');
        }
        self.step_now += 1;
        let width = self.step_total.ilog10() as usize + 1;
        name.push_str(&format!("{:width$}/{}] ", self.step_now, self.step_total));
        if on_build {
            name.push_str("ONBUILD ");
        }
        name.push_str(text);
        name
    }
}

/// `->arm64` where a stage that runs here makes something for there.
fn cross(base: &Platform, env: &Env) -> String {
    let Some(target) = target_of(base, env) else {
        return String::new();
    };
    let target = target.normalized();
    if target.os != base.os {
        return format!("->{}", show_all(&target));
    }
    if target.architecture == base.architecture {
        return String::new();
    }
    match target.variant.is_empty() {
        true => format!("->{}", target.architecture),
        false => format!("->{}/{}", target.architecture, target.variant),
    }
}

fn target_of(base: &Platform, env: &Env) -> Option<Platform> {
    if let Some(platform) = env.get("TARGETPLATFORM").and_then(|v| v.parse().ok()) {
        return Some(platform);
    }
    let part = |name: &str| env.get(name).map(str::to_owned);
    let (os, arch, variant) = (part("TARGETOS"), part("TARGETARCH"), part("TARGETVARIANT"));
    if os.is_none() && arch.is_none() && variant.is_none() {
        return None;
    }
    let or = |value: Option<String>, default: &str| {
        value
            .filter(|v| !v.is_empty())
            .unwrap_or(default.to_owned())
    };
    Some(Platform {
        os: or(os, &base.os),
        architecture: or(arch, &base.architecture),
        variant: variant.unwrap_or_default(),
        ..Platform::default()
    })
}

/// The text with its first word in capitals: `copy a b` is shown as `COPY a b`.
pub(super) fn upper_first(text: &str) -> String {
    match text.split_once(' ') {
        Some((first, rest)) => format!("{} {rest}", first.to_uppercase()),
        None => text.to_uppercase(),
    }
}

/// A here-doc's first line, and dots if there are more.
pub(super) fn summary(data: &str) -> String {
    let mut lines = data.trim().lines();
    let first = lines.next().unwrap_or_default();
    let more = if lines.next().is_some() { "..." } else { "" };
    format!("{first}{more}")
}
