//! How numbers and names of a comparison are written, the same on every face.

use mmuscope_analysis::diff::{Align, Diff, Facts, FindingDiff, Group, Measure, Place, Value, Verdict, What};
use mmuscope_analysis::stat::time_words;

use crate::words;

/// Most characters of a name of a trace.
pub(super) const NAME: usize = 80;

/// The verdict on everything, in words.
pub(super) fn verdict(diff: &Diff) -> String {
    match diff.changes {
        0 => "no change".to_owned(),
        n => words::counted(n, "change", "changes"),
    }
}

/// The name of a thing that is counted or timed.
pub(super) fn name(m: &Measure) -> String {
    let name = match m.group {
        Group::Time => time_words(&m.name).to_owned(),
        Group::Memory => words::one_line(&m.name, NAME),
        _ => format!("{} {}", m.group.name(), words::one_line(&m.name, NAME)),
    };
    format!("{name}, {}", m.what.name())
}

/// A number with its unit.
pub(super) fn number(what: What, v: f64) -> String {
    let v = v.round().max(0.0) as u64;
    if what == What::Count { words::count(v) } else { words::duration(v) }
}

/// What one side has: the mean, and of several runs the lowest and the highest, or of one the interval of a quantile.
pub(super) fn side(what: What, values: &[Value]) -> String {
    let mean = values.iter().map(|v| v.value).sum::<f64>() / values.len().max(1) as f64;
    let shown = number(what, mean);
    match values {
        [] => "not recorded".to_owned(),
        [Value { within: Some((low, high)), .. }] => {
            format!("{shown} ({} to {})", number(what, *low as f64), number(what, *high as f64))
        }
        [_] => shown,
        many => {
            let low = many.iter().map(|v| v.value).fold(f64::INFINITY, f64::min);
            let high = many.iter().map(|v| v.value).fold(0.0, f64::max);
            if (high - low).abs() < f64::EPSILON {
                shown
            } else {
                format!("{shown} ({} to {})", number(what, low), number(what, high))
            }
        }
    }
}

/// How much larger B is: `x1.71`; `only in B` where A has none.
pub(super) fn ratio(m: &Measure) -> String {
    match m.means() {
        (Some(a), Some(b)) if a == 0.0 && b == 0.0 => "-".to_owned(),
        (Some(0.0), Some(_)) => "only in B".to_owned(),
        (Some(_), Some(0.0)) => "only in A".to_owned(),
        (Some(a), Some(b)) => factor(b / a),
        _ => "-".to_owned(),
    }
}

pub(super) fn factor(r: f64) -> String {
    if (0.995..1.005).contains(&r) {
        "x1".to_owned()
    } else if r >= 100.0 {
        format!("x{r:.0}")
    } else if r >= 10.0 {
        format!("x{r:.1}")
    } else if r >= 0.095 {
        format!("x{r:.2}")
    } else if r >= 0.001 {
        format!("x{r:.3}")
    } else {
        "x<0.001".to_owned()
    }
}

/// What a sum of times has become longer or shorter by.
pub(super) fn cost(m: &Measure) -> String {
    match m.cost() {
        Some(c) if c > 0.0 => format!("+{}", words::duration(c as u64)),
        Some(c) if c < 0.0 => format!("-{}", words::duration(-c as u64)),
        _ => String::new(),
    }
}

/// The runs of a side, in a sentence.
pub(super) fn runs(side: &[Facts]) -> String {
    let mut kernels: Vec<String> = side
        .iter()
        .filter_map(|f| f.kernel.as_ref())
        .map(|k| format!("Linux {}", words::one_line(k, NAME)))
        .collect();
    kernels.dedup();
    let mut mmus: Vec<&str> = side.iter().map(|f| f.mmu.as_str()).filter(|m| !m.is_empty()).collect();
    mmus.dedup();
    let mean = |of: fn(&Facts) -> u64| side.iter().map(of).sum::<u64>() / side.len().max(1) as u64;
    let mut parts = vec![words::counted(side.len() as u64, "run", "runs")];
    parts.extend(kernels);
    parts.extend(mmus.into_iter().map(str::to_owned));
    parts.push(words::duration(mean(|f| f.duration)));
    parts.push(words::counted(mean(|f| f.events), "event", "events"));
    parts.push(words::counted(mean(|f| f.faults), "fault", "faults"));
    let means = if side.len() > 1 { " (means)" } else { "" };
    format!("{}{means}", parts.join(", "))
}

pub(super) fn files(side: &[Facts]) -> Vec<String> {
    side.iter().map(|f| words::one_line(&f.files.join(" + "), 160)).collect()
}

/// Numbers that are shown whatever their verdict: what the runs come to.
pub(super) fn in_all(diff: &Diff) -> Vec<&Measure> {
    let wanted = |m: &&Measure| m.group == Group::Time && m.what == What::Total;
    let mut out: Vec<&Measure> = diff.measures.iter().filter(wanted).collect();
    let longest = |m: &Measure| m.means().0.unwrap_or(0.0).max(m.means().1.unwrap_or(0.0));
    out.sort_by(|x, y| longest(y).total_cmp(&longest(x)));
    out
}

/// In how many runs a finding is.
pub(super) fn where_found(f: &FindingDiff, diff: &Diff) -> String {
    let of = |n: u64, all: usize, side: &str| match (n, all) {
        (0, _) => None,
        (_, 1) => Some(side.to_owned()),
        (n, all) => Some(format!("{n} of {all} of {side}")),
    };
    let both: Vec<String> =
        [of(f.a, diff.a.len(), "A"), of(f.b, diff.b.len(), "B")].into_iter().flatten().collect();
    both.join(", ")
}

pub(super) fn place(p: &Place) -> String {
    words::gfn_range(p.gfn, p.gfn.saturating_add(p.frames))
}

/// Faults of a place on one side.
pub(super) fn counts(values: &[u64]) -> String {
    let mean = values.iter().sum::<u64>() as f64 / values.len().max(1) as f64;
    let (low, high) = (values.iter().min().copied().unwrap_or(0), values.iter().max().copied().unwrap_or(0));
    if low == high {
        words::count(low)
    } else {
        format!("{} ({} to {})", words::count(mean.round() as u64), words::count(low), words::count(high))
    }
}

/// The heading of a point's column.
pub(super) const fn point_head(align: Align) -> &'static str {
    match align {
        Align::Progress => "after this share of the faults",
        Align::Marker => "at the end of the phase",
        Align::Time => "after",
    }
}

pub(super) fn point_label(align: Align, label: &str) -> String {
    match align {
        Align::Time => label.parse().map_or_else(|_| label.to_owned(), words::duration),
        _ => words::one_line(label, NAME),
    }
}

/// The verdicts that have a list of their own, each with its heading.
pub(super) const LISTS: [(Verdict, &str); 3] = [
    (Verdict::Change, "changes"),
    (Verdict::Unsure, "unsure: they differ, which with these runs may be a change or chance"),
    (Verdict::Unknown, "not recorded on one side"),
];
