//! The GFN axis: populated stretches of a guest's frames, the empty ones between them folded away.

use mmuscope_units::ranges::{self, Range};
use rustc_hash::FxHashMap;

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
    fn new(ranges: Vec<Range>) -> Self {
        // A made-up file may hold any number of stretches; a screen holds few.
        let merged = ranges::join_closest(ranges::join(ranges, FOLD), MOST);
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

    pub(crate) fn build(store: &Store, fault_gfns: &[(u16, u64)]) -> Self {
        let mut covered: FxHashMap<(u16, u8), Vec<Range>> = FxHashMap::default();
        for (c, leafy) in store.leafy.iter().enumerate() {
            let mut bits = *leafy;
            while bits != 0 {
                let i = bits.trailing_zeros();
                bits &= bits - 1;
                let e = EntryIx::in_chunk(c as u32, i);
                let p = store.place(e);
                let t = &store.tables[p.table];
                let v = covered.entry((t.vm, t.as_id)).or_default();
                let maps = (p.gfn, p.gfn.saturating_add(pages_of(p.level)));
                // Entries come mostly in order: what is joined here needs no sorting.
                if !v.last_mut().is_some_and(|last| ranges::extend(last, maps, FOLD)) {
                    v.push(maps);
                }
            }
        }
        for (vm, gfn) in fault_gfns {
            covered.entry((*vm, 0)).or_default().push((*gfn, gfn.saturating_add(1)));
        }
        let mut spaces: Vec<_> =
            covered.into_iter().map(|((vm, a), r)| (VmId(vm), a, SpaceAxis::new(r))).collect();
        spaces.sort_by_key(|s| (s.0, s.1));
        Self { spaces }
    }
}
