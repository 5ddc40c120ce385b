//! The result of a replay: page-table entries over time, as plain data.
//!
//! Identifiers are small integers into the [`Timeline`](crate::Timeline) that made them. Times are absolute nanoseconds on the trace's
//! clock; event numbers index the trace's event store.

use mmuscope_spte::State as SpteState;

/// One VM of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct VmId(pub u16);
/// One page-table page during one life (a recycled page is a new table).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub u32);
/// One entry of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub u32);
/// One fault record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FaultId(pub u32);
/// Index of an event in the trace.
pub type EventIx = u32;

/// State of an entry during a span: what the decoder says of its value, plus the one thing only a replay knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// No event has shown it yet. Never the same as not present.
    Unknown,
    /// Zapped or never filled.
    Nonpresent,
    /// A leaf that maps a page.
    Present,
    /// Points to a lower table.
    Table,
    /// MMIO SPTE.
    Mmio,
    /// REMOVED / FROZEN.
    Removed,
}

impl From<SpteState> for State {
    fn from(s: SpteState) -> Self {
        match s {
            SpteState::Nonpresent => State::Nonpresent,
            SpteState::Present => State::Present,
            SpteState::Table => State::Table,
            SpteState::Mmio => State::Mmio,
            SpteState::Removed => State::Removed,
        }
    }
}

/// How a span is known (`trace-abi` rules; see docs).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Certainty {
    /// An event stated the value.
    Exact,
    /// The kernel re-read the value when it traced.
    Observed,
    /// Follows from another event (split children, a zapped parent).
    Implied,
    /// From a rule about this kernel.
    Assumed,
    /// Was known; a silent change is possible since.
    Stale,
}

/// What one picture cell or one colour stands for: the states of the visual language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Shade {
    /// No event has shown it yet.
    Unknown,
    /// Zapped or never filled.
    Nonpresent,
    /// Present, writable.
    Writable,
    /// Present, read-only or write-protected.
    ReadOnly,
    /// Present, access-tracked.
    AccessTracked,
    /// MMIO.
    Mmio,
    /// Removed / frozen.
    Removed,
    /// Points to a lower table (tree and page views only).
    Table,
}

/// A stretch of time in which one entry held one state and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Whose.
    pub entry: EntryId,
    /// When it began.
    pub start: u64,
    /// When it ended; `None` while it lasts at the end of the trace.
    pub end: Option<u64>,
    /// State of the entry.
    pub state: State,
    /// Raw value; `None` where only the state is known (a split's child whose value no event shows, an unknown entry).
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

/// Why a span is known as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// An event stated it.
    Stated,
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
    /// Host-physical address of the entry, where any event told the table's page.
    pub sptep: Option<u64>,
}
