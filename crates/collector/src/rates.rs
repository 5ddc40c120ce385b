//! Counts "more than N events in a length of time" for each key. The main type is [`Rates`]; triggers use it.

use std::collections::{HashMap, VecDeque};

/// The most keys that are remembered. With more, all are forgotten, and a key that matters is soon there again.
const KEYS: usize = 65_536;

/// Counts the events of each key in a sliding window.
#[derive(Clone, Debug)]
pub(crate) struct Rates {
    more_than: usize,
    within: u64,
    seen: HashMap<u64, VecDeque<u64>>,
}

impl Rates {
    /// A counter for more than `more_than` events within `within` nanoseconds.
    pub(crate) fn new(more_than: u32, within: u64) -> Self {
        Self { more_than: more_than as usize, within, seen: HashMap::new() }
    }

    /// Counts one event. The result is `true` if it is one too many, and the key then starts again from zero.
    pub(crate) fn hit(&mut self, key: u64, time: u64) -> bool {
        if self.seen.len() > KEYS {
            self.seen.clear();
        }
        let times = self.seen.entry(key).or_default();
        times.push_back(time);
        // The rings of CPUs are read one after the other, so times may go back a little; the oldest time that is kept decides.
        while times.len() > self.more_than + 1 {
            times.pop_front();
        }
        let oldest = times.iter().min().copied().unwrap_or(time);
        let newest = times.iter().max().copied().unwrap_or(time);
        let over = times.len() > self.more_than && newest - oldest <= self.within;
        if over {
            times.clear();
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_than_allowed() {
        let mut r = Rates::new(3, 100);
        assert!(![0, 10, 20].into_iter().any(|t| r.hit(1, t)));
        assert!(r.hit(1, 100), "the fourth within 100");
        assert!(!r.hit(1, 101), "counted afresh");
    }

    #[test]
    fn slow_ones_and_other_keys_do_not_count() {
        let mut r = Rates::new(2, 100);
        assert!(!(0..50).any(|i| r.hit(7, i * 51)));
        assert!(!(0..50).any(|i| r.hit(i, 0)));
    }
}
