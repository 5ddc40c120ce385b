//! What every entry held at a moment.

use mmuscope_units::ranges;
use rayon::prelude::*;

use crate::keys::{EntryIx, Ix, SpanIx, key_of};
use crate::model::{Entry, Shade, Span, StateFilter, VmId, pages_of};
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
    pub(crate) fn matches(
        &self,
        e: EntryIx,
        vm: Option<VmId>,
        as_id: Option<u8>,
        level: Option<u8>,
        gfns: Option<(u64, u64)>,
    ) -> bool {
        let s = self.store();
        let p = s.place(e);
        let t = &s.tables[p.table];
        vm.is_none_or(|v| v.0 == t.vm)
            && as_id.is_none_or(|a| a == t.as_id)
            && level.is_none_or(|l| l == p.level)
            && gfns.is_none_or(|g| ranges::overlap((p.gfn, p.gfn.saturating_add(pages_of(p.level))), g))
    }

    /// Entries of live tables at a moment, in the order of their spans. Time is in proportion to the answer.
    pub fn state_at(&self, t: u64, f: &StateFilter) -> Vec<(Entry, Span)> {
        self.at(t, f).par_iter().collect()
    }

    /// The same, without making a list of it.
    pub fn at(&self, t: u64, f: &StateFilter) -> StateAt<'_> {
        let store = self.store();
        let (p, ev) = store.moment(t);
        let everything = f.vm.is_none() && f.as_id.is_none() && f.level.is_none() && f.gfns.is_none();
        let wanted = |i: SpanIx| {
            let shade = store.meta(i).shade;
            if f.state.is_some_and(|x| x != shade.state()) {
                return false;
            }
            let e = store.s_entry[i];
            // In a table that was unlinked only what was frozen with it is still of interest.
            (shade == Shade::Removed || store.tables[store.table_of(e)].detach_ev >= ev)
                && (everything || self.matches(e, f.vm, f.as_id, f.level, f.gfns))
        };
        let few = f.gfns.and_then(|g| self.entries_between(f.vm, f.as_id, f.level, g));
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

    /// All entries that overlap a few frames, where these are found faster than by looking at everything.
    pub(crate) fn entries_between(
        &self,
        vm: Option<VmId>,
        as_id: Option<u8>,
        level: Option<u8>,
        (from, to): (u64, u64),
    ) -> Option<Vec<EntryIx>> {
        const FEW: u64 = 1 << 14;
        if to.saturating_sub(from) > FEW {
            return None;
        }
        let s = self.store();
        let mut out = Vec::new();
        for (v, a) in &self.spaces {
            if vm.is_some_and(|x| x.0 != *v) || as_id.is_some_and(|x| x != *a) {
                continue;
            }
            for l in (1..=6u8).filter(|l| level.is_none_or(|x| x == *l)) {
                let pages = pages_of(l);
                let (first, end) = (from / pages, to.div_ceil(pages));
                let mut at = first;
                while at < end {
                    let next = (at | 511).saturating_add(1).min(end);
                    let key = key_of(*a, l, at.saturating_mul(pages));
                    for t in self.tables_by_key.get(&(*v, key)).into_iter().flatten() {
                        let slots = (at..next).filter_map(|e| s.slot(*t, (e & 511) as u16));
                        out.extend(slots.filter(|e| s.used(*e)));
                    }
                    at = next;
                }
            }
        }
        if !self.free_by_gfn.is_empty() {
            for l in 1..=6u8 {
                let pages = pages_of(l);
                let mut last = None;
                for g in (from..to).map(|g| g / pages * pages) {
                    if last.replace(g) != Some(g) {
                        let here = self.free_by_gfn.get(&g).into_iter().flatten().copied();
                        out.extend(here.filter(|e| s.place(*e).level == l));
                    }
                }
            }
        }
        Some(out)
    }
}
