//! Entries per state, and the frames they map, at any moment: a running sum with checkpoints.

use rayon::prelude::*;

use crate::frames::{Frames, TOP, class_of};
use crate::keys::{Ix, SpanIx, TableIx};
use crate::model::{Certainty, Counts, Shade, State, VmId, pages_of};
use crate::store::{Meta, Store};

/// Spans between checkpoints, for each address space that there is.
const STEP: usize = 1024;

/// What is asked about: one address space, one VM with all of its own, or everything.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Of {
    All,
    Vm(VmId),
    Space(VmId, u8),
}

/// The running sum.
#[derive(Clone, Debug, Default)]
pub(crate) struct CountIndex {
    frames: Frames,
    points: Vec<Running>,
    tail: Running,
}

/// The counts before a span: of each address space, with how many unlinked and freed tables and fixes they include.
#[derive(Clone, Debug, Default)]
struct Running {
    /// By VM and address space.
    counts: Vec<((u16, u8), Counts)>,
    /// The first span that they do not include.
    span: SpanIx,
    detach: usize,
    death: usize,
    fix: usize,
}

impl Running {
    fn of(&mut self, key: (u16, u8)) -> &mut Counts {
        let i = match self.counts.binary_search_by_key(&key, |c| c.0) {
            Ok(i) => i,
            Err(i) => {
                self.counts.insert(i, (key, Counts::default()));
                i
            }
        };
        &mut self.counts[i].1
    }

    fn total(&self, of: Of) -> Counts {
        let mut sum = Counts::default();
        for ((vm, as_id), c) in &self.counts {
            if match of {
                Of::All => true,
                Of::Vm(v) => v.0 == *vm,
                Of::Space(v, a) => (v.0, a) == (*vm, *as_id),
            } {
                sum.add(c);
            }
        }
        sum
    }

    /// Goes on to event `ev` (not included), through at most the spans before `span_end`.
    fn advance(&mut self, store: &Store, frames: &Frames, span_end: SpanIx, ev: u32) {
        while let Some(f) = frames.fixes.get(self.fix).filter(|f| f.ev < ev) {
            let (shade, stale, level) = f.what();
            map_frames(self.of((f.vm, f.as_id)), shade, stale, level, i64::from(f.by));
            self.fix += 1;
        }
        while self.span < span_end && store.s_ev[self.span] < ev {
            let span = self.span;
            let m = store.meta(span);
            let t = &store.tables[store.table_of(store.s_entry[span])];
            let level = usize::from(t.level.min(5));
            let counts = self.of((t.vm, t.as_id));
            if let Some(p) = m.prev {
                let c = &mut counts.entries[p as usize][level];
                *c = c.wrapping_sub(1);
            }
            let c = &mut counts.entries[m.shade as usize][level];
            *c = c.wrapping_add(1);
            if span < t.detach_sp {
                if let Some((shade, certainty)) = store.replaced(span) {
                    entry_frames(counts, shade, certainty, t.level, -1);
                }
                entry_frames(counts, m.shade, m.certainty, t.level, 1);
            }
            self.span = span.plus(1);
        }
        while let Some(&t) = store.detaches.get(self.detach) {
            let r = &store.tables[t];
            if r.detach_ev >= ev {
                break;
            }
            self.drop_table(store, t, true);
            self.detach += 1;
        }
        while let Some(&t) = store.deaths.get(self.death) {
            let r = &store.tables[t];
            if r.dead_ev >= ev {
                break;
            }
            self.drop_table(store, t, false);
            self.death += 1;
        }
    }

    /// Takes out what a table held before it was unlinked, or (when it is freed) what it held since.
    fn drop_table(&mut self, store: &Store, t: TableIx, unlinked: bool) {
        let table = &store.tables[t];
        let level = usize::from(table.level.min(5));
        for e in store.table_entries(t) {
            let last = if unlinked {
                store.last_before(e, table.detach_sp)
            } else {
                store.last_span(e).filter(|x| *x >= table.detach_sp)
            };
            if let Some(x) = last {
                let Meta { shade, certainty, .. } = store.meta(x);
                let counts = self.of((table.vm, table.as_id));
                let c = &mut counts.entries[shade as usize][level];
                *c = c.wrapping_sub(1);
                if unlinked {
                    entry_frames(counts, shade, certainty, table.level, -1);
                }
            }
        }
    }
}

/// An entry maps its frames, or does no longer.
fn entry_frames(counts: &mut Counts, shade: Shade, certainty: Certainty, level: u8, sign: i64) {
    if level <= TOP && class_of(shade, certainty).is_some() {
        let pages = sign * pages_of(level) as i64;
        map_frames(counts, shade, certainty == Certainty::Stale, level, pages);
    }
}

fn map_frames(counts: &mut Counts, shade: Shade, stale: bool, level: u8, by: i64) {
    let level = usize::from(level.min(TOP));
    let f = &mut counts.frames[shade as usize][level];
    *f = f.wrapping_add_signed(by);
    if stale && shade.state() == State::Present {
        let s = &mut counts.stale[level];
        *s = s.wrapping_add_signed(by);
    }
    if stale && shade == Shade::Mmio {
        counts.stale_mmio = counts.stale_mmio.wrapping_add_signed(by);
    }
}

impl CountIndex {
    /// Takes in what was replayed since; spans from `dirty` on are not what they were.
    pub(crate) fn seal(&mut self, store: &Store, dirty: SpanIx) {
        if self.frames.took_in(dirty) {
            *self = Self::default();
        }
        self.frames.seal(store);
        let frames = &self.frames;
        let n = SpanIx::nth(store.spans_len());
        // A table unlinked while an old checkpoint was the last one is in the running part, which goes on from there.
        loop {
            // With many VMs a checkpoint is larger, so there are fewer.
            let next = self
                .points
                .last()
                .map_or(SpanIx::FIRST, |p| p.span.plus((STEP * p.counts.len().max(1)) as u32));
            if next > self.tail.span {
                if next >= n {
                    break;
                }
                let ev = store.s_ev[next];
                self.tail.advance(store, frames, next, ev);
                // Spans of one event may straddle the step: the checkpoint is exactly before span `next`.
                if self.tail.span < next {
                    self.tail.advance(store, frames, next, ev + 1);
                }
                if self.tail.span < next {
                    break;
                }
            }
            self.points.push(self.tail.clone());
        }
    }

    fn from(&self, span: SpanIx) -> Running {
        let i = self.points.partition_point(|p| p.span <= span);
        i.checked_sub(1).map_or_else(Running::default, |i| self.points[i].clone())
    }

    pub(crate) fn at(&self, store: &Store, of: Of, t: u64) -> Counts {
        let (p, ev) = store.moment(t);
        let mut r = self.from(p);
        r.advance(store, &self.frames, p, ev);
        r.total(of)
    }

    /// The moment at which most frames were present in an address space, and how many.
    pub(crate) fn peak(&self, vm: VmId, as_id: u8) -> Option<(u64, u64)> {
        self.frames.peak(vm.0, as_id)
    }

    pub(crate) fn over(&self, store: &Store, of: Of, t0: u64, t1: u64, n: usize) -> Vec<Counts> {
        let mut out = vec![Counts::default(); n];
        out.par_chunks_mut(128).enumerate().for_each(|(chunk, out)| {
            let mut r = Running::default();
            for (i, c) in out.iter_mut().enumerate() {
                let i = chunk * 128 + i + 1;
                let t = t0 + (t1.saturating_sub(t0) as u128 * i as u128 / n as u128) as u64;
                let (p, ev) = store.moment(t);
                if p > r.span.plus(STEP as u32) || r.counts.is_empty() {
                    r = self.from(p);
                }
                r.advance(store, &self.frames, p, ev);
                *c = r.total(of);
            }
        });
        out
    }

    pub(crate) fn heap(&self) -> usize {
        let point = size_of::<((u16, u8), Counts)>();
        self.frames.heap()
            + self.points.capacity() * size_of::<Running>()
            + self.points.iter().map(|p| p.counts.capacity() * point).sum::<usize>()
    }
}

/// Present leaves and what they cover, for a summary.
pub(crate) fn is_leaf(shade: Shade) -> bool {
    matches!(shade, Shade::Writable | Shade::ReadOnly | Shade::AccessTracked)
}
