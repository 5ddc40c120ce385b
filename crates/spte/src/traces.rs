//! What a kernel's tracepoints show of what its MMUs do.
//!
//! [`Traces`] is read from `layouts/traces.toml` with the layout, by [`LayoutSpec::resolve`](crate::LayoutSpec::resolve). The replay asks it
//! what the absence of an event means, and the model in the replay's tests emits events by it. It knows no event's fields and reads no trace.
//!
//! Where a trace shows the era but not the release, the facts are those of the era's last release.

/// How often `kvm_mmu_set_spte` comes when a fault installs a leaf in the TDP MMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetSpte {
    /// The event does not exist (up to 5.2).
    Never,
    /// Once, after the store (5.3 to 5.10, and since 5.13).
    Once,
    /// Before the store, with the old value, and once more after it (5.11).
    BeforeAndAfter,
    /// Twice after the store (5.12).
    Twice,
}

/// The order in which the end of a table under the TDP MMU is traced (`handle_removed_pt`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlink {
    /// The change of the entry that links the table, `kvm_mmu_prepare_zap_page`, then the table's entries (5.11 to 7.1).
    First,
    /// `kvm_mmu_prepare_zap_page`, the table's entries, then the change of the entry that linked it (since 7.2).
    Last,
}

/// What becomes of mappings that are replaced by smaller or larger ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// The old mapping is zapped, and later faults install the new one.
    Zap,
    /// One change puts the new mapping in place of the old one.
    InPlace,
}

/// What `kvm_mmu_zap_all_fast` does to the roots of the TDP MMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZapAll {
    /// The entries of all roots are zapped at once, and the roots stay in use (5.10 to 5.12).
    InPlace,
    /// The roots become obsolete, faults fill new ones, and the old trees are zapped in the background (since 5.13).
    Obsolete,
}

/// Which level `kvm_mmu_get_page` prints for a page of the TDP MMU that is not a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageLevel {
    /// The page's own.
    Own,
    /// That of the entry which links the page (5.10).
    Above,
}

/// Whether `mark_mmio_spte` comes before or after the MMIO value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkMmio {
    /// Before: so the TDP MMU of 5.11 prints it before the change (and every legacy MMU before the store).
    Before,
    /// After the TDP MMU's change (since 5.12).
    After,
}

/// What a kernel traces. Every fact is of x86; "TDP MMU" and "legacy MMU" are KVM's own names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traces {
    /// Every change of an entry of the TDP MMU that KVM makes is a `kvm_tdp_mmu_spte_changed` (since 5.11, in `handle_changed_spte`), save those
    /// that `fast_page_fault` shows, the children of a split, MMIO entries of a table that is torn down under the exclusive MMU lock, and what
    /// [`Traces::freeze`] and [`Traces::release`] say of frozen entries. 5.10 has that MMU without the event. The legacy MMU never traces changes.
    pub changes: bool,
    /// How often `kvm_mmu_set_spte` comes for an install.
    pub set_spte: SetSpte,
    /// An atomic zap of an entry in a linked table is traced as a change to the removed value (5.12 to 6.9, `tdp_mmu_zap_spte_atomic`). Where
    /// this is false, the removed value is traced only in tables that are being torn down.
    pub freeze: bool,
    /// The store that ends such a freeze is traced, too. No kernel does: up to 6.9 it is a plain write.
    pub release: bool,
    /// `kvm_mmu_prepare_zap_page` comes for tables of the TDP MMU (since 5.11). For those of the legacy MMU it always does.
    pub page_zaps: bool,
    /// Which level is printed for a page of the TDP MMU.
    pub page_level: PageLevel,
    /// What happens to the TDP MMU's roots when all pages of a VM are to go.
    pub zap_all: ZapAll,
    /// The order of a table's teardown. The replay takes tables apart in whichever order the events come, because a cut or a loss may hide
    /// the one that comes first; the model emits them in this order.
    pub unlink: Unlink,
    /// Write faults and access tracking are fixed in the TDP MMU without the MMU lock, with `fast_page_fault` as the only event (since 5.15).
    pub fast_faults: bool,
    /// Invalidated and aged ranges of host memory are traced: `kvm_unmap_hva_range`, `kvm_age_hva` (x86 since 5.13, when the notifiers of
    /// all architectures became one in `virt/kvm/kvm_main.c`).
    pub notifiers: bool,
    /// Exchanged host pages are traced: `kvm_set_spte_hva` (5.13 to 6.9; the notifier is gone since 6.10).
    pub change_pte: bool,
    /// When `mark_mmio_spte` comes.
    pub mark_mmio: MarkMmio,
    /// `kvm_mmu_set_spte` comes for MMIO entries as well (5.3 to 5.12).
    pub mmio_set_spte: bool,
    /// Huge pages are split before dirty logging write-protects them: one change, and `kvm_mmu_split_huge_page` (since 5.18).
    pub eager_splits: bool,
    /// How a fault that needs small pages gets them from a huge one (in place since 6.2, `tdp_mmu_split_huge_page`).
    pub fault_splits: Resize,
    /// How huge pages come back when dirty logging ends (in place since 6.13, `tdp_mmu_make_huge_spte`).
    pub recovery: Resize,
    /// A memory slot may be deleted leaf by leaf, without `kvm_mmu_zap_all_fast` (since 6.12, with `KVM_X86_QUIRK_SLOT_ZAP_ALL` off).
    pub slot_leaves: bool,
}

impl Traces {
    /// An entry of a linked table that was traced as frozen is free again although no event says so.
    pub const fn releases_untraced(&self) -> bool {
        self.freeze && !self.release
    }
}
