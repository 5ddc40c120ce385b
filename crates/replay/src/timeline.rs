//! The finished replay and the questions it answers.

use std::borrow::Cow;
use std::sync::Arc;

use mmuscope_spte::{Decoded, Mode};
use mmuscope_trace::{Body, Progress, Trace};
use rustc_hash::FxHashMap;

use crate::ahead::AHEAD;
use crate::axis::GfnAxis;
use crate::counts::{CountIndex, Of};
use crate::ends::phases;
use crate::engine::Engine;
use crate::faults::state::Packed;
use crate::infer::{LayoutInfo, LayoutOverride, infer, infer_again};
use crate::keys::{Key, key_of};
use crate::kinds::{INSTALLS, MMIO_ACCESSES, NOTES, kind_by_name, kind_of};
use crate::map::{self, Scene};
use crate::mmio::MmioSeen;
use crate::model::{
    Bin, Counts, Coverage, Entry, EntryId, EventIx, Evidence, Fault, FaultId, LostSpan, MapImage, MapQuery,
    MmioRange, MmuKind, Outcome, Phase, SeriesKind, Shade, Span, State, Unrecorded, Vm, VmId, pages_of,
};
use crate::pyramid::{Layer, Pyramid, live_before};
use crate::recorded::Recorded;
use crate::series::{KindSums, Sums};
use crate::store::Store;

/// Events that can be numbered.
#[cfg(not(test))]
const MOST_EVENTS: usize = u32::MAX as usize - 2;
/// Few enough for a test to have more; and more than any other test replays.
#[cfg(test)]
const MOST_EVENTS: usize = 1 << 20;

/// How to replay.
#[derive(Clone, Debug, Default)]
pub struct ReplayOptions {
    /// What is known of the layout; the rest is inferred.
    pub layout: LayoutOverride,
    /// Threads to use; 0 means all.
    pub threads: usize,
    /// Told how far the replay is; may cancel it (what was replayed until then is the result).
    pub progress: Option<Arc<Progress>>,
}

/// Page tables over time.
#[derive(Clone, Debug)]
pub struct Timeline {
    pub(crate) engine: Engine,
    layout: LayoutInfo,
    options: ReplayOptions,
    vms: Vec<Vm>,
    pub(crate) phases: Vec<Phase>,
    counts: CountIndex,
    kinds: KindSums,
    /// Some event shows what faults install, so that nothing shown means that nothing was done.
    installs_told: bool,
    left_out: u64,
    sums: Sums,
    axis: GfnAxis,
    pyramid: Pyramid,
    /// Tables by VM and key, dead ones included.
    pub(crate) tables_by_key: FxHashMap<(u16, Key), Vec<u32>>,
    indexed_tables: usize,
    /// VMs and address spaces that have tables.
    pub(crate) spaces: Vec<(u16, u8)>,
    /// Most events to take in at a time.
    most: usize,
    /// Entries of shadow pages by frame.
    pub(crate) free_by_gfn: FxHashMap<u64, Vec<u32>>,
    indexed_slots: u32,
    pub(crate) mmio: Vec<MmioRange>,
    pub(crate) mmio_seen: MmioSeen,
    pub(crate) evidence: Vec<Evidence>,
}

/// Replays a trace.
pub fn replay(trace: &Trace, opts: &ReplayOptions) -> Timeline {
    let layout = infer(trace, &opts.layout);
    let mut engine = Engine::new(layout.layout, layout.resolved.traces, trace);
    engine.mmio_sure = layout.mmio_sure;
    let mut t = Timeline {
        engine,
        layout,
        options: opts.clone(),
        vms: Vec::new(),
        phases: Vec::new(),
        counts: CountIndex::default(),
        kinds: KindSums::default(),
        installs_told: false,
        left_out: 0,
        sums: Sums::default(),
        axis: GfnAxis::default(),
        pyramid: Pyramid::default(),
        tables_by_key: FxHashMap::default(),
        indexed_tables: 0,
        spaces: Vec::new(),
        most: usize::MAX,
        free_by_gfn: FxHashMap::default(),
        indexed_slots: 0,
        mmio: Vec::new(),
        mmio_seen: MmioSeen::default(),
        evidence: Vec::new(),
    };
    t.run(trace);
    t.shrink();
    t
}

impl Timeline {
    /// Takes in what was appended to the trace since.
    pub fn extend(&mut self, trace: &Trace) {
        let vms = self.engine.vms.anew(trace);
        if !self.engine.vms.agrees(&vms) {
            *self = replay(trace, &self.options.clone());
            return;
        }
        self.go_on(trace);
    }

    /// [`extend`](Self::extend) by about `most` events at most, so that who waits for the result does not wait long. Gives whether there is
    /// more.
    pub fn extend_some(&mut self, trace: &Trace, most: usize) -> bool {
        self.most = most;
        self.extend(trace);
        self.most = usize::MAX;
        self.events() < trace.events.len()
    }

    /// [`extend`](Self::extend) by the whole trace, so that the result is what [`replay`] gives.
    pub(crate) fn complete_with(mut self, trace: &Trace) -> Self {
        let vms = self.engine.vms.anew(trace);
        if !self.engine.vms.agrees(&vms) || !self.engine.vms.suffices(&vms) {
            return replay(trace, &self.options);
        }
        self.go_on(trace);
        self.shrink();
        self
    }

    fn go_on(&mut self, trace: &Trace) {
        let again = infer_again(trace, &self.options.layout, &self.layout);
        // The first events of a capture may not tell the layout; once they do, everything is read again under it.
        if again.layout != self.layout.layout
            || again.mmio_sure != self.layout.mmio_sure
            || trace.events.len() < self.engine.next_ev as usize
            || !self.engine.recorded.declares(&Recorded::of(trace))
        {
            *self = replay(trace, &self.options.clone());
            return;
        }
        self.layout = again;
        self.engine.vms.update(trace);
        self.run(trace);
    }

    /// Gives back what growing took in reserve.
    fn shrink(&mut self) {
        self.engine.store.shrink();
        self.engine.faults.done.shrink_to_fit();
        self.sums.shrink();
    }

    /// Replays what was appended without making it part of any answer yet: [`extend`](Self::extend) does.
    pub(crate) fn feed(&mut self, trace: &Trace) {
        let from = self.engine.next_ev as usize;
        let end = trace.events.len().min(MOST_EVENTS).min(from.saturating_add(self.most));
        let progress = self.options.progress.clone();
        let mut block = Vec::new();
        let mut at = from;
        while at < end {
            if progress.as_ref().is_some_and(|p| p.cancelled.load(std::sync::atomic::Ordering::Relaxed)) {
                break;
            }
            let b = at / mmuscope_trace::BLOCK;
            trace.events.block(b, &mut block);
            let skip = at % mmuscope_trace::BLOCK;
            if block.len() <= skip {
                break;
            }
            for few in block[skip..].chunks(AHEAD) {
                self.engine.look_ahead(few);
                for e in few {
                    self.engine.step(e);
                    if matches!(e.body, Body::Mmio { .. } | Body::FastMmio { .. } | Body::MarkMmioSpte { .. })
                    {
                        // The vCPU's thread, or one that synchronises its shadow pages.
                        let vm = e.tid.and_then(|t| self.engine.vms.of_tid(t)).unwrap_or(0);
                        self.mmio_seen.note(vm, self.engine.last_ts, e);
                    }
                }
            }
            at = b * mmuscope_trace::BLOCK + block.len();
        }
        let beyond = trace.events.len().saturating_sub(MOST_EVENTS) as u64;
        if self.left_out == 0 && beyond > 0 && at >= MOST_EVENTS {
            self.engine.leave_out(beyond, trace.info.last_ts);
        }
        self.left_out = beyond;
    }

    fn run(&mut self, trace: &Trace) {
        self.feed(trace);
        self.seal(trace);
    }

    /// Makes what the questions need.
    fn seal(&mut self, trace: &Trace) {
        self.engine.store.seal();
        let engine = &mut self.engine;
        engine.faults.note_open(&engine.threads);
        let moved = self.pyramid.moved(&self.engine.store);
        let dirty = self.engine.store.take_dirty();
        let store = &self.engine.store;
        if moved {
            self.counts = CountIndex::default();
            self.sums.forget_zaps();
        }
        let (pyramid, threads) = (&mut self.pyramid, self.options.threads);
        let (counts, kinds, sums, faults) =
            (&mut self.counts, &mut self.kinds, &mut self.sums, &self.engine.faults.done);
        let mut count = || {
            counts.seal(store, dirty);
            kinds.seal(store);
            sums.seal(store, faults);
        };
        if threads == 1 {
            pyramid.seal(store, dirty, threads);
            count();
        } else {
            rayon::join(|| pyramid.seal(store, dirty, threads), count);
        }
        self.installs_told = INSTALLS.iter().any(|k| self.kinds.total(store, *k) > 0);
        let end = self.engine.last_ts;
        let engine = &self.engine;
        // What shadow pages mapped may have gone without an event; that the pages are gone is traced.
        let empty = |vm: u16| {
            let c = self.counts.at(&engine.store, Of::Vm(VmId(vm)), end);
            let left = [State::Present, State::Mmio, State::Table].iter().any(|s| c.state(*s) > 0);
            !(engine.vms.is_tdp(vm) && left) && engine.no_shadow_pages(vm)
        };
        self.vms = engine.vms.finish(trace, empty);
        // Pages that are made for a guest without paging, or beside huge pages of its own, are direct under shadow paging too.
        let shadow = matches!(self.layout.layout.mode, Mode::Shadow64 | Mode::ShadowPae | Mode::Pvm);
        for vm in self.vms.iter_mut().filter(|_| shadow) {
            if matches!(vm.kind, MmuKind::Direct | MmuKind::Unknown) {
                vm.kind = MmuKind::Shadow;
            }
        }
        self.phases = phases(trace, &engine.markers, end);
        // A phase of a VM does not outlast it.
        for p in &mut self.phases {
            let of = |v: &&Vm| Some(v.id) == p.vm;
            if let Some(e) = self.vms.iter().find(of).and_then(|v| v.ended.as_ref()) {
                p.end = p.end.min(e.end.max(p.start));
            }
        }
        for (i, t) in store.tables.iter().enumerate().skip(self.indexed_tables) {
            let key = key_of(t.as_id, t.level, t.gfn);
            self.tables_by_key.entry((t.vm, key)).or_default().push(i as u32);
            if !self.spaces.contains(&(t.vm, t.as_id)) {
                self.spaces.push((t.vm, t.as_id));
            }
        }
        self.indexed_tables = store.tables.len();
        for e in self.indexed_slots..store.slots() {
            if !store.chunk_is_regular(e as usize / crate::store::CHUNK) && store.used(e) {
                let p = store.place(e);
                let v = self.free_by_gfn.entry(p.gfn / pages_of(p.level) * pages_of(p.level)).or_default();
                if !v.contains(&e) {
                    v.push(e);
                }
            }
        }
        // The last chunk of a shadow page may still fill up.
        self.indexed_slots = store.slots().saturating_sub(crate::store::CHUNK as u32 * 64);
        let told = self.mmio_accesses_told();
        let faults = &self.engine.faults;
        self.mmio = self.mmio_seen.ranges(&faults.done, &faults.open, told);
        self.axis = GfnAxis::build(store, &[]);
        self.evidence.clone_from(&self.engine.evidence);
        for g in self.engine.gaps.iter() {
            self.evidence.push(crate::gaps::gap_evidence(g, self.engine.loss_seen));
        }
        for r in &self.engine.rereads {
            self.evidence.push(crate::gaps::reread_evidence(r, self.engine.loss_seen));
        }
        self.find_stuck();
        self.evidence.sort_by_key(|e| e.event);
    }

    /// Where MMIO accesses and faults went.
    pub fn mmio_ranges(&self) -> &[MmioRange] {
        &self.mmio
    }

    /// Some event of the trace tells of MMIO accesses, so that their number is known.
    pub fn mmio_accesses_told(&self) -> bool {
        MMIO_ACCESSES.iter().any(|k| self.kind_total(*k) > 0)
    }

    pub(crate) fn store(&self) -> &Store {
        &self.engine.store
    }

    /// First and last event time.
    pub fn range(&self) -> (u64, u64) {
        (self.engine.first_ts.unwrap_or(0), self.engine.last_ts)
    }

    /// Number of events replayed, with notes of losses, damage and tasks.
    pub fn events(&self) -> usize {
        self.engine.next_ev as usize
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

    /// The events that what is said rests on, and that were not, or may not have been, recorded.
    pub fn unrecorded(&self) -> Vec<Unrecorded> {
        let mmus: Vec<MmuKind> = self.vms.iter().map(|v| v.kind).collect();
        self.engine.recorded.missing(&mmus)
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
        &self.engine.lost
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
        let mut out: Vec<u8> = self.spaces.iter().filter(|s| s.0 == vm.0).map(|s| s.1).collect();
        out.sort_unstable();
        out
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

    /// The address space of a fault, as far as the entry tells that it installed or changed.
    pub(crate) fn as_id_of(&self, p: &Packed) -> u8 {
        let s = self.store();
        let entry = (p.span != crate::store::NONE).then(|| s.s_entry[p.span as usize]);
        entry.map_or(0, |e| s.tables[s.table_of(e) as usize].as_id)
    }

    pub(crate) fn unpack(&self, i: u32, p: &Packed) -> Fault {
        let s = self.store();
        let span = (p.span != crate::store::NONE).then_some(p.span);
        let entry = span.map(|x| s.s_entry[x as usize]);
        let place = entry.map(|e| s.place(e));
        let pfn = span
            .map(|x| s.meta(x))
            .filter(|m| crate::counts::is_leaf(m.shade) && m.has_value)
            .zip(span)
            .and_then(|(_, x)| {
                let level = place.map_or(1, |p| p.level);
                let base = self.layout.layout.decode(s.s_spte[x as usize], level).pfn?;
                Some(base + if p.gfn == u64::MAX { 0 } else { p.gfn & (pages_of(level) - 1) })
            });
        let level_wanted = p.levels & 15;
        let level = p.levels >> 4;
        Fault {
            id: FaultId(i),
            vm: VmId(p.vm),
            vcpu: if p.vcpu == u16::MAX {
                self.engine.vms.vcpu_of.get(&p.tid).copied()
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
                Outcome::Retry if !self.installs_told => Outcome::Untold,
                o => o,
            },
            entry: entry.map(EntryId),
            level_wanted: (level_wanted != 0).then_some(level_wanted),
            level: (level != 0).then_some(level),
            pfn,
            retries: u32::from(p.retries),
            rip: (p.flags & Packed::HAS_RIP != 0).then_some(p.rip),
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

    /// What no event has shown is empty, not unknown.
    pub(crate) fn complete(&self, vm: VmId) -> bool {
        self.engine.vms.complete(vm.0)
    }

    #[cfg(test)]
    pub(crate) fn pyramid(&self) -> &Pyramid {
        &self.pyramid
    }

    /// Builds the pyramid anew with other sizes.
    #[cfg(test)]
    pub(crate) fn remake_pyramid(&mut self, sizes: crate::pyramid::Sizes) {
        self.pyramid = Pyramid::default();
        self.pyramid.sizes = sizes;
        let dirty = self.engine.store.take_dirty();
        self.pyramid.seal(&self.engine.store, dirty, self.options.threads);
    }

    /// Entries `from..to` of a layer that show something just before an event: their numbers, spans and codes, by number.
    pub(crate) fn live(&self, layer: Layer, from: u64, to: u64, ev: u32) -> Vec<(u64, u32, u8)> {
        let s = self.store();
        let n = s.s_ev.partition_point(|e| *e < ev) as u32;
        let mut out = Vec::new();
        let mut at = from;
        while at < to {
            let next = ((at | 511) + 1).min(to);
            let key = key_of(layer.as_id, layer.level, layer.gfn(at));
            for t in self.tables_by_key.get(&(layer.vm, key)).into_iter().flatten() {
                if s.tables[*t as usize].dead_ev < ev {
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
        if !self.free_by_gfn.is_empty() {
            for e in from..to {
                for x in self.free_by_gfn.get(&layer.gfn(e)).into_iter().flatten() {
                    let p = s.place(*x);
                    let t = &s.tables[p.table as usize];
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
            SeriesKind::Lost => self.kinds.bins(s, Some(45), t0, t1, n),
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
        let mut v: Vec<_> = crate::kinds::KINDS
            .iter()
            .map(|(k, n)| (Cow::Borrowed(*n), self.kinds.total(self.store(), *k)))
            .filter(|x| x.1 > 0)
            .collect();
        let other = self.kinds.total(self.store(), 0);
        if other > 0 {
            v.push((Cow::Borrowed("other"), other));
        }
        v.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        v
    }

    /// How many of what was replayed are events ([`Body::is_event`]).
    pub fn event_count(&self) -> u64 {
        self.events() as u64 - NOTES.iter().map(|k| self.kind_total(*k)).sum::<u64>()
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
            + self.tables_by_key.capacity() * 48
            + self.free_by_gfn.capacity() * 40
            + self.evidence.capacity() * size_of::<Evidence>() * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_cannot_be_numbered_are_a_loss() {
        let mut trace = crate::fixture::trace(
            "layout C/npt\n1 t1 page 1 0\n+1 t1 fault 2 r\n+1 t1 set 1 2 R77 at 40010\n",
        )
        .expect("lines of the language");
        let last = trace.events.iter().last().expect("events");
        let more = mmuscope_trace::Body::PmlFull { vcpu: 0 };
        for i in 0..MOST_EVENTS as u64 {
            trace.events.push(&mmuscope_trace::Event { ts: last.ts + i, body: more, ..last });
        }
        trace.info.last_ts = last.ts + MOST_EVENTS as u64 - 1;
        let t = replay(&trace, &ReplayOptions::default());
        assert_eq!((t.events(), t.left_out()), (MOST_EVENTS, 3));
        assert_eq!(t.lost().iter().map(|l| l.count).collect::<Vec<_>>(), [Some(3)]);
        let stale = t.state_at(t.range().1, &crate::StateFilter::default());
        assert!(stale.iter().all(|(_, s)| s.certainty == crate::Certainty::Stale), "{stale:?}");
    }
}
