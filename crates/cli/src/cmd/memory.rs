//! `mmuscope memory`.

use super::input::{InputArgs, clock_of, moment};
use super::tables::TableArgs;
use super::which::check_vm;
use crate::Outcome;
use crate::layout_args::LayoutArgs;
use anyhow::Result;
use mmuscope_analysis::time::Moment;
use mmuscope_analysis::timeline::{MEMORY, push_memory};

/// The guest's memory as ranges at a moment: RAM by size and permission, MMIO, what is gone
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// The moment: end, 1.5s, 20ms, 1.5 (seconds), or the name of a phase (NAME:end for its end, NAME#2 for the second of that name)
    #[arg(long, value_name = "TIME", default_value = "end")]
    at: Moment,
    /// Of this VM (its number in `mmuscope summary`)
    #[arg(long)]
    vm: Option<u16>,
    /// Also the frames between that no event names (kind `unseen`)
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
    let at = moment(&clock_of(&trace, a.table.absolute), &a.at)?;
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
