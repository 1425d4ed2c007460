//! `kiln prune`: makes the cache smaller.

use std::io::Write as _;
use std::time::Duration;

use clap::Args;
use client::{Client, PruneOptions};

use crate::Error;
use crate::build::plan::{bad, size_bytes};
use crate::display::units;
use crate::du::print;
use crate::rim::Rim;

/// Remove what no build uses from the cache
#[derive(Clone, Debug, Default, Args)]
pub struct PruneFlags {
    /// Internal records and frontend images too
    #[arg(long, short)]
    pub all: bool,
    /// Only records that pass: type==regular, until=24h, …
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<String>,
    /// Keep what was used within this time (24h)
    #[arg(long = "keep-duration", value_name = "TIME")]
    pub keep_duration: Option<String>,
    /// Disk the cache may always keep (10GB)
    #[arg(long = "reserved-space", alias = "keep-storage", value_name = "SIZE")]
    pub reserved_space: Option<String>,
    /// Disk the cache may use at most (20GB)
    #[arg(long = "max-used-space", value_name = "SIZE")]
    pub max_used_space: Option<String>,
    /// Disk that should be free afterwards (20GB)
    #[arg(long = "min-free-space", value_name = "SIZE")]
    pub min_free_space: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    pub force: bool,
    /// Print every record
    #[arg(long)]
    pub verbose: bool,
}

/// Asks for confirmation at a terminal, removes, and prints.
pub async fn run<E: From<Error>>(
    flags: &PruneFlags,
    rim: &Rim,
    connect: impl AsyncFnOnce() -> Result<Client, E>,
) -> Result<(), E> {
    let options = options(flags)?;
    if !flags.force && rim.stdin_is_terminal && !confirmed(flags.all)? {
        return Ok(());
    }
    let client = connect().await?;
    let mut records = Vec::new();
    let mut freed = client.prune(options).await.map_err(Error::Client)?;
    while let Some(record) = futures::StreamExt::next(&mut freed).await {
        records.push(record.map_err(Error::Client)?);
    }
    let mut text = String::new();
    for record in &records {
        if flags.verbose {
            text.push_str(&format!(
                "{:<28} {:>10}  {}\n",
                record.id,
                units::bytes(record.size),
                record.description
            ));
        } else {
            text.push_str(&format!(
                "{:<28} {:>10}\n",
                record.id,
                units::bytes(record.size)
            ));
        }
    }
    let bytes: u64 = records.iter().map(|record| record.size).sum();
    text.push_str(&format!("Total: {}\n", units::bytes(bytes)));
    print(&text)?;
    Ok(())
}

fn confirmed(all: bool) -> Result<bool, Error> {
    let what = if all {
        "all build cache"
    } else {
        "all dangling build cache"
    };
    let mut stderr = std::io::stderr();
    write!(
        stderr,
        "This will remove {what}. Are you sure you want to continue? [y/N] "
    )
    .map_err(Error::Output)?;
    stderr.flush().map_err(Error::Output)?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(Error::Output)?;
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}

fn options(flags: &PruneFlags) -> Result<PruneOptions, Error> {
    let size = |flag, text: &Option<String>| match text {
        None => Ok(0),
        Some(text) => size_bytes(text).ok_or_else(|| bad(flag, text, "it is not a size like 10GB")),
    };
    let mut filters = Vec::new();
    let mut keep_for = Duration::ZERO;
    let time = |flag, text: &str| {
        duration(text).ok_or_else(|| bad(flag, text, "it is not a time like 24h"))
    };
    if let Some(text) = &flags.keep_duration {
        keep_for = time("--keep-duration", text)?;
    }
    for filter in &flags.filter {
        // As with `docker`: unused for so long.
        match filter.strip_prefix("until=") {
            Some(text) => keep_for = time("--filter", text)?,
            None => filters.push(filter.clone()),
        }
    }
    Ok(PruneOptions {
        filters,
        all: flags.all,
        keep_for,
        reserved_bytes: size("--reserved-space", &flags.reserved_space)?,
        max_used_bytes: size("--max-used-space", &flags.max_used_space)?,
        min_free_bytes: size("--min-free-space", &flags.min_free_space)?,
    })
}

/// `90s`, `24h`, `7d`, `1h30m`.
fn duration(text: &str) -> Option<Duration> {
    let mut total = 0u64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = match &rest[digits..=digits] {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[digits + 1..];
    }
    Some(Duration::from_secs(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: A09, B03
    #[test]
    fn flags_become_limits() {
        let flags = PruneFlags {
            filter: vec!["until=24h".into(), "type==regular".into()],
            reserved_space: Some("1g".into()),
            all: true,
            ..PruneFlags::default()
        };
        let asked = options(&flags).unwrap();
        assert_eq!(
            (asked.filters, asked.all, asked.reserved_bytes),
            (vec!["type==regular".to_owned()], true, 1 << 30)
        );
        assert_eq!(asked.keep_for, Duration::from_secs(86_400));
        assert!(
            options(&PruneFlags {
                max_used_space: Some("x".into()),
                ..PruneFlags::default()
            })
            .is_err()
        );
        for wrong in ["", "1", "h", "1y", "ä"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}
