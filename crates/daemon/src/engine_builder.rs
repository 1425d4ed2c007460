//! The engine behind the seam [`crate::builder::Builder`].

use std::sync::Arc;

use crate::Error;
use crate::builder::Builder;
use crate::config::Config;

/// Opens the engine on the state directory `config` names, which must be ours.
pub async fn open(config: &Config) -> Result<Arc<dyn Builder>, Error> {
    let _ = config;
    Err(Error::NotYet(
        "building (the engine is not linked in)".to_owned(),
    ))
}
