//! Guest frames that are mapped, each counted once however many entries map it.
//!
//! Several entries map one frame where two roots of an address space are alive, and where shadow pages of several guest tables do. A frame
//! is what the best of its entries makes it: a known entry before a stale one, then by what it allows (writable, read-only, access-tracked,
//! MMIO), then the larger page. Where each frame has one entry the sums of entries are right as they are, so only what differs from them is
//! kept: [`Fix`].

use rustc_hash::FxHashMap;

use crate::keys::{EntryIx, Ix, SpanIx, TableIx};
use crate::model::{Certainty, Shade, pages_of};
use crate::store::{NONE, Store};

/// The largest page there is: 1 GiB.
pub(crate) const TOP: u8 = 3;
/// Shades of entries that map a frame, the best first.
const SHADES: [Shade; 4] = [Shade::Writable, Shade::ReadOnly, Shade::AccessTracked, Shade::Mmio];
/// Shades twice: known, then stale.
const CLASSES: usize = 8;
/// Code of a slot that several entries map.
const MANY: u8 = 0xff;

/// What an entry makes of the frames it maps: the lower the better.
pub(crate) fn class_of(shade: Shade, certainty: Certainty) -> Option<u8> {
    let shade = SHADES.iter().position(|s| *s == shade)? as u8;
    Some(shade + if certainty == Certainty::Stale { 4 } else { 0 })
}

fn shade_of(class: u8) -> (Shade, bool) {
    (SHADES[usize::from(class & 3)], class >= 4)
}

/// By how much the sums of entries are wrong from an event on, in one address space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fix {
    pub(crate) ev: u32,
    pub(crate) by: i32,
    pub(crate) vm: u16,
    pub(crate) as_id: u8,
    class_level: u8,
}

impl Fix {
    /// Shade, whether stale, and level.
    pub(crate) fn what(self) -> (Shade, bool, u8) {
        let (shade, stale) = shade_of(self.class_level >> 4);
        (shade, stale, self.class_level & 15)
    }
}

/// 512 neighbouring places of one level.
#[derive(Clone, Debug)]
struct Node {
    /// Class of the entry that maps the place plus one, 0, or [`MANY`].
    own: [u8; 512],
    /// Places by the class of their best entry.
    best: [u16; CLASSES],
}

/// Frames by class and level.
type Sum = [[i64; TOP as usize + 1]; CLASSES];

/// What maps the frames of one address space at a moment.
#[derive(Clone, Debug, Default)]
struct Cover {
    nodes: FxHashMap<(u8, u64), Box<Node>>,
    /// Entries of each class, where several map one place.
    many: FxHashMap<(u8, u64), [u32; CLASSES]>,
    /// Entries of each level.
    entries: [u64; TOP as usize + 1],
    /// Present frames.
    present: i64,
    /// The most there were, and when.
    peak: (i64, u64),
}

/// The class and level that a frame gets from an entry.
type Made = Option<(u8, u8)>;

/// The better one; of two that are alike, that of the larger page.
fn better(large: Made, small: Made) -> Made {
    match (large, small) {
        (Some(a), Some(b)) => Some(if a.0 <= b.0 { a } else { b }),
        (a, b) => a.or(b),
    }
}

impl Cover {
    fn best(&self, level: u8, index: u64) -> Made {
        let node = self.nodes.get(&(level, index >> 9))?;
        let class = match node.own[(index & 511) as usize] {
            0 => return None,
            MANY => self.many.get(&(level, index))?.iter().position(|n| *n > 0)? as u8,
            c => c - 1,
        };
        Some((class, level))
    }

    /// The best of the larger pages that cover a place.
    fn above(&self, level: u8, index: u64) -> Made {
        let mut out = None;
        for l in (level + 1..=TOP).rev() {
            if self.entries[usize::from(l)] > 0 {
                out = better(out, self.best(l, index >> (9 * (l - level))));
            }
        }
        out
    }

    /// The frames of a place, under what larger pages make of them.
    fn sum(&self, level: u8, index: u64, above: Made, out: &mut Sum) {
        let made = better(above, self.best(level, index));
        let mut add = |made: Made, n: i64| {
            if let Some((class, level)) = made {
                out[usize::from(class)][usize::from(level)] += n;
            }
        };
        if level == 1 || self.entries[1..usize::from(level)].iter().all(|n| *n == 0) {
            add(made, pages_of(level) as i64);
        } else if level == 2 {
            let mut left = 512;
            if let Some(node) = self.nodes.get(&(1, index)) {
                for (class, n) in node.best.iter().enumerate().filter(|(_, n)| **n > 0) {
                    let small = Some((class as u8, 1));
                    if better(made, small) == small {
                        add(small, i64::from(*n));
                        left -= i64::from(*n);
                    }
                }
            }
            add(made, left);
        } else {
            for i in 0..512 {
                self.sum(level - 1, (index << 9) + i, made, out);
            }
        }
    }

    /// An entry of a place becomes another class, or none. Gives by how much the frames differ from before.
    fn change(&mut self, level: u8, index: u64, old: Option<u8>, new: Option<u8>) -> Sum {
        let above = self.above(level, index);
        let mut was = Sum::default();
        self.sum(level, index, above, &mut was);
        self.set(level, index, old, new);
        let mut now = Sum::default();
        self.sum(level, index, above, &mut now);
        for (n, w) in now.iter_mut().flatten().zip(was.iter().flatten()) {
            *n -= w;
        }
        let present = now.iter().enumerate().filter(|(c, _)| shade_of(*c as u8).0 != Shade::Mmio);
        self.present += present.flat_map(|(_, levels)| levels).sum::<i64>();
        now
    }

    fn set(&mut self, level: u8, index: u64, old: Option<u8>, new: Option<u8>) {
        let before = self.best(level, index);
        let node = self
            .nodes
            .entry((level, index >> 9))
            .or_insert_with(|| Box::new(Node { own: [0; 512], best: [0; CLASSES] }));
        let own = &mut node.own[(index & 511) as usize];
        let entries = &mut self.entries[usize::from(level)];
        if *own != MANY && (*own == 0 || old.is_some()) {
            *own = new.map_or(0, |c| c + 1);
        } else {
            let mut classes = match *own {
                MANY => self.many.remove(&(level, index)).unwrap_or_default(),
                c => {
                    let mut one = [0; CLASSES];
                    one[usize::from(c - 1)] = 1;
                    one
                }
            };
            if let Some(c) = old {
                classes[usize::from(c)] = classes[usize::from(c)].saturating_sub(1);
            }
            if let Some(c) = new {
                classes[usize::from(c)] += 1;
            }
            if classes.iter().sum::<u32>() > 1 {
                *own = MANY;
                self.many.insert((level, index), classes);
            } else {
                *own = classes.iter().position(|n| *n > 0).map_or(0, |c| c as u8 + 1);
            }
        }
        *entries = *entries + u64::from(new.is_some()) - u64::from(old.is_some()).min(*entries);
        let after = self.best(level, index);
        if let Some(node) = self.nodes.get_mut(&(level, index >> 9)) {
            if let Some((c, _)) = before {
                node.best[usize::from(c)] -= 1;
            }
            if let Some((c, _)) = after {
                node.best[usize::from(c)] += 1;
            }
        }
    }
}

/// What the sums of entries get wrong, and the most that was present in each address space.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frames {
    pub(crate) fixes: Vec<Fix>,
    covers: Vec<((u16, u8), Cover)>,
    span: SpanIx,
    detach: usize,
    /// Time of the last change, and the address spaces that changed then.
    at: u64,
    changed: Vec<usize>,
}

impl Frames {
    /// Whether a span that was changed is one of those taken in.
    pub(crate) fn took_in(&self, span: SpanIx) -> bool {
        span < self.span
    }

    /// Takes in what was replayed since.
    pub(crate) fn seal(&mut self, store: &Store) {
        let n = SpanIx::nth(store.spans_len());
        loop {
            let span = if self.span < n { store.s_ev[self.span] } else { NONE };
            let detach = store.detaches.get(self.detach).map_or(NONE, |t| store.tables[*t].detach_ev);
            if self.span < n && span <= detach {
                self.take_span(store, self.span);
                self.span = self.span.plus(1);
            } else if detach == NONE {
                break;
            } else {
                self.drop_table(store, store.detaches[self.detach], detach);
                self.detach += 1;
            }
        }
    }

    fn take_span(&mut self, store: &Store, span: SpanIx) {
        let m = store.meta(span);
        let new = class_of(m.shade, m.certainty);
        if new.is_none() && !m.prev.is_some_and(|s| SHADES.contains(&s)) {
            return;
        }
        let table = store.table_of(store.s_entry[span]);
        // What is traced of a table after its unlinking maps nothing.
        if span < store.tables[table].detach_sp {
            let old = store.replaced(span).and_then(|(s, c)| class_of(s, c));
            self.change(store, store.s_entry[span], store.s_ev[span], old, new);
        }
    }

    fn drop_table(&mut self, store: &Store, table: TableIx, ev: u32) {
        let end = store.tables[table].detach_sp;
        for e in store.table_entries(table) {
            let m = store.last_before(e, end).map(|x| store.meta(x));
            if let Some(old) = m.and_then(|m| class_of(m.shade, m.certainty)) {
                self.change(store, e, ev, Some(old), None);
            }
        }
    }

    fn change(&mut self, store: &Store, entry: EntryIx, ev: u32, old: Option<u8>, new: Option<u8>) {
        let p = store.place(entry);
        if old == new || p.level > TOP || p.level == 0 {
            return;
        }
        let ts = store.ev_ts.get(ev as usize);
        if ts != self.at {
            self.note_peaks();
            self.at = ts;
        }
        let t = &store.tables[p.table];
        let key = (t.vm, t.as_id);
        let i = self.covers.iter().position(|c| c.0 == key).unwrap_or_else(|| {
            self.covers.push((key, Cover::default()));
            self.covers.len() - 1
        });
        let mut by = self.covers[i].1.change(p.level, p.gfn >> (9 * (u32::from(p.level) - 1)), old, new);
        if !self.changed.contains(&i) {
            self.changed.push(i);
        }
        // The sums of entries know of this entry.
        let pages = pages_of(p.level) as i64;
        for (class, sign) in [(old, 1), (new, -1)] {
            if let Some(c) = class {
                by[usize::from(c)][usize::from(p.level)] += sign * pages;
            }
        }
        for (class, levels) in by.iter().enumerate() {
            for (level, by) in levels.iter().enumerate().filter(|(_, by)| **by != 0) {
                let class_level = (class << 4 | level) as u8;
                self.fixes.push(Fix { ev, by: *by as i32, vm: key.0, as_id: key.1, class_level });
            }
        }
    }

    /// A moment is over: what goes and what comes at one time is one change.
    fn note_peaks(&mut self) {
        for i in self.changed.drain(..) {
            let c = &mut self.covers[i].1;
            if c.present > c.peak.0 {
                c.peak = (c.present, self.at);
            }
        }
    }

    /// The moment at which most frames were present in an address space, and how many.
    pub(crate) fn peak(&self, vm: u16, as_id: u8) -> Option<(u64, u64)> {
        let c = &self.covers.iter().find(|c| c.0 == (vm, as_id))?.1;
        // The last moment may go on.
        let peak = if c.present > c.peak.0 { (c.present, self.at) } else { c.peak };
        (peak.0 > 0).then_some((peak.1, peak.0 as u64))
    }

    pub(crate) fn heap(&self) -> usize {
        self.fixes.capacity() * size_of::<Fix>()
            + self
                .covers
                .iter()
                .map(|(_, c)| c.nodes.len() * (size_of::<Node>() + 24) + c.many.capacity() * 48)
                .sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All entries of one frame, for one frame of each stretch in which no entry begins or ends.
    fn naive(entries: &[(u8, u64, u8)]) -> Sum {
        let span =
            |(level, index, _): &(u8, u64, u8)| (index * pages_of(*level), (index + 1) * pages_of(*level));
        let mut ends: Vec<u64> = entries.iter().map(span).flat_map(|(a, b)| [a, b]).collect();
        ends.sort_unstable();
        ends.dedup();
        let mut out = Sum::default();
        for stretch in ends.windows(2) {
            let (frame, frames) = (stretch[0], stretch[1] - stretch[0]);
            let mut made: Made = None;
            for level in (1..=TOP).rev() {
                for e in entries.iter().filter(|e| e.0 == level && (span(e).0..span(e).1).contains(&frame)) {
                    made = better(made, Some((e.2, level)));
                }
            }
            if let Some((class, level)) = made {
                out[usize::from(class)][usize::from(level)] += frames as i64;
            }
        }
        out
    }

    #[test]
    fn each_frame_is_counted_once_as_its_best_entry_makes_it() {
        let mut cover = Cover::default();
        let mut sum = Sum::default();
        let mut entries: Vec<(u8, u64, u8)> = Vec::new();
        let mut seed = 7u64;
        let mut random = |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % n
        };
        for turn in 0..600 {
            let (place, old, new) = if entries.is_empty() || random(3) > 0 {
                let level = [1, 1, 1, 2, 2, 3][random(6) as usize];
                let index = match level {
                    1 => [0, 512, 1024, 1 << 18][random(4) as usize] + random(3),
                    2 => [0, 512][random(2) as usize] + random(3),
                    _ => random(2),
                };
                let class = random(8) as u8;
                entries.push((level, index, class));
                ((level, index), None, Some(class))
            } else {
                let i = random(entries.len() as u64) as usize;
                let (level, index, old) = entries.swap_remove(i);
                let new = (random(2) > 0).then(|| random(8) as u8);
                if let Some(class) = new {
                    entries.push((level, index, class));
                }
                ((level, index), Some(old), new)
            };
            let by = cover.change(place.0, place.1, old, new);
            for (s, b) in sum.iter_mut().flatten().zip(by.iter().flatten()) {
                *s += b;
            }
            if turn % 20 == 0 || turn == 599 {
                assert_eq!(sum, naive(&entries), "turn {turn}: {entries:?}");
            }
        }
        for (level, index, class) in entries.drain(..) {
            cover.change(level, index, Some(class), None);
        }
        assert_eq!((cover.present, cover.entries, cover.many.len()), (0, [0; 4], 0));
    }
}
