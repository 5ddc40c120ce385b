//! One segment: changes sorted by place and time, and sums of them.

use super::{Item, Layer, NODE_BITS, Sizes, WIDTH, add, shade_of};
use crate::keys::SpanIx;
use crate::store::Store;

/// What a node held when a segment began: up to 255 of each; more goes on in the next record of the same node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// First entry / 16.
    pub(crate) key: u32,
    /// The span that began last, plus one.
    pub(crate) rep: u32,
    pub(crate) counts: [u8; WIDTH],
}

/// The stretch of time that a segment is of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extent {
    /// Events, spans, and unlinked and freed tables: the first, and one past the last.
    pub(crate) ev0: u32,
    pub(crate) ev1: u32,
    pub(crate) span0: SpanIx,
    pub(crate) span1: SpanIx,
    pub(crate) detach0: usize,
    pub(crate) death0: usize,
    /// Time of the first event.
    pub(crate) t0: u64,
    /// Time of the last one.
    pub(crate) t1: u64,
    /// Nanoseconds of a tick.
    pub(crate) tick: u64,
    /// It holds as much as one does.
    pub(crate) full: bool,
}

/// Sixteen neighbouring entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Node {
    pub(crate) layer: u32,
    /// First entry / 16.
    pub(crate) key: u32,
}

/// What a segment is built from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Raw {
    pub(crate) at: Extent,
    pub(crate) sizes: Sizes,
    pub(crate) layers: Vec<Layer>,
    /// With the layer; sorted.
    pub(crate) start: Vec<(u32, Start)>,
    /// Nodes with changes; sorted.
    pub(crate) nodes: Vec<Node>,
    /// In the order of time, each with the number of its node in `nodes`.
    pub(crate) changes: Vec<(u32, Item)>,
}

/// What changed in a stretch of time.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) at: Extent,
    /// By number.
    pub(crate) layers: Vec<SegLayer>,
}

/// The entries of one layer in a segment.
#[derive(Clone, Debug, Default)]
pub(crate) struct SegLayer {
    pub(crate) layer: u32,
    pub(crate) start: Vec<Start>,
    pub(crate) base: Base,
    pub(crate) sums: Vec<Sums>,
}

/// All changes, by entry and time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Base {
    keys: Vec<u32>,
    offs: Vec<u32>,
    pub(crate) items: Vec<Item>,
}

impl Base {
    /// Position of the first change at or above an entry.
    pub(crate) fn position(&self, entry: u64) -> usize {
        let key = entry >> NODE_BITS;
        let n = self.keys.partition_point(|k| u64::from(*k) < key);
        let Some(&at) = self.offs.get(n) else { return self.items.len() };
        let at = at as usize;
        if u64::from(self.keys.get(n).copied().unwrap_or(u32::MAX)) != key || entry & 15 == 0 {
            return at;
        }
        let end = self.offs[n + 1] as usize;
        at + self.items[at..end].partition_point(|i| u64::from(i.y()) < entry & 15)
    }
}

/// The changes of 2^shift entries in one stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    /// The span that began last, plus one.
    pub(crate) rep: u32,
    /// Number of the stretch.
    pub(crate) cell: u16,
    pub(crate) changes: u16,
    /// What is more at its end than at its beginning. What does not fit goes on in the next record of the same cell.
    pub(crate) delta: [i8; WIDTH],
    /// Shades that were there at some time.
    pub(crate) touched: u8,
}

/// Sums of one size.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums {
    /// 2^shift entries are one.
    pub(crate) shift: u32,
    /// Ticks of a cell.
    pub(crate) ticks: u64,
    keys: Vec<u32>,
    offs: Vec<u32>,
    pub(crate) recs: Vec<Sum>,
}

impl Sums {
    /// Position of the first sum at or above an entry.
    pub(crate) fn position(&self, entry: u64) -> usize {
        let key = entry >> self.shift;
        let n = self.keys.partition_point(|k| u64::from(*k) < key);
        self.offs.get(n).map_or(self.recs.len(), |o| *o as usize)
    }
}

impl Segment {
    pub(crate) fn build(raw: Raw) -> Self {
        let ticks = (raw.at.t1 - raw.at.t0) / raw.at.tick + 1;
        let bounds = split(&raw.nodes);
        let mut layers: Vec<SegLayer> = Vec::new();
        let items = sort(raw.nodes.len(), &raw.changes);
        drop(raw.changes);
        for (from, to) in bounds {
            let nodes = &raw.nodes[from..to];
            let first = items.offs[from] as usize;
            let end = items.offs[to] as usize;
            let base = Base {
                keys: nodes.iter().map(|n| n.key).collect(),
                offs: items.offs[from..=to].iter().map(|o| o - first as u32).collect(),
                items: items.items[first..end].to_vec(),
            };
            let layer = nodes[0].layer;
            let level = raw.layers[layer as usize].level;
            let sums = sums(&base, ticks, level, raw.at.span0, raw.sizes);
            layers.push(SegLayer { layer, start: Vec::new(), base, sums });
        }
        for (layer, s) in raw.start {
            let i = match layers.binary_search_by_key(&layer, |l| l.layer) {
                Ok(i) => i,
                Err(i) => {
                    layers.insert(i, SegLayer { layer, ..SegLayer::default() });
                    i
                }
            };
            layers[i].start.push(s);
        }
        for l in &mut layers {
            l.start.shrink_to_fit();
        }
        Self { at: raw.at, layers }
    }

    pub(crate) fn layer(&self, layer: u32) -> Option<&SegLayer> {
        self.layers.binary_search_by_key(&layer, |l| l.layer).ok().map(|i| &self.layers[i])
    }

    /// The event that a change is from.
    pub(crate) fn event(&self, store: &Store, item: Item) -> u32 {
        let what = item.what();
        if item.new_code() != 0 {
            return store.s_ev[self.at.span0.plus(what)];
        }
        let i = what as usize / 2;
        if what.is_multiple_of(2) {
            store.tables[store.detaches[self.at.detach0 + i]].detach_ev
        } else {
            store.tables[store.deaths[self.at.death0 + i]].dead_ev
        }
    }

    pub(crate) fn heap(&self) -> usize {
        let layer = |l: &SegLayer| {
            size_of::<SegLayer>()
                + l.start.capacity() * size_of::<Start>()
                + (l.base.keys.capacity() + l.base.offs.capacity()) * 4
                + l.base.items.capacity() * size_of::<Item>()
                + l.sums
                    .iter()
                    .map(|s| {
                        size_of::<Sums>()
                            + (s.keys.capacity() + s.offs.capacity()) * 4
                            + s.recs.capacity() * size_of::<Sum>()
                    })
                    .sum::<usize>()
        };
        size_of::<Self>() + self.layers.iter().map(layer).sum::<usize>()
    }
}

/// Where each layer's nodes begin and end.
fn split(nodes: &[Node]) -> Vec<(usize, usize)> {
    let mut out: Vec<(usize, usize)> = Vec::new();
    for (i, n) in nodes.iter().enumerate() {
        match out.last_mut() {
            Some(l) if nodes[l.0].layer == n.layer => l.1 = i + 1,
            _ => out.push((i, i + 1)),
        }
    }
    out
}

/// All changes by node, entry and time (in the order they came).
fn sort(nodes: usize, changes: &[(u32, Item)]) -> Base {
    let bucket = |c: &(u32, Item)| c.0 as usize * 16 + c.1.y() as usize;
    let mut at = vec![0u32; nodes * 16 + 1];
    for c in changes {
        at[bucket(c) + 1] += 1;
    }
    for i in 1..at.len() {
        at[i] += at[i - 1];
    }
    let offs = (0..=nodes).map(|n| at[n * 16]).collect();
    let mut items = vec![Item::new(0, 0, 0, 0, 0); changes.len()];
    for c in changes {
        let a = &mut at[bucket(c)];
        items[*a as usize] = c.1;
        *a += 1;
    }
    Base { keys: Vec::new(), offs, items }
}

/// The sums that are worth their memory: a few sizes of stretches, each with cells so long that there are several times fewer sums than
/// changes, and longer ones on top.
fn sums(base: &Base, ticks: u64, level: u8, span0: SpanIx, sizes: Sizes) -> Vec<Sums> {
    let n = base.items.len();
    let mut out = Vec::new();
    if n < sizes.few {
        return out;
    }
    let groups = |shift: u32| {
        let mut last = None;
        let mut groups = 0;
        for (i, k) in base.keys.iter().enumerate() {
            if shift >= NODE_BITS {
                let g = Some(k >> (shift - NODE_BITS));
                groups += usize::from(g != last);
                last = g;
            } else {
                let items = &base.items[base.offs[i] as usize..base.offs[i + 1] as usize];
                groups += items.chunk_by(|a, b| a.y() >> shift == b.y() >> shift).count();
            }
        }
        groups
    };
    let mut shift = 0;
    while shift < 31 && groups(shift) > sizes.rows {
        shift += 1;
    }
    for share in [6, 9, 12] {
        let limit = n / share;
        let rows = groups(shift);
        if rows * 4 > limit {
            break;
        }
        // The shortest cells that keep to the limit; the fewer places change at a time, the shorter they may be.
        let mut cells = (limit / rows).max(4) as u64;
        let mut stamp = Vec::new();
        let ticks_of = |cells: u64| ticks.div_ceil(cells.min(65536)).max(1);
        while cells < 65536 && ticks_of(cells) > 1 {
            let finer = (cells * 3 / 2).min(65536);
            if count(base, shift, ticks_of(finer), &mut stamp) > limit {
                break;
            }
            cells = finer;
        }
        let mut s = sum_up(base, shift, ticks_of(cells), ticks, level, span0);
        loop {
            let (len, cells) = (s.recs.len(), ticks.div_ceil(s.ticks));
            let next = (cells > 8).then(|| coarser(&s));
            out.push(s);
            match next {
                Some(c) if c.recs.len() * 4 < len * 3 => s = c,
                _ => break,
            }
        }
        if shift < 2 {
            break;
        }
        shift -= 2;
    }
    out
}

/// How many sums there would be (without those that go on in a second record).
fn count(base: &Base, shift: u32, ticks: u64, stamp: &mut Vec<u32>) -> usize {
    stamp.clear();
    stamp.resize(65537, 0);
    let mut n = 0;
    let mut group = 0;
    let mut last = None;
    for (i, k) in base.keys.iter().enumerate() {
        for item in &base.items[base.offs[i] as usize..base.offs[i + 1] as usize] {
            let g = Some((k << NODE_BITS | item.y()) >> shift);
            if g != last {
                last = g;
                group += 1;
            }
            let s = &mut stamp[(item.tick() / ticks).min(65536) as usize];
            n += usize::from(*s != group);
            *s = group;
        }
    }
    n
}

/// A cell that is being summed up.
#[derive(Clone, Copy, Default)]
struct Open {
    delta: [i32; WIDTH],
    changes: u32,
    touched: u8,
    rep: u32,
}

impl Open {
    /// Writes it, as more than one record if it does not fit one.
    fn close(&mut self, cell: u16, recs: &mut Vec<Sum>) {
        while self.changes > 0 || self.delta != [0; WIDTH] {
            let delta = self.delta.map(|d| d.clamp(-128, 127) as i8);
            let changes = self.changes.min(0xffff) as u16;
            recs.push(Sum { rep: self.rep, cell, changes, delta, touched: self.touched });
            self.changes -= u32::from(changes);
            for (d, o) in self.delta.iter_mut().zip(delta) {
                *d -= i32::from(o);
            }
        }
        *self = Self::default();
    }
}

/// Cells of one group, dense, with a bit for each that is in use.
struct Cells {
    open: Vec<Open>,
    used: Vec<u64>,
}

impl Cells {
    fn new(cells: u64) -> Self {
        let n = cells.min(65536) as usize;
        Self { open: vec![Open::default(); n], used: vec![0; n.div_ceil(64)] }
    }
    fn at(&mut self, cell: usize) -> &mut Open {
        let cell = cell.min(self.open.len() - 1);
        self.used[cell / 64] |= 1 << (cell % 64);
        &mut self.open[cell]
    }
    fn close(&mut self, recs: &mut Vec<Sum>) {
        for (w, bits) in self.used.iter_mut().enumerate() {
            while *bits != 0 {
                let cell = w * 64 + bits.trailing_zeros() as usize;
                *bits &= *bits - 1;
                self.open[cell].close(cell as u16, recs);
            }
        }
    }
}

fn sum_up(base: &Base, shift: u32, ticks: u64, all: u64, level: u8, span0: SpanIx) -> Sums {
    let mut s = Sums { shift, ticks, ..Sums::default() };
    let mut cells = Cells::new(all.div_ceil(ticks));
    for (i, k) in base.keys.iter().enumerate() {
        for item in &base.items[base.offs[i] as usize..base.offs[i + 1] as usize] {
            let key = (k << NODE_BITS | item.y()) >> shift;
            if s.keys.last() != Some(&key) {
                cells.close(&mut s.recs);
                s.keys.push(key);
                s.offs.push(s.recs.len() as u32);
            }
            let c = cells.at((item.tick() / ticks) as usize);
            let (new, old) = (item.new_code(), item.old_code());
            add(&mut c.delta, new, level, 1);
            add(&mut c.delta, old, level, -1);
            c.changes += 1;
            if new != 0 {
                c.touched |= 1 << shade_of(new);
                c.rep = c.rep.max(span0.plus(item.what()).rep());
            }
            if old != 0 {
                c.touched |= 1 << shade_of(old);
            }
        }
    }
    finish(s, &mut cells)
}

/// The same with cells three times as long.
fn coarser(of: &Sums) -> Sums {
    let mut s = Sums { shift: of.shift, ticks: of.ticks * 3, ..Sums::default() };
    let mut cells = Cells::new(65536 / 3 + 1);
    for (i, k) in of.keys.iter().enumerate() {
        s.keys.push(*k);
        s.offs.push(s.recs.len() as u32);
        for r in &of.recs[of.offs[i] as usize..of.offs[i + 1] as usize] {
            let c = cells.at(usize::from(r.cell / 3));
            for (d, o) in c.delta.iter_mut().zip(r.delta) {
                *d += i32::from(o);
            }
            c.changes += u32::from(r.changes);
            c.touched |= r.touched;
            c.rep = c.rep.max(r.rep);
        }
        cells.close(&mut s.recs);
    }
    finish(s, &mut cells)
}

fn finish(mut s: Sums, cells: &mut Cells) -> Sums {
    cells.close(&mut s.recs);
    s.offs.push(s.recs.len() as u32);
    s.keys.shrink_to_fit();
    s.offs.shrink_to_fit();
    s.recs.shrink_to_fit();
    s
}
