//! `mmuscope doctor`.

use crate::Outcome;
use anyhow::{Result, bail};
use std::io::Write;

/// Can this host be recorded, and if not, the exact command that mends it
///
/// Exit status: 0 everything can be recorded, 1 it can with something missing (WARN), 2 it cannot (BAD).
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
