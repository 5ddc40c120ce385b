//! `mmuscope faults`: the table of faults.

use super::input::{InputArgs, TimeArgs, clock_of};
use super::tables::TableArgs;
use super::which::{DecimalArg, check_vm};
use crate::Outcome;
use crate::layout_args::LayoutArgs;
use anyhow::Result;
use mmuscope_analysis::timeline::{FAULTS, push_fault};
use mmuscope_units::Frames;

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
    time: TimeArgs,
    /// Only of this VM (its number in `mmuscope summary`)
    #[arg(long)]
    vm: Option<u16>,
    /// Only at this guest frame (hex), or a range of them: 7c00, 100-1ff, 100+16
    #[arg(long, value_name = "GFN")]
    gfn: Option<Frames>,
    #[command(flatten)]
    decimal: DecimalArg,
    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    layout: LayoutArgs,
}

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let mut printer = a.table.open(&FAULTS)?;
    let (trace, timeline) = a.input.replay(&a.layout)?;
    check_vm(&timeline, a.vm, None)?;
    let gfns = a.decimal.maybe(a.gfn.as_ref())?;
    let clock = clock_of(&trace, a.table.absolute);
    let (from, to) = a.time.on(&clock)?;
    let during = from.unwrap_or(0)..=to.unwrap_or(u64::MAX);
    let base = a.table.base(clock.first);
    for fault in timeline.faults() {
        let wanted = during.contains(&fault.ts)
            && a.vm.is_none_or(|vm| fault.vm.0 == vm)
            && gfns.is_none_or(|(start, end)| fault.gfn.is_some_and(|g| (start..end).contains(&g)));
        if wanted {
            push_fault(&mut printer.rows, &fault, base);
            if !printer.flush_full()? {
                break;
            }
        }
    }
    printer.finish()?;
    Ok(Outcome::Fine)
}
