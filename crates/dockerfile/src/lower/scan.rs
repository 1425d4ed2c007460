//! Which trees are scanned beside the result: stages and the context, as arguments say.

use std::collections::BTreeMap;

use super::Lowering;
use super::meta::{SCAN_CONTEXT, SCAN_STAGE};
use crate::Error;

/// What is scanned beside the result.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scan {
    /// By name: stages, and `context`.
    pub(crate) extras: BTreeMap<String, llb::Definition>,
    /// One of the trees takes nothing from the cache, so neither does the scan.
    pub(crate) ignore_cache: bool,
}

impl Lowering<'_> {
    /// Nothing unless a scan was asked for.
    pub(super) fn scan(&self, target: usize) -> Result<Scan, Error> {
        let mut scan = Scan::default();
        if self.options.sbom.is_none() {
            return Ok(scan);
        }
        let file = self.ui.source_info();
        scan.ignore_cache = self.stages[target].no_cache;
        if self.scans_context(target) {
            let context = self.plan.definition(Some(self.context), Some(&file))?;
            scan.extras.insert("context".to_owned(), context);
        }
        for index in self.reachable(target) {
            let stage = &self.stages[index];
            if index == target || stage.unwritten || !self.is_on(index, SCAN_STAGE) {
                continue;
            }
            let definition = self.plan.definition(stage.state.tree, Some(&file))?;
            scan.extras.insert(stage.shown.clone(), definition);
            scan.ignore_cache |= stage.no_cache;
        }
        Ok(scan)
    }

    /// Whether the build context is scanned, too.
    pub(super) fn scans_context(&self, target: usize) -> bool {
        self.is_on(target, SCAN_CONTEXT)
    }

    /// An argument above all stages counts for each, one in a stage or below it more. Its
    /// value is true or false, or a list of stages.
    fn is_on(&self, index: usize, name: &str) -> bool {
        let stage = &self.stages[index];
        let mut own = stage.args.iter().rev().filter(|arg| arg.name == name);
        let own = own.find_map(|arg| arg.value.as_deref());
        match own.or(self.args.get(name)) {
            None => false,
            Some(value) => stdx::text::go_bool(value)
                .unwrap_or_else(|| value.split(',').any(|one| one == stage.shown)),
        }
    }
}
