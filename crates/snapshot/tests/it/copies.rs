//! Copies, which anyone can make.

use std::path::Path;
use std::sync::Arc;

use snapshot::{Copies, Snapshotter};

fn copies(dir: &Path) -> Option<Arc<dyn Snapshotter>> {
    Some(Arc::new(Copies::open(dir).unwrap()))
}

snapshot::suite!(copies);
