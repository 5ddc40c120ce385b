//! The ticks of the time axis and the steps of the GFN axis.

use super::Range;
use crate::fmt;

/// One tick of an axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tick {
    /// Position in units of the axis.
    pub(crate) at: f64,
    /// Label of the tick.
    pub(crate) label: String,
}

/// About `want` ticks of a time axis, at steps of 1, 2 or 5 times a power of ten nanoseconds.
pub(crate) fn time_ticks(range: Range, want: usize) -> Vec<Tick> {
    let step = nice_step(range.span() / want.max(1) as f64).max(1.0);
    let first = (range.start / step).ceil() as i64;
    let last = (range.end / step).floor() as i64;
    (first..=last.min(first + 1000))
        .map(|i| {
            let at = i as f64 * step;
            Tick { at, label: fmt::time_at(at, step) }
        })
        .collect()
}

/// The smallest number that is 1, 2 or 5 times a power of ten and at least `raw`.
fn nice_step(raw: f64) -> f64 {
    if !(raw.is_finite() && raw > 0.0) {
        return 1.0;
    }
    let power = 10f64.powf(raw.log10().floor());
    let m = raw / power;
    let m = if m <= 1.0 {
        1.0
    } else if m <= 2.0 {
        2.0
    } else if m <= 5.0 {
        5.0
    } else {
        10.0
    };
    m * power
}

/// Step between GFN labels in frames: the smallest power of two that is at least `raw`.
pub(crate) fn gfn_step(raw: f64) -> u64 {
    let raw = if raw.is_finite() { raw.clamp(1.0, 9.0e15) } else { 1.0 };
    (raw.ceil() as u64).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_ticks_are_round_and_inside() {
        let ticks = time_ticks(Range::new(0.0, 9.4e9), 8);
        let at: Vec<f64> = ticks.iter().map(|t| t.at).collect();
        assert_eq!(at, [0.0, 2e9, 4e9, 6e9, 8e9]);
        assert_eq!(ticks[1].label, "2 s");
    }

    #[test]
    fn a_deep_zoom_keeps_labels_apart() {
        let ticks = time_ticks(Range::new(1e9, 1e9 + 1000.0), 5);
        let mut labels: Vec<_> = ticks.iter().map(|t| t.label.clone()).collect();
        let n = labels.len();
        labels.dedup();
        assert!(n >= 4 && labels.len() == n, "{labels:?}");
    }

    #[test]
    fn a_degenerate_window_has_few_ticks_and_ends() {
        assert!(time_ticks(Range::new(5.0, 5.0), 8).len() <= 2);
        assert!(time_ticks(Range { start: f64::NAN, end: 1.0 }, 8).len() <= 1001);
    }

    #[test]
    fn gfn_steps_are_powers_of_two() {
        assert_eq!(gfn_step(0.3), 1);
        assert_eq!(gfn_step(100.0), 128);
        assert_eq!(gfn_step(513.0), 1024);
        assert_eq!(gfn_step(f64::NAN), 1);
    }
}
