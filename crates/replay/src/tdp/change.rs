//! [`Change`], one event of the TDP MMU, and [`Found`], the table that it was found to be made in. The files of this module hand them to each
//! other.

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
