//! The mmuscope command line: arguments in, the crates of the workspace, exit status out. Glue only.
//!
//! Exit status: 0 fine, 1 the answer is "no" (findings, differences), 2 could not do it. A reader that goes away (`… | head`) is no error.

mod args;
mod cmd;
mod layout_args;
mod output;
mod progress;
mod room;

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Did what it was asked.
    Fine,
    /// The answer is no.
    No,
}

fn main() -> ExitCode {
    clap_complete::CompleteEnv::with_factory(args::command).complete();
    let cli = args::read(std::env::args_os().collect());
    match cmd::run(cli.command) {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::No) => ExitCode::FAILURE,
        Err(e) if output::is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("mmuscope: {e:#}");
            ExitCode::from(2)
        }
    }
}
