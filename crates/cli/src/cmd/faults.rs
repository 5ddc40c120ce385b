//! `mmuscope faults`.

use super::input::{Clock, InputArgs, parse_gfns};
use super::tables::TableArgs;
use crate::Outcome;
use crate::layout_args::LayoutArgs;
use anyhow::Result;
use mmuscope_analysis::time::Moment;
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
    /// From this moment: 1.5s, 20ms, nanoseconds, or the name of a phase
    #[arg(long, value_name = "TIME")]
    from: Option<Moment>,
    /// Up to this moment, included; NAME:end is the end of a phase
    #[arg(long, value_name = "TIME")]
    to: Option<Moment>,
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
    let from = a.from.as_ref().map_or(Ok(0), |m| clock.at(m))?;
    let to = a.to.as_ref().map_or(Ok(u64::MAX), |m| clock.at(m))?;
    let base = a.table.base(clock.first);
    for fault in timeline.faults() {
        let wanted = (from..=to).contains(&fault.ts)
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
