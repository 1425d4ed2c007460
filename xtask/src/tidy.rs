//! `cargo xtask tidy`: what a compiler does not see. Also a test, so that `cargo test` is the gate.

mod floors;
mod texts;

use crate::{Error, Result};

/// Looks at everything; complaints are one error.
pub(crate) fn run() -> Result<()> {
    let complaints = complaints()?;
    if complaints.is_empty() {
        println!("tidy: all in order");
        return Ok(());
    }
    Err(Error::Chore(format!(
        "tidy: {} complaints\n  {}",
        complaints.len(),
        complaints.join("\n  ")
    )))
}

fn complaints() -> Result<Vec<String>> {
    let mut complaints = floors::complaints()?;
    complaints.extend(texts::complaints()?);
    Ok(complaints)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_house_is_tidy() {
        let complaints = super::complaints().unwrap();
        assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
    }
}
