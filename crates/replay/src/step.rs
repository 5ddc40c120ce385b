//! The order of steps: [`Engine::step`] takes one event and hands it, part by part, to the rules. A newcomer reads this page first.
//!
//! The timeline calls `step` once for each event, in order. State is in [`crate::engine`], and what follows from an event is in the modules of
//! the rules: the TDP MMU's in [`crate::tdp`], those of MMUs that do not trace their zaps in [`crate::silent`], faults in [`crate::faults`],
//! losses in [`crate::lost`], the VM of a thread in [`crate::vms`]. Beside their order this file has which MMU's rules an event is for, and what no
//! event says of itself: when a thread is done with what it was tearing down, zapping, or had frozen. It never looks ahead. Later events add to earlier time in two ways: an old value
//! shows what was held before, and a change that was traced late makes the span that missed it exact.

use mmuscope_trace::{Body, Event, TaskKind};

use crate::ends::MarkerNote;
use crate::engine::Engine;
use crate::keys::ThreadIx;
use crate::model::LostSpan;
use crate::moment::At;
use crate::reported::{FastFault, MarkMmio, SetSpte};

impl Engine {
    /// Consumes one event. The order matters. First come notes, which are no events of KVM's; then the thread and its VM, what the event ends of the
    /// thread's work, memory slots, and the end of an open fault; then what the event says itself ([`Engine::apply_event`]), what it rules out for
    /// silent MMUs, and last its fault.
    pub(crate) fn step(&mut self, e: &Event) {
        let of_a_level;
        let e = if let Some(body) = leveled(&e.body) {
            of_a_level = Event { body, ..*e };
            &of_a_level
        } else {
            e
        };
        let before = self.clock.last();
        let (ev, ts) = self.count(e);
        self.probed.note(e, &mut self.recorded);
        let probed;
        let e = if self.probed.stand_in() {
            // Where changes are probed, none goes unseen.
            self.traces.changes = true;
            probed = self.probed.counts_as(ev, *e);
            &probed
        } else {
            e
        };
        let before_here = self.clock.last_of(e.cpu, ts);
        if self.is_note(e, (ev, ts), before, before_here) {
            return;
        }
        self.clock.seen_on(e.cpu, ts);
        if self.is_after_snapshot() {
            self.after_snapshot(ev);
        }
        let Some(tid) = e.tid else { return };
        let th = self.thread(tid);
        self.vms.touch(&mut self.threads[th], e, ts);
        self.goes_on(th, e, ev, ts);
        self.slots.step(self.threads[th].vm, tid, e, ts);
        let vm_known = self.vms.sure() && self.threads[th].vm.is_some() || self.vms.one();
        let at = At { th, vm: self.vm_of(th), vm_known, ev, ts };
        self.vms.note_activity(at.vm, &e.body);
        self.vms.note_life(at.vm, &e.body);
        let tdp = self.vms.is_tdp(at.vm);
        self.faults.end(&mut self.threads[th], tdp, &self.layout, ev, &e.body);
        self.snapshots.meanwhile.note(ts, &e.body);
        self.apply_event(at, e);
        self.silent_step(at, e);
        self.unseen_fast_fault(at, e);
        if !at.nobodys() {
            let tdp = self.vms.is_tdp(at.vm);
            self.faults.step(&mut self.threads[th], at.vm, tdp, ev, ts, e);
        }
        self.threads[th].prev_ts = ts;
    }

    /// Numbers an event; gives its number and its time, which never goes back.
    fn count(&mut self, e: &Event) -> (u32, u64) {
        let first = self.clock.first().is_none();
        let (ev, ts) = self.clock.tick(e.ts);
        self.store.ev_ts.push(ts);
        let kind = crate::kinds::kind_of(&e.body);
        self.recorded.see(kind);
        self.store.ev_kind.push(kind);
        if first {
            self.silent.seen_from(ts);
        }
        (ev, ts)
    }

    /// Takes in what is not an event of KVM's: losses, markers, the lives of threads. `false` for all others. `before` is the time of the event
    /// before, and `before_here` that of the one before on the same CPU.
    fn is_note(&mut self, e: &Event, (ev, ts): (u32, u64), before: u64, before_here: u64) -> bool {
        match e.body {
            Body::Lost { count, .. } => {
                let start = before_here;
                self.noted.add_lost(LostSpan { cpu: Some(e.cpu), start, end: ts, count, event: ev });
                self.on_lost(ev, ts);
                self.clock.seen_on(e.cpu, ts);
                return true;
            }
            Body::Damage { .. } => {
                self.noted.add_lost(LostSpan { cpu: None, start: before, end: ts, count: None, event: ev });
                self.on_lost(ev, ts);
                return true;
            }
            Body::Marker { text } => {
                // Whoever writes one is not in the kernel's KVM.
                let writer = e.tid.map(|tid| {
                    let th = self.thread(tid);
                    let tdp = self.vms.is_tdp(self.vm_of(th));
                    self.faults.leave(&mut self.threads[th], tdp, ev);
                    self.threads[th].vm
                });
                self.noted.add_marker(MarkerNote { ev, ts, text, vm: writer.flatten() });
                self.did_something_else(e.tid, ev, ts);
                self.clock.seen_on(e.cpu, ts);
                return true;
            }
            Body::Task { kind: TaskKind::Exit, tid, .. } => {
                self.thread_ended(tid, ev, ts);
                return true;
            }
            Body::Task { .. } | Body::Snapshot { .. } | Body::Other { .. } => return true,
            _ => {}
        }
        false
    }

    /// A thread does something: what it was tearing down, zapping, or had frozen is done unless this event is part of it. What
    /// other threads had torn down to the last entry is done in any case.
    fn goes_on(&mut self, th: ThreadIx, e: &Event, ev: u32, ts: u64) {
        if e.body.kind().is_midway() {
            return;
        }
        if !self.torn.is_empty() {
            for t in std::mem::take(&mut self.torn) {
                self.settle(t, ev, ts);
            }
        }
        if !matches!(e.body, Body::TdpSpteChanged { .. } | Body::PrepareZapPage { .. }) {
            if self.threads[th].zapping {
                self.threads[th].zapping = false;
                self.zapped_all(self.threads[th].tid, ev, ts);
            }
            self.threads[th].announced.clear();
            self.threads[th].did_more_than_zap = true;
            self.threads[th].notifying =
                matches!(e.body, Body::UnmapHvaRange { .. } | Body::SetSpteHva { .. });
        }
        if (!self.threads[th].tearing.is_empty() || !self.threads[th].frozen.is_empty())
            && !self.belongs_to_teardown(th, e)
        {
            self.settle(th, ev, ts);
        }
    }

    /// Hands an event to the rules that it is for.
    fn apply_event(&mut self, at: At, e: &Event) {
        match e.body {
            Body::TdpSpteChanged { as_id, gfn, level, old_spte, new_spte } => {
                self.tdp_changed(at, as_id, level.clamp(1, 6), gfn, old_spte, new_spte);
            }
            Body::GetPage { page, created } => {
                self.silent_get_page(at, &page, created);
                if created && page.role.direct {
                    self.tdp_page_made(at, &page);
                }
            }
            Body::PrepareZapPage { page } => {
                if page.role.direct && self.vms.is_tdp(at.vm) {
                    self.tdp_prepare_zap(at, &page);
                } else {
                    let root = self.vms.is_tallest(at.vm, page.role.level);
                    let thread = &self.threads[at.th];
                    self.vms.note_zap(at, at.vm, thread, self.faults.leaving_is_traced, root);
                }
                self.silent_prepare_zap(at, &page);
            }
            Body::SyncPage { page } => self.sync_page(at, &page),
            Body::SetSpte { gfn, spte, sptep, level, .. } => {
                let s = SetSpte { gfn, spte, sptep, level: level.clamp(1, 6) };
                if !self.tdp_set_spte(at, &s) {
                    self.silent_set_spte(at, &s);
                }
            }
            Body::MarkMmioSpte { sptep, gfn, access, generation } => {
                let m = MarkMmio { sptep, gfn, access, generation };
                if !self.tdp_mark_mmio(at, &m) {
                    self.silent_mark_mmio(at, &m);
                }
            }
            Body::FastPageFault { cr2_or_gpa, sptep, old_spte, new_spte, result, .. } => {
                let (gpa, old, new) = (cr2_or_gpa, old_spte, new_spte);
                self.fast_page_fault(at, &FastFault { gpa, sptep, old, new, result });
            }
            Body::ProbeSpteUpdate { sptep, new_spte, no_track, .. } => {
                self.recorded.no_track |= no_track;
                self.probe_update(at, sptep, new_spte);
            }
            Body::ProbeSpteClear { sptep, .. } => self.probe_clear(at, sptep),
            Body::ZapAllFast { .. } => {
                self.tdp_zap_all(at);
                let vm = Some(at.vm).filter(|_| self.vms.sure() && !at.nobodys());
                self.slots.zapped(vm, at.ts, &self.recorded);
                self.obsolete_in_doubt(at);
                self.silent_zap_all(at);
            }
            Body::SplitHugePage { gfn, level, errno: 0, .. } => self.silent_split(at, gfn, level),
            Body::UnmapHvaRange { .. }
            | Body::SetSpteHva { .. }
            | Body::AgeHva { .. }
            | Body::TestAgeHva { .. }
            | Body::AgePage { .. } => {
                self.notifier(at, &e.body);
            }
            Body::SpteRequested { .. } | Body::PageFault { .. } | Body::Exit { .. } | Body::Entry { .. } => {
                let t = &mut self.threads[at.th];
                t.path.clear();
                t.install = None;
            }
            _ => {}
        }
    }

    /// The lockless path handled a fault. As long as no event shows which MMU a VM has, the fault shows what an entry of the TDP MMU's holds all the
    /// same.
    fn fast_page_fault(&mut self, at: At, f: &FastFault) {
        if let Some(virt) = f.sptep {
            self.silent.named_by(self.threads[at.th].tid, f.gpa >> 12, virt);
        }
        let may_be_tdp = self.vms.is_tdp(at.vm) || !self.silent.active;
        if may_be_tdp && self.tdp_fast_fault(at, f) {
            return;
        }
        if self.silent.active {
            self.silent_fast_fault(at, f);
        }
    }
}

/// The same of a page whose role has a level that no page table has, as damaged or made-up text may print, with the nearest that may be.
fn leveled(body: &Body) -> Option<Body> {
    let mut body = *body;
    let (Body::GetPage { page, .. }
    | Body::SyncPage { page }
    | Body::UnsyncPage { page }
    | Body::PrepareZapPage { page }) = &mut body
    else {
        return None;
    };
    if page.role.level <= 6 {
        return None;
    }
    page.role.level = 6;
    Some(body)
}
