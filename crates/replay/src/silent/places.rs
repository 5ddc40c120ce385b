//! Where guest memory lies in the VMM's address space. `mmu_notifier` events name host virtual addresses, page tables guest frames; no
//! event gives both. What a fault does to a page that a range was invalidated for can prove the one for the other.

use mmuscope_units::ranges;
use rustc_hash::FxHashMap;

use crate::model::pages_of;

/// Frames that firmware, video memory and devices are laid over: what lies there may be memory of another slot than what lies around, and
/// memory that is mapped a second time elsewhere.
const HOLES: [(u64, u64); 2] = [(0xa0, 0xff), (0xc_0000, 0xf_ffff)];

/// Pages that must lie at the same distance.
const VOTES: u32 = 3;

/// Whether frames touch one of the places where memory slots change from one frame to the next.
fn in_hole(first: u64, last: u64) -> bool {
    HOLES.iter().any(|h| ranges::overlap_closed(*h, (first, last)))
}

/// Frames at one constant distance between host virtual and guest physical addresses.
#[derive(Clone, Copy, Debug)]
struct Run {
    delta: u64,
    lo: u64,
    hi: u64,
    votes: u32,
    /// It was proven once, before memory slots may have moved.
    doubted: bool,
}

impl Run {
    /// Fewer may be a coincidence: a page that was evicted in the middle of a fault on another.
    fn sure(self) -> bool {
        self.votes >= VOTES
    }

    /// Frames of the run that lie in a range of host addresses.
    fn frames(self, start: u64, end: u64) -> Option<(u64, u64)> {
        let address = |frame: u64| self.delta.wrapping_add(frame << 12);
        let own = (address(self.lo), address(self.hi.saturating_add(1)));
        let (start, end) = ranges::common((start, end), own)?;
        Some((start.wrapping_sub(self.delta) >> 12, (end - 1).wrapping_sub(self.delta) >> 12))
    }
}

/// What is known of the memory slots of one VM.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    runs: Vec<Run>,
    /// Last writable host page of each frame.
    hosts: FxHashMap<u64, u64>,
}

impl Places {
    /// A frame lies at a host virtual address.
    pub(super) fn proven(&mut self, gfn: u64, hva: u64) {
        let delta = hva.wrapping_sub(gfn << 12);
        if let Some(r) = self.runs.iter_mut().find(|r| r.delta == delta) {
            r.lo = r.lo.min(gfn);
            r.hi = r.hi.max(gfn);
            r.votes = r.votes.saturating_add(1);
        } else if self.runs.len() < 64 {
            self.runs.push(Run { delta, lo: gfn, hi: gfn, votes: 1, doubted: false });
        }
    }

    /// A frame lies somewhere in a range of host addresses. If the distance of a proven run puts it there, it is of that run: no other slot
    /// is likely to begin so near to where that one would go on.
    pub(super) fn lies_in(&mut self, gfn: u64, start: u64, end: u64) {
        if in_hole(gfn, gfn) {
            return;
        }
        if let Some(r) = self.runs.iter_mut().find(|r| r.sure() && touches(r.delta, 1, gfn, start, end)) {
            r.lo = r.lo.min(gfn);
            r.hi = r.hi.max(gfn);
        }
    }

    /// A memory slot may have gone or moved: what was proven must be proven again.
    pub(super) fn doubt(&mut self) {
        for r in &mut self.runs {
            r.doubted |= r.sure();
            r.votes = 0;
        }
    }

    /// A frame has a host page. Where that is the one it had, writable, when its run was proven, nothing has moved: a page that is written
    /// to is not shared for being equal, so that it lies at one place of the VMM's memory.
    pub(super) fn seen(&mut self, gfn: u64, host: u64, writable: bool) {
        let same = self.hosts.get(&gfn) == Some(&host);
        if writable && !same {
            self.hosts.insert(gfn, host);
        }
        if same && let Some(r) = self.runs.iter_mut().find(|r| r.doubted && r.lo <= gfn && gfn <= r.hi) {
            r.votes = r.votes.saturating_add(1);
        }
    }

    /// Distance between host virtual and guest physical addresses of these frames.
    pub(super) fn delta(&self, first: u64, last: u64) -> Option<u64> {
        if in_hole(first, last) {
            return None;
        }
        // Another run that reaches in here says that slots are interleaved; even one page of it.
        let mut around = self.runs.iter().filter(|r| ranges::overlap_closed((r.lo, r.hi), (first, last)));
        match (around.next(), around.next()) {
            (Some(r), None) if r.sure() && r.lo <= first && last <= r.hi => Some(r.delta),
            _ => None,
        }
    }

    /// The frames of a host range that lies wholly in memory whose place is known.
    pub(super) fn within(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        let mut all = self.runs.iter().filter(|r| r.sure()).filter_map(|r| Some((r, r.frames(start, end)?)));
        match (all.next(), all.next()) {
            (Some((r, (a, b))), None)
                if b.saturating_sub(a) + 1 == end.div_ceil(0x1000) - start / 0x1000
                    && self.delta(a, b) == Some(r.delta) =>
            {
                Some((a, b))
            }
            _ => None,
        }
    }

    /// Frames of memory whose place is known that a host range holds.
    pub(super) fn frames(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.runs.iter().filter(|r| r.sure()).filter_map(move |r| r.frames(start, end))
    }

    /// Ranges of frames whose place is not known, and their ends.
    pub(super) fn unknown(&self) -> Vec<(u64, u64)> {
        let mut cuts: Vec<u64> = vec![0];
        for r in &self.runs {
            cuts.extend([r.lo, r.hi.saturating_add(1)]);
        }
        for (lo, hi) in HOLES {
            cuts.extend([lo, hi + 1]);
        }
        cuts.sort_unstable();
        cuts.dedup();
        // The last frame there can be is one of them, so that these have no end past it.
        let parts = cuts.iter().enumerate().map(|(i, lo)| (*lo, cuts.get(i + 1).map_or(u64::MAX, |n| n - 1)));
        ranges::fold(parts.filter(|(lo, hi)| self.delta(*lo, *hi).is_none()), |last, next| {
            let follows = last.1.wrapping_add(1) == next.0;
            if follows {
                last.1 = next.1;
            }
            follows
        })
    }
}

/// Whether an entry of `level` at `gfn` lies at host addresses that a range touches.
pub(super) fn touches(delta: u64, level: u8, gfn: u64, start: u64, end: u64) -> bool {
    let a = delta.wrapping_add(gfn << 12);
    let b = a.wrapping_add(pages_of(level) << 12);
    ranges::overlap((a, b), (start, end))
}
