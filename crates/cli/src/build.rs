//! `kiln build`: from flags to a request, and from the answer to files and words.

mod attach;
mod auth;
pub(crate) mod csv;
mod docker_load;
pub mod flags;
mod layout;
mod outcome;
pub mod output;
pub mod plan;
mod stdin;
pub mod subrequest;

use std::io::Write as _;
use std::path::Path;

use client::{BuildOptions, CacheEntry, Client, Export};

use crate::Error;
use crate::build::flags::BuildFlags;
use crate::build::plan::Plan;
use crate::display::{Display, Mode};
use crate::rim::Rim;

/// Builds. `connect` is called once all that can be wrong on this side is known to be
/// right; when `interrupted` comes back first, the build is cancelled.
pub async fn run<E: From<Error>>(
    flags: &BuildFlags,
    rim: &Rim,
    interrupted: impl Future<Output = ()>,
    connect: impl AsyncFnOnce() -> Result<Client, E>,
) -> Result<(), E> {
    let mut plan = Plan::new(flags, &rim.environment)?;
    let mut display = display(flags, rim)?;
    let input = Box::pin(tokio::io::stdin());
    let attached = attach::attach(&mut plan, &rim.environment, input).await?;
    let client = connect().await?;
    let mut build = client.build(BuildOptions {
        name: name(&flags.context),
        shared_key: shared_key(&flags.context),
        frontend: "dockerfile.v0".to_owned(),
        options: plan.options.clone(),
        exports: plan.exports.iter().map(export).collect(),
        cache_from: plan.cache_from.iter().map(cache).collect(),
        cache_to: plan.cache_to.iter().map(cache).collect(),
        entitlements: plan.entitlements.clone(),
        proxy_network: flags.proxy_network,
        compatibility: flags.compatibility_version.unwrap_or_default(),
        offers: attached.offers.clone(),
        ..BuildOptions::default()
    });
    let id = build.id().to_owned();
    let built = async {
        // A display that cannot be written to (a closed pipe) does not stop the build.
        if let Err(error) = display.show(&mut build).await {
            tracing::debug!(%error, "progress is no longer shown");
        }
        build.finish().await
    };
    let response = tokio::select! {
        response = built => response.map_err(Error::Client)?,
        () = interrupted => return Err(Error::Interrupted.into()),
    };
    attach::name_what_came(&plan, &response)?;
    outcome::report(flags, &plan, &id, &response)?;
    Ok(())
}

fn display(flags: &BuildFlags, rim: &Rim) -> Result<Display, Error> {
    let mode = match &flags.progress {
        _ if flags.quiet => Mode::Quiet,
        None => Mode::Auto,
        Some(text) => text.parse().map_err(|_| {
            plan::bad(
                "--progress",
                text,
                "it is not one of auto, tty, plain, quiet, rawjson",
            )
        })?,
    };
    let (settings, remarks) = rim.display_settings();
    let mut stderr = std::io::stderr();
    for remark in remarks {
        // Without standard error there is nobody to tell.
        let _ = writeln!(stderr, "warning: {remark}");
    }
    Display::new(mode, settings, Box::new(stderr), rim.terminal_size())
}

fn export(export: &output::Export) -> Export {
    Export {
        kind: export.kind.clone(),
        attrs: export.attrs.clone(),
    }
}

fn cache(entry: &plan::CacheEntry) -> CacheEntry {
    CacheEntry {
        kind: entry.kind.clone(),
        attrs: entry.attrs.clone(),
    }
}

/// What the session is called: the context's last part.
fn name(context: &str) -> String {
    let path = Path::new(context);
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    whole.file_name().map_or_else(
        || context.to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// Builds of one directory by one person share what was sent before.
fn shared_key(context: &str) -> String {
    let path = Path::new(context);
    match path.canonicalize() {
        Ok(whole) => oci::Digest::of(whole.as_os_str().as_encoded_bytes()).hex(),
        Err(_) => String::new(),
    }
}
