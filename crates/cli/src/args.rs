//! What can be typed.

use crate::cmd;
use clap::{CommandFactory, Parser, Subcommand};

/// What KVM's MMU did to every guest page: present, MMIO or removed, when, why, and at what cost.
#[derive(Parser, Debug)]
#[command(
    name = "mmuscope",
    version,
    max_term_width = 110,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  mmuscope report trace.dat -o boot.html       the whole story on one page
  mmuscope view trace.dat                      the same in a window
  mmuscope decode 0x600000010abf837 --kernel 6.1 --paging ept
  mmuscope state trace.dat --at end --format csv
  mmuscope page trace.dat 0x7c00               the life of one guest page

Exit status: 0 fine, 1 the answer is no, 2 could not do it."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands, in the order people meet them.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Report(cmd::report::Args),
    View(cmd::view::Args),
    Summary(cmd::summary::Args),
    Decode(cmd::decode::Args),
    Layout(cmd::layout::Args),
    State(cmd::state::Args),
    Page(cmd::page::Args),
    Memory(cmd::memory::Args),
    Spans(cmd::spans::Args),
    Faults(cmd::faults::Args),
    Events(cmd::events::Args),
    Record(cmd::record::Args),
    Doctor(cmd::doctor::Args),
    Completions(cmd::completions::Args),
}

/// The command as clap sees it, for completions.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}
