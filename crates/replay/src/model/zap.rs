//! Leaves that stopped mapping.

use super::{EntryId, EventIx};

/// A leaf, present or MMIO, stopped mapping what it mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zap {
    /// When it is known to have been zapped: where the zap is implied, it may have come before.
    pub ts: u64,
    /// The event that shows it.
    pub event: EventIx,
    /// Whose.
    pub entry: EntryId,
    /// How it is known.
    pub cause: ZapCause,
}

impl Zap {
    /// No event traced the zap: it follows from a later one.
    pub const fn implied(&self) -> bool {
        self.cause.implied()
    }
}

/// How a zap is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ZapCause {
    /// `kvm_tdp_mmu_spte_changed` of the entry.
    Changed,
    /// `kvm_tdp_mmu_spte_changed` unlinked its table, or one above it.
    Unlinked,
    /// `kvm_mmu_prepare_zap_page` of its table.
    PageZapped,
    /// A kprobe on the function that zaps it (`mmu_spte_clear_track_bits`, `mmu_spte_update`).
    Probed,
    /// `kvm_mmu_set_spte` put another host page into it.
    Remapped,
    /// A later event found something else in its slot, or in the page of its table.
    Reused,
    /// All tables were obsolete (`kvm_mmu_zap_all_fast`), and the thread that zaps them went on.
    Obsolete,
    /// The VM's process ended.
    Ended,
}

impl ZapCause {
    /// Every cause.
    pub const ALL: [Self; 8] = [
        Self::Changed,
        Self::Unlinked,
        Self::PageZapped,
        Self::Probed,
        Self::Remapped,
        Self::Reused,
        Self::Obsolete,
        Self::Ended,
    ];

    /// No event traced the zap: it follows from a later one.
    pub const fn implied(self) -> bool {
        !matches!(self, Self::Changed | Self::Unlinked | Self::PageZapped | Self::Probed)
    }

    /// The word for it in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unlinked => "unlinked",
            Self::PageZapped => "page-zapped",
            Self::Probed => "probed",
            Self::Remapped => "remapped",
            Self::Reused => "reused",
            Self::Obsolete => "obsolete",
            Self::Ended => "ended",
        }
    }

    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Changed => "kvm_tdp_mmu_spte_changed of the entry",
            Self::Unlinked => "kvm_tdp_mmu_spte_changed unlinked its page-table page",
            Self::PageZapped => "kvm_mmu_prepare_zap_page of its page-table page",
            Self::Probed => "a kprobe on the function that zaps it",
            Self::Remapped => "kvm_mmu_set_spte put another host page into the occupied entry",
            Self::Reused => "a later event found something else in the entry, or in its page-table page",
            Self::Obsolete => "all page-table pages were obsolete, and the thread that zaps them went on",
            Self::Ended => "the process of the VM ended",
        }
    }
}
