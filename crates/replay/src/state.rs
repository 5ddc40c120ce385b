//! What every entry held at a moment.

use rayon::prelude::*;

use crate::keys::{Ix, SpanIx};
use crate::lookup::Which;
use crate::model::{Entry, Shade, Span, StateFilter};
use crate::store::Store;
use crate::timeline::Timeline;

/// Spans looked through at a time.
const PART: usize = 1 << 16;

/// The entries of live tables at a moment, each with what it held, in the order of their spans. A row is made when it is asked for: a
/// large guest has millions, and most questions need a few numbers of each.
#[derive(Clone, Debug)]
pub struct StateAt<'a> {
    store: &'a Store,
    spans: Vec<SpanIx>,
}

impl<'a> StateAt<'a> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// There is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Row number `i`, if there are that many.
    #[must_use]
    pub fn get(&self, i: usize) -> Option<(Entry, Span)> {
        self.spans.get(i).map(|s| Self::row(self.store, *s))
    }

    /// One after another.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Entry, Span)> + use<'a, '_> {
        self.spans.iter().map(|s| Self::row(self.store, *s))
    }

    /// On all threads.
    pub fn par_iter(&self) -> impl IndexedParallelIterator<Item = (Entry, Span)> + use<'a, '_> {
        self.spans.par_iter().with_min_len(8192).map(|s| Self::row(self.store, *s))
    }

    fn row(store: &Store, span: SpanIx) -> (Entry, Span) {
        (store.entry(store.s_entry[span]), store.span(span))
    }
}

impl Timeline {
    /// Entries of live tables at a moment, in the order of their spans. Time is in proportion to the answer.
    pub fn state_at(&self, t: u64, f: &StateFilter) -> Vec<(Entry, Span)> {
        self.at(t, f).par_iter().collect()
    }

    /// The same, without making a list of it.
    pub fn at(&self, t: u64, f: &StateFilter) -> StateAt<'_> {
        let store = self.store();
        let (p, ev) = store.moment(t);
        let which = Which { vm: f.vm, as_id: f.as_id, level: f.level, gfns: f.gfns };
        let everything = which.all();
        let wanted = |i: SpanIx| {
            let shade = store.meta(i).shade;
            if f.state.is_some_and(|x| x != shade.state()) {
                return false;
            }
            let e = store.s_entry[i];
            // In a table that was unlinked only what was frozen with it is still of interest.
            (shade == Shade::Removed || store.tables[store.table_of(e)].detach_ev >= ev)
                && (everything || which.matches(store, e))
        };
        let few = self.lookup.entries_of(store, &which);
        let mut spans = if let Some(entries) = few {
            let last = entries.iter().filter_map(|e| store.last_before(*e, p));
            let mut spans: Vec<SpanIx> = last.filter(|x| store.ends_after(*x, ev) && wanted(*x)).collect();
            spans.sort_unstable();
            spans
        } else {
            let part = |k: usize| {
                let mut spans = Vec::new();
                let from = SpanIx::nth(k * PART);
                store.visit_open(ev, from..from.plus(PART as u32).min(p), &mut |i| {
                    if wanted(i) {
                        spans.push(i);
                    }
                });
                spans
            };
            (0..p.position().div_ceil(PART)).into_par_iter().map(part).collect::<Vec<_>>().concat()
        };
        spans.extend(store.opened_before(p, ev, t).filter(|x| wanted(*x)));
        StateAt { store, spans }
    }
}
