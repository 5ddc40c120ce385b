//! `mmuscope completions`.

use crate::{Outcome, args};
use anyhow::Result;
use clap_complete::Shell;

/// Shell completions, on standard output
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The shell to write them for
    shell: Shell,
}

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    clap_complete::generate(a.shell, &mut args::command(), "mmuscope", &mut std::io::stdout());
    Ok(Outcome::Fine)
}
