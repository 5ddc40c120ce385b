//! Entries, the tables they lie in, and what they held when.

use super::{Certainty, EntryId, EventIx, Reason, Shade, State, TableId, VmId};

/// Number of one span in its [`Timeline`](crate::Timeline) (the implied first span of an entry has none).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(pub u32);

/// A stretch of time in which one entry held one state and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its number; `None` for the span before the first event of an entry.
    pub id: Option<SpanId>,
    /// Whose.
    pub entry: EntryId,
    /// When it began.
    pub start: u64,
    /// When it ended; `None` while it lasts at the end of the trace.
    pub end: Option<u64>,
    /// State of the entry.
    pub state: State,
    /// The state's shade (present ones by permission).
    pub shade: Shade,
    /// Raw value; `None` where only the state is known (an unknown entry).
    pub spte: Option<u64>,
    /// How it is known.
    pub certainty: Certainty,
    /// Why, where the certainty is not `Exact`: see [`Reason::words`].
    pub reason: Reason,
    /// Event that began it.
    pub opened_by: Option<EventIx>,
    /// Event that ended it.
    pub closed_by: Option<EventIx>,
}

impl Span {
    /// Whether it lasts at `t`.
    pub fn covers(&self, t: u64) -> bool {
        self.start <= t && self.end.is_none_or(|e| t < e)
    }
}

/// One entry: its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: EntryId,
    /// VM.
    pub vm: VmId,
    /// Address space (1 = SMM).
    pub as_id: u8,
    /// 1 = 4 KiB … 5.
    pub level: u8,
    /// First guest frame it covers.
    pub gfn: u64,
    /// The table it lies in.
    pub table: TableId,
    /// Host-physical address of the entry, where any event names the table's page.
    pub sptep: Option<u64>,
}

impl Entry {
    /// How many guest frames it covers.
    pub const fn pages(&self) -> u64 {
        pages_of(self.level)
    }
}

/// How many 4 KiB frames an entry of `level` covers.
pub const fn pages_of(level: u8) -> u64 {
    if level <= 1 {
        1
    } else if level >= 6 {
        1 << 45
    } else {
        1 << (9 * (level as u32 - 1))
    }
}

/// One page-table page during one life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its id.
    pub id: TableId,
    /// VM.
    pub vm: VmId,
    /// Address space.
    pub as_id: u8,
    /// Level of its entries.
    pub level: u8,
    /// First guest frame it covers.
    pub gfn: u64,
    /// Host-physical address of the page, where an event names it.
    pub page: Option<u64>,
    /// The entry that points to it; `None` for roots and where unknown.
    pub parent: Option<EntryId>,
    /// Event that linked it (or first named it).
    pub start: Option<EventIx>,
    /// Event that unlinked it; `None` while it lives.
    pub end: Option<EventIx>,
    /// Its first moment is known: entries not seen since are empty, not unknown.
    pub born: bool,
    /// A TDP MMU table (or a direct shadow page): its entries' frames follow from their index.
    pub direct: bool,
    /// A TDX mirror table.
    pub mirror: bool,
}
