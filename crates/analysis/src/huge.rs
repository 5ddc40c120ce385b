//! [`regions`]: for each aligned range of 2 MiB or 1 GiB, as what it is mapped at a moment, and how often it was split and merged. The viewer's
//! table of huge pages shows it; what a split or merge is, and why, `findings` says.

use std::collections::BTreeMap;

use mmuscope_replay::{Certainty, Shade, State, StateFilter, Timeline, VmId, pages_of};

use crate::findings::SizeChange;

/// Which ranges are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HugeQuery {
    /// VM.
    pub vm: VmId,
    /// Address space.
    pub as_id: u8,
    /// Size of the ranges: level 2 is 2 MiB, 3 is 1 GiB. Other levels count as 2.
    pub level: u8,
    /// The moment, in nanoseconds on the trace's clock.
    pub at: u64,
    /// First and last time of the splits and merges that are counted, in nanoseconds on the trace's clock; `None` is the whole trace.
    pub time: Option<(u64, u64)>,
}

/// An aligned range of guest frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its first frame.
    pub gfn: u64,
    /// Number of its frames.
    pub frames: u64,
    /// How many of its frames are mapped at the moment by pages of each level; level 0 is not used.
    pub mapped: [u64; 6],
    /// How many of its frames have an MMIO entry at the moment.
    pub mmio: u64,
    /// The least certainty of its leaves at the moment; `None` where it has none.
    pub certainty: Option<Certainty>,
    /// How often a huge page of the level was lost.
    pub splits: u64,
    /// How often a huge page of the level was won.
    pub merges: u64,
    /// The last of these.
    pub last: Option<SizeChange>,
}

impl Region {
    fn new(gfn: u64, frames: u64) -> Self {
        let (mapped, mmio, certainty) = ([0; 6], 0, None);
        Self { gfn, frames, mapped, mmio, certainty, splits: 0, merges: 0, last: None }
    }

    /// Number of frames that are mapped at the moment.
    pub fn present(&self) -> u64 {
        self.mapped.iter().sum()
    }

    /// As what the range is mapped, such as `one 2M page`, `4K pages: 12 of 512 frames`; `empty` is what a range without a leaf is called.
    pub fn words(&self, empty: &str) -> String {
        let name = |level: usize| mmuscope_units::level_size(level as u8);
        let held: Vec<usize> = (1..6).filter(|l| self.mapped[*l] > 0).collect();
        let of = |n: u64| {
            let (n, all) = (mmuscope_units::count(n), mmuscope_units::count(self.frames));
            if n == all { format!("all {all} frames") } else { format!("{n} of {all} frames") }
        };
        let mut out = match held[..] {
            [] if self.mmio > 0 => String::new(),
            [] => empty.to_owned(),
            [level] if pages_of(level as u8) >= self.frames => format!("one {} page", name(level)),
            _ => {
                let each: Vec<String> = held
                    .iter()
                    .rev()
                    .map(|l| format!("{} pages: {}", name(*l), of(self.mapped[*l])))
                    .collect();
                each.join(", ")
            }
        };
        if self.mmio > 0 {
            let comma = if out.is_empty() { "" } else { ", " };
            out.extend([comma, "MMIO: ", &of(self.mmio)]);
        }
        out
    }
}

/// The ranges that hold a leaf at the moment, or that were split or merged, lowest first.
pub fn regions(timeline: &Timeline, sizes: &[SizeChange], q: &HugeQuery) -> Vec<Region> {
    let level = if q.level == 3 { 3 } else { 2 };
    let frames = pages_of(level);
    let mut all: BTreeMap<u64, Region> = BTreeMap::new();
    let filter = StateFilter { vm: Some(q.vm), as_id: Some(q.as_id), ..StateFilter::default() };
    // Where two page tables map one frame, as those of two roots do, it counts once, by the largest page.
    let mut leaves: Vec<_> = timeline
        .state_at(q.at, &filter)
        .into_iter()
        .filter(|(_, s)| matches!(s.state, State::Present | State::Mmio))
        .collect();
    leaves.sort_by_key(|(e, s)| (e.gfn, std::cmp::Reverse(e.level), s.certainty));
    let mut covered = 0;
    for (e, s) in leaves {
        let (mut from, end) = (e.gfn.max(covered), e.gfn.saturating_add(e.pages()));
        while from < end {
            let base = from / frames * frames;
            let to = end.min(base.saturating_add(frames));
            let r = all.entry(base).or_insert_with(|| Region::new(base, frames));
            if s.shade == Shade::Mmio {
                r.mmio += to - from;
            } else if let Some(n) = r.mapped.get_mut(usize::from(e.level)) {
                *n += to - from;
            }
            r.certainty = Some(r.certainty.map_or(s.certainty, |c| c.max(s.certainty)));
            from = to;
        }
        covered = covered.max(end);
    }
    let mine = |c: &&SizeChange| (c.vm, c.as_id, c.level) == (q.vm, q.as_id, level);
    let within = |c: &&SizeChange| q.time.is_none_or(|(a, b)| (a..=b).contains(&c.ts));
    for c in sizes.iter().filter(mine).filter(within) {
        let r = all.entry(c.gfn).or_insert_with(|| Region::new(c.gfn, frames));
        if c.lost {
            r.splits += 1;
        } else {
            r.merges += 1;
        }
        r.last = Some(*c);
    }
    all.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::survey;
    use mmuscope_replay::{ReplayOptions, replay};
    use mmuscope_testing::fixture;

    /// A 2M page at frame 0x200 that is split in place outside of a fault, which fills all 512 entries of its table, and one of them zapped; and
    /// two small pages below.
    const TEXT: &str = "\
layout C/npt
kernel 6.1.0
1 t1 root
+1 t1 page 3 0
+1 t1 tdp 4 0 empty T11
+1 t1 page 2 0
+1 t1 tdp 3 0 empty T12
+1 t1 tdp 2 200 empty W200
+1 t1 page 1 0
+1 t1 tdp 2 0 empty T13
+1 t1 tdp 1 5 empty W55
+1 t1 tdp 1 6 empty W56
100 t2 page 1 200
+1 t2 tdp 1 200 empty W200
+1 t2 tdp 1 201 empty W201
+1 t2 tdp 2 200 W200 T14
+1 t2 tdp 1 201 W201 empty
";

    #[test]
    fn a_range_says_as_what_it_is_mapped_and_how_often_that_changed() {
        let trace = fixture::trace(TEXT).expect("lines of the language");
        let t = replay(&trace, &ReplayOptions::default());
        let sizes = survey(&trace, &t).sizes;
        let (first, last) = t.range();
        let at = |at: u64, level: u8| {
            let q = HugeQuery { vm: VmId(0), as_id: 0, level, at, time: None };
            regions(&t, &sizes, &q)
        };
        let words = |rs: &[Region]| rs.iter().map(|r| (r.gfn, r.words("nothing"))).collect::<Vec<_>>();
        let before = at(first + 50_000, 2);
        assert_eq!(
            words(&before),
            [(0, "4K pages: 2 of 512 frames".into()), (0x200, "one 2M page".into())],
            "{before:?}"
        );
        let after = at(last, 2);
        assert_eq!(
            words(&after),
            [(0, "4K pages: 2 of 512 frames".into()), (0x200, "4K pages: 511 of 512 frames".into())]
        );
        assert_eq!((after[1].splits, after[1].merges), (1, 0));
        assert!(after[1].last.expect("split").in_place);
        assert_eq!(
            words(&at(first + 50_000, 3)),
            [(0, "2M pages: 512 of 262,144 frames, 4K pages: 2 of 262,144 frames".into())]
        );
        // Counted in a stretch of time before the split, there is none.
        let q = HugeQuery { vm: VmId(0), as_id: 0, level: 2, at: last, time: Some((first, first + 50_000)) };
        assert_eq!(regions(&t, &sizes, &q)[1].splits, 0);
    }
}
