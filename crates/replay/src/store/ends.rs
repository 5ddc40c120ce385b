//! When spans end, and which are open at a moment: found by a tree of the greatest ends, which [`Store::seal`] keeps. Nothing here adds a span.

use std::ops::Range;

use rayon::prelude::*;

use super::{NONE, Store};
use crate::keys::{Ix, SpanIx};
use crate::model::EventIx;

/// Spans per node of the tree of ends.
const FAN: usize = 64;

impl Store {
    /// When the table of a span's entry stops showing it: event and time.
    pub(super) fn table_end(&self, span: SpanIx) -> (EventIx, u64) {
        let t = &self.tables[self.table_of(self.s_entry[span])];
        if span < t.detach_sp { (t.detach_ev, t.detach_ts) } else { (t.dead_ev, t.dead_ts) }
    }

    /// End of a span: event and time.
    pub(crate) fn end_of(&self, span: SpanIx) -> Option<(EventIx, u64)> {
        let table_end = self.table_end(span);
        let next = self.s_next[span];
        if next != SpanIx::NONE && self.s_ev[next] <= table_end.0 {
            return Some((self.s_ev[next], self.start(next)));
        }
        (table_end.0 != NONE).then_some(table_end)
    }

    /// The same, from what was sealed: one place to look at instead of three.
    pub(super) fn sealed_end(&self, span: SpanIx) -> Option<(EventIx, u64)> {
        match self.end_ev.get(span) {
            Some(&NONE) => None,
            Some(&e) => Some((e, self.ev_ts.get(e as usize))),
            None => self.end_of(span),
        }
    }

    /// Whether a span, once sealed, ends at event `ev` or later, or lasts.
    pub(crate) fn ends_after(&self, span: SpanIx, ev: u32) -> bool {
        self.end_ev.get(span).is_some_and(|e| *e >= ev)
    }

    /// Makes what queries need after spans were added: the ends and their tree. Costs what was added and what ended since.
    pub(crate) fn seal(&mut self) {
        let n = self.s_ev.len();
        let from = self.end_ev.len();
        // Spans of before may have ended since.
        let mut dirty: Vec<usize> = Vec::new();
        for i in self.take_ended(SpanIx::nth(from)) {
            if self.end_ev[i] == NONE
                && let Some((e, _)) = self.end_of(i)
            {
                self.end_ev[i] = e;
                dirty.push(i.position() / FAN);
            }
        }
        let mut ends = std::mem::take(&mut self.end_ev);
        ends.resize(n, NONE);
        ends.slice_mut()[from..].par_chunks_mut(FAN).enumerate().with_min_len(64).for_each(|(k, ends)| {
            let first = SpanIx::nth(from + k * FAN);
            // All at once: each is somewhere else in memory.
            for (i, end) in ends.iter_mut().enumerate() {
                *end = self.s_ev.get(self.s_next[first.plus(i as u32)]).copied().unwrap_or(NONE);
            }
            for (i, end) in ends.iter_mut().enumerate() {
                *end = self.table_end(first.plus(i as u32)).0.min(*end);
            }
        });
        self.end_ev = ends;
        self.build_tree(from, dirty);
    }

    /// The greatest end of each group of spans, and of each group of groups, from span `from` on and in the groups `dirty`.
    fn build_tree(&mut self, from: usize, mut dirty: Vec<usize>) {
        let mut from = from / FAN;
        let [groups, over] = &mut self.end_tree;
        let mut level = |below: &[u32], this: &mut Vec<u32>| {
            let len = below.len().div_ceil(FAN);
            this.resize(len, 0);
            dirty.sort_unstable();
            dirty.dedup();
            for b in dirty.iter().copied().filter(|b| *b < from).chain(from..len) {
                this[b] = below[b * FAN..((b + 1) * FAN).min(below.len())].iter().copied().max().unwrap_or(0);
            }
            from /= FAN;
            for d in &mut dirty {
                *d /= FAN;
            }
        };
        level(self.end_ev.slice(), groups);
        level(groups, over);
    }

    /// Calls `f` with every span of a range that ends at event `ev` or later.
    pub(crate) fn visit_open(&self, ev: u32, spans: Range<SpanIx>, f: &mut impl FnMut(SpanIx)) {
        let end = spans.end.position().min(self.end_ev.len());
        let mut i = spans.start.position();
        while i < end {
            let [groups, over] = &self.end_tree;
            if i.is_multiple_of(FAN * FAN) && over[i / FAN / FAN] < ev {
                i += FAN * FAN;
                continue;
            }
            let next = (i / FAN + 1) * FAN;
            if groups[i / FAN] >= ev {
                for (k, e) in self.end_ev.slice()[..next.min(end)].iter().enumerate().skip(i) {
                    if *e >= ev {
                        f(SpanIx::nth(k));
                    }
                }
            }
            i = next;
        }
    }
}
