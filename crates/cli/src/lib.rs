//! The program `mmuscope`: it reads arguments, calls the other crates and returns an exit status.
//!
//! Each command is a file in `cmd`. This crate never computes a number that another face shows, too; it calls the same function.
//!
//! Exit status: 0 for success, 1 if the answer is "no" (differences, a host that is not ready), 2 if the command failed. A reader that closes
//! its end of a pipe (`… | head`) is no error.

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
    /// The command succeeded.
    Fine,
    /// The command succeeded, and its answer is "no".
    No,
}

/// Runs the command that the arguments of this process name, and returns its exit status.
pub fn main() -> ExitCode {
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
