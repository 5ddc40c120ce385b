//! `mmuscope faults`.

use super::input::{Clock, InputArgs, TimeArgs, parse_gfns};
use super::tables::TableArgs;
use crate::Outcome;
use crate::layout_args::LayoutArgs;
use anyhow::Result;
use mmuscope_analysis::timeline::{FAULTS, push_fault};

/// Page faults and MMIO accesses: who, where, how it ended, how long it took
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
    /// Of this VM (its number in `mmuscope summary`)
    #[arg(long)]
    vm: Option<u16>,
    /// At this guest frame, or a range of them: 0x7c00, 0x100-0x1ff, 0x100+16
    #[arg(long, value_name = "GFN", value_parser = parse_gfns)]
    gfn: Option<(u64, u64)>,
    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    layout: LayoutArgs,
}

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let mut printer = a.table.open(&FAULTS)?;
    let (trace, timeline) = a.input.replay(&a.layout)?;
    let clock = Clock::of(&trace, a.table.absolute);
    let (from, to) = a.time.on(&clock)?;
    let during = from.unwrap_or(0)..=to.unwrap_or(u64::MAX);
    let base = a.table.base(clock.first);
    for fault in timeline.faults() {
        let wanted = during.contains(&fault.ts)
            && a.vm.is_none_or(|vm| fault.vm.0 == vm)
            && a.gfn.is_none_or(|(start, end)| fault.gfn.is_some_and(|g| (start..end).contains(&g)));
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
