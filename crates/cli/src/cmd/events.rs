//! `mmuscope events`: the table of events. It streams, so that the trace may be larger than memory.

use super::input::{Events, HELD, InputArgs, TimeArgs};
use super::tables::TableArgs;
use super::which::{DecimalArg, no_vm};
use crate::Outcome;
use anyhow::{Result, bail};
use mmuscope_analysis::events::{self, Attribution, EVENTS, EventFilter};
use mmuscope_analysis::words::printable;
use mmuscope_units::Frames;
use std::ops::ControlFlow;

/// The events of a trace, one per row
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

/// The options that select events.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Which events")]
pub(crate) struct FilterArgs {
    #[command(flatten)]
    time: TimeArgs,
    /// Only recorded by this CPU (repeatable, as the following options)
    #[arg(long, value_name = "CPU", value_delimiter = ',')]
    cpu: Vec<u16>,
    /// Only of this thread
    #[arg(long, value_name = "TID", value_delimiter = ',')]
    tid: Vec<u32>,
    /// Only of this VM (its number in `mmuscope summary`)
    #[arg(long, value_name = "VM", value_delimiter = ',')]
    vm: Vec<u32>,
    /// Only those that cover this guest frame (hex), or a range of them: 7c00, 100-1ff, 100+16
    #[arg(long, value_name = "GFN", value_delimiter = ',')]
    gfn: Vec<Frames>,
    #[command(flatten)]
    decimal: DecimalArg,
    /// Only of this name; * stands for any characters and ? for one
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    event: Vec<String>,
}

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let mut printer = a.table.open(&EVENTS)?;
    let events = a.input.events(HELD)?;
    let whose = events.whose();
    a.filter.check(&events, &whose)?;
    let clock = events.clock(a.table.absolute);
    let (from, to) = a.filter.time.on(&clock)?;
    let filter = EventFilter {
        from,
        to,
        cpus: a.filter.cpu.iter().copied().collect(),
        tids: a.filter.tid.iter().copied().collect(),
        vms: a.filter.vm.iter().copied().collect(),
        gfns: a.filter.gfn.iter().map(|g| a.filter.decimal.frames(g)).collect::<Result<_>>()?,
        names: a.filter.event.clone(),
    };
    let base = a.table.base(clock.first);
    let mut failed = None;
    let mut next = 0;
    events.each(|e, strings| {
        let id = next;
        next += 1;
        if filter.is_past(e.ts) {
            return ControlFlow::Break(());
        }
        if filter.passes(e, strings, &whose) {
            events::push(&mut printer.rows, id, e, strings, &whose, base);
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

impl FilterArgs {
    /// Refuses names and numbers that no event of the trace has, because an empty answer would mean that they exist and did nothing.
    fn check(&self, events: &Events, whose: &Attribution) -> Result<()> {
        if let Some(n) = self.vm.iter().find(|n| **n as usize >= whose.vms()) {
            return no_vm(*n, &(0..whose.vms()).map(|n| n.to_string()).collect::<Vec<_>>());
        }
        let info = events.info();
        if let Some(tid) = self.tid.iter().find(|t| !info.tasks.iter().any(|x| x.tid == **t)) {
            let known: Vec<String> = info.tasks.iter().map(|t| t.tid.to_string()).collect();
            bail!("no event is of thread {tid}: the trace has {}", list(&known));
        }
        if self.event.is_empty() && self.cpu.is_empty() {
            return Ok(());
        }
        let names = events.names();
        if let Some(cpu) = self.cpu.iter().find(|c| !names.cpus.contains(c)) {
            let known: Vec<String> = names.cpus.iter().map(u16::to_string).collect();
            bail!("no event is of CPU {cpu}: the trace has {}", list(&known));
        }
        // An event that was recorded and did not happen gets an empty answer, and so do records that are no tracepoints.
        let exists = |pattern: &str| {
            let always =
                ["lost", "damage", "marker", "tracing_mark_write", "task", "fork", "comm", "exec", "exit"];
            names.events.iter().chain(info.formats.keys()).any(|n| events::name_fits(n, pattern))
                || always.iter().any(|n| events::name_fits(n, pattern))
        };
        if let Some(pattern) = self.event.iter().find(|p| !exists(p)) {
            let known: Vec<String> = names.events.iter().map(|n| printable(n).into_owned()).collect();
            bail!("no event of the trace is called `{pattern}`: it has {}", list(&known));
        }
        Ok(())
    }
}

/// Names as a list for an error message, at most 60 of them.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 60;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}
