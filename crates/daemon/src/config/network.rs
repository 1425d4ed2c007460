//! The network of steps that name none (rows D06, X07).

use std::path::{Path, PathBuf};

use executor::{CniNetwork, CniOptions, SandboxNetwork};

use super::{Surroundings, one_of};
use crate::Error;
use crate::config::file::Oci;
use crate::config::flags::Flags;

/// The network that file and flags ask for, with its notes in the state directory `root`.
/// What it needs must be there: that is told at the start.
pub(super) fn of(
    worker: &Oci,
    flags: &Flags,
    surroundings: &Surroundings,
    root: &Path,
) -> Result<SandboxNetwork, Error> {
    let mode = flags
        .oci_worker_net
        .clone()
        .or_else(|| worker.network_mode.clone());
    let mode = mode
        .filter(|mode| !mode.is_empty())
        .unwrap_or_else(|| "auto".into());
    let known = ["auto", "host", "cni", "bridge", "none"];
    let mode = one_of("networkMode", mode, &known)?;
    let config = flags.oci_cni_config_path.clone();
    let config = config.or_else(|| worker.cni_config_path.clone());
    let config = config.unwrap_or_else(|| PathBuf::from(executor::CNI_CONFIG));
    let network = match mode.as_str() {
        "host" => return Ok(SandboxNetwork::Host),
        "none" => return Ok(SandboxNetwork::None),
        "bridge" => bridge(worker),
        "auto" if surroundings.bridge_auto => bridge(worker),
        "auto" if !config.exists() => return Ok(SandboxNetwork::Host),
        _ => CniNetwork::File(config),
    };
    let plugins = flags.oci_cni_binary_dir.clone();
    let plugins = plugins.or_else(|| worker.cni_binary_path.clone());
    let network = SandboxNetwork::Cni(CniOptions {
        network,
        plugins: plugins.unwrap_or_else(|| PathBuf::from(executor::CNI_PLUGINS)),
        pool: flags
            .oci_cni_pool_size
            .or(worker.cni_pool_size)
            .unwrap_or(0),
        state: root.join("networks"),
        init_lock: surroundings.cni_init_lock.clone(),
    });
    network
        .check()
        .map_err(|source| Error::Network { mode, source })?;
    Ok(network)
}

fn bridge(worker: &Oci) -> CniNetwork {
    let or = |asked: &Option<String>, usual: &str| {
        let asked = asked.clone().filter(|text| !text.is_empty());
        asked.unwrap_or_else(|| usual.to_owned())
    };
    CniNetwork::Bridge {
        name: or(&worker.bridge_name, executor::BRIDGE_NAME),
        subnet: or(&worker.bridge_subnet, executor::BRIDGE_SUBNET),
    }
}
