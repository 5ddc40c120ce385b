//! What events and snapshots say of memory slots, taken into their list ([`crate::slots`]). The engine's step and the snapshots call these; nothing
//! here concludes anything about an entry.

use mmuscope_spte::Traces;
use mmuscope_trace::snapshot::Slot;
use mmuscope_trace::{Body, Event};

use crate::recorded::{Recorded, kind};
use crate::slots::{Reading, Request, Slots};

impl Slots {
    /// A thread, which works for a VM if that is known, does something, for the requests that it may have made.
    pub(crate) fn step(&mut self, vm: Option<u16>, tid: u32, e: &Event, ts: u64) {
        match e.body {
            Body::ProbeSetMemoryRegion { slot, flags, gpa, size, hva, .. } => match vm {
                Some(vm) => self.requested(vm, tid, ts, Request { slot, flags, gpa, size, hva }),
                None => self.doubt(None, ts),
            },
            // What else a thread does may be a part of what it was asked for.
            Body::Entry { .. }
            | Body::Exit { .. }
            | Body::UserspaceExit { .. }
            | Body::PageFault { .. }
            | Body::ProbeDirtyLog { .. }
                if self.asked() =>
            {
                self.went_on(tid, ts);
            }
            _ => {}
        }
    }

    /// All page tables of a VM are made anew, as they are when a slot goes or moves; `None` where it may be any VM.
    pub(crate) fn zapped(&mut self, vm: Option<u16>, ts: u64, recorded: &Recorded) {
        if !recorded.has(kind::PROBE_SLOTS) {
            self.doubt(vm, ts);
        }
    }

    /// Slots of a VM were read in KVM's memory; `r` says when, and `more` that the list goes on. What the trace can show of later changes follows
    /// from what was recorded and what the kernel traces.
    pub(crate) fn take_in(
        &mut self,
        vm: u16,
        slots: &[Slot],
        more: bool,
        r: (u64, Option<usize>),
        trace: (&Recorded, &Traces),
    ) {
        let ((at, snapshot), (recorded, traces)) = (r, trace);
        let Some(all) = self.part(vm, slots, more) else { return };
        let requests_recorded = recorded.has(kind::PROBE_SLOTS);
        let zaps = recorded.has(kind::ZAP_ALL) && !traces.slot_leaves;
        let lasting = requests_recorded || zaps;
        self.read(vm, &all, Reading { at, snapshot, requests_recorded, lasting });
    }
}
