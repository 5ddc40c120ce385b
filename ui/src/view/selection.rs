//! [`Selection`]: the page, entry and event that are selected. Map, tables and details share it.

use mmuscope_replay::{EntryId, EventIx};

/// A guest frame at a time, and the entry and event that were found there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Guest frame number.
    pub(crate) gfn: u64,
    /// Time in nanoseconds on the trace's clock.
    pub(crate) time: u64,
    /// Entry that covers the frame, if one does.
    pub(crate) entry: Option<EntryId>,
    /// Event that was chosen, or that began the selected span.
    pub(crate) event: Option<EventIx>,
}
