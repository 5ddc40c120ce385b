//! mmu_notifier ranges, for MMUs that do not trace what a range zaps. [`Engine::notifier`] is called for each notifier event, and the installs'
//! rules ask [`Engine::zap_pending`]; the ranges themselves are in [`ranges`](super::ranges), where memory lies in [`places`]. Nothing here makes
//! an entry known: an event of a notifier only takes knowledge away.
//!
//! The rule in five sentences:
//!
//! 1. The event comes before the zap, and the zap has come when the same thread does something else, or two seconds later.
//! 2. From the event on, every known entry that the range may cover is stale, unless probes would show its zap; an event about aging makes entries
//!    stale only where the CPU keeps no Accessed bits.
//! 3. An entry is spared if it is MMIO; if its place in the VMM's memory is known and outside the range; or if the range is memory of other frames,
//!    the host page of each is known, and the entry maps none of these.
//! 4. What is installed by another thread while a range is open may be zapped at once, and is stale from the start; in the two seconds after the
//!    first event of a trace that begins late, and after a loss, such a range may be open without an event in the trace.
//! 5. Where memory lies is known from the VM's memory slots ([`crate::slots`]), if they were read, or requests for them were probed, and nothing can
//!    have changed them since. Otherwise three faults that break copy-on-write must prove it, each naming a frame and its host-virtual address
//!    at one distance; that holds for the frames between them, until a zap-all.

use mmuscope_spte::Mode;
use mmuscope_trace::{Body, Event};

use crate::engine::Engine;
use crate::keys::EntryIx;
use crate::model::{Certainty, Reason, Shade, pages_of};
use crate::moment::At;
use crate::recorded::kind;
use crate::silent::places;
use crate::silent::ranges::{Cow, OpenRange};

/// So many entries with one host frame (the zero page, pages merged for being equal) are not looked at one by one.
const MANY: usize = 1024;

impl Engine {
    /// A thread did something else: whatever range it announced is zapped, and whatever it made obsolete.
    pub(crate) fn did_something_else(&mut self, tid: Option<u32>, ev: u32, ts: u64) {
        if let Some(tid) = tid {
            self.silent.ranges.close(tid);
            self.silent.exchanging.remove(&tid);
            self.zapped_all(tid, ev, ts);
        }
    }

    /// Closes the ranges of a thread that has gone on. Any event shows that, save one that comes midway; the notifiers' own are looked at in
    /// `notifier`.
    pub(crate) fn went_on(&mut self, tid: u32, e: &Event) {
        if e.body.kind().is_midway() {
            return;
        }
        match e.body {
            Body::UnmapHvaRange { .. } | Body::SetSpteHva { .. } | Body::AgeHva { .. } => {}
            // In a fault that breaks copy-on-write the range is followed by the install, which then is what this asks for.
            _ => self.silent.ranges.close(tid),
        }
        if matches!(e.body, Body::SetSpteHva { .. }) {
            self.silent.exchanging.insert(tid);
        } else if !self.silent.exchanging.is_empty() {
            self.silent.exchanging.remove(&tid);
        }
    }

    /// mmu_notifier events: which entries they may have hit.
    pub(crate) fn notifier(&mut self, at: At, body: &Body) {
        let At { th, ev, ts, .. } = at;
        let tid = self.threads[th].tid;
        let (start, end, zaps) = match *body {
            Body::UnmapHvaRange { start, end } => (start, end, true),
            Body::SetSpteHva { hva } => (hva & !0xfff, (hva & !0xfff).saturating_add(0x1000), true),
            Body::AgeHva { start, end } => (start, end, false),
            _ => return,
        };
        // A host page is exchanged within the range that was invalidated for it: nothing is mapped there any more.
        if matches!(body, Body::SetSpteHva { .. }) && self.silent.ranges.covers(tid, start, end) {
            return;
        }
        if zaps {
            self.silent.ranges.recorded = self.recorded.has(kind::UNMAP_HVA) && !self.silent.ranges.partial;
            self.note_cow(at, start, end);
        }
        self.silent.ranges.close(tid);
        // Before the first install too: what is zapped may be installed only now.
        if zaps && (self.silent.active || !self.vms.is_tdp(at.vm)) {
            self.silent.ranges.open(OpenRange { tid, start, end, ts, ev });
        }
        if !self.silent.active {
            return;
        }
        // Aging takes permissions away where the CPU keeps no Accessed bits; since 6.13 software keeps one beside.
        if !zaps && !matches!(self.layout.mode, Mode::EptNoAd | Mode::NestedEptNoAd) {
            return;
        }
        // Which VM a thread works for may be a guess.
        let vms: Vec<u16> = match self.threads[th].vm {
            Some(v) if self.vms.sure() => vec![v],
            _ => self.silent.fresh.keys().copied().collect(),
        };
        for vm in vms {
            let hit = self.hits(vm, start, end);
            if zaps || self.aging_probed() {
                self.stale_list(hit, ev, Reason::Notifier);
            } else {
                for x in hit {
                    self.stale_now(x, ev, Reason::Notifier);
                }
            }
        }
    }

    /// What a range may zap.
    fn hits(&self, vm: u16, start: u64, end: u64) -> Vec<EntryIx> {
        let Some(fresh) = self.silent.fresh.get(&vm) else { return Vec::new() };
        let unknown = crate::silent::places::Places::default();
        let places = self.silent.places.get(&vm).unwrap_or(&unknown);
        let mut found: Vec<EntryIx> = Vec::new();
        if self.slots.complete(vm) {
            found.extend(self.slots.frames(vm, start, end).flat_map(|(_, a, b)| fresh.covering(a, b, 1)));
            found.extend(fresh.aside());
            found.retain(|x| self.may_hit(*x, start, end));
            let nowhere = self.slots.gaps(vm).flat_map(|(a, b)| fresh.covering(a, b, 1));
            found.extend(nowhere.filter(|x| !self.located(*x)));
            return found;
        }
        let mut others = None;
        if let Some((a, b)) = self.only(vm, start, end) {
            found.extend(fresh.covering(a, b, 1));
            let hosts = found.iter().filter_map(|x| self.host_frames(*x));
            let same: Vec<EntryIx> =
                hosts.flat_map(|(a, b)| fresh.mapping(a, b)).take(found.len() + MANY).collect();
            others = (same.len() < found.len() + MANY).then_some(same);
        }
        if let Some(same) = &others {
            found.extend(same);
        } else {
            found.extend(places.frames(start, end).flat_map(|(a, b)| fresh.covering(a, b, 1)));
        }
        found.extend(fresh.aside());
        found.retain(|x| self.may_hit(*x, start, end));
        if others.is_none() {
            let unknown = places.unknown();
            found.extend(
                unknown.into_iter().flat_map(|(a, b)| fresh.covering(a, b, 1)).filter(|x| !self.located(*x)),
            );
        }
        found
    }

    /// The frames of a range that is memory of a known place, where it is known what host page each of them has: then another frame that is
    /// the same memory has the same host page.
    fn only(&self, vm: u16, start: u64, end: u64) -> Option<(u64, u64)> {
        let (a, b) = self.memory_of(vm, start, end).filter(|(a, b)| b - a < MANY as u64)?;
        let fresh = self.silent.fresh.get(&vm)?;
        let known = |g: u64| fresh.covering(g, g, 1).any(|x| self.host_frame(x).is_some());
        (a..=b).all(known).then_some((a, b))
    }

    /// The frames of a range that is wholly memory of one known place.
    fn memory_of(&self, vm: u16, start: u64, end: u64) -> Option<(u64, u64)> {
        let mut slots = self.slots.frames(vm, start, end);
        match (slots.next(), slots.next()) {
            (None, None) => self.silent.places.get(&vm)?.within(start, end),
            (Some((0, a, b)), None) if b - a + 1 == end.div_ceil(0x1000) - start / 0x1000 => Some((a, b)),
            _ => None,
        }
    }

    /// The distance between host-virtual and guest-physical addresses of some frames: by the memory slots, where they are known, or else by what
    /// faults have proven.
    fn distance(&self, vm: u16, as_id: u8, first: u64, last: u64) -> Option<u64> {
        let proven = || self.silent.places.get(&vm).filter(|_| as_id == 0)?.delta(first, last);
        self.slots.delta(vm, as_id, first, last).or_else(proven)
    }

    /// Whether a range may cover the page of an entry; `false` only where it is known where the one or the other lies.
    fn may_hit(&self, entry: EntryIx, start: u64, end: u64) -> bool {
        let p = self.store.place(entry);
        // MMIO entries map nothing of the host.
        if self.store.now(entry).is_some_and(|(_, m)| m.shade == Shade::Mmio) {
            return false;
        }
        let table = &self.store.tables[p.table];
        let last = p.gfn.saturating_add(pages_of(p.level) - 1);
        if let Some(delta) = self.distance(table.vm, table.as_id, p.gfn, last) {
            return places::touches(delta, p.level, p.gfn, start, end);
        }
        if table.as_id != 0 {
            return true;
        }
        // The range is the memory of other frames. This one can only be hit if the VMM maps that memory twice: then both have the
        // same host page.
        let Some((a, b)) = self.only(table.vm, start, end) else { return true };
        let Some((mine, end)) = self.host_frames(entry) else { return true };
        let fresh = self.silent.fresh.get(&table.vm);
        let mut same = fresh.into_iter().flat_map(|f| f.mapping(mine, end)).filter(|x| *x != entry);
        let over = |x: EntryIx| {
            let q = self.store.place(x);
            q.gfn <= b && a < q.gfn.saturating_add(pages_of(q.level))
        };
        same.by_ref().take(MANY).any(over) || same.next().is_some()
    }

    /// It is known where an entry's page lies, or it has none.
    fn located(&self, entry: EntryIx) -> bool {
        let p = self.store.place(entry);
        let table = &self.store.tables[p.table];
        let last = p.gfn.saturating_add(pages_of(p.level) - 1);
        self.host_frame(entry).is_none() || self.distance(table.vm, table.as_id, p.gfn, last).is_some()
    }

    /// Why a range that another thread announced may zap this entry yet, if one may.
    pub(super) fn zap_pending(&self, at: At, entry: EntryIx) -> Option<Reason> {
        if self.shows_in_probes(entry, Reason::Notifier) {
            return None;
        }
        let tid = self.threads[at.th].tid;
        let ranges = &self.silent.ranges;
        if ranges.pending(tid, at.ts).any(|r| self.may_hit(entry, r.start, r.end)) {
            return Some(Reason::Notifier);
        }
        // A range that was announced before this VM was made is none of its memory.
        let unseen = ranges.recorded && ranges.unseen(at.ts) && self.vms.careful(at.vm);
        let unseen = unseen && self.may_hit(entry, 0, u64::MAX);
        unseen.then_some(Reason::UnseenNotifier)
    }

    /// A thread of the guest's that invalidates one page of the host's while it handles a fault breaks the copy-on-write of the page it
    /// faults on (the fault is retried after that, and then installs). When memory is short it may also be evicting others, many at a time.
    fn note_cow(&mut self, at: At, start: u64, end: u64) {
        if !self.recorded.has(kind::USERSPACE_EXIT) {
            // The thread may have left the fault, and given memory back on its own.
            return;
        }
        let thread = &self.threads[at.th];
        let Some((page, fault)) = thread.fault.page().filter(|_| end.saturating_sub(start) <= 0x1000) else {
            return;
        };
        let cow = Cow { hva: start & !0xfff, page, fault, several: false };
        self.silent
            .cows
            .entry(thread.tid)
            .and_modify(|c| {
                let several = c.fault == fault && (c.several || c.hva != cow.hva);
                *c = Cow { several, ..cow };
            })
            .or_insert(cow);
    }

    /// What a fault that broke a copy-on-write installs shows where its frame lies in the VMM's memory.
    pub(super) fn prove_place(&mut self, at: At, gfn: u64) {
        let thread = &self.threads[at.th];
        let (Some(vm), Some((page, _))) = (thread.vm, thread.fault.page()) else { return };
        if thread.fault.gfn() == Some(gfn)
            && let Some(c) = self.silent.cows.remove(&thread.tid)
            && c.page == page
            && !c.several
        {
            self.silent.places.entry(vm).or_default().proven(gfn, c.hva);
        }
    }

    /// An entry that was known until a range came is set to another host page: the VMM's page was exchanged. If that range is the only
    /// one that can have done it, then the frame lies in it, and it is over: nothing is installed in a range between its zap and its end.
    pub(super) fn prove_range(&mut self, entry: EntryIx, new: u64) {
        let p = self.store.place(entry);
        let Some((old, m)) = self.store.now(entry) else { return };
        if p.level != 1
            || (m.certainty, m.reason, m.has_value) != (Certainty::Stale, Reason::Notifier, true)
            || self.pfn_bits(old) == self.pfn_bits(new)
        {
            return;
        }
        let Some(since) = self.store.last_span(entry).map(|s| self.store.s_ev[s]) else { return };
        if since < self.silent.ranges.from {
            return;
        }
        let mut able =
            self.silent.ranges.recent.iter().filter(|r| r.ev >= since && self.may_hit(entry, r.start, r.end));
        let (Some(r), None) = (able.next().copied(), able.next()) else { return };
        if r.ev == since {
            self.silent.ranges.open.retain(|o| o.ev != r.ev);
            let vm = self.store.tables[p.table].vm;
            if let Some(places) = self.silent.places.get_mut(&vm) {
                places.lies_in(p.gfn, r.start, r.end);
            }
        }
    }
}
