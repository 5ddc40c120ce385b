//! The commands, one file each: `Args` are a command's arguments, and `run` executes it.

pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod decode;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod faults;
pub(crate) mod input;
pub(crate) mod layout;
pub(crate) mod memory;
pub(crate) mod memslots;
pub(crate) mod page;
pub(crate) mod part;
pub(crate) mod record;
pub(crate) mod report;
pub(crate) mod snapshot;
pub(crate) mod spans;
pub(crate) mod stat;
pub(crate) mod state;
pub(crate) mod summary;
pub(crate) mod tables;
pub(crate) mod view;
pub(crate) mod which;

use crate::Outcome;
use crate::args::Command;
use anyhow::Result;

/// Runs a command.
pub(crate) fn run(command: Command) -> Result<Outcome> {
    match command {
        Command::Report(a) => report::run(&a),
        Command::View(a) => view::run(&a),
        Command::Summary(a) => summary::run(&a),
        Command::Check(a) => check::run(&a),
        Command::Decode(a) => decode::run(&a),
        Command::Layout(a) => layout::run(&a),
        Command::Diff(a) => diff::run(&a),
        Command::Stat(a) => stat::run(&a),
        Command::State(a) => state::run(&a),
        Command::Page(a) => page::run(&a),
        Command::Memory(a) => memory::run(&a),
        Command::Memslots(a) => memslots::run(&a),
        Command::Spans(a) => spans::run(&a),
        Command::Faults(a) => faults::run(&a),
        Command::Events(a) => events::run(&a),
        Command::Record(a) => record::run(&a),
        Command::Snapshot(a) => snapshot::run(&a),
        Command::Doctor(a) => doctor::run(&a),
        Command::Completions(a) => completions::run(&a),
    }
}
