//! What the life of an entry is written with: which faults were under way at an event, and since when it holds what it holds.

use std::cell::OnceCell;

use rustc_hash::FxHashMap;

use crate::model::{Certainty, Fault, Reason, Span, State};

/// What the lives of a frame's entries are written with.
pub(super) struct Life<'a> {
    pub(super) gfn: u64,
    /// Faults that concern it.
    pub(super) faults: &'a [Fault],
    /// The same by event.
    pub(super) fixes: &'a Within,
    /// Faults on other frames of the largest page that it may be in; looked for when they are needed.
    pub(super) others: OnceCell<Within>,
}

/// The numbers of faults that may concern some frames.
#[derive(Debug, Default)]
pub(super) struct Near {
    /// By frame: those on it.
    pub(super) on: FxHashMap<u64, Vec<u32>>,
    /// By number of a 1G page: those that set a larger entry than one of 4K there.
    pub(super) large: FxHashMap<u64, Vec<u32>>,
}

impl Near {
    /// None so far, of these frames.
    pub(super) fn of(gfns: &[u64]) -> Self {
        Self {
            on: gfns.iter().map(|g| (*g, Vec::new())).collect(),
            large: gfns.iter().map(|g| (g >> 18, Vec::new())).collect(),
        }
    }

    /// The faults that may concern a frame, in ascending order.
    pub(super) fn concerning(&self, gfn: u64) -> impl Iterator<Item = u32> {
        let lists = [self.on.get(&gfn), self.large.get(&(gfn >> 18))];
        let mut all: Vec<u32> = lists.into_iter().flatten().flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        all.into_iter()
    }
}

/// When an entry began to hold what it holds, doubts since then apart.
#[derive(Default)]
pub(super) struct Holding {
    pub(super) since: u64,
    same: Option<(Option<u64>, State)>,
}

impl Holding {
    pub(super) fn goes_on(&mut self, s: &Span) {
        let unsure = s.certainty == Certainty::Stale || s.reason == Reason::MaybeProtected;
        if !(unsure && self.same == Some((s.spte, s.state))) {
            self.since = s.start;
        }
        self.same = Some((s.spte, s.state));
    }
}

/// Faults by the events they last from and to, so that asking costs nothing in proportion to how many there are.
#[derive(Debug, Default)]
pub(super) struct Within {
    /// First event, last event, number; by first event.
    faults: Vec<(u32, u32, u32)>,
    /// The latest event that any fault up to here lasts to.
    reach: Vec<u32>,
}

impl Within {
    /// Of faults as first event, last event and number.
    pub(super) fn new(faults: impl Iterator<Item = (u32, u32, u32)>) -> Self {
        let mut faults: Vec<_> = faults.collect();
        faults.sort_unstable();
        let mut last = 0;
        let reach = faults.iter().map(|f| {
            last = last.max(f.1);
            last
        });
        Self { reach: reach.collect(), faults }
    }

    /// The lowest number among the faults that were under way at an event and are wanted.
    pub(super) fn at(&self, event: u32, wanted: impl Fn(u32) -> bool) -> Option<u32> {
        let begun = self.faults.partition_point(|f| f.0 <= event);
        (0..begun)
            .rev()
            .take_while(|i| self.reach[*i] >= event)
            .filter(|i| self.faults[*i].1 >= event && wanted(self.faults[*i].2))
            .map(|i| self.faults[i].2)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_what_looking_at_all_of_them_finds() {
        let mut x = 7u64;
        let mut random = |n: u64| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((x >> 33) % n) as u32
        };
        for _ in 0..200 {
            let all: Vec<(u32, u32, u32)> = (0..random(20))
                .map(|n| {
                    let first = random(50);
                    (first, first + random(20), n)
                })
                .collect();
            let within = Within::new(all.iter().copied());
            for event in 0..80 {
                for odd in [false, true] {
                    let wanted = |n: u32| !odd || n % 2 == 1;
                    let naive = all.iter().find(|f| f.0 <= event && event <= f.1 && wanted(f.2)).map(|f| f.2);
                    assert_eq!(within.at(event, wanted), naive, "{event} in {all:?}");
                }
            }
        }
    }
}
