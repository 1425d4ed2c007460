//! Which devices a build was given the right to.

use std::collections::BTreeMap;

/// What the entitlement `device` says, all its mentions together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Every device.
    pub all: bool,
    /// By the name steps use; with the real device when that name is an alias.
    devices: BTreeMap<String, Option<String>>,
}

impl Grants {
    /// Adds one mention: empty for all devices, else `name[,alias=other]`.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        if text.is_empty() {
            self.all = true;
            return Ok(());
        }
        let mut fields = text.split(',');
        let name = fields.next().unwrap_or_default();
        let mut alias = None;
        for field in fields {
            match field.split_once('=') {
                Some(("alias", value)) => alias = Some(value).filter(|value| !value.is_empty()),
                Some((key, _)) => return Err(format!("unknown device config key {key:?}")),
                None => return Err(format!("invalid device config {field:?}")),
            }
        }
        match alias {
            Some(alias) => self
                .devices
                .insert(alias.to_string(), Some(name.to_string())),
            None => self.devices.insert(name.to_string(), None),
        };
        Ok(())
    }

    /// The real device a step means by an alias.
    pub(super) fn behind(&self, name: &str) -> Option<&str> {
        self.devices.get(name)?.as_deref()
    }

    /// Devices given under their own names.
    pub(super) fn plain(&self) -> impl Iterator<Item = &str> {
        let plain = self.devices.iter().filter(|(_, real)| real.is_none());
        plain.map(|(name, _)| name.as_str())
    }
}
