//! `mmuscope faults`: the table of faults.

use super::input::{InputArgs, clock_of};
use super::part::PartArgs;
use super::tables::TableArgs;
use crate::Outcome;
use crate::layout_args::LayoutArgs;
use anyhow::Result;
use mmuscope_analysis::timeline::{FAULTS, push_fault};

/// Page faults and MMIO accesses: which vCPU, which page, how each ended, how long it took
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  mmuscope faults trace.dat --where 'duration > 50us'
  mmuscope faults trace.dat --where 'outcome != fixed and access == write' --format csv
  mmuscope faults trace.dat --from mmio --to mmio:end")]
pub(crate) struct Args {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    part: PartArgs,
    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    layout: LayoutArgs,
}

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let mut printer = a.table.open(&FAULTS)?;
    let (trace, timeline) = a.input.replay(&a.layout)?;
    let part = a.part.of(&trace, &timeline, a.table.absolute)?;
    let base = a.table.base(clock_of(&trace, a.table.absolute).first);
    for fault in timeline.faults().filter(|f| part.fault(f)) {
        push_fault(&mut printer.rows, &fault, base);
        if !printer.flush_full()? {
            break;
        }
    }
    printer.finish()?;
    Ok(Outcome::Fine)
}
