//! Goes through the changes in their order and cuts them into segments.

use std::hint::black_box;

use rustc_hash::FxHashMap;

use super::build::{Extent, Node, Raw, Segment, Start};
use super::{Item, Layer, NODE_BITS, Sizes, TICKS, WIDTH, add, code_of, shift_of};
use crate::keys::{EntryIx, Ix, SpanIx};
use crate::store::{NONE, Store};

/// Changes looked at together.
const AHEAD: u32 = 32;

/// What a node holds now.
#[derive(Clone, Copy, Debug, Default)]
struct Now {
    counts: [i32; WIDTH],
    /// The span that began last, plus one.
    rep: u32,
}

/// How far the changes were gone through, and what everything held there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gather {
    layers: Vec<Layer>,
    layer_ix: FxHashMap<Layer, u32>,
    nodes: Vec<Node>,
    node_ix: FxHashMap<Node, u32>,
    now: Vec<Now>,
    /// Nodes by layer and key.
    sorted: Vec<u32>,
    /// Node of each chunk of a table whose entries lie one after another.
    chunk_node: Vec<u32>,
    /// Where each table was: if that ever changes, everything is made anew.
    tables: Vec<(u16, u8)>,
    pub(crate) ev: u32,
    pub(crate) span: SpanIx,
    detach: usize,
    death: usize,
}

impl Gather {
    pub(crate) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Whether a table was found to belong elsewhere.
    pub(crate) fn moved(&mut self, store: &Store) -> bool {
        let is = store.tables.slice().iter().map(|t| (t.vm, t.as_id));
        if self.tables.iter().copied().ne(is.clone().take(self.tables.len())) {
            return true;
        }
        let n = self.tables.len();
        self.tables.extend(is.skip(n));
        false
    }

    /// Goes back to the beginning of a segment.
    pub(crate) fn rewind(&mut self, s: &Segment) {
        (self.ev, self.span, self.detach, self.death) = (s.at.ev0, s.at.span0, s.at.detach0, s.at.death0);
        self.now.fill(Now::default());
        for l in &s.layers {
            for x in &l.start {
                let node = Node { layer: l.layer, key: x.key };
                if let Some(n) = self.node_ix.get(&node) {
                    let now = &mut self.now[*n as usize];
                    now.rep = now.rep.max(x.rep);
                    for (c, d) in now.counts.iter_mut().zip(x.counts) {
                        *c += i32::from(d);
                    }
                }
            }
        }
    }

    fn node(&mut self, store: &Store, entry: EntryIx) -> (u32, u32) {
        let chunk = entry.chunk();
        if let Some(n) = self.chunk_node.get(chunk).filter(|n| **n != NONE) {
            return (*n, entry.place());
        }
        let p = store.place(entry);
        let t = &store.tables[p.table];
        let regular = store.chunk_is_regular(chunk);
        let index = p.gfn >> shift_of(p.level);
        let y = if regular { entry.place() } else { index as u32 & 15 };
        let layer = Layer { vm: t.vm, as_id: t.as_id, level: p.level, hi: (index >> 32) as u32 };
        let layers = &mut self.layers;
        let layer = *self.layer_ix.entry(layer).or_insert_with(|| {
            layers.push(layer);
            layers.len() as u32 - 1
        });
        let node = Node { layer, key: index as u32 >> NODE_BITS };
        let next = self.nodes.len() as u32;
        let n = *self.node_ix.entry(node).or_insert(next);
        if n == next {
            self.nodes.push(node);
            self.now.push(Now::default());
        }
        if regular {
            if self.chunk_node.len() <= chunk {
                self.chunk_node.resize(chunk + 1, NONE);
            }
            self.chunk_node[chunk] = n;
        }
        (n, y)
    }

    /// The next segment: as many changes as one holds, or all there are before event `end`.
    pub(crate) fn segment(&mut self, store: &Store, end: u32, sizes: Sizes) -> Raw {
        let held = self.now.iter().filter(|n| n.counts != [0; WIDTH]).count() as u32;
        // What a segment begins with shall be small beside its changes.
        let most = held.saturating_mul(8).clamp(sizes.least, sizes.most);
        let span_end = self.span.plus(most);
        let (ev1, full) = match store.s_ev.get(span_end) {
            Some(e) if *e < end => ((*e).max(self.ev + 1), true),
            _ => (end, false),
        };
        let mut raw = self.open(store, ev1);
        (raw.at.full, raw.sizes) = (full, sizes);
        let span1 = store.s_ev.partition_point(|e| *e < ev1);
        raw.changes.reserve(span1.since(self.span) as usize);
        loop {
            let next_span = if self.span < span1 { store.s_ev[self.span] } else { NONE };
            let next_detach = store.detaches.get(self.detach).map_or(NONE, |t| store.tables[*t].detach_ev);
            let next_death = store.deaths.get(self.death).map_or(NONE, |t| store.tables[*t].dead_ev);
            let ev = next_span.min(next_detach).min(next_death);
            if ev >= ev1 {
                break;
            }
            let tick = (store.ev_ts.get(ev as usize) - raw.at.t0) / raw.at.tick;
            if ev == next_span {
                let span = self.span;
                self.span = span.plus(1);
                let entry = store.s_entry[span];
                if span.0.is_multiple_of(AHEAD) {
                    self.look_ahead(store, span, span1);
                }
                let table = &store.tables[store.table_of(entry)];
                // What is traced of a table after its end is never shown.
                if table.dead_ev < ev {
                    continue;
                }
                let m = store.meta(span);
                let new = code_of(m.shade, m.certainty);
                let old = store.replaced(span).map_or(0, |(s, c)| code_of(s, c));
                let what = span.since(raw.at.span0);
                self.change(store, &mut raw, (entry, table.level), tick, what, new, old);
            } else if ev == next_detach {
                let t = store.detaches[self.detach];
                self.detach += 1;
                let (at, level) = (store.tables[t].detach_sp, store.tables[t].level);
                for e in store.table_entries(t) {
                    if let Some(s) = store.last_before(e, at) {
                        let m = store.meta(s);
                        let what = (self.detach - 1 - raw.at.detach0) as u32 * 2;
                        self.change(
                            store,
                            &mut raw,
                            (e, level),
                            tick,
                            what,
                            0,
                            code_of(m.shade, m.certainty),
                        );
                    }
                }
            } else {
                let t = store.deaths[self.death];
                self.death += 1;
                let r = &store.tables[t];
                let (at, dead, level) = (r.detach_sp, r.dead_ev, r.level);
                let shown = store.s_ev.partition_point(|e| *e <= dead);
                for e in store.table_entries(t) {
                    if let Some(s) = store.last_before(e, shown).filter(|s| *s >= at) {
                        let m = store.meta(s);
                        let what = (self.death - 1 - raw.at.death0) as u32 * 2 + 1;
                        self.change(
                            store,
                            &mut raw,
                            (e, level),
                            tick,
                            what,
                            0,
                            code_of(m.shade, m.certainty),
                        );
                    }
                }
            }
        }
        self.ev = ev1;
        (raw.at.ev1, raw.at.span1) = (ev1, self.span);
        raw.layers.clone_from(&self.layers);
        if self.sorted.len() < self.nodes.len() {
            self.sort();
        }
        let mut rank = vec![NONE; self.nodes.len()];
        for c in &raw.changes {
            rank[c.0 as usize] = 0;
        }
        for n in &self.sorted {
            let r = &mut rank[*n as usize];
            if *r == 0 {
                *r = raw.nodes.len() as u32;
                raw.nodes.push(self.nodes[*n as usize]);
            }
        }
        for c in &mut raw.changes {
            c.0 = rank[c.0 as usize];
        }
        raw
    }

    fn sort(&mut self) {
        self.sorted.extend(self.sorted.len() as u32..self.nodes.len() as u32);
        let nodes = &self.nodes;
        // Stable: it finds the sorted part in front.
        self.sorted.sort_by_key(|n| nodes[*n as usize]);
    }

    /// A segment that begins here, with what everything holds.
    fn open(&mut self, store: &Store, ev1: u32) -> Raw {
        if self.sorted.len() < self.nodes.len() {
            self.sort();
        }
        let t0 = store.ev_ts.get(self.ev as usize);
        let t1 = store.ev_ts.get(ev1 as usize - 1);
        let at = Extent {
            ev0: self.ev,
            span0: self.span,
            detach0: self.detach,
            death0: self.death,
            t0,
            t1,
            tick: (t1 - t0) / TICKS + 1,
            ..Extent::default()
        };
        let mut raw = Raw { at, ..Raw::default() };
        for n in &self.sorted {
            let now = &self.now[*n as usize];
            let node = self.nodes[*n as usize];
            let mut left = now.counts.map(|c| c.max(0) as u32);
            // A record holds up to 255 of each; what is more goes on in the next.
            while left != [0; WIDTH] {
                let counts = left.map(|c| c.min(255) as u8);
                for (l, c) in left.iter_mut().zip(counts) {
                    *l -= u32::from(c);
                }
                raw.start.push((node.layer, Start { key: node.key, rep: now.rep, counts }));
            }
        }
        raw
    }

    /// Reads what the next changes will need, all together: see [`crate::ahead`].
    fn look_ahead(&self, store: &Store, span: SpanIx, end: SpanIx) {
        let mut nodes = [NONE; AHEAD as usize];
        let mut sum = 0;
        for (node, e) in nodes.iter_mut().zip(&store.s_entry.slice()[span.position()..end.position()]) {
            let chunk = e.chunk();
            *node = self.chunk_node.get(chunk).copied().unwrap_or(NONE);
            sum ^= store.table_of(*e).0;
        }
        for n in nodes {
            sum ^= self.now.get(n as usize).map_or(0, |n| n.rep);
        }
        black_box(sum);
    }

    fn change(
        &mut self,
        store: &Store,
        raw: &mut Raw,
        (entry, level): (EntryIx, u8),
        tick: u64,
        what: u32,
        new: u8,
        old: u8,
    ) {
        if new == 0 && old == 0 {
            return;
        }
        let (n, y) = self.node(store, entry);
        let now = &mut self.now[n as usize];
        add(&mut now.counts, new, level, 1);
        add(&mut now.counts, old, level, -1);
        if new != 0 {
            now.rep = now.rep.max(raw.at.span0.plus(what).rep());
        }
        raw.changes.push((n, Item::new(y, tick, what, new, old)));
    }

    /// Nothing changed since the last segment.
    pub(crate) fn is_level(&self, store: &Store) -> bool {
        self.span.position() == store.spans_len()
            && self.detach == store.detaches.len()
            && self.death == store.deaths.len()
    }

    pub(crate) fn heap(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
            + self.node_ix.capacity() * (size_of::<Node>() + 5)
            + self.now.capacity() * size_of::<Now>()
            + (self.sorted.capacity() + self.chunk_node.capacity() + self.tables.capacity()) * 4
    }
}
