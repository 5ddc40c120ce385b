//! Entries, tables, spans and zaps, one by one.

use std::collections::BTreeMap;

use crate::keys::{EntryIx, Ix, SpanIx};
use crate::lookup::Which;
use crate::model::{Entry, EntryId, Span, SpanFilter, SpanId, Table, TableId, VmId, Zap, ZapCause};
use crate::timeline::Timeline;
use crate::zaps::zaps_of;

impl Timeline {
    /// All entries that any event showed.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.store().entries_from(0).map(|e| self.store().entry(e))
    }

    /// One entry.
    ///
    /// # Panics
    /// If the id is not of this timeline.
    pub fn entry(&self, id: EntryId) -> Entry {
        self.store().entry(id.into())
    }

    /// All tables, dead ones included.
    pub fn tables(&self) -> impl Iterator<Item = Table> + '_ {
        self.store().tables.numbered().map(|(t, _)| self.store().table(t))
    }

    /// One table.
    ///
    /// # Panics
    /// If the id is not of this timeline.
    pub fn table(&self, id: TableId) -> Table {
        self.store().table(id.into())
    }

    /// Every entry that covers a frame: all levels, all tables, highest level first.
    pub fn entries_at(&self, vm: VmId, as_id: u8, gfn: u64) -> Vec<EntryId> {
        self.lookup.entries_at(self.store(), vm, as_id, gfn)
    }

    /// Spans of an entry in time order; the first may be the implied one before its first event.
    pub fn spans(&self, entry: EntryId) -> impl Iterator<Item = Span> + '_ {
        let s = self.store();
        let origin = self.range().0;
        let entry = EntryIx::from(entry);
        let mut next = s.first_span(entry);
        s.leading(entry, origin).into_iter().chain(std::iter::from_fn(move || {
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
        self.store().span(id.into())
    }

    /// Number of recorded spans.
    pub fn span_count(&self) -> usize {
        self.store().spans_len()
    }

    /// The span of an entry at a moment; `None` before its table was linked and after it was unlinked.
    pub fn span_at(&self, entry: EntryId, t: u64) -> Option<Span> {
        let s = self.store();
        let (p, _) = s.moment(t);
        let entry = EntryIx::from(entry);
        match s.span_before(entry, p) {
            Some(x) => Some(s.span(x)).filter(|x| x.covers(t)),
            // Or what its first event shows that it had held.
            None => (s.leading(entry, self.range().0))
                .or_else(|| s.first_span(entry).map(|x| s.span(x)))
                .filter(|x| x.covers(t)),
        }
    }

    /// First change of an entry after a moment.
    pub fn next_change(&self, entry: EntryId, t: u64) -> Option<Span> {
        let s = self.store();
        let (p, _) = s.moment(t);
        let entry = EntryIx::from(entry);
        let next = match s.span_before(entry, p) {
            Some(x) => s.next_span(x),
            None => s.first_span(entry),
        };
        next.map(|x| s.span(x))
    }

    /// Last change of an entry before a moment.
    pub fn prev_change(&self, entry: EntryId, t: u64) -> Option<Span> {
        let s = self.store();
        let (p, _) = s.moment(t.checked_sub(1)?);
        s.span_before(entry.into(), p).map(|x| s.span(x))
    }

    /// Recorded spans that match, in the order of their opening. For a few frames, time is in proportion to the answer.
    pub fn all_spans(&self, f: &SpanFilter) -> impl Iterator<Item = Span> + '_ {
        let s = self.store();
        let f = f.clone();
        let end = f.time.map_or(SpanIx::nth(s.spans_len()), |(_, t1)| s.moment(t1).0);
        let which = Which { vm: f.vm, as_id: f.as_id, level: f.level, gfns: f.gfns };
        let few = self.lookup.entries_of(s, &which).map(|entries| {
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
        let all = if few.is_some() { 0..0 } else { 0..end.0 };
        // What was there before, as events show that come after.
        let late: Vec<SpanIx> = match f.time {
            Some((_, t1)) => s.opened_before(end, 0, t1).collect(),
            None => Vec::new(),
        };
        few.into_iter().flatten().chain(all.map(SpanIx)).chain(late).filter_map(move |i| {
            if !which.matches(s, s.s_entry[i]) {
                return None;
            }
            let span = s.span(i);
            match f.time {
                Some((t0, _)) if span.end.is_some_and(|e| e <= t0) => None,
                _ => Some(span),
            }
        })
    }

    /// When an entry was zapped, and how that is known, in time order.
    pub fn zaps(&self, entry: EntryId) -> impl Iterator<Item = Zap> + '_ {
        zaps_of(self.store(), entry.into())
    }

    /// Every zap of every entry, entry by entry.
    pub fn all_zaps(&self) -> impl Iterator<Item = Zap> + '_ {
        let s = self.store();
        s.entries_from(0).flat_map(move |e| zaps_of(s, e))
    }

    /// How many zaps there were, by cause.
    pub fn zap_causes(&self) -> BTreeMap<ZapCause, u64> {
        let mut out = BTreeMap::new();
        for z in self.all_zaps() {
            *out.entry(z.cause).or_default() += 1;
        }
        out
    }
}
