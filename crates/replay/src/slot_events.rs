//! What events and snapshots say of memory slots, taken into their list ([`crate::slots`]). The engine's step and the snapshots call these; nothing
//! here concludes anything about an entry.

use mmuscope_trace::snapshot::Slot;
use mmuscope_trace::{Body, Event};

use crate::engine::Engine;
use crate::keys::ThreadIx;
use crate::moment::At;
use crate::recorded::kind;
use crate::slots::{Reading, Request};

impl Engine {
    /// A thread does something, for the requests that it may have made.
    pub(crate) fn slots_step(&mut self, th: ThreadIx, e: &Event, ts: u64) {
        let tid = self.threads[th].tid;
        match e.body {
            Body::ProbeSetMemoryRegion { slot, flags, gpa, size, hva, .. } => match self.threads[th].vm {
                Some(vm) => self.slots.requested(vm, tid, ts, Request { slot, flags, gpa, size, hva }),
                None => self.slots.doubt(None, ts),
            },
            // What else a thread does may be a part of what it was asked for.
            Body::Entry { .. }
            | Body::Exit { .. }
            | Body::UserspaceExit { .. }
            | Body::PageFault { .. }
            | Body::ProbeDirtyLog { .. }
                if self.slots.asked() =>
            {
                self.slots.went_on(tid, ts);
            }
            _ => {}
        }
    }

    /// All page tables of a VM are made anew, as they are when a slot goes or moves.
    pub(crate) fn slots_zapped(&mut self, at: At) {
        if !self.recorded.has(kind::PROBE_SLOTS) {
            self.slots.doubt(Some(at.vm).filter(|_| self.vms.sure() && !at.nobodys()), at.ts);
        }
    }

    /// Slots of a VM were read in KVM's memory; `more` says that the list goes on.
    pub(crate) fn slots_read(
        &mut self,
        vm: u16,
        at: u64,
        slots: &[Slot],
        more: bool,
        snapshot: Option<usize>,
    ) {
        let Some(all) = self.slots.part(vm, slots, more) else { return };
        let requests_recorded = self.recorded.has(kind::PROBE_SLOTS);
        let zaps = self.recorded.has(kind::ZAP_ALL) && !self.traces.slot_leaves;
        let lasting = requests_recorded || zaps;
        self.slots.read(vm, &all, Reading { at, snapshot, requests_recorded, lasting });
    }
}
