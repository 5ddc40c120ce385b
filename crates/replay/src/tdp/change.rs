//! [`Change`], one event of the TDP MMU, and [`Found`], the table that it was found to be made in. The files of this module hand them to each
//! other.

use mmuscope_spte::{Layout, State};

use crate::keys::{Key, TableIx};
use crate::moment::At;

/// How an old value fits what is known of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fit {
    No,
    Unknown,
    /// Frame and state are the same, and other bits differ: the lockless path changes Writable and access tracking without an event.
    Volatile,
    Exact,
}

/// One `kvm_tdp_mmu_spte_changed`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    /// When, in which thread, and in which VM as far as the thread shows.
    pub(crate) at: At,
    /// The table the entry lies in, as far as its place shows.
    pub(crate) key: Key,
    pub(crate) idx: u16,
    pub(crate) gfn: u64,
    pub(crate) old: u64,
    pub(crate) new: u64,
}

/// The table an event was found to belong to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) table: TableIx,
    pub(crate) fit: Fit,
    /// No other table can be meant.
    pub(crate) sure: bool,
}

impl Change {
    /// The page of the table that it unlinks, if it unlinks one.
    pub(crate) fn cut_page(&self, l: &Layout) -> Option<u64> {
        let level = self.key.level;
        let page_of = |spte: u64| spte & l.masks.base_addr_mask;
        let page = page_of(self.old);
        let cut = level > 1
            && l.state(self.old, level) == State::Table
            && (l.state(self.new, level) != State::Table || page_of(self.new) != page);
        (cut && page != 0).then_some(page)
    }

    /// Where the table lies that an entry at its place may point to.
    pub(crate) fn child_key(&self) -> Key {
        Key { as_id: self.key.as_id, level: self.key.level.saturating_sub(1), gfn: self.gfn }
    }
}
