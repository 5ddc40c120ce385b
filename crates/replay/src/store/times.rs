//! Times of events, packed.

/// Times that never go back, four bytes each.
#[derive(Clone, Debug, Default)]
pub(crate) struct TimeCol {
    pub(super) off: Vec<u32>,
    /// First index and base of each stretch of 2^32 ns.
    bases: Vec<(u32, u64)>,
    last: u64,
}

impl TimeCol {
    pub(crate) fn push(&mut self, ts: u64) {
        let ts = ts.max(self.last);
        self.last = ts;
        let base = match self.bases.last() {
            Some((_, b)) if u32::try_from(ts - b).is_ok() => *b,
            _ => {
                self.bases.push((self.off.len() as u32, ts));
                ts
            }
        };
        self.off.push((ts - base) as u32);
    }
    pub(crate) fn len(&self) -> usize {
        self.off.len()
    }
    pub(crate) fn get(&self, i: usize) -> u64 {
        let b = match self.bases.len() {
            1 => 0,
            _ => self.bases.partition_point(|(first, _)| *first as usize <= i).saturating_sub(1),
        };
        self.bases.get(b).map_or(0, |(_, base)| *base) + u64::from(self.off.get(i).copied().unwrap_or(0))
    }
    /// How many are at or before `t`.
    pub(crate) fn upto(&self, t: u64) -> usize {
        let b = self.bases.partition_point(|(_, base)| *base <= t);
        let Some(&(first, base)) = b.checked_sub(1).and_then(|b| self.bases.get(b)) else { return 0 };
        let end = self.bases.get(b).map_or(self.off.len(), |(f, _)| *f as usize);
        let d = t - base;
        let first = first as usize;
        first + self.off[first..end].partition_point(|o| u64::from(*o) <= d)
    }
    pub(crate) fn heap(&self) -> usize {
        self.off.capacity() * 4 + self.bases.capacity() * 16
    }
}
