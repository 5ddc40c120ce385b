//! `mmuscope view`.

use crate::Outcome;
use anyhow::{Result, bail};

/// The desktop viewer
#[derive(clap::Args, Debug)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> Result<Outcome> {
    bail!("view is not there yet")
}
