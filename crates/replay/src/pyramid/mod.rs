//! The time x GFN pyramid: changes of entries in an order that a picture can be drawn from, and sums of them for pictures of much.
//!
//! Time is cut into *segments* of some hundred thousand changes. Within one, changes are sorted by where they lie (address space, level,
//! frame) and then by time, eight bytes each, so that what a row of a picture needs lies together. A segment begins with what every
//! populated stretch of sixteen entries held at its start; from there a picture adds up changes. On top of that each segment has *sums*:
//! the changes of 2^n neighbouring entries in one stretch of time as one record, at a few sizes. A query takes, for each part of the
//! axis, the coarsest sums that are no coarser than its cells, so that its cost follows the cells and not the changes.
//!
//! Segments never change once they are made. A growing trace appends new ones; small ones at the end are made anew together.

mod build;
mod gather;

use std::sync::Arc;

use crate::keys::{EntryIx, Ix, SpanIx};
use crate::model::{Certainty, Shade};
use crate::store::Store;

pub(crate) use build::{Base, SegLayer, Segment, Sum, Sums};
use gather::Gather;

/// Entries per node of a segment's first state and of its directory: those of a chunk.
pub(crate) const NODE_BITS: u32 = 4;

/// What is counted of a node: seven shades (tables are not drawn), stale, assumed, huge.
pub(crate) const WIDTH: usize = 10;
pub(crate) const STALE: usize = 7;
pub(crate) const ASSUMED: usize = 8;
pub(crate) const HUGE: usize = 9;

/// Entries of one level of one address space. Level 1 of a guest may have more than 2^32 frames only in a made-up file: these are layers
/// of their own (`hi`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Layer {
    pub(crate) vm: u16,
    pub(crate) as_id: u8,
    pub(crate) level: u8,
    pub(crate) hi: u32,
}

impl Layer {
    pub(crate) fn shift(self) -> u32 {
        shift_of(self.level)
    }
    /// First frame of an entry.
    pub(crate) fn gfn(self, entry: u64) -> u64 {
        ((u64::from(self.hi) << 32) + entry) << self.shift()
    }
}

pub(crate) fn shift_of(level: u8) -> u32 {
    9 * (u32::from(level.clamp(1, 6)) - 1)
}

/// What an entry shows, in five bits: nothing (0), or shade and whether that is stale or assumed.
pub(crate) fn code_of(shade: Shade, certainty: Certainty) -> u8 {
    if shade == Shade::Table {
        return 0;
    }
    let class = match certainty {
        Certainty::Stale => 1,
        Certainty::Assumed | Certainty::Implied if shade != Shade::Nonpresent => 2,
        _ => 0,
    };
    1 + shade as u8 * 3 + class
}

/// Shade of a code that is not nothing.
pub(crate) fn shade_of(code: u8) -> usize {
    usize::from((code.max(1) - 1) / 3)
}

/// Adds what an entry with this code counts.
#[inline]
pub(crate) fn add(v: &mut [i32], code: u8, level: u8, sign: i32) {
    if code == 0 {
        return;
    }
    let (shade, class) = ((code - 1) / 3, (code - 1) % 3);
    v[usize::from(shade)] += sign;
    if class > 0 {
        v[STALE - 1 + usize::from(class)] += sign;
    }
    if level > 1 && (Shade::Writable as u8..=Shade::AccessTracked as u8).contains(&shade) {
        v[HUGE] += sign;
    }
}

/// One change in eight bytes: entry within its node, time in ticks of the segment, the span that began (or, where a table's end ended one,
/// which table) counted from the segment's first, and what the entry shows from then on and showed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Item(u64);

/// Ticks of a segment, and spans one may hold.
pub(crate) const TICKS: u64 = 1 << 24;

impl Item {
    pub(crate) fn new(y: u32, tick: u64, what: u32, new: u8, old: u8) -> Self {
        Self(
            u64::from(y & 15) << 60
                | tick.min(TICKS - 1) << 36
                | u64::from(what.min(0xff_ffff)) << 12
                | u64::from(new & 31) << 7
                | u64::from(old & 31) << 2,
        )
    }
    pub(crate) fn y(self) -> u32 {
        (self.0 >> 60) as u32
    }
    #[inline]
    pub(crate) fn tick(self) -> u64 {
        self.0 >> 36 & (TICKS - 1)
    }
    #[inline]
    pub(crate) fn what(self) -> u32 {
        (self.0 >> 12) as u32 & 0xff_ffff
    }
    #[inline]
    pub(crate) fn new_code(self) -> u8 {
        (self.0 >> 7) as u8 & 31
    }
    #[inline]
    pub(crate) fn old_code(self) -> u8 {
        (self.0 >> 2) as u8 & 31
    }
}

/// The segments, and what is needed to append to them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pyramid {
    segments: Vec<Arc<Segment>>,
    gather: Gather,
    pub(crate) sizes: Sizes,
}

/// How much goes together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Fewest changes of a segment that stays as it is.
    pub(crate) least: u32,
    /// Most changes of a segment.
    pub(crate) most: u32,
    /// A layer with fewer changes is drawn from the changes themselves.
    pub(crate) few: usize,
    /// Stretches of the GFN axis that the coarsest sums tell apart: as many as a screen has rows, so that a whole address space is drawn
    /// from them.
    pub(crate) rows: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { least: 1 << 17, most: 1 << 22, few: 8192, rows: 1024 }
    }
}

impl Pyramid {
    /// Whether a table was found to belong to another VM than when it was taken in: then everything is made anew.
    pub(crate) fn moved(&mut self, store: &Store) -> bool {
        let moved = self.gather.moved(store);
        if moved {
            *self = Self { sizes: self.sizes, ..Self::default() };
        }
        moved
    }

    /// Takes in what was replayed since; spans from `dirty` on are not what they were.
    pub(crate) fn seal(&mut self, store: &Store, dirty: SpanIx, threads: usize) {
        let spans = SpanIx::nth(store.spans_len());
        // What changed after it was taken in, and small segments at the end, are made anew. A segment is kept if it is full, or well
        // larger than what comes after it: so each change is taken in a few times at most, however small the steps.
        while let Some(s) = self.segments.last() {
            let after = spans.since(s.at.span1);
            let keep = s.at.span1 <= dirty
                && (s.at.full
                    || (s.at.ev1 as usize == store.ev_ts.len())
                    || s.at.span1.since(s.at.span0) / 2 > after);
            if keep {
                break;
            }
            self.gather.rewind(s);
            self.segments.pop();
        }
        let end_ev = store.ev_ts.len() as u32;
        if self.gather.is_level(store) {
            return;
        }
        if threads == 1 || spans.since(self.gather.span) < self.sizes.least {
            while self.gather.ev < end_ev {
                let raw = self.gather.segment(store, end_ev, self.sizes);
                self.segments.push(Arc::new(Segment::build(raw)));
            }
            return;
        }
        // One thread goes through the changes in their order, the others sort and sum up what it has cut off.
        let (send, done) = std::sync::mpsc::channel();
        let (gather, sizes) = (&mut self.gather, self.sizes);
        rayon::scope(|scope| {
            let mut n = 0usize;
            while gather.ev < end_ev {
                let raw = gather.segment(store, end_ev, sizes);
                let send = send.clone();
                scope.spawn(move |_| {
                    // The receiver lives until the end of this function.
                    let _ = send.send((n, Arc::new(Segment::build(raw))));
                });
                n += 1;
            }
        });
        drop(send);
        let mut made: Vec<_> = done.iter().collect();
        made.sort_by_key(|m| m.0);
        self.segments.extend(made.into_iter().map(|m| m.1));
    }

    pub(crate) fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    /// Layers of an address space, with their numbers.
    pub(crate) fn layers(&self, vm: u16, as_id: u8) -> impl Iterator<Item = (u32, Layer)> + '_ {
        self.gather
            .layers()
            .iter()
            .enumerate()
            .filter(move |(_, l)| l.vm == vm && l.as_id == as_id)
            .map(|(i, l)| (i as u32, *l))
    }

    pub(crate) fn heap(&self) -> usize {
        self.gather.heap() + self.segments.iter().map(|s| s.heap()).sum::<usize>()
    }
}

/// What an entry shows just before event `ev`, which is before span `n`: the span that says so, and its code.
pub(crate) fn live_before(store: &Store, entry: EntryIx, ev: u32, n: SpanIx) -> Option<(SpanIx, u8)> {
    let s = store.last_before(entry, n)?;
    if store.end_of(s).is_some_and(|(e, _)| e < ev) {
        return None;
    }
    let m = store.meta(s);
    let code = code_of(m.shade, m.certainty);
    (code != 0).then_some((s, code))
}
