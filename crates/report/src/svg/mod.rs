//! Charts as inline SVG: the scales, ticks and coordinates that all charts share.
//!
//! Everything is written through `maud`, which escapes texts and attributes: names of tasks and markers come out of a trace and are not
//! trusted. Colours are CSS classes only, so that one drawing serves light and dark pages and print.

pub(crate) mod histogram;
pub(crate) mod overview;

/// A linear mapping from values to pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    d0: f64,
    d1: f64,
    r0: f64,
    r1: f64,
}

impl Scale {
    /// Maps `d0..d1` onto `r0..r1`. An empty `d0..d1` is mapped to the middle.
    pub(crate) fn new(d0: f64, d1: f64, r0: f64, r1: f64) -> Self {
        Self { d0, d1, r0, r1 }
    }

    /// The coordinate at which the value `v` is drawn.
    pub(crate) fn at(&self, v: f64) -> f64 {
        if (self.d1 - self.d0).abs() < f64::EPSILON {
            return f64::midpoint(self.r0, self.r1);
        }
        self.r0 + (v - self.d0) / (self.d1 - self.d0) * (self.r1 - self.r0)
    }
}

/// A coordinate in pixels as SVG writes it, with one decimal at most.
pub(crate) fn px(v: f64) -> String {
    let s = format!("{v:.1}");
    match s.strip_suffix(".0") {
        Some("-0") => "0".to_owned(),
        Some(whole) => whole.to_owned(),
        None => s,
    }
}

/// Estimated width of a text in pixels, a little more than most sans-serif fonts need.
pub(crate) fn text_width(text: &str, size: f64) -> f64 {
    let em: f64 = text
        .chars()
        .map(|c| match c {
            'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '|' | '\'' | '!' | ' ' => 0.32,
            'f' | 'r' | 't' | '(' | ')' | '[' | ']' | '-' | '/' => 0.40,
            'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.92,
            'A'..='Z' => 0.72,
            c if c.is_ascii() => 0.59,
            c if (c as u32) < 0x2e80 => 0.7,
            _ => 1.05,
        })
        .sum();
    em * size
}

/// Ticks from 0 to at least `max` at steps of 1, 2 or 5 times a power of ten; at most `n` steps.
pub(crate) fn count_ticks(max: u64, n: u64) -> Vec<u64> {
    let max = max.max(1);
    let n = n.max(1);
    let mut step = 1u64;
    let mut i = 0;
    while max.div_ceil(step) > n {
        let next = match i % 3 {
            1 => (step / 2).checked_mul(5),
            _ => step.checked_mul(2),
        };
        let Some(next) = next else { break };
        step = next;
        i += 1;
    }
    (0..=max.div_ceil(step)).map(|k| k.saturating_mul(step)).collect()
}

/// Ticks from 0 to at least `max` bytes at steps of a power of two; at most `n` steps.
pub(crate) fn byte_ticks(max: u64, n: u64) -> Vec<u64> {
    let max = max.max(1);
    let mut step = 4096u64;
    while max.div_ceil(step) > n.max(1) && step < 1 << 62 {
        step *= 2;
    }
    (0..=max.div_ceil(step)).map(|k| k.saturating_mul(step)).collect()
}

/// Ticks of a time axis between two times in nanoseconds, with their labels, which all have one unit; at most `n` steps.
pub(crate) fn time_ticks((start, end): (u64, u64), n: u64) -> Vec<(u64, String)> {
    let duration = end.saturating_sub(start);
    let n = n.max(1);
    let mut step = 1u64;
    // Steps are 1, 2, 5, 10 … nanoseconds up to ten seconds, then parts of a minute, an hour and a day.
    let mut i = 0;
    while duration / step > n && step < 1 << 61 {
        step = if step >= 10_000_000_000 {
            let s = step / 1_000_000_000;
            let next = [15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400]
                .into_iter()
                .find(|c| *c > s)
                .unwrap_or(s * 2);
            next * 1_000_000_000
        } else {
            let next = if i % 3 == 1 { step / 2 * 5 } else { step * 2 };
            i += 1;
            next
        };
    }
    let (unit, size) = if duration >= 2_000_000_000 {
        ("s", 1_000_000_000u64)
    } else if duration >= 2_000_000 {
        ("ms", 1_000_000)
    } else if duration >= 2_000 {
        ("µs", 1_000)
    } else {
        ("ns", 1)
    };
    let label = |t: u64| {
        if step >= 60_000_000_000 {
            let m = t / 60_000_000_000;
            return if duration >= 7_200_000_000_000 {
                format!("{} h {:02}", m / 60, m % 60)
            } else {
                format!("{m} min")
            };
        }
        let mut decimals = 0;
        let mut s = step;
        while !s.is_multiple_of(size) && decimals < 3 {
            s = s.saturating_mul(10);
            decimals += 1;
        }
        format!("{:.decimals$} {unit}", t as f64 / size as f64)
    };
    (start.div_ceil(step)..=end / step).map(|k| k * step).map(|t| (t, label(t))).collect()
}

/// Moves labels at `ys` so that they are at least `gap` apart and within `lo..=hi`, each as little as needed, and keeps their order.
pub(crate) fn spread(ys: &mut [f64], gap: f64, lo: f64, hi: f64) {
    let mut order: Vec<usize> = (0..ys.len()).collect();
    order.sort_by(|a, b| ys[*a].total_cmp(&ys[*b]));
    let mut floor = lo;
    for &i in &order {
        ys[i] = ys[i].max(floor);
        floor = ys[i] + gap;
    }
    let mut ceiling = hi;
    for &i in order.iter().rev() {
        if ys[i] > ceiling {
            ys[i] = ceiling;
        }
        ceiling = ys[i] - gap;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_range() {
        assert_eq!(count_ticks(0, 4), [0, 1]);
        assert_eq!(count_ticks(7, 4), [0, 2, 4, 6, 8]);
        assert_eq!(count_ticks(2048, 4), [0, 1000, 2000, 3000]);
        assert_eq!(byte_ticks(100 << 20, 4), [0, 32 << 20, 64 << 20, 96 << 20, 128 << 20]);
        for max in [1, 3, 99, 12_345, u64::MAX / 2, u64::MAX] {
            let t = count_ticks(max, 5);
            assert!(t.len() <= 6 && t.last().is_some_and(|l| *l >= max), "{max}: {t:?}");
            assert!(byte_ticks(max, 5).last().is_some_and(|l| *l >= max));
        }
    }

    #[test]
    fn times_have_one_unit_and_no_repeated_label() {
        let labels = |d, n| time_ticks((0, d), n).into_iter().map(|t| t.1).collect::<Vec<_>>();
        assert_eq!(labels(0, 8), ["0 ns"]);
        assert_eq!(labels(4_500_000_000, 5), ["0 s", "1 s", "2 s", "3 s", "4 s"]);
        assert_eq!(labels(2_200_000_000, 5), ["0.0 s", "0.5 s", "1.0 s", "1.5 s", "2.0 s"]);
        assert_eq!(labels(700_000_000, 4), ["0 ms", "200 ms", "400 ms", "600 ms"]);
        assert_eq!(labels(90_000_000_000, 3), ["0 s", "30 s", "60 s", "90 s"]);
        assert_eq!(labels(600_000_000_000, 5), ["0 min", "2 min", "4 min", "6 min", "8 min", "10 min"]);
        let part = time_ticks((8_000_150_000, 8_000_650_000), 5);
        assert_eq!(part.first(), Some(&(8_000_200_000, "8000200 µs".to_owned())));
        assert_eq!(part.last(), Some(&(8_000_600_000, "8000600 µs".to_owned())));
        for d in [1, 17, 2_500, 1_999_999, 123_456_789, 40_000_000_000, 1 << 50, u64::MAX] {
            let l = labels(d, 8);
            let mut unique = l.clone();
            unique.dedup();
            assert_eq!(l, unique, "{d}");
            assert!(l.len() <= 10, "{d}: {}", l.len());
        }
    }

    #[test]
    fn labels_are_spread_apart_in_their_order() {
        let mut ys = [10.0, 11.0, 12.0, 50.0];
        spread(&mut ys, 12.0, 0.0, 100.0);
        assert_eq!(ys.map(|y| y as i32), [10, 22, 34, 50]);
        let mut low = [95.0, 96.0, 97.0];
        spread(&mut low, 12.0, 0.0, 100.0);
        assert_eq!(low.map(|y| y as i32), [76, 88, 100]);
    }

    #[test]
    fn coordinates_are_short() {
        assert_eq!(px(12.0), "12");
        assert_eq!(px(12.34), "12.3");
        assert_eq!(px(-0.01), "0");
    }
}
