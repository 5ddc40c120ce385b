//! Student's t distribution, for [`judge`](super::judge).

#![allow(clippy::many_single_char_names, reason = "the letters of the formulas in any book")]

/// The chance that a value of Student's t distribution is farther from 0 than `t`.
pub(super) fn student(t: f64, df: f64) -> f64 {
    incomplete_beta(df / (df + t * t), df / 2.0, 0.5)
}

/// The regularised incomplete beta function, by its continued fraction.
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp();
    // The fraction converges fast on one side of the mean.
    if x < (a + 1.0) / (a + b + 2.0) {
        front * fraction(x, a, b) / a
    } else {
        1.0 - front * fraction(1.0 - x, b, a) / b
    }
}

fn fraction(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let safe = |v: f64| if v.abs() < TINY { TINY } else { v };
    let (mut c, mut d) = (1.0, 1.0 / safe(1.0 - (a + b) * x / (a + 1.0)));
    let mut h = d;
    for m in 1..300 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut step = 1.0;
        for k in [even, odd] {
            d = 1.0 / safe(1.0 + k * d);
            c = safe(1.0 + k / c);
            step = c * d;
            h *= step;
        }
        if (step - 1.0).abs() < 1e-12 {
            break;
        }
    }
    h
}

/// The logarithm of the gamma function (Lanczos' approximation).
fn ln_gamma(x: f64) -> f64 {
    const C: [f64; 6] = [
        76.180_091_729_471_46,
        -86.505_320_329_416_77,
        24.014_098_240_830_91,
        -1.231_739_572_450_155,
        0.120_865_097_386_617_9e-2,
        -0.539_523_938_495_3e-5,
    ];
    let t = x + 5.5;
    let sum: f64 = C.iter().enumerate().map(|(i, c)| c / (x + i as f64 + 1.0)).sum();
    (x + 0.5) * t.ln() - t + (2.506_628_274_631_000_5 * (1.000_000_000_190_015 + sum) / x).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two-sided quantiles of Student's t, from the tables: 5 % at 2.776 (4 degrees of freedom) and 12.706 (1), 1 % at 3.169 (10).
    #[test]
    fn the_t_distribution_is_that_of_the_tables() {
        for (t, df, p) in
            [(2.776_445, 4.0, 0.05), (12.706_2, 1.0, 0.05), (3.169_27, 10.0, 0.01), (0.0, 5.0, 1.0)]
        {
            assert!((student(t, df) - p).abs() < 1e-5, "t {t}, {df} degrees: {}", student(t, df));
        }
    }
}
