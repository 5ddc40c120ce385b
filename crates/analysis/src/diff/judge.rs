//! [`judge`]: whether two sides of a comparison differ by more than chance explains. The rule is [`ONE`] where a side has one run, and [`SEVERAL`]
//! where both have several. Nothing is called a change without it.

use super::student::student;
use serde::Serialize;

/// What is said of a number on two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The sides differ by more than chance explains.
    Change,
    /// They differ, which with these runs may be a change or chance.
    Unsure,
    /// They differ by no more than chance explains, or by too little to matter.
    Same,
    /// One side does not know the number.
    Unknown,
}

impl Verdict {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Unsure => "unsure",
            Self::Same => "same",
            Self::Unknown => "unknown",
        }
    }
}

/// A number of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Value {
    /// The number itself.
    pub value: f64,
    /// For a count: its variance, if bursts come independently of each other.
    #[serde(skip)]
    pub variance: Option<f64>,
    /// For a quantile: the interval that holds the true one with 99 % confidence.
    pub within: Option<(u64, u64)>,
    /// Whether that quantile is the median.
    #[serde(skip)]
    pub median: bool,
}

/// The rule where both sides have one run, or one of them has one and the other two.
pub const ONE: &str = "one run on a side: a count is a change if it differs by more than threefold and by more than 5 standard deviations, taking bursts \
                       (what one thread repeats at one place) to come independently of each other; a median of times is a change if its 99 % \
                       intervals (order statistics) are more than eightfold apart once the factor is divided out by which the medians moved together; \
                       other times are unsure where their intervals do not overlap, because one run does not show how much the host varies";
/// The rule where one side has one run, and the other three or more.
pub const AGAINST: &str = "one run against several: a t-test of the run against the spread of the others (of their logarithms), with at most 5 % false \
                           changes among those that are named (Benjamini and Hochberg), and a difference of 5 % or more";
/// The rule where both sides have several runs.
pub const SEVERAL: &str = "several runs on both sides: Welch's t-test of the runs' logarithms, with at most 5 % false changes among those that are named \
                           (Benjamini and Hochberg), and a difference of 5 % or more; numbers that are alike in all runs of each of two sides with \
                           three runs or more, and differ between them, are a change";

/// The rule for sides of so many runs.
pub fn rule(a: usize, b: usize) -> &'static str {
    match (a.min(b), a.max(b)) {
        (2.., _) => SEVERAL,
        (1, 3..) => AGAINST,
        _ => ONE,
    }
}

/// With one run on a side, a time that differs by a smaller share than this is the same.
const LEAST_ONE: f64 = 0.10;
/// And a count by less than this factor: runs of one kernel in the lab, on a host that was busy with other work, differed by 2.2.
const COUNT: f64 = 3.0;
/// And a median by less than this one: those of retries differed by 6 between runs of one kernel in the lab.
const MEDIAN: f64 = 8.0;
/// With several runs, a smaller difference than this share does not matter.
const LEAST: f64 = 0.05;
/// So many standard deviations are no chance.
const SIGMAS: f64 = 5.0;
/// The share of false changes among those that are named.
const FALSE: f64 = 0.05;
/// A count that is lower on both sides is too small to judge, and so is a time of fewer things.
const FEW: f64 = 10.0;

/// The mean of a side.
pub(super) fn mean(side: &[Value]) -> f64 {
    side.iter().map(|v| v.value).sum::<f64>() / side.len().max(1) as f64
}

/// How far apart two numbers are, as a share of the larger.
fn apart(a: f64, b: f64) -> f64 {
    let most = a.max(b);
    if most > 0.0 { (a - b).abs() / most } else { 0.0 }
}

/// Verdicts for many numbers of sides with so many runs; each is given by the values of the runs of both sides. A side without values does not
/// know the number.
pub(super) fn judge(all: &[(Vec<Value>, Vec<Value>)], (a, b): (usize, usize)) -> Vec<Verdict> {
    if rule(a, b) == ONE {
        let together = together(all);
        return all.iter().map(|(a, b)| one(a, b, together)).collect();
    }
    // The verdict, or the chance of a difference this large without a change.
    let first: Vec<Result<Verdict, f64>> = all.iter().map(|(a, b)| by_spread(a, b)).collect();
    let mut chances: Vec<f64> = first.iter().filter_map(|r| r.as_ref().err().copied()).collect();
    chances.sort_by(f64::total_cmp);
    let n = chances.len() as f64;
    let most = chances.iter().enumerate().rev().find(|(i, p)| **p <= FALSE * (*i as f64 + 1.0) / n);
    let most = most.map_or(-1.0, |(_, p)| *p);
    let verdict = |r: Result<Verdict, f64>| {
        r.unwrap_or_else(|p| if p <= most { Verdict::Change } else { Verdict::Same })
    };
    first.into_iter().map(verdict).collect()
}

/// The factor by which times moved together: the median of the ratios of those that have an interval.
fn together(all: &[(Vec<Value>, Vec<Value>)]) -> f64 {
    let timed = |side: &[Value]| !side.is_empty() && side.iter().all(|v| v.within.is_some() && v.value > 0.0);
    let mut ratios: Vec<f64> =
        all.iter().filter(|(a, b)| timed(a) && timed(b)).map(|(a, b)| mean(b) / mean(a)).collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(1.0)
}

/// The rule [`ONE`].
#[allow(
    clippy::many_single_char_names,
    reason = "sides a and b, their means x and y, their intervals p and q"
)]
fn one(a: &[Value], b: &[Value], together: f64) -> Verdict {
    if a.is_empty() || b.is_empty() {
        return Verdict::Unknown;
    }
    let (x, y) = (mean(a), mean(b));
    let variance = |side: &[Value]| {
        let sum: Option<f64> = side.iter().map(|v| v.variance).sum();
        sum.map(|s| s / (side.len() * side.len()) as f64)
    };
    let counts = variance(a).zip(variance(b));
    if let Some((va, vb)) = counts {
        // Even a count of 0 may have been 1 by chance.
        let sigma = (va + vb).max(1.0).sqrt();
        let large = x.max(y) >= FEW && x.max(y) > COUNT * x.min(y);
        return if large && (x - y).abs() > SIGMAS * sigma { Verdict::Change } else { Verdict::Same };
    }
    if apart(x, y) < LEAST_ONE {
        return Verdict::Same;
    }
    // Of several runs of a side, all intervals together.
    let within = |side: &[Value]| {
        let all: Option<Vec<(u64, u64)>> = side.iter().map(|v| v.within).collect();
        all.and_then(|all| Some((all.iter().map(|i| i.0).min()?, all.iter().map(|i| i.1).max()?)))
    };
    match within(a).zip(within(b)) {
        Some((p, q)) if p.0 <= q.1 && q.0 <= p.1 => Verdict::Same,
        Some((p, q)) if a.iter().chain(b).all(|v| v.median) => {
            let [a0, a1] = [p.0, p.1].map(|t| t as f64 * together);
            let [b0, b1] = [q.0, q.1].map(|t| t as f64);
            if b0 > MEDIAN * a1 || a0 > MEDIAN * b1 { Verdict::Change } else { Verdict::Unsure }
        }
        _ => Verdict::Unsure,
    }
}

/// The rule [`SEVERAL`]: a verdict, or the chance that decides it.
#[allow(clippy::float_cmp, reason = "numbers that are alike in all runs are equal to the last bit")]
fn by_spread(a: &[Value], b: &[Value]) -> Result<Verdict, f64> {
    if a.is_empty() || b.is_empty() {
        return Ok(Verdict::Unknown);
    }
    let (x, y) = (mean(a), mean(b));
    let counts = a.iter().chain(b).all(|v| v.variance.is_some());
    let constant = |side: &[Value]| side.iter().all(|v| v.value == side[0].value);
    let lone = a.len() == 1 || b.len() == 1;
    if constant(a) && constant(b) && !lone && x != y && (!counts || x.max(y) >= FEW) {
        return Ok(if a.len() >= 3 && b.len() >= 3 { Verdict::Change } else { Verdict::Unsure });
    }
    if apart(x, y) < LEAST || counts && x.max(y) < FEW {
        return Ok(Verdict::Same);
    }
    // Logarithms make of a factor a distance, which is what runs vary by. A count of none has no logarithm: it is taken for half of one.
    let logs = |side: &[Value]| side.iter().map(|v| v.value.max(0.5).ln()).collect::<Vec<f64>>();
    match (a.len(), b.len()) {
        (_, 1) => against(&logs(a), logs(b)[0]),
        (1, _) => against(&logs(b), logs(a)[0]),
        _ => Ok(welch(&logs(a), &logs(b))),
    }
    .map_or_else(Ok, Err)
}

/// The chance that one more value lies this far from the mean of several, or farther. Several that are all alike show no spread.
fn against(several: &[f64], one: f64) -> Result<f64, Verdict> {
    let n = several.len() as f64;
    let mean = several.iter().sum::<f64>() / n;
    let var = several.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    if var == 0.0 {
        return Err(if (one - mean).abs() < f64::EPSILON { Verdict::Same } else { Verdict::Unsure });
    }
    Ok(student((one - mean).abs() / (var * (1.0 + 1.0 / n)).sqrt(), n - 1.0))
}

/// Welch's t-test: the chance of means this far apart, or farther, if there is no difference.
fn welch(a: &[f64], b: &[f64]) -> f64 {
    let stats = |v: &[f64]| {
        let n = v.len() as f64;
        let mean = v.iter().sum::<f64>() / n;
        let var = v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean, var / n, n)
    };
    let ((ma, va, na), (mb, vb, nb)) = (stats(a), stats(b));
    let v = va + vb;
    if v == 0.0 {
        return if (ma - mb).abs() < f64::EPSILON { 1.0 } else { 0.0 };
    }
    let df = v * v / (va * va / (na - 1.0) + vb * vb / (nb - 1.0));
    student((ma - mb).abs() / v.sqrt(), df)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(values: &[f64]) -> Vec<Value> {
        values.iter().map(|v| Value { value: *v, variance: Some(*v), ..Value::default() }).collect()
    }

    fn times(values: &[f64]) -> Vec<Value> {
        values.iter().map(|v| Value { value: *v, ..Value::default() }).collect()
    }

    fn verdict(a: Vec<Value>, b: Vec<Value>) -> Verdict {
        let runs = (a.len().max(1), b.len().max(1));
        judge(&[(a, b)], runs)[0]
    }

    #[test]
    fn welch_is_that_of_the_books() {
        // Welch: means 3 and 8, variances 2.5 and 2.5, five each: t = 5 with 8 degrees of freedom.
        let p = welch(&[1.0, 2.0, 3.0, 4.0, 5.0], &[6.0, 7.0, 8.0, 9.0, 10.0]);
        assert!((p - 0.001_053).abs() < 1e-5, "{p}");
    }

    #[test]
    fn one_run_a_side_shows_counts_only() {
        assert_eq!(verdict(counts(&[100.0]), counts(&[310.0])), Verdict::Change);
        // Fourfold, but 4 standard deviations; and more than 5, but not threefold.
        assert_eq!(verdict(counts(&[10.0]), counts(&[40.0])), Verdict::Same);
        assert_eq!(verdict(counts(&[100_000.0]), counts(&[290_000.0])), Verdict::Same);
        // 300 that came in three bursts of 100 vary by 173.
        let bursts =
            |n: f64| vec![Value { value: n * 100.0, variance: Some(n * 10_000.0), ..Value::default() }];
        assert_eq!(verdict(bursts(3.0), bursts(12.0)), Verdict::Same);
        assert_eq!(verdict(counts(&[0.0]), counts(&[9.0])), Verdict::Same);
        assert_eq!(verdict(counts(&[0.0]), counts(&[200.0])), Verdict::Change);
        let quantile = |value: f64, low, high| {
            vec![Value { value, variance: None, within: Some((low, high)), median: true }]
        };
        assert_eq!(verdict(quantile(100.0, 90, 110), quantile(300.0, 290, 310)), Verdict::Unsure);
        assert_eq!(verdict(quantile(100.0, 90, 150), quantile(140.0, 120, 160)), Verdict::Same);
        assert_eq!(verdict(counts(&[1.0]), Vec::new()), Verdict::Unknown);
        // All medians are ten times as long on a slow host, but one is a hundred times.
        let slow = |a: f64, by: f64| {
            (quantile(a, a as u64, a as u64), quantile(a * by, (a * by) as u64, (a * by) as u64))
        };
        let all = [slow(100.0, 10.0), slow(200.0, 10.0), slow(300.0, 100.0), slow(400.0, 10.0)];
        assert_eq!(judge(&all, (1, 1)), [Verdict::Unsure, Verdict::Unsure, Verdict::Change, Verdict::Unsure]);
    }

    #[test]
    fn several_runs_a_side_show_their_spread() {
        assert_eq!(verdict(times(&[100.0, 110.0, 105.0]), times(&[200.0, 210.0, 190.0])), Verdict::Change);
        assert_eq!(verdict(times(&[100.0, 180.0, 140.0]), times(&[150.0, 200.0, 190.0])), Verdict::Same);
        // Two runs that are alike by chance are no proof.
        assert_eq!(verdict(counts(&[50.0, 50.0]), counts(&[60.0, 60.0])), Verdict::Unsure);
        assert_eq!(verdict(counts(&[50.0; 3]), counts(&[60.0; 3])), Verdict::Change);
        assert_eq!(verdict(counts(&[4910.0; 3]), counts(&[4776.0; 3])), Verdict::Change);
        // What is a change alone is none among many that are not.
        let alone = (times(&[100.0, 110.0, 105.0]), times(&[125.0, 130.0, 140.0]));
        assert_eq!(judge(std::slice::from_ref(&alone), (3, 3)), [Verdict::Change]);
        let noise = (times(&[100.0, 180.0, 140.0]), times(&[150.0, 200.0, 190.0]));
        let mut many = vec![noise; 40];
        many.push(alone);
        assert_eq!(judge(&many, (3, 3)).last(), Some(&Verdict::Same));
    }
    #[test]
    fn one_run_against_several_is_judged_by_their_spread() {
        // t = (14 - 2) / (1 · √(1 + 1/3)) = 10.39; 2 degrees of freedom: 1 - t / √(t² + 2).
        let p = against(&[1.0, 2.0, 3.0], 14.0).expect("a chance");
        let t = 12.0 / (4.0f64 / 3.0).sqrt();
        assert!((p - (1.0 - t / (t * t + 2.0).sqrt())).abs() < 1e-9, "{p}");
        assert_eq!(verdict(times(&[100.0, 110.0, 105.0, 102.0]), times(&[200.0])), Verdict::Change);
        assert_eq!(verdict(times(&[100.0, 150.0, 80.0, 120.0]), times(&[200.0])), Verdict::Same);
        assert_eq!(verdict(counts(&[50.0; 3]), counts(&[60.0])), Verdict::Unsure);
        assert_eq!(rule(1, 2), ONE);
    }
}
