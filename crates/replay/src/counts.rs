//! Entries per state at any moment: a running sum with checkpoints.

use crate::model::{Counts, Shade};
use crate::store::{NONE, Store};

/// Spans between checkpoints.
const STEP: usize = 1024;

/// The running sum.
#[derive(Clone, Debug, Default)]
pub(crate) struct CountIndex {
    /// Before span `i * STEP`: the counts, and how many unlinked and freed tables they include.
    points: Vec<(Counts, u32, u32)>,
    tail: Running,
}

#[derive(Clone, Debug, Default)]
struct Running {
    counts: Counts,
    span: usize,
    detach: usize,
    death: usize,
}

impl Running {
    /// Goes on to event `ev` (not included), through at most the spans before `span_end`.
    fn advance(&mut self, store: &Store, span_end: usize, ev: u32) {
        while self.span < span_end && store.s_ev[self.span] < ev {
            let m = store.meta(self.span as u32);
            let level = usize::from(store.place(store.s_entry[self.span]).level.min(5));
            if let Some(p) = m.prev {
                let c = &mut self.counts.entries[p as usize][level];
                *c = c.wrapping_sub(1);
            }
            let c = &mut self.counts.entries[m.shade as usize][level];
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
                let c = &mut self.counts.entries[store.meta(x).shade as usize][level];
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
            if self.points.len() * STEP <= self.tail.span {
                self.points.push((self.tail.counts, self.tail.detach as u32, self.tail.death as u32));
            }
            let next = self.points.len() * STEP;
            if next > n {
                break;
            }
            let ev = store.s_ev.get(next).copied().unwrap_or(NONE);
            if ev == NONE {
                break;
            }
            self.tail.advance(store, next, ev);
            // Spans of one event may straddle the step: the checkpoint is exactly before span `next`.
            if self.tail.span < next {
                self.tail.advance(store, next, ev + 1);
            }
            if self.tail.span < next {
                break;
            }
        }
    }

    fn from(&self, span: usize) -> Running {
        let i = (span / STEP).min(self.points.len().saturating_sub(1));
        match self.points.get(i) {
            Some((c, d, k)) => {
                Running { counts: *c, span: i * STEP, detach: *d as usize, death: *k as usize }
            }
            None => Running::default(),
        }
    }

    pub(crate) fn at(&self, store: &Store, t: u64) -> Counts {
        let (p, ev) = store.moment(t);
        let mut r = self.from(p);
        r.advance(store, p, ev);
        r.counts
    }

    pub(crate) fn over(&self, store: &Store, t0: u64, t1: u64, n: usize) -> Vec<Counts> {
        let mut out = Vec::with_capacity(n);
        let mut r = Running::default();
        for i in 1..=n {
            let t = t0 + (t1.saturating_sub(t0) as u128 * i as u128 / n as u128) as u64;
            let (p, ev) = store.moment(t);
            if p > r.span + STEP || i == 1 {
                r = self.from(p);
            }
            r.advance(store, p, ev);
            out.push(r.counts);
        }
        out
    }

    pub(crate) fn heap(&self) -> usize {
        self.points.capacity() * size_of::<(Counts, u32, u32)>()
    }
}

/// Present leaves and what they cover, for a summary.
pub(crate) fn is_leaf(shade: Shade) -> bool {
    matches!(shade, Shade::Writable | Shade::ReadOnly | Shade::AccessTracked)
}
