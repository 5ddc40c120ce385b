//! The order of steps: [`Engine::step`] takes one event and hands it, part by part, to the rules. A newcomer reads this page first.
//!
//! The timeline calls `step` once for each event, in order. State is in [`crate::engine`], and what follows from an event is in the modules of
//! the rules: the TDP MMU's in [`crate::tdp`], those of MMUs that do not trace their zaps in [`crate::silent`], faults in [`crate::faults`],
//! losses in [`crate::lost`], the VM of a thread in [`crate::vms`]. Beside their order this file has what no event says of itself: when a thread is
//! done with what it was tearing down, zapping, or had frozen. It never looks ahead. Later events add to earlier time in two ways: an old value
//! shows what was held before, and a change that was traced late makes the span that missed it exact.

use mmuscope_trace::{Body, Event, Page, TaskKind};

use crate::ends::MarkerNote;
use crate::engine::Engine;
use crate::keys::{TableIx, ThreadIx, key_of};
use crate::model::{Certainty, LostSpan, Reason, Shade};
use crate::moment::At;
use crate::reported::{FastFault, MarkMmio, SetSpte};
use crate::threads::NewPage;

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
        self.slots_step(th, e, ts);
        let vm_known = self.vms.sure() && self.threads[th].vm.is_some() || self.vms.one();
        let at = At { th, vm: self.vm_of(th), vm_known, ev, ts };
        self.vms.note_activity(at.vm, &e.body);
        self.note_life(at, &e.body);
        self.end_fault(at, &e.body);
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
                    self.leave(th, ev);
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
            Body::GetPage { page, created } => self.get_page(at, &page, created),
            Body::PrepareZapPage { page } => self.prepare_zap(at, &page),
            Body::SyncPage { page } => self.sync_page(at, &page),
            Body::SetSpte { gfn, spte, sptep, level, .. } => {
                self.set_spte(at, &SetSpte { gfn, spte, sptep, level: level.clamp(1, 6) });
            }
            Body::MarkMmioSpte { sptep, gfn, access, generation } => {
                self.mark_mmio(at, &MarkMmio { sptep, gfn, access, generation });
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
            Body::ZapAllFast { .. } => self.zap_all_fast(at),
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

    fn get_page(&mut self, at: At, page: &Page, created: bool) {
        let At { th, vm, ev, ts, .. } = at;
        self.silent_get_page(at, page, created);
        if !created || !page.role.direct || page.role.level < 1 {
            return;
        }
        let t = &mut self.threads[th];
        if t.pages.len() >= 16 {
            t.pages.remove(0);
        }
        let np = NewPage {
            level: page.role.level,
            gfn: page.gfn,
            mirror: page.role.mirror.unwrap_or(false),
            as_id: page.role.smm.map(u8::from),
            ev,
            ts,
        };
        t.pages.push(np);
        if np.mirror {
            self.vms.has_mirror(vm);
        }
        if page.role.level >= 4 && page.gfn.is_none_or(|g| g == 0) {
            self.vms.new_root(vm, np, &page.role);
        }
    }

    /// Whether an event is part of what its thread is tearing down.
    fn belongs_to_teardown(&self, th: ThreadIx, e: &Event) -> bool {
        let t = &self.threads[th];
        match e.body {
            Body::TdpSpteChanged { as_id, gfn, level, old_spte, .. } => {
                let key = key_of(as_id, level, gfn);
                let page = self.pfn_bits(old_spte);
                t.tearing.iter().rev().any(|x| self.key_is(*x, key))
                    || t.unlinking.iter().any(|(x, _)| {
                        let r = &self.store.tables[*x];
                        r.page == page && r.level + 1 == level
                    })
            }
            Body::PrepareZapPage { page } => {
                let level = page.role.level;
                page.role.direct
                    && t.tearing.iter().any(|x| {
                        let r = &self.store.tables[*x];
                        // Where links are traced as cut after the entries, the tables below come before theirs.
                        let below = || {
                            t.unlinking.iter().any(|u| u.0 == *x)
                                && r.level == level + 1
                                && page.gfn.is_none_or(|g| key_of(r.as_id, r.level, g).gfn == r.gfn)
                        };
                        r.level == level && page.gfn.is_none_or(|g| g == r.gfn) || below()
                    })
            }
            _ => false,
        }
    }

    /// The thread went on: torn-down tables are gone, frozen entries released.
    pub(crate) fn settle(&mut self, th: ThreadIx, ev: u32, ts: u64) {
        let tearing = std::mem::take(&mut self.threads[th].tearing);
        self.threads[th].unlinking.clear();
        for t in tearing {
            self.store.free_table(t, ev, ts);
        }
        let frozen = std::mem::take(&mut self.threads[th].frozen);
        if !self.traces.releases_untraced() {
            return;
        }
        for e in frozen {
            let attached = self.store.tables[self.store.place(e).table].attached();
            if attached && self.store.now(e).is_some_and(|(_, m)| m.shade == Shade::Removed) {
                self.store.push(
                    e,
                    ev,
                    Some(self.layout.zapped),
                    Shade::Nonpresent,
                    Certainty::Assumed,
                    Reason::Unfrozen,
                );
            }
        }
    }

    fn zap_all_fast(&mut self, at: At) {
        let At { th, vm, .. } = at;
        let roots: Vec<TableIx> = self
            .attached
            .all()
            .filter(|t| {
                let r = &self.store.tables[*t];
                // What a mirror tree stands for cannot be built anew so fast: it stays.
                r.vm == vm && r.root == *t && !r.mirror
            })
            .collect();
        self.attached.make_obsolete(roots);
        self.threads[th].zapping = true;
        self.slots_zapped(at);
        self.obsolete_in_doubt(at);
        self.silent_zap_all(at);
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
