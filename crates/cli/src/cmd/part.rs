//! [`PartArgs`]: the options that keep to a part of a trace.

use super::input::{TimeArgs, clock_of};
use super::which::{DecimalArg, check_vm};
use anyhow::Result;
use mmuscope_analysis::part::Part;
use mmuscope_replay::Timeline;
use mmuscope_trace::Trace;
use mmuscope_units::Frames;

/// The options that keep to a part of a trace.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Which part")]
pub(crate) struct PartArgs {
    #[command(flatten)]
    time: TimeArgs,
    /// Only of this VM (its number in `mmuscope summary`)
    #[arg(long)]
    vm: Option<u16>,
    /// Only of this guest frame (hex), or a range of them: 7c00, 100-1ff, 100+16
    #[arg(long, value_name = "GFN")]
    gfn: Option<Frames>,
    #[command(flatten)]
    decimal: DecimalArg,
}

impl PartArgs {
    /// The part of a trace; what the trace does not have is refused.
    pub(crate) fn of(&self, trace: &Trace, timeline: &Timeline, absolute: bool) -> Result<Part> {
        check_vm(timeline, self.vm, None)?;
        let (from, to) = self.time.on(&clock_of(trace, absolute))?;
        Ok(Part { from, to, vm: self.vm, gfns: self.decimal.maybe(self.gfn.as_ref())? })
    }
}
