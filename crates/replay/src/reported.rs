//! Events that report one entry beside the change events, with the fields that rules need of them. The engine makes them from an event's body;
//! the rules of the TDP MMU ([`crate::tdp`]) and of the silent MMUs ([`crate::silent`]) take them.

use mmuscope_trace::FastPfResult;

/// `kvm_mmu_set_spte`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SetSpte {
    pub(crate) gfn: u64,
    pub(crate) spte: u64,
    pub(crate) sptep: u64,
    pub(crate) level: u8,
}

/// `mark_mmio_spte`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MarkMmio {
    /// Virtual.
    pub(crate) sptep: Option<u64>,
    pub(crate) gfn: u64,
    pub(crate) access: u32,
    pub(crate) generation: u32,
}

/// `fast_page_fault`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FastFault {
    pub(crate) gpa: u64,
    /// Virtual.
    pub(crate) sptep: Option<u64>,
    pub(crate) old: u64,
    pub(crate) new: u64,
    pub(crate) result: FastPfResult,
}
