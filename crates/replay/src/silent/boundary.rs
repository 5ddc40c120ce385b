//! What every event says about the tables of the silent MMUs, whatever else it means: [`Engine::silent_step`] is called by the engine's step. A thread
//! that enters the guest or leaves it has finished what it did, and walks of the guest's tables show which frames an emulated write went to.

use mmuscope_trace::{Body, Event, Isa};

use crate::engine::Engine;
use crate::moment::At;
use crate::recorded::kind;

impl Engine {
    /// Every event, for what it says about silent tables.
    pub(crate) fn silent_step(&mut self, at: At, e: &Event) {
        let tid = self.threads[at.th].tid;
        // Also before the first install: what is zapped may be installed only now.
        self.went_on(tid, e);
        if !self.silent.active {
            return;
        }
        match e.body {
            Body::Entry { .. } | Body::Exit { .. } | Body::UserspaceExit { .. } => {
                self.silent_boundary(at, e)
            }
            Body::PagetableWalk { addr, .. } => {
                let w = self.silent.walks.entry(tid).or_default();
                w.dark |= w.open || w.frames.len() >= 64;
                (w.addr, w.open, w.tables) = (addr, true, [None; 6]);
            }
            Body::PagingElement { pte, level } => self.walked(tid, pte, level),
            Body::WalkerError { pferr } => {
                // It led to no frame, so nothing was written there.
                let w = self.silent.walks.entry(tid).or_default();
                (w.open, w.fault) = (false, Some(pferr & 1 != 0));
            }
            Body::PageFault { .. } => {
                self.silent.walks.remove(&tid);
            }
            Body::UnsyncPage { page } => self.unsync_page(at, &page),
            _ => {}
        }
    }

    /// An entry of the guest's tables, read on the way down; the last one names the frame.
    fn walked(&mut self, tid: u32, pte: u64, level: u32) {
        let Some(w) = self.silent.walks.get_mut(&tid).filter(|w| w.open) else { return };
        if level > 1 && pte & 0x80 == 0 || level > 3 {
            if let Some(t) = w.tables.get_mut((level - 1) as usize) {
                *t = Some((pte & 0x000f_ffff_ffff_f000) >> 12);
            }
            return;
        }
        let pages = crate::model::pages_of(level as u8);
        let frame = (pte & 0x000f_ffff_ffff_f000) >> 12;
        let frame = frame / pages * pages + (w.addr >> 12) % pages;
        w.open = false;
        if w.frames.len() < 64 && !w.frames.contains(&frame) {
            w.frames.push(frame);
        }
    }

    fn silent_boundary(&mut self, at: At, e: &Event) {
        let At { th, vm, ev, .. } = at;
        let tid = self.threads[th].tid;
        self.silent.made.remove(&tid);
        for entry in self.silent.set.remove(&tid).unwrap_or_default() {
            self.unguard(entry, ev);
        }
        match e.body {
            // A write that nothing was installed for: emulated, perhaps a write to a guest table that is shadowed.
            Body::Entry { .. } | Body::UserspaceExit { .. } => {
                let to_mmio = matches!(e.body, Body::UserspaceExit { reason: 6, .. });
                if !to_mmio && let Some(gfn) = self.threads[th].fault.unanswered_write() {
                    match self.written_frames(vm, tid, gfn) {
                        Some(frames) => {
                            for g in frames {
                                self.guest_table_written(vm, Some(g), ev);
                            }
                        }
                        None => self.guest_table_written(vm, None, ev),
                    }
                }
                // A fault handed on to the guest because of what its table allows drops the entry of the address, if its page is out of
                // sync (since 5.8).
                let handed_on = self.silent.walks.get(&tid).and_then(|w| w.fault);
                if handed_on != Some(false)
                    && let Some(page) = self.threads[th].fault.unanswered()
                {
                    self.address_invalidated(vm, Some(page), ev);
                }
                self.silent.walks.remove(&tid);
            }
            Body::Exit { reason, isa, info1, .. } => {
                self.silent.walks.remove(&tid);
                // INVLPG, INVLPGA and INVPCID drop an entry of a page that is out of sync.
                let invlpg = matches!(
                    (isa, reason),
                    (Some(Isa::Vmx), Some(14 | 58)) | (Some(Isa::Svm), Some(0x79 | 0x7a | 0xa2))
                );
                if invlpg {
                    let named = isa == Some(Isa::Vmx) && reason == Some(14);
                    self.address_invalidated(vm, info1.filter(|_| named).map(|a| a >> 12), ev);
                }
            }
            _ => {}
        }
    }

    /// The frames that an emulated write may have gone to; `None` where it may have been any. The emulator looks up every page it writes
    /// to in the guest's tables, and that is traced.
    fn written_frames(&self, vm: u16, tid: u32, fault: Option<u64>) -> Option<Vec<u64>> {
        if !self.recorded.has(kind::WALK) || !self.recorded.has(kind::ELEMENT) {
            return None;
        }
        let walks = self.silent.walks.get(&tid).filter(|w| !w.dark && !w.open);
        if let Some(w) = walks
            && !self.silent.narrow.contains(&vm)
        {
            return Some(w.frames.iter().copied().chain(fault).collect());
        }
        fault.map(|g| vec![g])
    }
}
