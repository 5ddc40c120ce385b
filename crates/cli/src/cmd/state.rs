//! `mmuscope state`: the table of all entries at a moment.

use super::input::{AtArg, InputArgs, clock_of};
use super::tables::TableArgs;
use super::which::{DecimalArg, check_vm};
use crate::Outcome;
use crate::layout_args::LayoutArgs;
use anyhow::Result;
use mmuscope_analysis::timeline::{STATE, push_state};
use mmuscope_replay::{State, StateFilter, Timeline, VmId};
use mmuscope_units::Frames;

/// Every entry of every live page table at a moment
///
/// Lists entries that are present, mmio or removed and entries that point to tables; --all adds those that are nonpresent or unknown.
/// Entries of tables that were freed are not listed.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  mmuscope state trace.dat --at end --format csv
  mmuscope state trace.dat --at 1.5s --where 'state == mmio'
  mmuscope state trace.dat --at dirty-log-on --level 2        when a phase begins")]
pub(crate) struct Args {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    at: AtArg,
    #[command(flatten)]
    which: WhichArgs,
    /// Also list entries that are nonpresent or unknown
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    layout: LayoutArgs,
}

/// The options that select entries.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Which entries")]
pub(crate) struct WhichArgs {
    /// Only of this VM (its number in `mmuscope summary`)
    #[arg(long)]
    pub(crate) vm: Option<u16>,
    /// Only of this address space (1 is SMM)
    #[arg(long)]
    pub(crate) as_id: Option<u8>,
    /// Only of this level (1 is 4K)
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub(crate) level: Option<u8>,
    /// Only those that cover this guest frame (hex), or a range of them: 7c00, 100-1ff, 100+16
    #[arg(long, value_name = "GFN")]
    gfn: Option<Frames>,
    #[command(flatten)]
    decimal: DecimalArg,
}

impl WhichArgs {
    /// The guest frames, if some were named: the first and one past the last.
    pub(crate) fn gfns(&self) -> Result<Option<(u64, u64)>> {
        self.decimal.maybe(self.gfn.as_ref())
    }

    /// Refuses a VM and an address space that the trace does not have.
    pub(crate) fn check(&self, timeline: &Timeline) -> Result<()> {
        check_vm(timeline, self.vm, self.as_id)
    }
}

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let mut printer = a.table.open(&STATE)?;
    let (trace, timeline) = a.input.replay(&a.layout)?;
    a.which.check(&timeline)?;
    let clock = clock_of(&trace, a.table.absolute);
    let filter = StateFilter {
        vm: a.which.vm.map(VmId),
        as_id: a.which.as_id,
        level: a.which.level,
        gfns: a.which.gfns()?,
        state: None,
    };
    let mut entries = timeline.state_at(a.at.on(&clock)?, &filter);
    if !a.all {
        entries.retain(|(_, span)| !matches!(span.state, State::Nonpresent | State::Unknown));
    }
    entries.sort_by_key(|(e, _)| (e.vm, e.as_id, e.level, e.gfn, e.id));
    let base = a.table.base(clock.first);
    for (entry, span) in &entries {
        push_state(&mut printer.rows, &timeline, entry, span, base);
        if !printer.flush_full()? {
            break;
        }
    }
    printer.finish()?;
    Ok(Outcome::Fine)
}
