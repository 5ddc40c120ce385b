//! [`Latency`]: how long many things of one kind took. Every face that prints a median or a percentile of times has it from here.

/// Lengths of time in nanoseconds, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// How many lengths there are; all others refer to them.
    pub measured: u64,
    /// Their sum.
    pub total: u64,
    /// The shortest.
    pub min: Option<u64>,
    /// The median.
    pub p50: Option<u64>,
    /// The 90th percentile.
    pub p90: Option<u64>,
    /// The 99th percentile.
    pub p99: Option<u64>,
    /// The longest.
    pub max: Option<u64>,
}

impl Latency {
    /// Sums up lengths of time. Percentiles are by the nearest-rank method, so that each is a value that was measured.
    pub fn of(mut durations: Vec<u64>) -> Self {
        durations.sort_unstable();
        Self {
            measured: durations.len() as u64,
            total: durations.iter().fold(0, |a, b| a.saturating_add(*b)),
            min: durations.first().copied(),
            p50: percentile(&durations, 50),
            p90: percentile(&durations, 90),
            p99: percentile(&durations, 99),
            max: durations.last().copied(),
        }
    }

    /// The mean, in whole nanoseconds.
    pub fn mean(&self) -> Option<u64> {
        self.total.checked_div(self.measured)
    }
}

/// A percentile of sorted values by the nearest-rank method; `None` of no values.
pub fn percentile(sorted: &[u64], p: usize) -> Option<u64> {
    let last = sorted.len().checked_sub(1)?;
    Some(sorted[(sorted.len() * p).div_ceil(100).saturating_sub(1).min(last)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let l = Latency::of((1..=100).rev().collect());
        assert_eq!((l.p50, l.p90, l.p99, l.max, l.total), (Some(50), Some(90), Some(99), Some(100), 5050));
        assert_eq!((l.min, l.mean(), l.measured), (Some(1), Some(50), 100));
        let one = Latency::of(vec![7]);
        assert_eq!((one.p50, one.p99, one.max), (Some(7), Some(7), Some(7)));
        assert_eq!((Latency::of(vec![]).p50, Latency::of(vec![]).mean()), (None, None));
        assert_eq!(Latency::of(vec![u64::MAX, 9]).total, u64::MAX);
    }
}
