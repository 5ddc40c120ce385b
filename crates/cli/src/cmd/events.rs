//! `mmuscope events`.

use super::input::{InputArgs, TimeArgs, parse_gfns};
use super::tables::TableArgs;
use crate::Outcome;
use anyhow::Result;
use mmuscope_analysis::events::{self, EVENTS, EventFilter, Who};
use std::ops::ControlFlow;

/// The events of a trace, a row each
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  mmuscope events trace.dat --event 'kvm_tdp_mmu_*' --gfn 0x100-0x1ff
  mmuscope events trace.dat --from mmio --to mmio:end          between two marks
  mmuscope events trace.dat --where 'level == 1 and new_spte != 0' --format csv
  mmuscope events huge.dat -f parquet -o events.parquet        in bounded memory")]
pub(crate) struct Args {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    table: TableArgs,
}

/// Which events.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Which events")]
pub(crate) struct FilterArgs {
    #[command(flatten)]
    time: TimeArgs,
    /// On this CPU (repeatable, as the following)
    #[arg(long, value_name = "CPU", value_delimiter = ',')]
    cpu: Vec<u16>,
    /// Of this thread
    #[arg(long, value_name = "TID", value_delimiter = ',')]
    tid: Vec<u32>,
    /// Of this VM (its number in `mmuscope summary`)
    #[arg(long, value_name = "VM", value_delimiter = ',')]
    vm: Vec<u32>,
    /// That cover this guest frame, or a range of them: 0x7c00, 0x100-0x1ff, 0x100+16
    #[arg(long, value_name = "GFN", value_delimiter = ',', value_parser = parse_gfns)]
    gfn: Vec<(u64, u64)>,
    /// Of this name; * and ? stand for any characters
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    event: Vec<String>,
}

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let mut printer = a.table.open(&EVENTS)?;
    let events = a.input.events()?;
    let who = Who::new(events.info());
    let clock = events.clock(a.table.absolute);
    let (from, to) = a.filter.time.on(&clock)?;
    let filter = EventFilter {
        from,
        to,
        cpus: a.filter.cpu.iter().copied().collect(),
        tids: a.filter.tid.iter().copied().collect(),
        vms: a.filter.vm.iter().copied().collect(),
        gfns: a.filter.gfn.clone(),
        names: a.filter.event.clone(),
    };
    let base = a.table.base(clock.first);
    let mut failed = None;
    events.each(|e, strings| {
        if filter.is_past(e.ts) {
            return ControlFlow::Break(());
        }
        if filter.passes(e, strings, &who) {
            events::push(&mut printer.rows, e, strings, &who, base);
            match printer.flush_full() {
                Ok(true) => {}
                Ok(false) => return ControlFlow::Break(()),
                Err(e) => {
                    failed = Some(e);
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    })?;
    failed.map_or(Ok(()), Err)?;
    printer.finish()?;
    Ok(Outcome::Fine)
}
