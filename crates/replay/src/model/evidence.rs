//! What does not fit, kept for findings.

use super::{EntryId, EventIx, VmId};

/// Something that does not fit, kept for findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// What.
    pub kind: EvidenceKind,
    /// When.
    pub ts: u64,
    /// The event that shows it.
    pub event: EventIx,
    /// VM.
    pub vm: VmId,
    /// Entry concerned.
    pub entry: Option<EntryId>,
    /// Address space.
    pub as_id: u8,
    /// Level.
    pub level: u8,
    /// Frame.
    pub gfn: u64,
    /// Value that was expected.
    pub expected: Option<u64>,
    /// Value that was seen.
    pub found: Option<u64>,
    /// Events were lost before, or the recorder had not switched all of them on yet, so this proves nothing about the kernel.
    pub after_loss: bool,
}

/// Kinds of [`Evidence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum EvidenceKind {
    /// Old value of an event is not the last new value.
    OldValue,
    /// `kvm_mmu_set_spte` disagrees with the change event.
    SetSpte,
    /// `fast_page_fault` disagrees.
    FastFault,
    /// Index of the entry in its table does not match its frame.
    Index,
    /// A present leaf was replaced by another present leaf with another pfn.
    PfnChanged,
    /// A nonpresent value became another nonpresent value that is neither MMIO nor removed.
    NonpresentChanged,
    /// The frame is not aligned to its level.
    Misaligned,
    /// An entry changed although nothing links its table.
    Orphan,
    /// Removed, and faults keep coming that find it so.
    StuckRemoved,
    /// A table page is linked from two places at once.
    TableShared,
    /// An event arrived after one that must have followed it (a race between CPUs); put right.
    Reordered,
    /// Two tables fit an event.
    Ambiguous,
    /// An entry changed inside a table that was already torn down.
    DeadTable,
    /// Writable without MMU-writable.
    WritableBits,
}

impl EvidenceKind {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::OldValue => "the old value is not the last new value",
            Self::SetSpte => "kvm_mmu_set_spte shows another value than the change event",
            Self::FastFault => "fast_page_fault shows another value than the last change",
            Self::Index => "the entry's index in its table does not match its frame",
            Self::PfnChanged => "a present leaf was replaced by a present leaf with another host frame",
            Self::NonpresentChanged => {
                "a nonpresent value was replaced by another that is neither MMIO nor removed"
            }
            Self::Misaligned => "the frame is not aligned to its level",
            Self::Orphan => "an entry changed although nothing links its table",
            Self::StuckRemoved => "the entry stays removed while faults on it keep coming",
            Self::TableShared => "one page-table page is linked from two places",
            Self::Reordered => "events of two CPUs came in the other order than the changes; put right",
            Self::Ambiguous => "two page tables fit the event",
            Self::DeadTable => "an entry changed in a table that was already torn down",
            Self::WritableBits => "writable, but not marked MMU-writable",
        }
    }
}
