//! Guest memory for people: ranges of frames, and the life of one.

use super::{Certainty, EventIx, FaultId, Shade, VmId};

/// A GFN range that MMIO accesses or faults went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmioRange {
    /// VM.
    pub vm: VmId,
    /// First frame.
    pub gfn_start: u64,
    /// One past the last.
    pub gfn_end: u64,
    /// Accesses, each once: what [`MmioAccesses`](crate::MmioAccesses) shows. `None` where the trace has no event of accesses, so that nothing
    /// shows how many there were.
    pub accesses: Option<u64>,
    /// Faults that were MMIO: the SPTE was hit or made, or the access emulated without one.
    pub faults: u64,
    /// MMIO SPTEs installed.
    pub installs: u64,
    /// First access, fault or installation.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// Lowest and highest MMIO generation seen.
    pub generations: Option<(u32, u32)>,
}

/// What a stretch of guest frames is at the end of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemoryKind {
    /// Mapped RAM.
    Ram,
    /// Was mapped, is not now.
    Gone,
    /// MMIO.
    Mmio,
    /// No event names these frames.
    Unseen,
}

/// A stretch of guest frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// VM.
    pub vm: VmId,
    /// Address space.
    pub as_id: u8,
    /// First frame.
    pub gfn_start: u64,
    /// One past the last.
    pub gfn_end: u64,
    /// What it is.
    pub kind: MemoryKind,
    /// Level of the entries (0: mixed).
    pub level: u8,
    /// Shade of the entries.
    pub shade: Shade,
    /// Worst certainty within.
    pub certainty: Certainty,
    /// Entries in it.
    pub entries: u64,
    /// A guess at the memslot, numbered from 1: ranges of one number have no MMIO and no long stretch of untouched frames between them. `None`
    /// for MMIO.
    pub slot: Option<u32>,
}

impl MemoryRange {
    /// Grows by a range that begins where this one ends, if its entries are of the same address space, level and shade; whether it did.
    pub fn take_in(&mut self, next: &Self) -> bool {
        let follows = self.gfn_end == next.gfn_start
            && (self.as_id, self.level, self.shade) == (next.as_id, next.level, next.shade);
        if follows {
            self.gfn_end = next.gfn_end;
            self.entries += next.entries;
            self.certainty = self.certainty.max(next.certainty);
        }
        follows
    }
}

/// One line in the life of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoryLine {
    /// When.
    pub ts: u64,
    /// The event.
    pub event: Option<EventIx>,
    /// Who: `vcpu 0 (load-111)`.
    pub who: String,
    /// What happened, in a sentence.
    pub text: String,
    /// State from then on.
    pub shade: Option<Shade>,
    /// Certainty.
    pub certainty: Option<Certainty>,
}

/// The life of one guest page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageStory {
    /// VM.
    pub vm: VmId,
    /// Address space.
    pub as_id: u8,
    /// Frame.
    pub gfn: u64,
    /// One sentence.
    pub headline: String,
    /// In time order.
    pub lines: Vec<StoryLine>,
    /// Faults on it.
    pub faults: Vec<FaultId>,
    /// Closing remarks: how long in each state, what is not known.
    pub notes: Vec<String>,
}
