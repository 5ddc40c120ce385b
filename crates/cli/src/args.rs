//! [`Cli`]: the commands and how the arguments of the program are read.

use crate::cmd;
use clap::error::ContextKind;
use clap::{CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::path::Path;

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
  mmuscope trace.dat                           the summary, in one screen
  mmuscope report trace.dat -o boot.html       the whole story on one page
  mmuscope view trace.dat                      the same in a window
  mmuscope decode 0x600000010abf837 --kernel 6.1 --paging ept
  mmuscope state trace.dat --at end --format csv
  mmuscope page trace.dat 0x7c00               the life of one guest page
  mmuscope stat trace.dat                      exits and faults by cause, and where the vCPUs' time goes
  mmuscope diff before.dat after.dat           what changed between two runs
  mmuscope check trace.dat --deny warning      all findings; exit status 1 if one is a warning or worse

Exit status: 0 success, 1 the answer is no (findings, differences, a host that is not ready), 2 the command failed."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands, in the order in which the help lists them.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Report(cmd::report::Args),
    View(cmd::view::Args),
    Summary(cmd::summary::Args),
    Check(cmd::check::Args),
    Stat(cmd::stat::Args),
    Diff(cmd::diff::Args),
    Decode(cmd::decode::Args),
    Layout(cmd::layout::Args),
    State(cmd::state::Args),
    Page(cmd::page::Args),
    Memory(cmd::memory::Args),
    Memslots(cmd::memslots::Args),
    Spans(cmd::spans::Args),
    Faults(cmd::faults::Args),
    Events(cmd::events::Args),
    Record(cmd::record::Args),
    Snapshot(cmd::snapshot::Args),
    Doctor(cmd::doctor::Args),
    Completions(cmd::completions::Args),
}

/// The command line as clap sees it, for completions.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

/// Reads the arguments, or ends the program with an error message.
pub(crate) fn read(mut args: Vec<OsString>) -> Cli {
    if args.get(1).is_some_and(is_trace) {
        args.insert(1, "summary".into());
    }
    if args.get(1).is_some_and(|command| command == "decode") {
        args.iter_mut().for_each(text_is_no_option);
    }
    Cli::try_parse_from(args).unwrap_or_else(|mut e| {
        // Options differ by a few letters, so that a similar option is rarely the one that was meant.
        e.remove(ContextKind::SuggestedArg);
        e.remove(ContextKind::Suggested);
        e.exit()
    })
}

/// Puts a blank before a pasted line that begins with dashes, as the kernel's dumps of walks do (`------ spte = 0x…`): no option begins so.
fn text_is_no_option(argument: &mut OsString) {
    if let Some(text) = argument.to_str().filter(|t| t.starts_with("---") || t.starts_with("- ")) {
        *argument = format!(" {text}").into();
    }
}

/// Whether the first argument is a trace and not a command: `mmuscope trace.dat` means `mmuscope summary trace.dat`.
fn is_trace(first: &OsString) -> bool {
    if command().find_subcommand(first).is_some() {
        return false;
    }
    let text = first.to_string_lossy();
    // What looks like a path is a file: `summary` reports a missing file better than clap reports an unknown command.
    text == "-" || !text.starts_with('-') && (Path::new(first).exists() || text.contains(['/', '.']))
}
