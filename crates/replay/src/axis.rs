//! The GFN axis: populated stretches of a guest's frames, the empty ones between them folded away.

use mmuscope_units::ranges::{self, Range};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

use crate::keys::EntryIx;
use crate::model::{VmId, pages_of};
use crate::store::Store;

/// One populated stretch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AxisSegment {
    /// First frame.
    pub gfn_start: u64,
    /// One past the last.
    pub gfn_end: u64,
    /// Where it begins on the axis.
    pub y_start: f64,
    /// Where it ends.
    pub y_end: f64,
}

/// The axis of one address space.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpaceAxis {
    /// Stretches, lowest first; between two of them frames are folded.
    pub segments: Vec<AxisSegment>,
    /// Length of the axis.
    pub height: f64,
}

/// Frames that a gap must exceed to be folded.
const FOLD: u64 = 256;
/// Stretches of an axis.
const MOST: usize = 64;

impl SpaceAxis {
    /// The axis of ranges that are in order and joined.
    fn new(ranges: Vec<Range>) -> Self {
        // A made-up file may hold any number of stretches; a screen holds few.
        let merged = ranges::join_closest(ranges, MOST);
        let total: f64 = merged.iter().map(|(a, b)| (b - a) as f64).sum();
        let least = total * 0.02;
        let gap = (total * 0.015).max(1.0);
        let mut y = 0.0;
        let mut segments = Vec::with_capacity(merged.len());
        for (i, (a, b)) in merged.iter().enumerate() {
            if i > 0 {
                y += gap;
            }
            let h = ((b - a) as f64).max(least);
            segments.push(AxisSegment { gfn_start: *a, gfn_end: *b, y_start: y, y_end: y + h });
            y += h;
        }
        Self { segments, height: y.max(1.0) }
    }

    /// Where a frame lies; frames in a fold lie at its edge. The second value says whether the frame is on the axis.
    pub fn y_of(&self, gfn: u64) -> (f64, bool) {
        let i = self.segments.partition_point(|s| s.gfn_end <= gfn);
        match self.segments.get(i) {
            Some(s) if s.gfn_start <= gfn => {
                let f = (gfn - s.gfn_start) as f64 / (s.gfn_end - s.gfn_start) as f64;
                (s.y_start + f * (s.y_end - s.y_start), true)
            }
            Some(s) => (s.y_start, false),
            None => (
                self.segments.last().map_or(0.0, |s| s.y_end),
                self.segments.last().is_some_and(|s| s.gfn_end == gfn),
            ),
        }
    }

    /// The frame at a place; `None` in a fold.
    pub fn gfn_at(&self, y: f64) -> Option<u64> {
        let i = self.segments.partition_point(|s| s.y_end <= y);
        let s = self.segments.get(i)?;
        if y < s.y_start {
            return None;
        }
        let f = (y - s.y_start) / (s.y_end - s.y_start);
        let n = s.gfn_end - s.gfn_start;
        Some(s.gfn_start + ((f * n as f64) as u64).min(n - 1))
    }

    /// Stretch of the axis that frames `start..end` take up; `None` where they are folded away.
    pub fn span_of(&self, start: u64, end: u64) -> Option<(f64, f64)> {
        let (a, _) = self.y_of(start);
        let i = self.segments.partition_point(|s| s.gfn_end < end);
        let b = match self.segments.get(i) {
            Some(s) if s.gfn_start < end => {
                let f = (end - s.gfn_start) as f64 / (s.gfn_end - s.gfn_start) as f64;
                s.y_start + f * (s.y_end - s.y_start)
            }
            Some(_) => i.checked_sub(1).and_then(|i| self.segments.get(i)).map_or(a, |s| s.y_end),
            None => self.segments.last().map_or(a, |s| s.y_end),
        };
        (b > a).then_some((a, b))
    }

    /// The folds: axis position from and to, and the frames hidden.
    pub fn folds(&self) -> impl Iterator<Item = (f64, f64, u64, u64)> + '_ {
        self.segments.windows(2).map(|w| (w[0].y_end, w[1].y_start, w[0].gfn_end, w[1].gfn_start))
    }
}

/// The axes of all address spaces.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GfnAxis {
    /// Per VM and address space, in that order.
    pub spaces: Vec<(VmId, u8, SpaceAxis)>,
}

impl GfnAxis {
    /// The axis of one address space.
    pub fn space(&self, vm: VmId, as_id: u8) -> Option<&SpaceAxis> {
        self.spaces.iter().find(|s| s.0 == vm && s.1 == as_id).map(|s| &s.2)
    }
}

/// The frames that entries of each address space ever mapped, or had as MMIO, joined where an axis does not tell them apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Covered {
    spaces: BTreeMap<(u16, u8), Vec<Range>>,
}

impl Covered {
    /// Takes in what is new in the store; everything if tables turned out to be of other VMs (`moved`).
    pub(crate) fn take_in(&mut self, store: &mut Store, moved: bool) {
        if moved {
            self.spaces.clear();
        }
        let mut new: FxHashMap<(u16, u8), Vec<Range>> = FxHashMap::default();
        for c in store.take_leafy(moved) {
            let mut bits = store.leafy[c as usize];
            while bits != 0 {
                let i = bits.trailing_zeros();
                bits &= bits - 1;
                let p = store.place(EntryIx::in_chunk(c, i));
                let t = &store.tables[p.table];
                let v = new.entry((t.vm, t.as_id)).or_default();
                let maps = (p.gfn, p.gfn.saturating_add(pages_of(p.level)));
                // Entries come mostly in order: what is joined here needs no sorting.
                if !v.last_mut().is_some_and(|last| ranges::extend(last, maps, FOLD)) {
                    v.push(maps);
                }
            }
        }
        for (space, new) in new {
            let known = self.spaces.entry(space).or_default();
            *known = ranges::join(known.drain(..).chain(new), FOLD);
        }
    }

    /// The axes that show them.
    pub(crate) fn axis(&self) -> GfnAxis {
        let space = |(&(vm, a), r): (&(u16, u8), &Vec<Range>)| (VmId(vm), a, SpaceAxis::new(r.clone()));
        GfnAxis { spaces: self.spaces.iter().map(space).collect() }
    }
}
