//! `mmuscope memory`.

use super::input::InputArgs;
use super::tables::TableArgs;
use crate::Outcome;
use crate::layout_args::LayoutArgs;
use anyhow::Result;
use mmuscope_analysis::timeline::{MEMORY, push_memory};

/// The guest's memory as ranges: RAM by size and permission, MMIO, what is gone
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    input: InputArgs,
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
    let (_, timeline) = a.input.replay(&a.layout)?;
    let vms: Vec<_> =
        timeline.vms().iter().map(|v| v.id).filter(|id| a.vm.is_none_or(|vm| id.0 == vm)).collect();
    let memory = |vm| if a.all { timeline.memory_and_unseen(vm) } else { timeline.memory(vm) };
    for range in vms.into_iter().flat_map(memory) {
        push_memory(&mut printer.rows, &range);
        if !printer.flush_full()? {
            break;
        }
    }
    printer.finish()?;
    Ok(Outcome::Fine)
}
