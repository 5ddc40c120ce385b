//! `mmuscope spans`: the table of spans.

use super::input::{InputArgs, TimeArgs, clock_of};
use super::state::WhichArgs;
use super::tables::TableArgs;
use crate::Outcome;
use crate::layout_args::LayoutArgs;
use anyhow::Result;
use mmuscope_analysis::timeline::{SPANS, push_span};
use mmuscope_replay::{SpanFilter, VmId};

/// The spans of the entries: stretches of time in which an entry held one state and value; with --from and --to those that overlap that time
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  mmuscope spans trace.dat --gfn 0x7c00
  mmuscope spans trace.dat --where 'state == removed and duration > 1ms'
  mmuscope spans trace.dat -f parquet -o spans.parquet")]
pub(crate) struct Args {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    time: TimeArgs,
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    layout: LayoutArgs,
}

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let mut printer = a.table.open(&SPANS)?;
    let (trace, timeline) = a.input.replay(&a.layout)?;
    a.which.check(&timeline)?;
    let clock = clock_of(&trace, a.table.absolute);
    // A span is listed if it overlaps the stretch between the two moments.
    let time = match a.time.on(&clock)? {
        (None, None) => None,
        (from, to) => Some((from.unwrap_or(clock.first), to.unwrap_or(clock.last))),
    };
    let filter = SpanFilter {
        vm: a.which.vm.map(VmId),
        as_id: a.which.as_id,
        level: a.which.level,
        gfns: a.which.gfns()?,
        time,
    };
    let base = a.table.base(clock.first);
    for span in timeline.all_spans(&filter) {
        push_span(&mut printer.rows, &trace, &timeline.entry(span.entry), &span, base);
        if !printer.flush_full()? {
            break;
        }
    }
    printer.finish()?;
    Ok(Outcome::Fine)
}
