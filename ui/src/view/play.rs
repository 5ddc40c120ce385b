//! [`Play`]: how the selected moment moves by itself.

use std::time::Instant;

/// The moment moves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Play {
    /// Nanoseconds of the trace in a second.
    pub(crate) speed: f64,
    /// The moment, in nanoseconds since the first event.
    pub(crate) at: f64,
    /// When it moved last.
    pub(crate) last: Instant,
}
