//! Ranges of numbers (frames, addresses, thread ids, positions): how lists of them are joined, cut and compared. Whoever has stretches side by
//! side asks here, so that no two places disagree on what touches what.
//!
//! A range is a pair of its first number and **one past its last**, so that an empty one has no length and neighbours meet without a gap. Only
//! [`overlap_closed`] takes pairs that include their last number: it is for frames whose last is what an event or a table names.
//!
//! ```
//! use mmuscope_units::ranges;
//! assert_eq!(ranges::join([(8, 9), (0, 4), (4, 6)], 0), [(0, 6), (8, 9)]);
//! assert_eq!(ranges::join([(8, 9), (0, 4), (4, 6)], 2), [(0, 9)]);
//! assert_eq!(ranges::common((0, 6), (4, 9)), Some((4, 6)));
//! ```

use std::collections::BTreeMap;

/// A first number, and one past the last.
pub type Range = (u64, u64);

/// Goes through things in their order and lets each be absorbed by what is left of those before it: `absorb` takes the second into the first,
/// or says that it does not. This is how everything is joined that is more than a range, as pages of one device or entries of one state are.
pub fn fold<T>(things: impl IntoIterator<Item = T>, mut absorb: impl FnMut(&mut T, &T) -> bool) -> Vec<T> {
    let mut out: Vec<T> = Vec::new();
    for thing in things {
        if !out.last_mut().is_some_and(|last| absorb(last, &thing)) {
            out.push(thing);
        }
    }
    out
}

/// The ranges in order, those joined that overlap, touch, or have at most `gap` numbers between them.
pub fn join(ranges: impl IntoIterator<Item = Range>, gap: u64) -> Vec<Range> {
    let mut sorted: Vec<Range> = ranges.into_iter().collect();
    sorted.sort_unstable();
    fold(sorted, |last, next| extend(last, *next, gap))
}

/// Makes a range reach to the end of another that begins within it or at most `gap` numbers behind it; whether it does begin there.
pub fn extend(range: &mut Range, next: Range, gap: u64) -> bool {
    let near = range.0 <= next.0 && next.0 <= range.1.saturating_add(gap);
    if near {
        range.1 = range.1.max(next.1);
    }
    near
}

/// The ranges, which are in order and do not overlap, joined over the narrowest gaps until there are at most `most`.
pub fn join_closest(mut ranges: Vec<Range>, most: usize) -> Vec<Range> {
    let most = most.max(1);
    while ranges.len() > most {
        let mut gaps: Vec<u64> = ranges.windows(2).map(|w| w[1].0 - w[0].1).collect();
        gaps.sort_unstable();
        let limit = gaps[gaps.len() - (most - 1).min(gaps.len()).max(1)];
        let mut made = 1;
        ranges = fold(ranges, |last, next| {
            let joined = next.0 - last.1 < limit || made >= most;
            if joined {
                last.1 = next.1;
            } else {
                made += 1;
            }
            joined
        });
    }
    ranges
}

/// What two ranges have in common.
pub fn common(a: Range, b: Range) -> Option<Range> {
    let both = (a.0.max(b.0), a.1.min(b.1));
    (both.0 < both.1).then_some(both)
}

/// Whether two ranges have a number in common; of an empty one, whether it lies within the other.
pub fn overlap(a: Range, b: Range) -> bool {
    a.0 < b.1 && b.0 < a.1
}

/// Whether two ranges that **include their last numbers** have one in common.
pub fn overlap_closed(a: (u64, u64), b: (u64, u64)) -> bool {
    a.0 <= b.1 && b.0 <= a.1
}

/// Numbers that are taken, as ranges that neither overlap nor touch.
#[derive(Clone, Debug, Default)]
pub struct Taken(BTreeMap<u64, u64>);

impl Taken {
    /// Takes what is free of a range, and gives it.
    pub fn take(&mut self, (from, to): Range) -> Vec<Range> {
        let mut free = Vec::new();
        let (mut at, mut start, mut end) = (from, from, to);
        // What begins before may reach into it, or up to it.
        if let Some((s, e)) = self.0.range(..from).next_back().filter(|(_, e)| **e >= from) {
            (at, start, end) = (*e, *s, end.max(*e));
        }
        while let Some((s, e)) = self.0.range(from..=to).next().map(|(s, e)| (*s, *e)) {
            if at < s {
                free.push((at, s));
            }
            (at, end) = (at.max(e), end.max(e));
            self.0.remove(&s);
        }
        if at < to {
            free.push((at, to));
        }
        self.0.insert(start, end);
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers below 64 that ranges hold, one by one.
    fn numbers(ranges: &[Range]) -> Vec<u64> {
        (0..64).filter(|n| ranges.iter().any(|r| (r.0..r.1).contains(n))).collect()
    }

    /// Ranges below 64, made up.
    fn made_up(seed: &mut u64, n: usize) -> Vec<Range> {
        let mut random = |n: u64| {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*seed >> 33) % n
        };
        (0..n).map(|_| (random(56), random(7) + 1)).map(|(a, n)| (a, a + n)).collect()
    }

    #[test]
    fn joined_ranges_hold_the_same_numbers_and_have_gaps_between_them() {
        let mut seed = 7;
        for n in 0..200 {
            let ranges = made_up(&mut seed, n % 9);
            let joined = join(ranges.iter().copied(), 0);
            assert_eq!(numbers(&joined), numbers(&ranges), "{ranges:?}");
            assert!(joined.windows(2).all(|w| w[0].1 < w[1].0), "{ranges:?}: {joined:?}");
            let far = join(ranges.iter().copied(), 3);
            assert!(far.windows(2).all(|w| w[0].1 + 3 < w[1].0), "{ranges:?}: {far:?}");
            assert!(joined.iter().all(|r| far.iter().any(|f| f.0 <= r.0 && r.1 <= f.1)));
        }
        assert_eq!(join([(5, u64::MAX), (0, 2)], u64::MAX), [(0, u64::MAX)], "without overflow");
    }

    #[test]
    fn what_is_common_is_what_both_hold() {
        let mut seed = 11;
        for _ in 0..200 {
            let [a, b] = made_up(&mut seed, 2)[..] else { panic!("two") };
            let both: Vec<u64> = numbers(&[a]).into_iter().filter(|n| (b.0..b.1).contains(n)).collect();
            let is: Vec<Range> = common(a, b).into_iter().collect();
            assert_eq!((numbers(&is), overlap(a, b)), (both.clone(), !both.is_empty()), "{a:?} {b:?}");
            assert_eq!(overlap_closed((a.0, a.1 - 1), (b.0, b.1 - 1)), overlap(a, b), "{a:?} {b:?}");
        }
        assert_eq!(
            (overlap((3, 3), (0, 9)), overlap((9, 9), (0, 9)), common((3, 3), (0, 9))),
            (true, false, None)
        );
        assert!(!overlap((0, 4), (4, 8)) && overlap_closed((0, 4), (4, 8)));
    }

    #[test]
    fn few_are_left_and_the_widest_gaps_stay() {
        let ranges: Vec<Range> = [0, 10, 12, 40, 42, 44].map(|a| (a, a + 1)).to_vec();
        assert_eq!(join_closest(ranges.clone(), 6), ranges);
        assert_eq!(join_closest(ranges.clone(), 3), [(0, 1), (10, 13), (40, 45)]);
        assert_eq!(join_closest(ranges, 1), [(0, 45)]);
        // Gaps of one width: the first stay.
        let even: Vec<Range> = (0..200).map(|i| (i * 10, i * 10 + 1)).collect();
        let left = join_closest(even, 64);
        assert_eq!((left.len(), left[0], left[62], left[63]), (64, (0, 1), (620, 621), (630, 1991)));
    }

    #[test]
    fn only_what_is_free_is_taken() {
        let mut t = Taken::default();
        assert_eq!(t.take((10, 20)), [(10, 20)]);
        assert_eq!(t.take((30, 40)), [(30, 40)]);
        assert_eq!(t.take((20, 22)), [(20, 22)]);
        assert_eq!(t.take((0, 50)), [(0, 10), (22, 30), (40, 50)]);
        assert_eq!(t.take((5, 45)), []);
        assert_eq!(t.0.len(), 1);
    }
}
