//! `mmuscope state`.

use super::input::{Clock, InputArgs, parse_gfns};
use super::tables::TableArgs;
use crate::Outcome;
use crate::layout_args::LayoutArgs;
use anyhow::Result;
use mmuscope_analysis::time::Moment;
use mmuscope_analysis::timeline::{STATE, push_state};
use mmuscope_replay::{State, StateFilter, VmId};

/// Every entry of every live page table at a moment
///
/// Entries that are empty are not listed, unless --all asks for them: present, mmio and removed ones and those that point to tables are.
/// Tables that were torn down are gone with their entries.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  mmuscope state trace.dat --at end --format csv
  mmuscope state trace.dat --at 1.5s --where 'state == mmio'
  mmuscope state trace.dat --at dirty-log-on --level 2        when a phase begins")]
pub(crate) struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// The moment: end, 1.5s, 20ms, nanoseconds, or the name of a phase (NAME:end for its end)
    #[arg(long, value_name = "TIME", default_value = "end")]
    at: Moment,
    #[command(flatten)]
    which: WhichArgs,
    /// Also entries that are nonpresent or unknown
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    layout: LayoutArgs,
}

/// Which entries.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Which entries")]
pub(crate) struct WhichArgs {
    /// Of this VM (its number in `mmuscope summary`)
    #[arg(long)]
    pub(crate) vm: Option<u16>,
    /// Of this address space (1 is SMM)
    #[arg(long)]
    pub(crate) as_id: Option<u8>,
    /// Of this level (1 is 4K)
    #[arg(long)]
    pub(crate) level: Option<u8>,
    /// That cover this guest frame, or a range of them: 0x7c00, 0x100-0x1ff, 0x100+16
    #[arg(long, value_name = "GFN", value_parser = parse_gfns)]
    pub(crate) gfn: Option<(u64, u64)>,
}

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let mut printer = a.table.open(&STATE)?;
    let (trace, timeline) = a.input.replay(&a.layout)?;
    let clock = Clock::of(&trace, a.table.absolute);
    let filter = StateFilter {
        vm: a.which.vm.map(VmId),
        as_id: a.which.as_id,
        level: a.which.level,
        gfns: a.which.gfn,
        state: None,
    };
    let mut entries = timeline.state_at(clock.at(&a.at)?, &filter);
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
