//! The finished replay and the questions it answers.

use std::borrow::Cow;
use std::sync::Arc;

use mmuscope_spte::Decoded;
use mmuscope_trace::{Progress, Trace};
use rustc_hash::FxHashMap;

use crate::ahead::AHEAD;
use crate::axis::GfnAxis;
use crate::counts::CountIndex;
use crate::engine::{Engine, Key, index_of, key_of};
use crate::faults::Packed;
use crate::infer::{LayoutInfo, LayoutOverride, infer};
use crate::map::{self, Scene};
use crate::model::{
    Bin, Counts, Entry, EntryId, EventIx, Evidence, Fault, FaultId, LostSpan, MapImage, MapQuery, MmioRange,
    Outcome, Phase, SeriesKind, Shade, Span, SpanFilter, SpanId, Table, TableId, TopPage, Vm, VmId, pages_of,
};
use crate::pyramid::{Layer, Pyramid, live_before};
use crate::series::{INSTALLS, KindSums, Sums, is_zap, kind_by_name, kind_of};
use crate::store::Store;

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
    phases: Vec<Phase>,
    counts: CountIndex,
    kinds: KindSums,
    /// Some event shows what faults install, so that nothing shown means that nothing was done.
    installs_told: bool,
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
    mmio: Vec<MmioRange>,
    mmio_seen: FxHashMap<(u16, u64), MmioRange>,
    evidence: Vec<Evidence>,
}

/// Replays a trace.
pub fn replay(trace: &Trace, opts: &ReplayOptions) -> Timeline {
    let layout = infer(trace, &opts.layout);
    let mut engine = Engine::new(layout.layout, trace);
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
        mmio_seen: FxHashMap::default(),
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
        let again = infer(trace, &self.options.layout);
        // The first events of a capture may not tell the layout; once they do, everything is read again under it.
        if again.layout != self.layout.layout
            || again.mmio_sure != self.layout.mmio_sure
            || trace.events.len() < self.engine.next_ev as usize
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
        let end = trace.events.len().min(u32::MAX as usize - 2).min(from.saturating_add(self.most));
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
                    self.note_mmio(e);
                    self.engine.step(e);
                }
            }
            at = b * mmuscope_trace::BLOCK + block.len();
        }
    }

    fn run(&mut self, trace: &Trace) {
        self.feed(trace);
        self.seal(trace);
    }

    fn note_mmio(&mut self, e: &mmuscope_trace::Event) {
        use mmuscope_trace::Body;
        let (gfn, access, install, generation) = match e.body {
            Body::Mmio { gpa, .. } | Body::FastMmio { gpa } => (gpa >> 12, 1, 0, None),
            Body::HandleMmioPageFault { gfn, .. } => (gfn, 1, 0, None),
            Body::MarkMmioSpte { gfn, generation, .. } => (gfn, 0, 1, Some(generation)),
            _ => return,
        };
        let vm = e.tid.and_then(|t| self.engine.vms.of_tid(t)).unwrap_or(0);
        let r = self.mmio_seen.entry((vm, gfn)).or_insert(MmioRange {
            vm: VmId(vm),
            gfn_start: gfn,
            gfn_end: gfn.saturating_add(1),
            accesses: 0,
            installs: 0,
            first: e.ts,
            last: e.ts,
            generations: None,
        });
        r.accesses += access;
        r.installs += install;
        r.last = e.ts;
        if let Some(g) = generation {
            r.generations = Some(r.generations.map_or((g, g), |(a, b)| (a.min(g), b.max(g))));
        }
    }

    /// Makes what the questions need.
    fn seal(&mut self, trace: &Trace) {
        self.engine.store.seal();
        let engine = &mut self.engine;
        engine.faults.note_open(&engine.threads);
        let moved = self.pyramid.moved(&self.engine.store);
        self.pyramid.seal(&mut self.engine.store, self.options.threads);
        let store = &self.engine.store;
        if moved {
            self.counts = CountIndex::default();
        }
        self.counts.seal(store);
        self.kinds.seal(store);
        self.sums.seal(store, &self.engine.faults.done);
        self.installs_told = INSTALLS.iter().any(|k| self.kinds.total(store, *k) > 0);
        self.vms = self.engine.vms.finish(trace);
        let end = self.engine.last_ts;
        self.phases = self
            .engine
            .markers
            .iter()
            .enumerate()
            .map(|(i, (ev, ts, text))| Phase {
                text: trace.strings.get(*text).trim_end().to_owned(),
                start: *ts,
                end: self.engine.markers.get(i + 1).map_or(end, |n| n.1),
                event: *ev,
            })
            .collect();
        for (i, t) in store.tables.iter().enumerate().skip(self.indexed_tables) {
            let key = key_of(t.as_id, t.level, t.gfn);
            self.tables_by_key.entry((t.vm, key)).or_default().push(i as u32);
            if !self.spaces.contains(&(t.vm, t.as_id)) {
                self.spaces.push((t.vm, t.as_id));
            }
        }
        self.indexed_tables = store.tables.len();
        for e in 0..store.slots() {
            if e >= self.indexed_slots
                && !store.chunk_is_regular(e as usize / crate::store::CHUNK)
                && store.used(e)
            {
                let p = store.place(e);
                let v = self.free_by_gfn.entry(p.gfn / pages_of(p.level) * pages_of(p.level)).or_default();
                if !v.contains(&e) {
                    v.push(e);
                }
            }
        }
        // The last chunk of a shadow page may still fill up.
        self.indexed_slots = store.slots().saturating_sub(crate::store::CHUNK as u32 * 64);
        self.mmio = merge_mmio(&self.mmio_seen);
        self.axis = GfnAxis::build(store, &[]);
        self.evidence.clone_from(&self.engine.evidence);
        for g in self.engine.gaps.iter() {
            self.evidence.push(crate::engine::gap_evidence(g, self.engine.loss_seen));
        }
        for r in &self.engine.rereads {
            self.evidence.push(crate::engine::reread_evidence(r, self.engine.loss_seen));
        }
        self.find_stuck();
        self.evidence.sort_by_key(|e| e.event);
    }

    /// Entries that stay removed while faults on them keep coming to nothing.
    ///
    /// Kernels up to 6.9 do not trace the release of a frozen entry, so that one stays is no sign of anything. Faults of two or more
    /// threads that go on for longer than any flush takes, and nothing that shows the entry in another state, are.
    fn find_stuck(&mut self) {
        const LONG: u64 = 20_000_000;
        struct Tail {
            first: u64,
            last: u64,
            tids: Vec<u32>,
            count: u32,
            open: bool,
        }
        let s = &self.engine.store;
        let mut tails: FxHashMap<(u16, u64), Tail> = FxHashMap::default();
        for f in self.engine.faults.done.iter().rev().filter(|f| f.gfn != u64::MAX && f.levels & 15 != 0) {
            let t = tails.entry((f.vm, f.gfn)).or_insert(Tail {
                first: f.ts,
                last: f.ts,
                tids: Vec::new(),
                count: 0,
                open: true,
            });
            if !t.open {
                continue;
            }
            if f.outcome != crate::model::Outcome::Retry {
                t.open = false;
                continue;
            }
            t.first = f.ts;
            t.count += 1;
            if t.tids.len() < 8 && !t.tids.contains(&f.tid) {
                t.tids.push(f.tid);
            }
        }
        let mut found = Vec::new();
        for ((vm, gfn), t) in &tails {
            if t.count < 4 || t.tids.len() < 2 || t.last - t.first < LONG {
                continue;
            }
            for as_id in 0..=1u8 {
                for id in self.entries_at(VmId(*vm), as_id, *gfn) {
                    // The last thing that an event stated, assumptions about its release apart.
                    let mut stated = None;
                    let mut x = s.first_span(id.0);
                    while let Some(i) = x {
                        if s.meta(i).certainty == crate::model::Certainty::Exact {
                            stated = Some(i);
                        }
                        x = s.next_span(i);
                    }
                    let Some(i) = stated else { continue };
                    let p = s.place(id.0);
                    let attached = s.tables[p.table as usize].attached();
                    if attached
                        && s.meta(i).shade == Shade::Removed
                        && t.last.saturating_sub(s.start(i)) >= LONG
                    {
                        found.push(Evidence {
                            kind: crate::model::EvidenceKind::StuckRemoved,
                            ts: s.start(i),
                            event: s.s_ev[i as usize],
                            vm: VmId(*vm),
                            entry: Some(id),
                            as_id,
                            level: p.level,
                            gfn: p.gfn,
                            expected: None,
                            found: Some(s.s_spte[i as usize]),
                            after_loss: self.engine.loss_seen,
                        });
                    }
                }
            }
        }
        found.sort_by_key(|e| e.event);
        self.evidence.extend(found);
    }

    pub(crate) fn store(&self) -> &Store {
        &self.engine.store
    }

    /// First and last event time.
    pub fn range(&self) -> (u64, u64) {
        (self.engine.first_ts.unwrap_or(0), self.engine.last_ts)
    }

    /// Number of events replayed.
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

    /// Phases marked through trace_marker.
    pub fn phases(&self) -> &[Phase] {
        &self.phases
    }

    /// Where events were lost.
    pub fn lost(&self) -> &[LostSpan] {
        &self.engine.lost
    }

    /// All entries that any event showed.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        (0..self.store().slots()).filter(|e| self.store().used(*e)).map(|e| self.store().entry(e))
    }

    /// One entry.
    ///
    /// # Panics
    /// If the id is not of this timeline.
    pub fn entry(&self, id: EntryId) -> Entry {
        self.store().entry(id.0)
    }

    /// All tables, dead ones included.
    pub fn tables(&self) -> impl Iterator<Item = Table> + '_ {
        (0..self.store().tables.len() as u32).map(|t| self.store().table(t))
    }

    /// One table.
    ///
    /// # Panics
    /// If the id is not of this timeline.
    pub fn table(&self, id: TableId) -> Table {
        self.store().table(id.0)
    }

    /// Every entry that covers a frame: all levels, all tables, highest level first.
    pub fn entries_at(&self, vm: VmId, as_id: u8, gfn: u64) -> Vec<EntryId> {
        let s = self.store();
        let mut out = Vec::new();
        for level in (1..=6u8).rev() {
            let key = key_of(as_id, level, gfn);
            for t in self.tables_by_key.get(&(vm.0, key)).into_iter().flatten() {
                if let Some(e) = s.slot(*t, index_of(level, gfn)).filter(|e| s.used(*e)) {
                    out.push(EntryId(e));
                }
            }
            if level <= 3 {
                let base = gfn / pages_of(level) * pages_of(level);
                for e in self.free_by_gfn.get(&base).into_iter().flatten() {
                    let p = s.place(*e);
                    let t = &s.tables[p.table as usize];
                    if p.level == level && t.vm == vm.0 && t.as_id == as_id {
                        out.push(EntryId(*e));
                    }
                }
            }
        }
        out
    }

    /// Spans of an entry in time order; the first may be the implied one before its first event.
    pub fn spans(&self, entry: EntryId) -> impl Iterator<Item = Span> + '_ {
        let s = self.store();
        let origin = self.range().0;
        let mut next = s.first_span(entry.0);
        s.leading(entry.0, origin).into_iter().chain(std::iter::from_fn(move || {
            let x = next?;
            next = s.next_span(x);
            Some(s.span(x))
        }))
    }

    /// One span.
    ///
    /// # Panics
    /// If the id is not of this timeline.
    pub fn span(&self, id: SpanId) -> Span {
        self.store().span(id.0)
    }

    /// Number of recorded spans.
    pub fn span_count(&self) -> usize {
        self.store().spans_len()
    }

    /// The span of an entry at a moment; `None` before its table was linked and after it was unlinked.
    pub fn span_at(&self, entry: EntryId, t: u64) -> Option<Span> {
        let s = self.store();
        let (p, _) = s.moment(t);
        match s.span_before(entry.0, p) {
            Some(x) => Some(s.span(x)).filter(|x| x.covers(t)),
            None => s.leading(entry.0, self.range().0).filter(|x| x.covers(t)),
        }
    }

    /// First change of an entry after a moment.
    pub fn next_change(&self, entry: EntryId, t: u64) -> Option<Span> {
        let s = self.store();
        let (p, _) = s.moment(t);
        let next = match s.span_before(entry.0, p) {
            Some(x) => s.next_span(x),
            None => s.first_span(entry.0),
        };
        next.map(|x| s.span(x))
    }

    /// Last change of an entry before a moment.
    pub fn prev_change(&self, entry: EntryId, t: u64) -> Option<Span> {
        let s = self.store();
        let (p, _) = s.moment(t.checked_sub(1)?);
        s.span_before(entry.0, p).map(|x| s.span(x))
    }

    /// Recorded spans that match, in the order of their opening. For a few frames, time is in proportion to the answer.
    pub fn all_spans(&self, f: &SpanFilter) -> impl Iterator<Item = Span> + '_ {
        let s = self.store();
        let f = f.clone();
        let end = f.time.map_or(s.spans_len(), |(_, t1)| s.moment(t1).0) as u32;
        let few = f.gfns.and_then(|g| self.entries_between(f.vm, f.as_id, f.level, g)).map(|entries| {
            let mut ids = Vec::new();
            for e in entries {
                let mut next = s.first_span(e);
                while let Some(x) = next.filter(|x| *x < end) {
                    ids.push(x);
                    next = s.next_span(x);
                }
            }
            ids.sort_unstable();
            ids
        });
        let all = if few.is_some() { 0..0 } else { 0..end };
        few.into_iter().flatten().chain(all).filter_map(move |i| {
            if !self.matches(s.s_entry[i as usize], f.vm, f.as_id, f.level, f.gfns) {
                return None;
            }
            let span = s.span(i);
            match f.time {
                Some((t0, _)) if span.end.is_some_and(|e| e <= t0) => None,
                _ => Some(span),
            }
        })
    }

    /// Entries per shade and level at a moment, of all VMs.
    pub fn counts_at(&self, t: u64) -> Counts {
        self.counts_at_in(None, t)
    }

    /// Entries per shade and level at a moment, of one VM or (`None`) of all.
    pub fn counts_at_in(&self, vm: Option<VmId>, t: u64) -> Counts {
        self.counts.at(self.store(), vm, t)
    }

    /// [`counts_at`](Self::counts_at) at the ends of `n` equal buckets.
    pub fn counts_over(&self, t0: u64, t1: u64, n: usize) -> Vec<Counts> {
        self.counts_over_in(None, t0, t1, n)
    }

    /// [`counts_at_in`](Self::counts_at_in) at the ends of `n` equal buckets.
    pub fn counts_over_in(&self, vm: Option<VmId>, t0: u64, t1: u64, n: usize) -> Vec<Counts> {
        self.counts.over(self.store(), vm, t0, t1, n)
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

    fn unpack(&self, i: u32, p: &Packed) -> Fault {
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
            as_id: place.map_or(0, |x| s.tables[x.table as usize].as_id),
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
        self.pyramid.seal(&mut self.engine.store, self.options.threads);
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

    /// Events of each name that occurs, most frequent first.
    pub fn event_counts(&self) -> Vec<(Cow<'static, str>, u64)> {
        let mut v: Vec<_> = crate::series::KINDS
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

    /// Frames with the most faults.
    pub fn top_faults(&self, n: usize) -> Vec<TopPage> {
        let mut m: FxHashMap<(u16, u64), TopPage> = FxHashMap::default();
        for (_, f) in self.engine.faults.all() {
            if f.gfn == u64::MAX {
                continue;
            }
            let p = m.entry((f.vm, f.gfn)).or_insert(TopPage {
                vm: VmId(f.vm),
                as_id: 0,
                gfn: f.gfn,
                level: 1,
                count: 0,
                first: f.ts,
                last: f.ts,
            });
            p.count += 1;
            p.first = p.first.min(f.ts);
            p.last = p.last.max(f.ts);
        }
        top(m.into_values().collect(), n)
    }

    /// Entries zapped most often.
    pub fn top_zaps(&self, n: usize) -> Vec<TopPage> {
        let s = self.store();
        let mut m: FxHashMap<(u16, u8, u8, u64), TopPage> = FxHashMap::default();
        for i in 0..s.spans_len() {
            let meta = s.meta(i as u32);
            if !is_zap(meta.prev, meta.shade) {
                continue;
            }
            let p = s.place(s.s_entry[i]);
            let t = &s.tables[p.table as usize];
            let ts = s.start(i as u32);
            let x = m.entry((t.vm, t.as_id, p.level, p.gfn)).or_insert(TopPage {
                vm: VmId(t.vm),
                as_id: t.as_id,
                gfn: p.gfn,
                level: p.level,
                count: 0,
                first: ts,
                last: ts,
            });
            x.count += 1;
            x.last = ts;
        }
        top(m.into_values().collect(), n)
    }

    /// Where MMIO accesses went.
    pub fn mmio_ranges(&self) -> &[MmioRange] {
        &self.mmio
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

fn top(mut v: Vec<TopPage>, n: usize) -> Vec<TopPage> {
    v.sort_by(|a, b| {
        b.count.cmp(&a.count).then(a.vm.cmp(&b.vm)).then(a.gfn.cmp(&b.gfn)).then(a.level.cmp(&b.level))
    });
    v.truncate(n);
    v
}

/// Neighbouring pages that are used alike are one device's.
fn alike(a: &MmioRange, b: &MmioRange) -> bool {
    // I/O APIC, HPET and local APIC, where every PC has them: their neighbours are other devices.
    const FIXED: [u64; 3] = [0xfec00, 0xfed00, 0xfee00];
    if FIXED.iter().any(|f| b.gfn_start == *f || a.gfn_end == f + 1) {
        return false;
    }
    let n = a.gfn_end - a.gfn_start;
    let per_page = a.accesses / n;
    let close = per_page.max(b.accesses) <= per_page.min(b.accesses).saturating_mul(4).max(4);
    close && (a.installs == 0) == (b.installs == 0)
}

fn merge_mmio(seen: &FxHashMap<(u16, u64), MmioRange>) -> Vec<MmioRange> {
    let mut v: Vec<MmioRange> = seen.values().copied().collect();
    v.sort_by_key(|r| (r.vm, r.gfn_start));
    let mut out: Vec<MmioRange> = Vec::new();
    for r in v {
        match out.last_mut() {
            Some(l) if l.vm == r.vm && l.gfn_end >= r.gfn_start && alike(l, &r) => {
                l.gfn_end = l.gfn_end.max(r.gfn_end);
                l.accesses += r.accesses;
                l.installs += r.installs;
                l.first = l.first.min(r.first);
                l.last = l.last.max(r.last);
                l.generations = match (l.generations, r.generations) {
                    (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
                    (a, b) => a.or(b),
                };
            }
            _ => out.push(r),
        }
    }
    out
}
