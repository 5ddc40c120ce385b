//! `mmuscope memslots`: the memory slots of VMs, as snapshots of KVM's memory hold them.

use super::input::{InputArgs, clock_of};
use super::tables::TableArgs;
use crate::Outcome;
use anyhow::{Result, bail};
use mmuscope_analysis::events::Attribution;
use mmuscope_analysis::timeline::{MEMSLOTS, push_slot};
use mmuscope_trace::snapshot::Piece;

/// The memory slots of the VMs at each snapshot of KVM's own memory: guest frames, host addresses, dirty logging
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Only of this VM (its number in `mmuscope summary`)
    #[arg(long)]
    vm: Option<u16>,
    #[command(flatten)]
    table: TableArgs,
}

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let mut printer = a.table.open(&MEMSLOTS)?;
    let trace = a.input.load()?;
    if trace.info.snapshots.is_empty() {
        bail!(
            "the trace has no snapshot of KVM's memory: `mmuscope record` and `mmuscope snapshot` take one where the host allows it (`mmuscope doctor`)"
        );
    }
    let whose = Attribution::of(&trace);
    let base = a.table.base(clock_of(&trace, a.table.absolute).first);
    for piece in &trace.info.snapshots {
        let Piece::Vm(v) = &**piece else { continue };
        let vm = whose.vm_of_snapshot(v);
        if a.vm.is_some_and(|wanted| vm.is_none_or(|x| x.0 != wanted)) {
            continue;
        }
        for slot in &v.slots {
            push_slot(&mut printer.rows, vm, slot, v.at, base);
        }
        if !printer.flush_full()? {
            break;
        }
    }
    printer.finish()?;
    Ok(Outcome::Fine)
}
