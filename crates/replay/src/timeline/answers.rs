//! What a finished replay answers of itself: its times, VMs, faults, counts and pictures. Entries, memory, stories and the like have files of
//! their own.

use super::Timeline;
use std::borrow::Cow;

use mmuscope_spte::Decoded;
use mmuscope_trace::{Class, Event, Kind};
use rayon::prelude::*;

use crate::attribution::Attribution;
use crate::axis::GfnAxis;
use crate::counts::Of;
use crate::faults::state::Packed;
use crate::infer::LayoutInfo;
use crate::keys::{EntryIx, SpanIx, key_of};
use crate::kinds::{kind_by_name, kind_of, kinds, of_class};
use crate::map::{self, Scene};
use crate::model::{
    Bin, Counts, Coverage, Entry, EventIx, Evidence, Fault, FaultId, LostSpan, MapImage, MapQuery, MemSlot,
    MmioRange, MmuKind, Outcome, Phase, SeriesKind, Shade, SlotAt, Span, Unrecorded, Vm, VmId, pages_of,
};
use crate::pyramid::{Layer, live_before};
use crate::store::Store;

impl Timeline {
    /// Where MMIO accesses and faults went.
    pub fn mmio_ranges(&self) -> &[MmioRange] {
        &self.mmio
    }

    /// Some event of the trace shows MMIO accesses, so that their number is known.
    pub fn mmio_accesses_traced(&self) -> bool {
        of_class(Class::MmioAccess).any(|k| self.kind_total(k) > 0)
    }

    pub(crate) fn store(&self) -> &Store {
        &self.engine.store
    }

    /// First and last event time.
    pub fn range(&self) -> (u64, u64) {
        (self.engine.clock.first().unwrap_or(0), self.engine.clock.last())
    }

    /// Number of events replayed, with notes of losses, damage and tasks.
    pub fn events(&self) -> usize {
        self.engine.clock.events() as usize
    }

    /// What an event of the trace counts as. A kprobe on the function that changes SPTEs of the TDP MMU counts as `kvm_tdp_mmu_spte_changed` where
    /// the trace has no such event (5.10). All other events are what they are.
    pub fn counts_as(&self, event: EventIx, e: Event) -> Event {
        self.engine.probed.counts_as(event, e)
    }

    /// Time of an event.
    pub fn event_ts(&self, ev: EventIx) -> Option<u64> {
        ((ev as usize) < self.store().ev_ts.len()).then(|| self.store().ev_ts.get(ev as usize))
    }

    /// The layout of a VM's entries, with where each part comes from.
    pub fn layout(&self, _vm: VmId) -> &LayoutInfo {
        &self.layout
    }

    /// The VMs.
    pub fn vms(&self) -> &[Vm] {
        &self.vms
    }

    /// Events at the end of the trace that were not replayed, because there are more than can be numbered: everything known is stale from
    /// the first of them on, and it is among the [losses](Self::lost).
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Whether the trace is a snapshot of KVM's own memory, without any event: it shows one moment.
    pub fn is_picture(&self) -> bool {
        self.engine.recorded.no_events() && !self.engine.snapshots.done.is_empty()
    }

    /// The events that what is said rests on, and that were not, or may not have been, recorded. A snapshot alone rests on none.
    pub fn unrecorded(&self) -> Vec<Unrecorded> {
        if self.is_picture() {
            return Vec::new();
        }
        let mmus: Vec<MmuKind> = self.vms.iter().map(|v| v.kind).collect();
        self.engine.recorded.missing(&mmus, &self.engine.traces)
    }

    /// Whether all events of a name are in the trace; `None` for an event that the replay does not use.
    pub fn coverage(&self, event: &str) -> Option<Coverage> {
        self.engine.recorded.by_name(event)
    }

    /// Phases marked through trace_marker.
    pub fn phases(&self) -> &[Phase] {
        &self.phases
    }

    /// The phases to show beside one VM, none of which overlap: what its own process marked, or where it marked nothing, what others did.
    pub fn phases_of(&self, vm: VmId) -> Vec<&Phase> {
        let of = |vm: Option<VmId>| self.phases.iter().filter(|p| p.vm == vm).collect::<Vec<_>>();
        if self.vms.len() < 2 {
            return self.phases.iter().collect();
        }
        let own = of(Some(vm));
        if own.is_empty() { of(None) } else { own }
    }

    /// Where events were lost.
    pub fn lost(&self) -> &[LostSpan] {
        self.engine.noted.lost()
    }

    /// Entries per shade and level at a moment, of all VMs.
    pub fn counts_at(&self, t: u64) -> Counts {
        self.counts.at(self.store(), Of::All, t)
    }

    /// Entries per shade and level, and frames, at a moment in one address space.
    pub fn counts_of(&self, vm: VmId, as_id: u8, t: u64) -> Counts {
        self.counts.at(self.store(), Of::Space(vm, as_id), t)
    }

    /// [`counts_of`](Self::counts_of) at the ends of `n` equal buckets.
    pub fn counts_over_of(&self, vm: VmId, as_id: u8, t0: u64, t1: u64, n: usize) -> Vec<Counts> {
        self.counts.over(self.store(), Of::Space(vm, as_id), t0, t1, n)
    }

    /// The first moment at which most guest memory was present in an address space, and how many bytes; `None` if there never was any.
    pub fn peak(&self, vm: VmId, as_id: u8) -> Option<(u64, u64)> {
        self.counts.peak(vm, as_id).map(|(t, frames)| (t, frames.saturating_mul(4096)))
    }

    /// Address spaces of a VM that have page tables, in order: 1 is SMM's.
    pub fn address_spaces(&self, vm: VmId) -> Vec<u8> {
        self.lookup.address_spaces(vm)
    }

    /// Entries per shade and level at a moment, of one VM or (`None`) of all.
    pub fn counts_at_in(&self, vm: Option<VmId>, t: u64) -> Counts {
        self.counts.at(self.store(), vm.map_or(Of::All, Of::Vm), t)
    }

    /// [`counts_at`](Self::counts_at) at the ends of `n` equal buckets.
    pub fn counts_over(&self, t0: u64, t1: u64, n: usize) -> Vec<Counts> {
        self.counts.over(self.store(), Of::All, t0, t1, n)
    }

    /// [`counts_at_in`](Self::counts_at_in) at the ends of `n` equal buckets.
    pub fn counts_over_in(&self, vm: Option<VmId>, t0: u64, t1: u64, n: usize) -> Vec<Counts> {
        self.counts.over(self.store(), vm.map_or(Of::All, Of::Vm), t0, t1, n)
    }

    /// What a span's value means.
    pub fn decode(&self, entry: &Entry, span: &Span) -> Option<Decoded> {
        span.spte.map(|v| self.layout.layout.decode(v, entry.level))
    }

    /// The shade of a span.
    pub fn shade(&self, _entry: &Entry, span: &Span) -> Shade {
        span.shade
    }

    /// Number of faults.
    pub fn fault_count(&self) -> usize {
        self.engine.faults.all().len()
    }

    /// One fault.
    ///
    /// # Panics
    /// If the id is not of this timeline.
    pub fn fault(&self, id: FaultId) -> Fault {
        self.unpack(id.0, self.engine.faults.get(id.0))
    }

    /// All faults, in the order of their ends; those that go on where the trace ends come last.
    pub fn faults(&self) -> impl ExactSizeIterator<Item = Fault> + '_ {
        self.engine.faults.all().map(|(i, p)| self.unpack(i, p))
    }

    /// All faults, in the order of the events that they began with.
    pub fn faults_by_event(&self) -> Vec<Fault> {
        let faults = &self.engine.faults;
        let mut order: Vec<(EventIx, u32)> = faults.all().map(|(i, p)| (p.event, i)).collect();
        order.sort_unstable();
        order.into_par_iter().map(|(_, i)| self.unpack(i, faults.get(i))).collect()
    }

    /// The address space of a fault, as far as the entry shows that it installed or changed.
    pub(crate) fn as_id_of(&self, p: &Packed) -> u8 {
        let s = self.store();
        let entry = (p.span != SpanIx::NONE).then(|| s.s_entry[p.span]);
        entry.map_or(0, |e| s.tables[s.table_of(e)].as_id)
    }

    pub(crate) fn unpack(&self, i: u32, p: &Packed) -> Fault {
        let s = self.store();
        let span = (p.span != SpanIx::NONE).then_some(p.span);
        let entry = span.map(|x| s.s_entry[x]);
        let place = entry.map(|e| s.place(e));
        let pfn = span
            .map(|x| s.meta(x))
            .filter(|m| crate::counts::is_leaf(m.shade) && m.has_value)
            .zip(span)
            .and_then(|(_, x)| {
                let level = place.map_or(1, |p| p.level);
                let base = self.layout.layout.decode(s.s_spte[x], level).pfn?;
                Some(base + if p.gfn == u64::MAX { 0 } else { p.gfn & (pages_of(level) - 1) })
            });
        let level_wanted = p.levels & 15;
        let level = p.levels >> 4;
        Fault {
            id: FaultId(i),
            vm: VmId(p.vm),
            vcpu: if p.vcpu == u16::MAX {
                self.engine.vms.attribution.vcpu_of(p.tid)
            } else {
                Some(u32::from(p.vcpu))
            },
            tid: p.tid,
            ts: p.ts,
            exit_ts: p.exit(),
            end_ts: p.end(),
            gpa: (p.flags & Packed::GPA != 0).then_some(p.addr),
            gva: (p.flags & Packed::GVA != 0).then_some(p.addr),
            gfn: (p.gfn != u64::MAX).then_some(p.gfn),
            as_id: self.as_id_of(p),
            access: p.access(),
            error_code: (p.flags & Packed::HAS_CODE != 0).then_some(p.code),
            outcome: match p.outcome {
                Outcome::Retry if !self.installs_traced => Outcome::Untold,
                o => o,
            },
            entry: entry.map(EntryIx::id),
            level_wanted: (level_wanted != 0).then_some(level_wanted),
            level: (level != 0).then_some(level),
            pfn,
            retries: u32::from(p.retries),
            rip: p.rip(),
            mmio: p.flags & Packed::MMIO != 0,
            errno: (p.errno != 0).then_some(i32::from(p.errno)),
            event: p.event,
            last_event: p.last_event,
        }
    }

    /// The folded GFN axes.
    pub fn gfn_axis(&self) -> &GfnAxis {
        &self.axis
    }

    /// The time x GFN picture of a window.
    pub fn map(&self, q: &MapQuery) -> MapImage {
        self.map_within(q, 1.0)
    }

    fn map_within(&self, q: &MapQuery, slack: f64) -> MapImage {
        let live = |layer: Layer, from: u64, to: u64, ev: u32| self.live(layer, from, to, ev);
        let scene = Scene {
            store: self.store(),
            pyramid: &self.pyramid,
            axis: &self.axis,
            live: &live,
            complete: self.complete(q.vm),
        };
        map::draw(&scene, q, slack)
    }

    /// Every memory slot that the trace shows, in the order in which they became known.
    pub fn slots(&self) -> &[MemSlot] {
        self.engine.slots.list()
    }

    /// What the memory slots say of a guest frame at a time.
    pub fn slot_at(&self, vm: VmId, as_id: u8, gfn: u64, ts: u64) -> SlotAt<'_> {
        self.engine.slots.at(vm.0, as_id, gfn, ts)
    }

    /// Whether all memory slots of a VM are known at a time.
    pub fn slots_known(&self, vm: VmId, ts: u64) -> bool {
        self.engine.slots.known(vm.0, ts)
    }

    /// What the snapshots of KVM's own memory showed, in their order.
    pub fn snapshots(&self) -> Vec<crate::model::Snapshot> {
        self.engine.snapshots.finished()
    }

    /// Which VM, vCPU and address space each event belongs to.
    pub fn attribution(&self) -> &Attribution {
        &self.engine.vms.attribution
    }

    /// What a frame holds of which no entry is known: nonpresent, if every table of the VM has been seen, else unknown.
    pub fn unseen(&self, vm: VmId) -> crate::model::Shade {
        if self.complete(vm) { crate::model::Shade::Nonpresent } else { crate::model::Shade::Unknown }
    }

    /// What no event has shown is empty, not unknown.
    pub(crate) fn complete(&self, vm: VmId) -> bool {
        self.engine.vms.whole(vm.0)
    }

    #[cfg(test)]
    pub(crate) fn pyramid(&self) -> &crate::pyramid::Pyramid {
        &self.pyramid
    }

    /// Builds the pyramid anew with other sizes.
    #[cfg(test)]
    pub(crate) fn remake_pyramid(&mut self, sizes: crate::pyramid::Sizes) {
        self.pyramid = crate::pyramid::Pyramid::default();
        self.pyramid.sizes = sizes;
        let dirty = self.engine.store.take_dirty();
        self.pyramid.seal(&self.engine.store, dirty, self.options.threads);
    }

    /// Entries `from..to` of a layer that show something just before an event: their numbers, spans and codes, by number.
    pub(crate) fn live(&self, layer: Layer, from: u64, to: u64, ev: u32) -> Vec<(u64, SpanIx, u8)> {
        let s = self.store();
        let n = s.s_ev.partition_point(|e| *e < ev);
        let mut out = Vec::new();
        let mut at = from;
        while at < to {
            let next = ((at | 511) + 1).min(to);
            let key = key_of(layer.as_id, layer.level, layer.gfn(at));
            for t in self.lookup.tables(layer.vm, key) {
                if s.tables[*t].dead_ev < ev {
                    continue;
                }
                for e in at..next {
                    let slot = s.slot(*t, (e & 511) as u16).filter(|x| s.used(*x));
                    if let Some((span, code)) = slot.and_then(|x| live_before(s, x, ev, n)) {
                        out.push((e, span, code));
                    }
                }
            }
            at = next;
        }
        if self.lookup.any_free() {
            for e in from..to {
                for x in self.lookup.free(layer.gfn(e)) {
                    let p = s.place(*x);
                    let t = &s.tables[p.table];
                    if (t.vm, t.as_id, p.level) == (layer.vm, layer.as_id, layer.level)
                        && let Some((span, code)) = live_before(s, *x, ev, n)
                    {
                        out.push((e, span, code));
                    }
                }
            }
        }
        out.sort_unstable();
        out
    }

    /// Counts of something in `n` equal buckets.
    pub fn series(&self, kind: &SeriesKind, t0: u64, t1: u64, n: usize) -> Vec<Bin> {
        let s = self.store();
        match kind {
            SeriesKind::Events => self.kinds.bins(s, None, t0, t1, n),
            SeriesKind::Event(name) => match kind_by_name(name) {
                Some(k) => self.kinds.bins(s, Some(k), t0, t1, n),
                None => vec![Bin::default(); n.max(1)],
            },
            SeriesKind::Lost => self.kinds.bins(s, Some(Kind::Lost as u8), t0, t1, n),
            SeriesKind::Faults => self.sums.fault_bins(s, &self.engine.faults.open, None, t0, t1, n),
            SeriesKind::FaultsOf(tid) => {
                self.sums.fault_bins(s, &self.engine.faults.open, Some(*tid), t0, t1, n)
            }
            SeriesKind::Changes => self.sums.change_bins(s, false, t0, t1, n),
            SeriesKind::Zaps => self.sums.change_bins(s, true, t0, t1, n),
        }
    }

    /// Whether the trace has any event of a name.
    pub fn has_events(&self, name: &str) -> bool {
        kind_by_name(name).is_some_and(|k| self.kinds.total(self.store(), k) > 0)
    }

    /// Events of each name that occurs, most frequent first.
    pub fn event_counts(&self) -> Vec<(Cow<'static, str>, u64)> {
        let mut v: Vec<_> = kinds()
            .map(|(k, n)| (Cow::Borrowed(n), self.kinds.total(self.store(), k)))
            .filter(|x| x.1 > 0)
            .collect();
        let other = self.kinds.total(self.store(), 0);
        if other > 0 {
            v.push((Cow::Borrowed("other"), other));
        }
        v.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        v
    }

    /// How many of what was replayed are events ([`Body::is_event`](mmuscope_trace::Body::is_event)).
    pub fn event_count(&self) -> u64 {
        self.events() as u64 - of_class(Class::Note).map(|k| self.kind_total(k)).sum::<u64>()
    }

    pub(crate) fn kind_total(&self, kind: u8) -> u64 {
        self.kinds.total(self.store(), kind)
    }

    /// What does not fit, in the order of events.
    pub fn evidence(&self) -> &[Evidence] {
        &self.evidence
    }

    /// Number of an event's kind, for callers that index events by kind.
    pub fn kind_index(body: &mmuscope_trace::Body) -> u8 {
        kind_of(body)
    }

    /// Bytes of memory that the pyramid of [`Timeline::map`] takes.
    pub fn map_bytes(&self) -> usize {
        self.pyramid.heap()
    }

    /// Bytes of memory the replay takes, the trace's own event store not included.
    pub fn heap_bytes(&self) -> usize {
        self.store().heap()
            + self.counts.heap()
            + self.kinds.heap()
            + self.sums.heap()
            + self.pyramid.heap()
            + self.engine.faults.done.capacity() * size_of::<Packed>()
            + self.lookup.bytes()
            + self.evidence.capacity() * size_of::<Evidence>() * 2
    }
}
