//! `kiln du`: what the cache holds.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use clap::Args;
use client::{Client, DiskRecord};

use crate::Error;
use crate::display::units;

/// Show how much disk the cache uses
#[derive(Clone, Debug, Default, Args)]
pub struct DuFlags {
    /// Only records that pass: type==regular, id~=abc, inuse, …
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<String>,
    /// Show all that is known of each record
    #[arg(long, short)]
    pub verbose: bool,
}

/// Asks and prints.
pub async fn run(flags: &DuFlags, client: &Client) -> Result<(), Error> {
    let mut records = client.disk_usage(&flags.filter, Duration::ZERO).await?;
    records.sort_by_key(|record| std::cmp::Reverse(record.size));
    print(&text(&records, flags.verbose, SystemTime::now()))
}

pub(crate) fn print(text: &str) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(Error::Output)
}

fn text(records: &[DiskRecord], verbose: bool, now: SystemTime) -> String {
    let mut text = String::new();
    if verbose {
        for record in records {
            write_record(&mut text, record, now);
        }
    } else {
        let _ = writeln!(
            text,
            "{:<28} {:<12} {:>10}  LAST ACCESSED",
            "ID", "RECLAIMABLE", "SIZE"
        );
        for record in records {
            let id = format!("{}{}", record.id, if record.mutable { "*" } else { "" });
            let size = units::bytes(record.size);
            let _ = writeln!(
                text,
                "{id:<28} {:<12} {size:>10}  {}",
                !record.in_use,
                ago(record.last_used, now)
            );
        }
    }
    let sum = |pass: fn(&DiskRecord) -> bool| -> u64 {
        records
            .iter()
            .filter(|record| pass(record))
            .map(|record| record.size)
            .sum()
    };
    for (name, bytes) in [
        ("Shared", sum(|record| record.shared)),
        ("Reclaimable", sum(|record| !record.in_use)),
        ("Total", sum(|_| true)),
    ] {
        if name != "Shared" || bytes > 0 {
            let _ = writeln!(text, "{:<13}{}", format!("{name}:"), units::bytes(bytes));
        }
    }
    text
}

fn write_record(text: &mut String, record: &DiskRecord, now: SystemTime) {
    let fields = [
        ("ID", record.id.clone()),
        ("Parents", record.parents.join(", ")),
        ("Created", ago(record.created, now)),
        ("Mutable", record.mutable.to_string()),
        ("Reclaimable", (!record.in_use).to_string()),
        ("Shared", record.shared.to_string()),
        ("Size", units::bytes(record.size)),
        ("Description", record.description.clone()),
        ("Usage count", record.usage_count.to_string()),
        ("Last used", ago(record.last_used, now)),
        ("Type", record.kind.clone()),
    ];
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "{:<13}{value}", format!("{name}:"));
    }
    text.push('\n');
}

fn ago(when: Option<SystemTime>, now: SystemTime) -> String {
    match when {
        Some(when) => format!("{} ago", units::duration(units::between(when, now))),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    /// Rows: A08, A10, B03
    #[test]
    fn records_and_sums() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let record = |id: &str, size, in_use| DiskRecord {
            id: id.to_owned(),
            mutable: in_use,
            in_use,
            size,
            parents: Vec::new(),
            created: Some(now - Duration::from_secs(90)),
            last_used: None,
            usage_count: 1,
            description: "RUN make".to_owned(),
            kind: "regular".to_owned(),
            shared: false,
        };
        let records = [record("abc", 12_000_000, false), record("def", 7, true)];
        expect![[r#"
            ID                           RECLAIMABLE        SIZE  LAST ACCESSED
            abc                          true            12.00MB  
            def*                         false                7B  
            Reclaimable: 12.00MB
            Total:       12.00MB
        "#]]
        .assert_eq(&text(&records, false, now));
        assert!(text(&records, true, now).contains("Created:     1m30s ago\n"));
    }
}
