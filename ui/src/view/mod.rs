//! What is looked at, as plain values: the time axis, the GFN axis, the selection and the way back. No window, no trace.

mod history;
mod range;
mod selection;
mod ticks;

pub(crate) use history::History;
pub(crate) use range::Range;
pub(crate) use selection::Selection;
pub(crate) use ticks::{gfn_step, time_ticks};
