//! [`Timeline`], the finished replay: how it is made, grows with its trace, and is sealed for questions. The answers are in `answers` and in the
//! files that are named after what is asked; none of them changes the timeline.

mod answers;

use std::sync::Arc;

use mmuscope_spte::Mode;
use mmuscope_trace::{Body, Class, Progress, Trace};

use crate::ahead::{AHEAD, look_ahead};
use crate::axis::{Covered, GfnAxis};
use crate::counts::{CountIndex, Of};
use crate::ends::phases;
use crate::engine::Engine;
use crate::in_vain::InVain;
use crate::infer::{Inference, LayoutInfo, LayoutOverride};
use crate::kinds::of_class;
use crate::lookup::Lookup;
use crate::mmio::MmioSeen;
use crate::model::{Evidence, MmioRange, MmuKind, Phase, State, Vm, VmId};
use crate::pyramid::Pyramid;
use crate::recorded::Recorded;
use crate::series::{KindSums, Sums};
use crate::stuck::find_stuck;

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
    /// Is notified how far the replay is; may cancel it (what was replayed until then is the result).
    pub progress: Option<Arc<Progress>>,
}

/// Page tables over time.
#[derive(Clone, Debug)]
pub struct Timeline {
    pub(crate) engine: Engine,
    inference: Inference,
    layout: LayoutInfo,
    options: ReplayOptions,
    vms: Vec<Vm>,
    pub(crate) phases: Vec<Phase>,
    counts: CountIndex,
    kinds: KindSums,
    /// Some event shows what faults install, so that nothing shown means that nothing was done.
    installs_traced: bool,
    left_out: u64,
    sums: Sums,
    covered: Covered,
    axis: GfnAxis,
    pub(crate) in_vain: InVain,
    pyramid: Pyramid,
    pub(crate) lookup: Lookup,
    /// Most events to take in at a time.
    most: usize,
    pub(crate) mmio: Vec<MmioRange>,
    pub(crate) mmio_seen: MmioSeen,
    pub(crate) evidence: Vec<Evidence>,
}

/// Replays a trace.
pub fn replay(trace: &Trace, opts: &ReplayOptions) -> Timeline {
    let t = replay_as(trace, opts, false);
    if t.engine.probed.both() { replay_as(trace, opts, true) } else { t }
}

/// Replays a trace; `changes_traced`: it is known to have changes that the kernel traced itself.
fn replay_as(trace: &Trace, opts: &ReplayOptions, changes_traced: bool) -> Timeline {
    let (inference, layout) = Inference::new(trace, &opts.layout);
    let mut engine = Engine::new(layout.layout, layout.resolved.traces, changes_traced, trace);
    engine.mmio_sure = layout.mmio_sure;
    let mut t = Timeline {
        engine,
        inference,
        layout,
        options: opts.clone(),
        vms: Vec::new(),
        phases: Vec::new(),
        counts: CountIndex::default(),
        kinds: KindSums::default(),
        installs_traced: false,
        left_out: 0,
        sums: Sums::default(),
        covered: Covered::default(),
        axis: GfnAxis::default(),
        in_vain: InVain::default(),
        pyramid: Pyramid::default(),
        lookup: Lookup::default(),
        most: usize::MAX,
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
        let again = self.inference.grown(trace, &self.options.layout);
        let other = again.as_ref().is_some_and(|again| {
            again.layout != self.layout.layout
                || again.resolved.traces != self.layout.resolved.traces
                || again.mmio_sure != self.layout.mmio_sure
        });
        // The first events of a capture may not show the layout, nor what the kernel traces; once they do, everything is read again under it.
        if other
            || trace.events.len() < self.engine.clock.events() as usize
            || !self.engine.recorded.declares(&Recorded::of(trace))
        {
            *self = replay(trace, &self.options.clone());
            return;
        }
        if let Some(again) = again {
            self.layout = again;
        }
        self.engine.vms.update(trace);
        self.run(trace);
        if self.engine.probed.both() {
            *self = replay_as(trace, &self.options.clone(), true);
        }
    }

    /// Gives back what growing took in reserve.
    fn shrink(&mut self) {
        self.engine.store.shrink();
        self.engine.faults.done.shrink_to_fit();
        self.sums.shrink();
    }

    /// Replays what was appended without making it part of any answer yet: [`extend`](Self::extend) does.
    pub(crate) fn feed(&mut self, trace: &Trace) {
        let from = self.engine.clock.events() as usize;
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
                look_ahead(&self.engine.store, &self.engine.attached, few);
                for e in few {
                    self.engine.step(e);
                    if let Body::Snapshot { index } = e.body
                        && let Some(piece) = trace.info.snapshots.get(index as usize)
                    {
                        self.engine.take_piece(piece);
                    }
                    if matches!(e.body, Body::Mmio { .. } | Body::FastMmio { .. } | Body::MarkMmioSpte { .. })
                    {
                        // The vCPU's thread, or one that synchronises its shadow pages.
                        if let Some(vm) = self.engine.vms.attribution.vm(e) {
                            self.mmio_seen.note(vm.0, self.engine.clock.last(), e);
                        }
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
        self.engine.slots.seal();
        let engine = &mut self.engine;
        engine.faults.note_open(engine.threads.all());
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
        self.installs_traced = of_class(Class::Install).any(|k| self.kinds.total(store, k) > 0);
        let end = self.engine.clock.last();
        let engine = &self.engine;
        // What shadow pages mapped may have gone without an event; that the pages are gone is traced.
        let empty = |vm: u16| {
            let c = self.counts.at(&engine.store, Of::Vm(VmId(vm)), end);
            let left = [State::Present, State::Mmio, State::Table].iter().any(|s| c.state(*s) > 0);
            !(engine.vms.is_tdp(vm) && left) && engine.no_shadow_pages(vm)
        };
        self.vms = engine.vms.finish(trace, end, empty);
        // Pages that are made for a guest without paging, or beside huge pages of its own, are direct under shadow paging too.
        let shadow = matches!(self.layout.layout.mode, Mode::Shadow64 | Mode::ShadowPae | Mode::Pvm);
        for vm in self.vms.iter_mut().filter(|_| shadow) {
            if matches!(vm.kind, MmuKind::Direct | MmuKind::Unknown) {
                vm.kind = MmuKind::Shadow;
            }
        }
        self.phases = phases(trace, engine.noted.markers(), end);
        // A phase of a VM does not outlast it.
        for p in &mut self.phases {
            let of = |v: &&Vm| Some(v.id) == p.vm;
            if let Some(e) = self.vms.iter().find(of).and_then(|v| v.ended.as_ref()) {
                p.end = p.end.min(e.end.max(p.start));
            }
        }
        self.lookup.take_in(store);
        let traced = self.mmio_accesses_traced();
        let faults = &self.engine.faults;
        self.mmio = self.mmio_seen.ranges(&faults.done, &faults.open, traced);
        let noted = &self.engine.noted;
        self.evidence.clear();
        self.evidence.extend_from_slice(noted.evidence());
        self.evidence.extend(self.engine.unexplained.as_evidence(|ts| noted.after_loss(ts)));
        self.in_vain.take_in(&self.engine.faults.done);
        self.evidence.extend(find_stuck(store, &self.lookup, &self.in_vain, noted));
        self.covered.take_in(&mut self.engine.store, moved);
        self.axis = self.covered.axis();
        self.evidence.sort_by_key(|e| e.event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where probes stand in for changes that the kernel does not trace, a trace that grows is not replayed anew at each step.
    #[test]
    fn a_trace_with_probes_goes_on_where_it_was() {
        let file =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/6.1-npt/trace.txt.zst");
        let traced = Trace::load(&[file], &mmuscope_trace::ReadOptions::default()).expect("a sample");
        let probed = mmuscope_testing::probed::with_probes(&traced, false);
        let first = |n: usize| {
            let mut events = mmuscope_trace::EventStore::new();
            probed.events.range(0..n).for_each(|e| events.push(&e));
            Trace { events, ..probed.clone() }
        };
        let spec = mmuscope_spte::LayoutSpec::named("5.10/npt").expect("ours");
        let opts = ReplayOptions { layout: LayoutOverride { spec }, ..ReplayOptions::default() };
        let mut t = replay(&first(2000), &opts);
        assert!(t.engine.probed.stand_in() && !t.layout.resolved.traces.changes);
        // What is put in here is not in a replay from the start.
        t.lookup.mark();
        for n in [4000, 6000] {
            t.extend(&first(n));
            assert_eq!(t.events(), n);
            assert!(t.lookup.is_marked(), "it was replayed anew at {n} events");
        }
        let spans = |t: &Timeline| t.all_spans(&crate::SpanFilter::default()).collect::<Vec<_>>();
        assert_eq!(spans(&t), spans(&replay(&first(6000), &opts)), "it grew to something else");
    }

    #[test]
    fn events_that_cannot_be_numbered_are_a_loss() {
        let mut trace = mmuscope_testing::fixture::trace(
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
