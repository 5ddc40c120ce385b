//! What is selected: one thing, shared by the map, the tables and the decoder.

use mmuscope_replay::{EntryId, EventIx};

/// A guest frame at a moment, and what was found there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    /// The frame.
    pub(crate) gfn: u64,
    /// The moment, on the trace's clock.
    pub(crate) time: u64,
    /// The entry, where one covers the frame.
    pub(crate) entry: Option<EntryId>,
    /// The event, where one was chosen or began what is selected.
    pub(crate) event: Option<EventIx>,
}
