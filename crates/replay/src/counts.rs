//! Entries per state at any moment: a running sum with checkpoints.

use rayon::prelude::*;

use crate::model::{Counts, Shade, VmId};
use crate::store::Store;

/// Spans between checkpoints, for each VM that there is.
const STEP: usize = 1024;

/// The running sum.
#[derive(Clone, Debug, Default)]
pub(crate) struct CountIndex {
    points: Vec<Running>,
    tail: Running,
}

/// The counts before a span: of each VM, with how many unlinked and freed tables they include.
#[derive(Clone, Debug, Default)]
struct Running {
    counts: Vec<Counts>,
    span: usize,
    detach: usize,
    death: usize,
}

impl Running {
    fn of(&mut self, vm: u16) -> &mut Counts {
        let vm = usize::from(vm);
        if self.counts.len() <= vm {
            self.counts.resize(vm + 1, Counts::default());
        }
        &mut self.counts[vm]
    }

    /// The counts of one VM, or of all together.
    fn total(&self, vm: Option<VmId>) -> Counts {
        if let Some(vm) = vm {
            return self.counts.get(usize::from(vm.0)).copied().unwrap_or_default();
        }
        let mut sum = Counts::default();
        for c in &self.counts {
            for (s, c) in sum.entries.iter_mut().flatten().zip(c.entries.iter().flatten()) {
                *s = s.wrapping_add(*c);
            }
        }
        sum
    }

    /// Goes on to event `ev` (not included), through at most the spans before `span_end`.
    fn advance(&mut self, store: &Store, span_end: usize, ev: u32) {
        while self.span < span_end && store.s_ev[self.span] < ev {
            let m = store.meta(self.span as u32);
            let t = &store.tables[store.table_of(store.s_entry[self.span]) as usize];
            let level = usize::from(t.level.min(5));
            let counts = self.of(t.vm);
            if let Some(p) = m.prev {
                let c = &mut counts.entries[p as usize][level];
                *c = c.wrapping_sub(1);
            }
            let c = &mut counts.entries[m.shade as usize][level];
            *c = c.wrapping_add(1);
            self.span += 1;
        }
        while let Some(&t) = store.detaches.get(self.detach) {
            let r = &store.tables[t as usize];
            if r.detach_ev >= ev {
                break;
            }
            self.drop_table(store, t, true);
            self.detach += 1;
        }
        while let Some(&t) = store.deaths.get(self.death) {
            let r = &store.tables[t as usize];
            if r.dead_ev >= ev {
                break;
            }
            self.drop_table(store, t, false);
            self.death += 1;
        }
    }

    /// Takes out what a table held before it was unlinked, or (when it is freed) what it held since.
    fn drop_table(&mut self, store: &Store, t: u32, unlinked: bool) {
        let table = &store.tables[t as usize];
        let level = usize::from(table.level.min(5));
        for e in store.table_entries(t) {
            let last = if unlinked {
                store.last_before(e, table.detach_sp)
            } else {
                store.last_span(e).filter(|x| *x >= table.detach_sp)
            };
            if let Some(x) = last {
                let c = &mut self.of(table.vm).entries[store.meta(x).shade as usize][level];
                *c = c.wrapping_sub(1);
            }
        }
    }
}

impl CountIndex {
    pub(crate) fn seal(&mut self, store: &Store) {
        let n = store.spans_len();
        // A table unlinked while an old checkpoint was the last one is in the running part, which goes on from there.
        loop {
            // With many VMs a checkpoint is larger, so there are fewer.
            let next = self.points.last().map_or(0, |p| p.span + STEP * p.counts.len().max(1));
            if next > self.tail.span {
                if next >= n {
                    break;
                }
                let ev = store.s_ev[next];
                self.tail.advance(store, next, ev);
                // Spans of one event may straddle the step: the checkpoint is exactly before span `next`.
                if self.tail.span < next {
                    self.tail.advance(store, next, ev + 1);
                }
                if self.tail.span < next {
                    break;
                }
            }
            self.points.push(self.tail.clone());
        }
    }

    fn from(&self, span: usize) -> Running {
        let i = self.points.partition_point(|p| p.span <= span);
        i.checked_sub(1).map_or_else(Running::default, |i| self.points[i].clone())
    }

    pub(crate) fn at(&self, store: &Store, vm: Option<VmId>, t: u64) -> Counts {
        let (p, ev) = store.moment(t);
        let mut r = self.from(p);
        r.advance(store, p, ev);
        r.total(vm)
    }

    pub(crate) fn over(&self, store: &Store, vm: Option<VmId>, t0: u64, t1: u64, n: usize) -> Vec<Counts> {
        let mut out = vec![Counts::default(); n];
        out.par_chunks_mut(128).enumerate().for_each(|(chunk, out)| {
            let mut r = Running::default();
            for (i, c) in out.iter_mut().enumerate() {
                let i = chunk * 128 + i + 1;
                let t = t0 + (t1.saturating_sub(t0) as u128 * i as u128 / n as u128) as u64;
                let (p, ev) = store.moment(t);
                if p > r.span + STEP || r.counts.is_empty() {
                    r = self.from(p);
                }
                r.advance(store, p, ev);
                *c = r.total(vm);
            }
        });
        out
    }

    pub(crate) fn heap(&self) -> usize {
        self.points.capacity() * size_of::<Running>()
            + self.points.iter().map(|p| p.counts.capacity() * size_of::<Counts>()).sum::<usize>()
    }
}

/// Present leaves and what they cover, for a summary.
pub(crate) fn is_leaf(shade: Shade) -> bool {
    matches!(shade, Shade::Writable | Shade::ReadOnly | Shade::AccessTracked)
}
