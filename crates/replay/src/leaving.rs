//! Where a fault ends that no event says the end of, and what an event says about its VM's life. Asked for each event by the engine's step; the
//! rules themselves are in [`crate::ends`].

use mmuscope_trace::Body;

use crate::ends::{Ends, after};
use crate::engine::Engine;
use crate::keys::ThreadIx;
use crate::moment::At;

impl Engine {
    /// Closes a thread's fault that the event before was the last of.
    pub(crate) fn leave(&mut self, th: ThreadIx, ev: u32) {
        let vm = self.vm_of(th);
        let tdp = self.vms.is_tdp(vm);
        self.faults.leave(&mut self.threads[th], tdp, ev);
    }

    /// Ends the fault a thread is in, if an event is none that a fault can make.
    pub(crate) fn end_fault(&mut self, at: At, body: &Body) {
        let t = &self.threads[at.th];
        if !t.fault.is_open() {
            return;
        }
        match after(&self.layout, body, t.fault.gfn(), t.notifying, self.faults.leaving_is_traced) {
            Ends::No => {}
            // The entry will show when.
            Ends::Over if self.threads[at.th].fault.enters() => {}
            Ends::Left | Ends::Over => self.leave(at.th, at.ev),
        }
    }

    /// Notes what only a VM that is not at its end does.
    pub(crate) fn note_life(&mut self, at: At, body: &Body) {
        match body {
            Body::ZapAllFast { .. } => self.vms.lives(at.vm, true),
            Body::Entry { .. }
            | Body::Exit { .. }
            | Body::UserspaceExit { .. }
            | Body::PageFault { .. }
            | Body::SetSpte { .. }
            | Body::SpteRequested { .. }
            | Body::MarkMmioSpte { .. }
            | Body::FastPageFault { .. }
            | Body::GetPage { .. }
            | Body::SyncPage { .. }
            | Body::UnmapHvaRange { .. }
            | Body::AgeHva { .. }
            | Body::TestAgeHva { .. }
            | Body::SetSpteHva { .. } => self.vms.lives(at.vm, false),
            _ => {}
        }
    }

    /// Notes a zap, which may be part of a VM's end: not if its thread is on its way back into the guest.
    pub(crate) fn note_zap(&mut self, at: At, vm: u16, root: bool) {
        let t = &self.threads[at.th];
        if self.faults.leaving_is_traced && t.fault.runs() {
            self.vms.lives(vm, false);
        } else {
            // A vCPU zaps a root itself, too, when it uses it no more: after its guest changed CR0.WP, for one.
            let inside = t.fault.runs();
            self.vms.zapped(at, vm, t.tid, root, inside);
        }
    }
}
