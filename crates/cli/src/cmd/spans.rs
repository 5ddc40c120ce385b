//! `mmuscope spans`.

use super::input::{Clock, InputArgs};
use super::state::WhichArgs;
use super::tables::TableArgs;
use crate::Outcome;
use crate::layout_args::LayoutArgs;
use anyhow::Result;
use mmuscope_analysis::time::Moment;
use mmuscope_analysis::timeline::{SPANS, push_span};
use mmuscope_replay::{SpanFilter, VmId};

/// The stretches of time in which each entry held one state and value
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  mmuscope spans trace.dat --gfn 0x7c00
  mmuscope spans trace.dat --where 'state == removed and duration > 1ms'
  mmuscope spans trace.dat -f parquet -o spans.parquet")]
pub(crate) struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Spans that last at or after this moment: 1.5s, 20ms, nanoseconds, or the name of a phase
    #[arg(long, value_name = "TIME")]
    from: Option<Moment>,
    /// Spans that begin up to this moment; NAME:end is the end of a phase
    #[arg(long, value_name = "TIME")]
    to: Option<Moment>,
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
    let clock = Clock::of(&trace, a.table.absolute);
    let time = if a.from.is_some() || a.to.is_some() {
        let from = a.from.as_ref().map_or(Ok(clock.first), |m| clock.at(m))?;
        let to = a.to.as_ref().map_or(Ok(clock.last), |m| clock.at(m))?;
        Some((from, to))
    } else {
        None
    };
    let filter = SpanFilter {
        vm: a.which.vm.map(VmId),
        as_id: a.which.as_id,
        level: a.which.level,
        gfns: a.which.gfn,
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
