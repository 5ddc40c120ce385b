//! `mmuscope memory`: the table of ranges of guest memory.

use super::input::{AtArg, InputArgs, clock_of};
use super::tables::TableArgs;
use super::which::check_vm;
use crate::Outcome;
use crate::layout_args::LayoutArgs;
use anyhow::Result;
use mmuscope_analysis::timeline::{MEMORY, push_memory};

/// The guest's memory at a moment as ranges: RAM by page size and permissions, MMIO, what is not mapped any more
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    at: AtArg,
    /// Only of this VM (its number in `mmuscope summary`)
    #[arg(long)]
    vm: Option<u16>,
    /// Also list the frames between ranges that no event names (kind `unseen`)
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    layout: LayoutArgs,
}

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let mut printer = a.table.open(&MEMORY)?;
    let (trace, timeline) = a.input.replay(&a.layout)?;
    check_vm(&timeline, a.vm, None)?;
    let at = a.at.on(&clock_of(&trace, a.table.absolute))?;
    let vms: Vec<_> =
        timeline.vms().iter().map(|v| v.id).filter(|id| a.vm.is_none_or(|vm| id.0 == vm)).collect();
    let memory = |vm| if a.all { timeline.memory_and_unseen_at(vm, at) } else { timeline.memory_at(vm, at) };
    for range in vms.into_iter().flat_map(memory) {
        push_memory(&mut printer.rows, &range);
        if !printer.flush_full()? {
            break;
        }
    }
    printer.finish()?;
    Ok(Outcome::Fine)
}
