//! The packed result: tables, entries and spans.
//!
//! Spans are columns in the order of the events that opened them, so that a moment is a position. An entry is a slot of a chunk of
//! sixteen, so that it costs eight bytes and no index. Everything is found by small integers.

mod ends;
mod meta;
mod news;
mod openings;
mod table;
mod times;
mod unlinked;

use crate::keys::{CHUNK, Column, EntryIx, Ix, SpanIx, TableIx};
use crate::model::{Certainty, Entry, EventIx, Reason, Shade, Span, State, Table, VmId};
pub(crate) use meta::Meta;
use meta::{CERTAINTIES, REMAPPED};
pub(crate) use table::TableRec;
pub(crate) use times::TimeCol;

/// No event, and no chunk.
pub(crate) const NONE: u32 = u32::MAX;
/// Spans between two skips of an entry that has very many.
const SKIP: usize = 64;
/// Chunks per table.
const CHUNKS: usize = 512 / CHUNK;
/// A chunk whose entries have frames of their own (shadow pages).
const FREE: u32 = 1 << 31;
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkRec {
    pub(crate) table: TableIx,
    /// Which chunk of the table, or `FREE` and an index into `free_info`.
    no: u32,
}

/// Tables, entries and spans.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    pub(crate) tables: Column<TableIx, TableRec>,
    /// The highest address space that has tables.
    pub(crate) top_as_id: u8,
    pub(crate) chunks: Vec<ChunkRec>,
    /// The first and the last span of each entry.
    first: Column<EntryIx, SpanIx>,
    pub(crate) last: Column<EntryIx, SpanIx>,
    free_info: Vec<[(u64, u16); CHUNK]>,
    /// Time and kind of every event.
    pub(crate) ev_ts: TimeCol,
    pub(crate) ev_kind: Vec<u8>,
    /// Bit per entry of a chunk: it held something besides links and emptiness.
    pub(crate) leafy: Vec<u16>,
    // spans
    pub(crate) s_ev: Column<SpanIx, EventIx>,
    pub(crate) s_entry: Column<SpanIx, EntryIx>,
    pub(crate) s_spte: Column<SpanIx, u64>,
    pub(crate) s_meta: Column<SpanIx, u16>,
    pub(crate) s_next: Column<SpanIx, SpanIx>,
    /// Certainty of the span that this one replaced, where it replaced one, and [`REMAPPED`].
    s_prev_certainty: Column<SpanIx, u8>,
    /// Tables in the order of their unlinking, and in the order of their end.
    pub(crate) detaches: Vec<TableIx>,
    pub(crate) deaths: Vec<TableIx>,
    /// Event at which span i ends (`NONE`: lasts), and the greatest of each `FAN` of them, and of each `FAN` of those.
    end_ev: Column<SpanIx, EventIx>,
    end_tree: [Vec<u32>; 2],
    /// Every 64th span of entries that have very many, for random access.
    skips: rustc_hash::FxHashMap<EntryIx, Vec<SpanIx>>,
    /// Spans of each slot since its last skip.
    pub(crate) count: Column<EntryIx, u8>,
    /// First span that was changed after it was recorded; see [`Store::take_dirty`].
    dirty: Option<SpanIx>,
    /// What entries held until their first event, as that event's old value shows it, with since when: see [`Store::push_old`].
    pub(crate) openings: Vec<(SpanIx, u64)>,
    unlinked: unlinked::Unlinked,
    news: news::News,
}

/// The place of an entry, cheaper than [`Entry`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) table: TableIx,
    pub(crate) index: u16,
    pub(crate) gfn: u64,
    pub(crate) level: u8,
}

impl Store {
    pub(crate) fn spans_len(&self) -> usize {
        self.s_ev.len()
    }

    pub(crate) fn add_table(&mut self, t: TableRec) -> TableIx {
        self.top_as_id = self.top_as_id.max(t.as_id);
        self.tables.push(t)
    }

    /// The slot of an entry, if something was ever recorded in its chunk. A slot may be empty: see [`Store::last_span`].
    pub(crate) fn slot(&self, table: TableIx, index: u16) -> Option<EntryIx> {
        let c = self.tables[table].chunks.as_ref()?[usize::from(index) / CHUNK];
        (c != NONE).then(|| EntryIx::in_chunk(c, u32::from(index) % CHUNK as u32))
    }

    /// The slot of an entry, made if need be.
    pub(crate) fn slot_mut(&mut self, table: TableIx, index: u16) -> EntryIx {
        let index = index & 511;
        let chunk = self.chunks.len() as u32;
        let t = &mut self.tables[table];
        let chunks = t.chunks.get_or_insert_with(|| Box::new([NONE; CHUNKS]));
        let c = &mut chunks[usize::from(index) / CHUNK];
        if *c == NONE {
            *c = chunk;
            self.chunks.push(ChunkRec { table, no: u32::from(index) / CHUNK as u32 });
            self.first.extend([SpanIx::NONE; CHUNK]);
            self.last.extend([SpanIx::NONE; CHUNK]);
            self.count.extend([0; CHUNK]);
            self.leafy.push(0);
        }
        EntryIx::in_chunk(*c, u32::from(index) % CHUNK as u32)
    }

    /// A new slot for an entry of a shadow page, whose frame does not follow from its index.
    pub(crate) fn free_slot(&mut self, table: TableIx, index: u16, gfn: u64) -> EntryIx {
        let t = &mut self.tables[table];
        if t.open_free.0 == NONE || usize::from(t.open_free.1) >= CHUNK {
            let c = self.chunks.len() as u32;
            self.chunks.push(ChunkRec { table, no: FREE | self.free_info.len() as u32 });
            self.free_info.push([(0, 0); CHUNK]);
            self.first.extend([SpanIx::NONE; CHUNK]);
            self.last.extend([SpanIx::NONE; CHUNK]);
            self.count.extend([0; CHUNK]);
            self.leafy.push(0);
            t.open_free = (c, 0);
            t.free.push(c);
        }
        let (c, n) = t.open_free;
        t.open_free.1 += 1;
        let info = (self.chunks[c as usize].no & !FREE) as usize;
        self.free_info[info][usize::from(n)] = (gfn, index);
        EntryIx::in_chunk(c, u32::from(n))
    }

    pub(crate) fn place(&self, entry: EntryIx) -> Place {
        let c = self.chunks[entry.chunk()];
        let i = entry.place() as usize;
        let t = &self.tables[c.table];
        if c.no & FREE != 0 {
            let (gfn, index) = self.free_info[(c.no & !FREE) as usize][i];
            Place { table: c.table, index, gfn, level: t.level }
        } else {
            let index = (c.no as usize * CHUNK + i) as u16;
            let gfn = t.gfn.wrapping_add(u64::from(index) << (9 * (u32::from(t.level).clamp(1, 6) - 1)));
            Place { table: c.table, index, gfn, level: t.level }
        }
    }

    /// Number of slots (used or not).
    pub(crate) fn slots(&self) -> usize {
        self.first.len()
    }

    /// The slots from this one on that hold an entry.
    pub(crate) fn entries_from(&self, from: usize) -> impl Iterator<Item = EntryIx> + '_ {
        (from..self.slots()).map(EntryIx::nth).filter(|e| self.used(*e))
    }

    pub(crate) fn used(&self, entry: EntryIx) -> bool {
        self.first.get(entry).is_some_and(|f| *f != SpanIx::NONE)
    }

    pub(crate) fn last_span(&self, entry: EntryIx) -> Option<SpanIx> {
        self.last.get(entry).copied().filter(|s| *s != SpanIx::NONE)
    }

    pub(crate) fn first_span(&self, entry: EntryIx) -> Option<SpanIx> {
        self.first.get(entry).copied().filter(|s| *s != SpanIx::NONE)
    }

    pub(crate) fn next_span(&self, span: SpanIx) -> Option<SpanIx> {
        self.s_next.get(span).copied().filter(|s| *s != SpanIx::NONE)
    }

    /// What a span replaced in pictures and counts.
    pub(crate) fn replaced(&self, span: SpanIx) -> Option<(Shade, Certainty)> {
        let prev = self.meta(span).prev?;
        Some((prev, CERTAINTIES[usize::from(self.s_prev_certainty[span] & !REMAPPED).min(4)]))
    }

    /// An install in a silent MMU put another mapping into an occupied entry: what was there had been zapped.
    pub(crate) fn mark_remapped(&mut self, span: SpanIx) {
        self.s_prev_certainty[span] |= REMAPPED;
    }

    /// Whether that is so of a span.
    pub(crate) fn remapped(&self, span: SpanIx) -> bool {
        self.s_prev_certainty[span] & REMAPPED != 0
    }

    pub(crate) fn meta(&self, span: SpanIx) -> Meta {
        Meta::unpack(self.s_meta[span])
    }

    /// Value and kind an entry has now.
    pub(crate) fn now(&self, entry: EntryIx) -> Option<(u64, Meta)> {
        self.last_span(entry).map(|s| (self.s_spte[s], self.meta(s)))
    }

    /// Entries of a table that have spans, in no order but that of their making.
    pub(crate) fn table_entries(&self, table: TableIx) -> impl Iterator<Item = EntryIx> + '_ {
        let t = &self.tables[table];
        let fixed = t.chunks.iter().flat_map(|c| c.iter().copied());
        fixed
            .chain(t.free.iter().copied())
            .filter(|c| *c != NONE)
            .flat_map(|c| (0..CHUNK as u32).map(move |i| EntryIx::in_chunk(c, i)))
            .filter(|e| self.used(*e))
    }

    /// Appends a span to an entry.
    pub(crate) fn push(
        &mut self,
        entry: EntryIx,
        ev: EventIx,
        spte: Option<u64>,
        shade: Shade,
        certainty: Certainty,
        reason: Reason,
    ) -> SpanIx {
        let last = self.last[entry];
        let table = self.table_of(entry);
        self.list_unlinked(table, certainty);
        self.tables[table].doubted &= certainty == Certainty::Stale;
        debug_assert!(ev <= self.tables[table].dead_ev, "a span of an entry whose table was freed before");
        let detach = self.tables[table].detach_sp;
        let prev = if last == SpanIx::NONE || (detach != SpanIx::NONE && last < detach) {
            None
        } else {
            Some(self.meta(last).shade)
        };
        let id = self.s_ev.push(ev);
        self.s_entry.push(entry);
        self.s_spte.push(spte.unwrap_or(0));
        self.s_meta.push(Meta { shade, certainty, reason, prev, has_value: spte.is_some() }.pack());
        self.s_next.push(SpanIx::NONE);
        let before = if last == SpanIx::NONE { 0 } else { (self.s_meta[last] >> 3 & 7) as u8 };
        self.s_prev_certainty.push(before);
        if last == SpanIx::NONE {
            self.first[entry] = id;
        } else {
            self.s_next[last] = id;
            if last.position() < self.end_ev.len() {
                self.news.followed.push(last);
            }
        }
        self.last[entry] = id;
        if matches!(shade, Shade::Writable | Shade::ReadOnly | Shade::AccessTracked | Shade::Mmio) {
            let bit = 1 << entry.place();
            if self.leafy[entry.chunk()] & bit == 0 {
                self.leafy[entry.chunk()] |= bit;
                self.news.leaf(entry.chunk());
            }
        }
        let c = &mut self.count[entry];
        *c += 1;
        if usize::from(*c) == SKIP {
            *c = 0;
            self.skips.entry(entry).or_default().push(id);
        }
        id
    }

    /// What was taken for likely turned out to be so.
    pub(crate) fn confirm(&mut self, span: SpanIx) {
        self.dirty = Some(self.dirty.map_or(span, |c| c.min(span)));
        let m = self.meta(span);
        let table = self.table_of(self.s_entry[span]);
        self.tables[table].doubted = false;
        self.s_meta[span] = Meta { certainty: Certainty::Exact, reason: Reason::Stated, ..m }.pack();
    }

    /// Number of the first span that was changed since the last call, though it was there before.
    pub(crate) fn take_dirty(&mut self) -> SpanIx {
        self.dirty.take().unwrap_or(SpanIx::NONE)
    }

    /// The table of an entry.
    pub(crate) fn table_of(&self, entry: EntryIx) -> TableIx {
        self.chunks[entry.chunk()].table
    }

    /// Value and shade of the span before this one of the same entry.
    pub(crate) fn value_before(&self, span: SpanIx) -> Option<(u64, Shade)> {
        let s = self.span_before(self.s_entry[span], span)?;
        Some((self.s_spte[s], self.meta(s).shade))
    }

    /// The table and everything below it is no longer reachable.
    pub(crate) fn detach(&mut self, table: TableIx, ev: EventIx, ts: u64) {
        let t = &mut self.tables[table];
        if t.detach_ev == NONE {
            t.detach_ev = ev;
            t.detach_sp = SpanIx(self.s_ev.len() as u32);
            t.detach_ts = ts;
            self.detaches.push(table);
        }
    }

    /// The table's memory is free.
    pub(crate) fn free_table(&mut self, table: TableIx, ev: EventIx, ts: u64) {
        self.detach(table, ev, ts);
        let t = &mut self.tables[table];
        if t.dead_ev == NONE {
            t.dead_ev = ev;
            t.dead_ts = ts;
            self.deaths.push(table);
        }
    }

    pub(crate) fn span(&self, span: SpanIx) -> Span {
        let m = self.meta(span);
        let end = self.sealed_end(span);
        let old = m.reason == Reason::OldValue;
        Span {
            id: Some(span.id()),
            entry: self.s_entry[span].id(),
            start: old.then(|| self.opening(span)).flatten().unwrap_or_else(|| self.start(span)),
            end: end.map(|e| e.1),
            state: m.shade.state(),
            shade: m.shade,
            spte: m.has_value.then_some(self.s_spte[span]),
            certainty: m.certainty,
            reason: m.reason,
            opened_by: (!old && self.s_ev[span] != NONE).then_some(self.s_ev[span]),
            closed_by: end.map(|e| e.0),
        }
    }

    /// The span before an entry's first event.
    pub(crate) fn leading(&self, entry: EntryIx, origin: u64) -> Option<Span> {
        let f = self.first_span(entry).filter(|f| self.opening(*f).is_none())?;
        let p = self.place(entry);
        let t = &self.tables[p.table];
        let start = if t.born { t.start_ts } else { origin };
        let end = self.start(f);
        if end <= start {
            return None;
        }
        let born = t.born;
        Some(Span {
            id: None,
            entry: entry.id(),
            start,
            end: Some(end),
            state: if born { State::Nonpresent } else { State::Unknown },
            shade: if born { Shade::Nonpresent } else { Shade::Unknown },
            spte: born.then_some(t.empty),
            certainty: match (t.read, born) {
                (true, _) => Certainty::Observed,
                (_, true) => Certainty::Implied,
                _ => Certainty::Assumed,
            },
            reason: match (t.read, born) {
                (true, _) => Reason::Snapshot,
                (_, true) => Reason::NewTable,
                _ => Reason::NeverSeen,
            },
            opened_by: if born { Some(t.start_ev) } else { None },
            closed_by: Some(self.s_ev[f]),
        })
    }

    pub(crate) fn entry(&self, e: EntryIx) -> Entry {
        let p = self.place(e);
        let t = &self.tables[p.table];
        Entry {
            id: e.id(),
            vm: VmId(t.vm),
            as_id: t.as_id,
            level: p.level,
            gfn: p.gfn,
            table: p.table.id(),
            sptep: (t.page != 0).then(|| t.page + u64::from(p.index) * 8),
        }
    }

    pub(crate) fn table(&self, id: TableIx) -> Table {
        let t = &self.tables[id];
        Table {
            id: id.id(),
            vm: VmId(t.vm),
            as_id: t.as_id,
            level: t.level,
            gfn: t.gfn,
            page: (t.page != 0).then_some(t.page),
            parent: (t.parent != EntryIx::NONE).then_some(t.parent.id()),
            start: (t.start_ev != NONE).then_some(t.start_ev),
            end: (t.detach_ev != NONE).then_some(t.detach_ev),
            born: t.born,
            direct: t.direct,
            mirror: t.mirror,
        }
    }

    /// When a span began.
    #[inline]
    pub(crate) fn start(&self, span: SpanIx) -> u64 {
        self.ev_ts.get(self.s_ev[span] as usize)
    }

    /// Position of a moment: the first span that began after `t`, and the number of the first event after it.
    pub(crate) fn moment(&self, t: u64) -> (SpanIx, EventIx) {
        let ev = self.ev_ts.upto(t) as u32;
        (self.s_ev.partition_point(|e| *e < ev), ev)
    }

    /// The span of an entry at a position, by its chain.
    pub(crate) fn span_before(&self, entry: EntryIx, p: SpanIx) -> Option<SpanIx> {
        let mut s = self.first_span(entry)?;
        if let Some(skip) = self.skips.get(&entry) {
            let k = skip.partition_point(|x| *x < p);
            if let Some(x) = k.checked_sub(1).and_then(|k| skip.get(k)) {
                s = *x;
            }
        }
        if s >= p {
            return None;
        }
        while let Some(n) = self.next_span(s) {
            if n >= p {
                break;
            }
            s = n;
        }
        Some(s)
    }

    /// The last span of an entry before span `n`.
    pub(crate) fn last_before(&self, entry: EntryIx, n: SpanIx) -> Option<SpanIx> {
        let last = self.last_span(entry)?;
        if last < n {
            return Some(last);
        }
        self.span_before(entry, n)
    }

    /// Whether a chunk's entries lie one after another.
    pub(crate) fn chunk_is_regular(&self, c: usize) -> bool {
        self.chunks.get(c).is_some_and(|c| c.no & FREE == 0)
    }

    pub(crate) fn heap(&self) -> usize {
        let tables: usize = self.tables.heap()
            + self
                .tables
                .slice()
                .iter()
                .map(|t| if t.chunks.is_some() { CHUNKS * 4 } else { 0 } + t.free.capacity() * 4)
                .sum::<usize>();
        tables
            + self.chunks.capacity() * size_of::<ChunkRec>()
            + self.first.heap()
            + self.last.heap()
            + self.free_info.capacity() * size_of::<[(u64, u16); CHUNK]>()
            + self.s_ev.heap()
            + self.ev_ts.heap()
            + self.ev_kind.capacity()
            + self.leafy.capacity() * 2
            + self.s_entry.heap()
            + self.s_spte.heap()
            + self.s_meta.heap()
            + self.s_next.heap()
            + self.s_prev_certainty.heap()
            + self.end_ev.heap()
            + self.end_tree.iter().map(|l| l.capacity() * 4).sum::<usize>()
            + self.skips.values().map(|v| v.capacity() * 4 + 32).sum::<usize>()
            + self.count.heap()
            + self.openings.capacity() * 16
            + self.unlinked.len() * 24
            + (self.detaches.capacity() + self.deaths.capacity()) * 4
    }

    /// Gives back what growing took in reserve.
    pub(crate) fn shrink(&mut self) {
        self.s_ev.shrink_to_fit();
        self.s_entry.shrink_to_fit();
        self.s_spte.shrink_to_fit();
        self.s_meta.shrink_to_fit();
        self.s_next.shrink_to_fit();
        self.s_prev_certainty.shrink_to_fit();
        self.ev_ts.off.shrink_to_fit();
        self.ev_kind.shrink_to_fit();
        self.first.shrink_to_fit();
        self.last.shrink_to_fit();
        self.count.shrink_to_fit();
        self.chunks.shrink_to_fit();
        self.tables.shrink_to_fit();
    }
}
