//! Plain values that describe a view: ranges of the axes, ticks, the selection, the history. Nothing here needs a window or a trace.

mod history;
mod play;
mod range;
mod selection;
mod ticks;

pub(crate) use history::History;
pub(crate) use play::Play;
pub(crate) use range::{MIN_ROWS, MIN_TIME, Range};
pub(crate) use selection::Selection;
pub(crate) use ticks::{gfn_step, time_ticks};
