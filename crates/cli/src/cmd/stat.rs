//! `mmuscope stat`: exits, faults, zaps and MMIO, counted, with their times.

mod text;

use super::input::{InputArgs, clock_of};
use super::part::PartArgs;
use super::tables::TableArgs;
use crate::Outcome;
use crate::layout_args::LayoutArgs;
use crate::output::Output;
use anyhow::{Result, bail};
use clap::ValueEnum;
use mmuscope_analysis::stat::{Query, STAT, Stat, push};
use mmuscope_analysis::words::printable;
use mmuscope_replay::Timeline;
use std::collections::BTreeSet;
use std::io::Write;

/// Exits, faults, zaps and MMIO, counted, with their times; and where the time of the vCPUs went
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  mmuscope stat trace.dat
  mmuscope stat trace.dat --by vcpu --from mmio --to mmio:end
  mmuscope stat trace.dat --where 'kind == exit' --columns vcpu,name,count,p99 --by vcpu
  mmuscope stat trace.dat --format csv -o stat.csv

An exit, a fault or a zap belongs to the moment at which it begins. The columns are in docs/tables.md.")]
pub(crate) struct Args {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    part: PartArgs,
    /// Only of this vCPU
    #[arg(long)]
    vcpu: Option<u32>,
    /// Count each vCPU on its own, instead of all of a VM together
    #[arg(long, value_enum, default_value_t = By::Vm)]
    by: By,
    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    layout: LayoutArgs,
}

/// What is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    Vm,
    Vcpu,
}

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let people = a.table.is_for_people()?;
    let (trace, timeline) = a.input.replay(&a.layout)?;
    let part = a.part.of(&trace, &timeline, a.table.absolute)?;
    check_vcpu(&timeline, part.vm, a.vcpu)?;
    let clock = clock_of(&trace, a.table.absolute);
    let (from, to) = (part.from, part.to);
    let query = Query { vcpu: a.vcpu, by_vcpu: a.by == By::Vcpu, ..Query::of(&part) };
    let stat = Stat::new(&trace, &timeline, &query);
    if people {
        let mut out = Output::text(a.table.output.as_deref())?;
        let length = to.unwrap_or(clock.last).min(clock.last) - from.unwrap_or(clock.first).max(clock.first);
        let limit = a.table.limit.unwrap_or(text::SHOWN);
        write!(out, "{}", text::text(&stat, &timeline, clock.last, length, limit))?;
        out.done()?;
        return Ok(Outcome::Fine);
    }
    let mut printer = a.table.open(&STAT)?;
    for ((whose, kind), rows) in &stat.rows {
        for row in rows {
            push(&mut printer.rows, *whose, *kind, row);
            if !printer.flush_full()? {
                break;
            }
        }
    }
    printer.finish()?;
    for m in &stat.missing {
        eprintln!("mmuscope: {}", printable(m));
    }
    Ok(Outcome::Fine)
}

/// Refuses a vCPU that the trace does not have.
fn check_vcpu(timeline: &Timeline, vm: Option<u16>, vcpu: Option<u32>) -> Result<()> {
    let Some(n) = vcpu else { return Ok(()) };
    let vms = timeline.vms().iter().filter(|v| vm.is_none_or(|id| v.id.0 == id));
    let known: BTreeSet<u32> = vms.flat_map(|v| v.vcpus.iter().filter_map(|c| c.vcpu_id)).collect();
    if known.contains(&n) {
        return Ok(());
    }
    if known.is_empty() {
        bail!("there is no vCPU {n}: no event of the trace names a vCPU");
    }
    let known: Vec<String> = known.iter().map(u32::to_string).collect();
    bail!("there is no vCPU {n}: the trace has {}", known.join(", "));
}
