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
    /// An interval that holds the true median with 99 % confidence, if the lengths are independent of each other: by order statistics, without
    /// any assumption about how they are distributed. `None` of too few.
    pub p50_within: Option<(u64, u64)>,
    /// The same of the 99th percentile.
    pub p99_within: Option<(u64, u64)>,
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
            p50_within: within(&durations, 0.5),
            p99_within: within(&durations, 0.99),
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

/// The values between which the true quantile lies with 99 % confidence: the number of values below it is binomial.
fn within(sorted: &[u64], q: f64) -> Option<(u64, u64)> {
    // 99 % of a normal distribution lie within so many standard deviations.
    const WIDTH: f64 = 2.576;
    let n = sorted.len() as f64;
    let (middle, half) = (n * q, WIDTH * (n * q * (1.0 - q)).sqrt());
    let (low, high) = ((middle - half).floor(), (middle + half).ceil());
    (low >= 1.0 && high <= n).then(|| (sorted[low as usize - 1], sorted[high as usize - 1]))
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

    #[test]
    fn a_quantile_lies_between_two_values() {
        // Ranks 50 ± 2.576 · 5, rounded outwards.
        assert_eq!(Latency::of((1..=100).collect()).p50_within, Some((37, 63)));
        // Of 100 values the highest is too low to bound the 99th percentile from above; of 10,000 it is 99 ± 0.26 %.
        assert_eq!(Latency::of((1..=100).collect()).p99_within, None);
        assert_eq!(Latency::of((1..=10_000).collect()).p99_within, Some((9874, 9926)));
        assert_eq!(Latency::of(vec![1, 2, 3]).p50_within, None);
    }
}
