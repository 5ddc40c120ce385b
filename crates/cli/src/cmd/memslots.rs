//! `mmuscope memslots`: the memory slots of VMs over time, as snapshots of KVM's memory and probes show them.

use super::input::{InputArgs, clock_of};
use super::tables::TableArgs;
use crate::Outcome;
use crate::layout_args::LayoutArgs;
use anyhow::{Result, bail};
use mmuscope_analysis::timeline::{MEMSLOTS, push_slot};

/// The memory slots of the VMs and how long each stayed what it was: guest frames, host addresses, dirty logging
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Only of this VM (its number in `mmuscope summary`)
    #[arg(long)]
    vm: Option<u16>,
    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    layout: LayoutArgs,
}

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let mut printer = a.table.open(&MEMSLOTS)?;
    let (trace, timeline) = a.input.replay(&a.layout)?;
    if timeline.slots().is_empty() {
        bail!(
            "the trace shows no memory slots: `mmuscope record` and `mmuscope snapshot` read them in KVM's memory where the host allows it (`mmuscope doctor`)"
        );
    }
    let base = a.table.base(clock_of(&trace, a.table.absolute).first);
    for slot in timeline.slots().iter().filter(|s| a.vm.is_none_or(|wanted| s.vm.0 == wanted)) {
        push_slot(&mut printer.rows, slot, base);
        if !printer.flush_full()? {
            break;
        }
    }
    printer.finish()?;
    Ok(Outcome::Fine)
}
