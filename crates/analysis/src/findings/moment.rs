//! [`At`] and [`Change`]: one event as the pass over the events shows it to the rules' watchers.

use mmuscope_spte::Decoded;

/// One event with what every watcher asks of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    pub(super) event: u32,
    pub(super) ts: u64,
    pub(super) tid: u32,
    /// Its VM; the first where none is known.
    pub(super) vm: u16,
    pub(super) comm: &'a str,
}

/// A `kvm_tdp_mmu_spte_changed`, decoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) event: u32,
    pub(super) ts: u64,
    pub(super) tid: u32,
    pub(super) vm: u16,
    pub(super) as_id: u8,
    pub(super) level: u8,
    pub(super) gfn: u64,
    pub(super) old: Decoded,
    pub(super) new: Decoded,
}
