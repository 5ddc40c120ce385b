//! Which changes of the silent MMUs would be events of this trace. Every rule that rests on the absence of an event asks here; nothing here changes
//! anything.

use crate::engine::Engine;
use crate::keys::EntryIx;
use crate::model::{Reason, Shade};
use crate::recorded::kind;

impl Engine {
    /// Every change of a leaf of a silent MMU, MMIO entries apart, is an event: the probes are set, and for every thread of the host, because any
    /// of them may take pages from a guest.
    #[inline]
    pub(super) fn probed(&self) -> bool {
        !self.silent.ranges.partial
            && self.recorded.has(kind::PROBE_CLEAR)
            && self.recorded.has(kind::PROBE_UPDATE)
    }

    /// Whether aging that takes permissions away would be an event of a probe. Up to 6.12 it goes through a function of its own; later kernels
    /// have none that could be probed.
    pub(super) fn aging_probed(&self) -> bool {
        self.probed() && self.recorded.no_track
    }

    /// Whether a change to an entry for this reason would be an event of a probe.
    pub(super) fn shows_in_probes(&self, entry: EntryIx, reason: Reason) -> bool {
        let silent = matches!(
            reason,
            Reason::SilentKernel
                | Reason::Notifier
                | Reason::UnseenNotifier
                | Reason::ZapAll
                | Reason::Synced
                | Reason::GuestTable
        );
        silent && self.probed() && self.store.now(entry).is_some_and(|(_, m)| m.shade != Shade::Mmio)
    }

    /// Whether it shows when a vCPU thread goes on after a fault, and why it came out of the guest.
    pub(super) fn boundaries_recorded(&self) -> bool {
        self.recorded.has(kind::ENTRY) && self.recorded.has(kind::EXIT)
    }

    /// This kernel has tracepoints for the ranges of mmu_notifiers, recorded or not.
    pub(super) fn ranges_traced(&self) -> bool {
        self.silent.ranges.recorded || self.traces.notifiers
    }
}
