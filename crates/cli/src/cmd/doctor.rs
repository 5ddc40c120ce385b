//! `mmuscope doctor`: whether this host can be recorded.

use crate::Outcome;
use anyhow::{Result, bail};
use std::io::Write;

/// Check whether this host can be recorded, and print the command that fixes each obstacle
///
/// Exit status: 0 everything can be recorded, 1 something is missing (WARN), 2 this host cannot be recorded (BAD).
#[derive(clap::Args, Debug)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> Result<Outcome> {
    let report = mmuscope_collector::doctor::examine();
    write!(std::io::stdout().lock(), "{report}")?;
    match report.status() {
        0 => writeln!(std::io::stdout().lock(), "{}", report.verdict())?,
        1 => {
            writeln!(std::io::stdout().lock(), "{}", report.verdict())?;
            return Ok(Outcome::No);
        }
        _ => bail!("{}", report.verdict()),
    }
    Ok(Outcome::Fine)
}
