//! [`Diff`]: two sides of runs of one guest, compared number by number. `mmuscope diff` prints it.
//!
//! Numbers are those of [`Stat`](crate::stat::Stat), the replay and the findings; `judge` alone decides what is called a change.

mod align;
mod judge;
mod run;
mod student;

pub use align::{Align, POINTS};
pub use judge::{AGAINST, ONE, SEVERAL, Value, Verdict, rule};
pub use run::{Facts, Group, Run, What};

use align::Point;
use judge::{judge, mean};
use run::Key;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Name and version of the JSON's shape. Fields may be added to a version, never renamed or removed.
pub const SCHEMA: &str = "mmuscope-diff/1";

/// A number on two sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measure {
    /// What it is of: `fault`, `install`, `zap`, `memory`, `exit`, `vmm`, `time`.
    pub group: Group,
    /// The thing: an outcome, a reason, a cause.
    pub name: String,
    /// What of it: `count`, `total`, `p50`, `p99`; times are in nanoseconds.
    pub what: What,
    /// The values of the runs of side A; empty where they are not known.
    pub a: Vec<Value>,
    /// Those of side B.
    pub b: Vec<Value>,
    /// What is said of it.
    pub verdict: Verdict,
}

impl Measure {
    /// The means of both sides; `None` of a side that does not know the number.
    pub fn means(&self) -> (Option<f64>, Option<f64>) {
        let of = |side: &[Value]| (!side.is_empty()).then(|| mean(side));
        (of(&self.a), of(&self.b))
    }

    /// The mean of B over the mean of A, where both are known and A's is not 0.
    pub fn ratio(&self) -> Option<f64> {
        let (a, b) = self.means();
        a.filter(|a| *a > 0.0).zip(b).map(|(a, b)| b / a)
    }

    /// The time between the sides' means, where it is a sum of times.
    pub fn cost(&self) -> Option<f64> {
        let (a, b) = self.means();
        (self.what == What::Total).then(|| a.zip(b).map(|(a, b)| b - a)).flatten()
    }
}

/// Faults on a range of guest frames on two sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Place {
    /// First guest frame.
    pub gfn: u64,
    /// Number of frames: 1, or 512 (2M).
    pub frames: u64,
    /// Faults in each run of side A.
    pub a: Vec<u64>,
    /// Those of side B.
    pub b: Vec<u64>,
    /// What is said of their numbers.
    pub verdict: Verdict,
}

/// A finding that not all runs have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FindingDiff {
    /// Name of the rule.
    pub id: &'static str,
    /// Its severity.
    pub severity: crate::findings::Severity,
    /// In how many runs of side A it is.
    pub a: u64,
    /// In how many of side B.
    pub b: u64,
    /// What one of these runs says of it.
    pub title: String,
    /// `change` where all runs of one side have it and none of the other, with three runs or more on each; else `unsure`.
    pub verdict: Verdict,
}

/// A point in the course of the runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CoursePoint {
    /// Share of the faults that had happened (`progress`), the phase that ends here (`marker`), or the time since the beginning in
    /// nanoseconds (`time`).
    pub label: String,
    /// When, in nanoseconds since the beginning: the means of both sides. This and the next are `[A, B]`.
    pub at: [u64; 2],
    /// Bytes of guest memory present, each frame once.
    pub present: [u64; 2],
    /// Those of it that are mapped by 2M or more.
    pub huge: [u64; 2],
    /// Faults so far.
    pub faults: [u64; 2],
}

/// A fact about the recordings that differs between the sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unlike {
    /// Name of the fact.
    pub name: String,
    /// What side A has, each value once.
    pub a: Vec<String>,
    /// What side B has.
    pub b: Vec<String>,
}

/// Two sides of runs, compared.
#[derive(Clone, Debug, Serialize)]
pub struct Diff {
    /// Always [`SCHEMA`].
    pub schema: &'static str,
    /// Name and version of the program.
    pub generator: String,
    /// The runs of side A.
    pub a: Vec<Facts>,
    /// The runs of side B.
    pub b: Vec<Facts>,
    /// Facts about the hosts that differ.
    pub unlike: Vec<Unlike>,
    /// The rule by which changes are kept apart from chance, in words.
    pub rule: &'static str,
    /// What is changed: how many measures, ranges, frames outside of such ranges, and findings.
    pub changes: u64,
    /// Numbers, by group; within a group changes come first.
    pub measures: Vec<Measure>,
    /// Findings that not all runs have.
    pub findings: Vec<FindingDiff>,
    /// How the courses are put beside each other.
    pub align: Align,
    /// The runs as they went on.
    pub course: Vec<CoursePoint>,
    /// Ranges of 2M with the largest differences in faults.
    pub ranges: Vec<Place>,
    /// Frames with the largest differences in faults.
    pub frames: Vec<Place>,
    /// What limits the comparison, one sentence each.
    pub notes: Vec<String>,
}

/// Most ranges and most frames that are listed.
const PLACES: usize = 10;

impl Diff {
    /// Compares two sides; each has at least one run.
    pub fn new(a: &[Run], b: &[Run], align: Align) -> Self {
        let measures = measures(a, b);
        let ranges = places(a, b, 512);
        let frames = places(a, b, 1);
        let findings = findings(a, b);
        let changed = |v: Verdict| u64::from(v == Verdict::Change);
        let changes = measures.iter().map(|m| changed(m.verdict)).sum::<u64>()
            + ranges.iter().map(|p| changed(p.verdict)).sum::<u64>()
            // A frame in a range that changed is no further change.
            + frames.iter().filter(|f| !in_changed(&ranges, f.gfn)).map(|p| changed(p.verdict)).sum::<u64>()
            + findings.iter().map(|f| changed(f.verdict)).sum::<u64>();
        let facts = |side: &[Run]| side.iter().map(|r| r.facts.clone()).collect::<Vec<_>>();
        let mut out = Self {
            schema: SCHEMA,
            generator: format!("mmuscope {}", env!("CARGO_PKG_VERSION")),
            a: facts(a),
            b: facts(b),
            unlike: Vec::new(),
            rule: rule(a.len(), b.len()),
            changes,
            measures,
            findings,
            align,
            course: course(a, b, align),
            ranges,
            frames,
            notes: Vec::new(),
        };
        out.unlike = unlike(&out.a, &out.b);
        out.notes = notes(&out.a, &out.b);
        let apart = Group::ALL.into_iter().filter(|g| !comparable(a, b, *g));
        out.notes.extend(apart.map(|g| {
            format!(
                "{} are not compared: a filter let only a part of them be recorded in some of the runs",
                g.title()
            )
        }));
        out
    }

    /// The measures of one verdict.
    pub fn of(&self, verdict: Verdict) -> impl Iterator<Item = &Measure> {
        self.measures.iter().filter(move |m| m.verdict == verdict)
    }
}

/// The values of a number in the runs of a side; none if one of them does not know it.
fn values(side: &[Run], key: &Key) -> Vec<Value> {
    let of = |r: &Run| match r.numbers.get(key) {
        _ if r.unknown.contains(&key.0) => None,
        Some(v) => Some(*v),
        // What did not happen has no time, and what a filter left out may have happened.
        None if key.2 == What::Count && !r.partial.contains(&key.0) => {
            Some(Value { value: 0.0, variance: Some(0.0), ..Value::default() })
        }
        None => None,
    };
    side.iter().map(of).collect::<Option<Vec<_>>>().unwrap_or_default()
}

/// Whether a group can be compared: what one run has in part and another in full is not the same thing.
fn comparable(a: &[Run], b: &[Run], group: Group) -> bool {
    let parts = a.iter().chain(b).filter(|r| r.partial.contains(&group)).count();
    parts == 0 || parts == a.len() + b.len()
}

fn measures(a: &[Run], b: &[Run]) -> Vec<Measure> {
    let mut keys: BTreeSet<&Key> = a.iter().chain(b).flat_map(|r| r.numbers.keys()).collect();
    // Of what happened too seldom in a run there are no times to compare.
    let timed = |k: &Key| {
        let knows = |r: &Run| r.unknown.contains(&k.0) || r.numbers.contains_key(k);
        (k.2 == What::Count || a.iter().chain(b).all(knows)) && comparable(a, b, k.0)
    };
    keys.retain(|k| timed(k));
    let values: Vec<(Vec<Value>, Vec<Value>)> = keys.iter().map(|k| (values(a, k), values(b, k))).collect();
    let verdicts = judge(&values, (a.len(), b.len()));
    let mut out: Vec<Measure> = keys
        .into_iter()
        .zip(values)
        .zip(verdicts)
        .filter(|((_, (a, b)), _)| !a.is_empty() || !b.is_empty())
        .map(|((key, (a, b)), verdict)| Measure {
            group: key.0,
            name: key.1.clone(),
            what: key.2,
            a,
            b,
            verdict,
        })
        .collect();
    let apart =
        |m: &Measure| m.ratio().map_or(u64::MAX, |r| (r.max(f64::MIN_POSITIVE).ln().abs() * 1e6) as u64);
    out.sort_by_cached_key(|m| (m.group, m.verdict, Reverse(apart(m)), m.name.clone(), m.what));
    out
}

/// Whether a frame is in a range that changed.
fn in_changed(ranges: &[Place], gfn: u64) -> bool {
    ranges
        .iter()
        .any(|r| r.verdict == Verdict::Change && (r.gfn..r.gfn.saturating_add(r.frames)).contains(&gfn))
}

/// Faults by place; the largest differences.
fn places(a: &[Run], b: &[Run], frames: u64) -> Vec<Place> {
    /// Faults, and the squares of the sizes of their bursts, in each run of a side.
    type Faults = Vec<(u64, u64)>;
    let mut all: BTreeMap<u64, (Faults, Faults)> = BTreeMap::new();
    let sides = (a.len(), b.len());
    for (side, runs) in [a, b].into_iter().enumerate() {
        for (n, run) in runs.iter().enumerate() {
            for (gfn, (count, bursts)) in &run.frames {
                let at = all
                    .entry(gfn / frames * frames)
                    .or_insert_with(|| (vec![(0, 0); sides.0], vec![(0, 0); sides.1]));
                let of = if side == 0 { &mut at.0[n] } else { &mut at.1[n] };
                (of.0, of.1) = (of.0 + count, of.1 + bursts);
            }
        }
    }
    if a.iter().chain(b).any(|r| r.unknown.contains(&Group::Fault)) {
        return Vec::new();
    }
    let value = |v: &(u64, u64)| Value { value: v.0 as f64, variance: Some(v.1 as f64), ..Value::default() };
    let side = |s: &[(u64, u64)]| s.iter().map(value).collect::<Vec<_>>();
    let values: Vec<_> = all.values().map(|(a, b)| (side(a), side(b))).collect();
    let verdicts = judge(&values, (a.len(), b.len()));
    let counts = |s: Vec<(u64, u64)>| s.into_iter().map(|v| v.0).collect::<Vec<_>>();
    let mut out: Vec<(Verdict, u64, Place)> = all
        .into_iter()
        .zip(verdicts)
        .map(|((gfn, (a, b)), verdict)| {
            let sum = |s: &[(u64, u64)]| s.iter().map(|v| v.0).sum::<u64>() as f64 / s.len() as f64;
            let apart = (sum(&a) - sum(&b)).abs() as u64;
            (verdict, apart, Place { gfn, frames, a: counts(a), b: counts(b), verdict })
        })
        .filter(|p| p.1 > 0)
        .collect();
    out.sort_by_key(|p| (p.0, Reverse(p.1), p.2.gfn));
    out.truncate(PLACES);
    out.into_iter().map(|p| p.2).collect()
}

fn findings(a: &[Run], b: &[Run]) -> Vec<FindingDiff> {
    let ids: BTreeSet<&'static str> = a.iter().chain(b).flat_map(|r| r.findings.keys().copied()).collect();
    let mut out = Vec::new();
    for id in ids {
        let count = |side: &[Run]| side.iter().filter(|r| r.findings.contains_key(id)).count();
        let (in_a, in_b) = (count(a), count(b));
        if (in_a, in_b) == (a.len(), b.len()) {
            continue;
        }
        let first = b.iter().chain(a).find_map(|r| r.findings.get(id));
        let apart = (in_a == 0 && in_b == b.len()) || (in_b == 0 && in_a == a.len());
        let enough = a.len() >= 3 && b.len() >= 3;
        out.extend(first.map(|f| FindingDiff {
            id,
            severity: f.severity,
            a: in_a as u64,
            b: in_b as u64,
            title: f.title.clone(),
            verdict: if apart && enough { Verdict::Change } else { Verdict::Unsure },
        }));
    }
    out.sort_by_key(|f| (f.verdict, Reverse(f.severity), f.id));
    out
}

/// The courses of both sides at the same points: means of the runs.
fn course(a: &[Run], b: &[Run], align: Align) -> Vec<CoursePoint> {
    let all = || a.iter().chain(b);
    if all().any(|r| r.course.points.is_empty()) {
        return Vec::new();
    }
    // What each point is called, and how to find it in a run.
    let longest = all().map(|r| r.course.step).max().unwrap_or(0);
    let labels: Vec<String> = match align {
        Align::Progress => {
            (1..=POINTS).map(|n| format!("{:.1} %", n as f64 * 100.0 / POINTS as f64)).collect()
        }
        Align::Time => (1..=POINTS as u64).map(|n| (n * longest).to_string()).collect(),
        Align::Marker => {
            let common = |n: &&String| all().all(|r| r.course.names.contains(n));
            a[0].course.names.iter().filter(common).cloned().collect()
        }
    };
    let find = |r: &Run, n: usize| -> Option<Point> {
        let c = &r.course;
        match align {
            Align::Progress => c.points.get(n).copied(),
            Align::Time => {
                let at = longest * (n as u64 + 1);
                // A run that is over by then stays as it was.
                let upto = c.points.partition_point(|p| p.at <= at);
                Some(upto.checked_sub(1).map_or_else(Point::default, |i| c.points[i]))
            }
            Align::Marker => c.names.iter().position(|x| *x == labels[n]).map(|i| c.points[i]),
        }
    };
    let side = |runs: &[Run], n: usize, of: fn(&Point) -> u64| {
        let sum: u64 = runs.iter().filter_map(|r| find(r, n)).map(|p| of(&p)).sum();
        sum / runs.len() as u64
    };
    let both = |n: usize, of: fn(&Point) -> u64| [side(a, n, of), side(b, n, of)];
    (0..labels.len())
        .map(|n| CoursePoint {
            label: labels[n].strip_suffix("#1").unwrap_or(&labels[n]).to_owned(),
            at: both(n, |p| p.at),
            present: both(n, |p| p.present),
            huge: both(n, |p| p.huge),
            faults: both(n, |p| p.faults),
        })
        .collect()
}

/// Facts about the hosts that are not the same on both sides.
fn unlike(a: &[Facts], b: &[Facts]) -> Vec<Unlike> {
    let values = |side: &[Facts], of: &dyn Fn(&Facts) -> Option<String>| {
        side.iter().filter_map(of).collect::<BTreeSet<String>>().into_iter().collect::<Vec<_>>()
    };
    let mut out = Vec::new();
    let mut add = |name: &str, of: &dyn Fn(&Facts) -> Option<String>| {
        let (x, y) = (values(a, of), values(b, of));
        // What one side does not say is no difference.
        if x != y && !x.is_empty() && !y.is_empty() {
            out.push(Unlike { name: name.to_owned(), a: x, b: y });
        }
    };
    add("kernel", &|f| f.kernel.clone());
    add("MMU", &|f| Some(f.mmu.clone()));
    add("CPU", &|f| f.cpu.clone());
    add("recording", &|f| Some(f.format.clone()));
    let params: BTreeSet<&String> = a.iter().chain(b).flat_map(|f| f.params.keys()).collect();
    for p in params {
        // A parameter that one kernel does not have is no setting.
        if a.iter().chain(b).all(|f| f.params.contains_key(p)) {
            add(p, &|f| f.params.get(p).cloned());
        }
    }
    out
}

/// What limits the comparison.
fn notes(a: &[Facts], b: &[Facts]) -> Vec<String> {
    let mut out = Vec::new();
    let name = |f: &Facts| f.files.join(", ");
    for f in a.iter().chain(b).filter(|f| f.partial) {
        out.push(format!(
            "{}: events were lost, or part of the file could not be read: its counts are too low",
            name(f)
        ));
    }
    let formats: BTreeSet<&str> = a.iter().chain(b).map(|f| f.format.as_str()).collect();
    if formats.len() > 1 {
        out.push(format!(
            "the runs were recorded in different ways ({}): what a recorder costs is part of the times",
            formats.into_iter().collect::<Vec<_>>().join(", ")
        ));
    }
    let length = |side: &[Facts]| side.iter().map(|f| f.duration).sum::<u64>() as f64 / side.len() as f64;
    let (x, y) = (length(a), length(b));
    if x.max(y) > 1.5 * x.min(y) {
        out.push(
            "the recordings of one side are more than half as long again as those of the other: counts are of the whole recordings, not of equal times"
                .to_owned(),
        );
    }
    let missing = |side: &[Facts]| side.iter().flat_map(|f| f.missing.clone()).collect::<BTreeSet<String>>();
    let (x, y) = (missing(a), missing(b));
    out.extend(x.intersection(&y).cloned());
    out.extend(x.difference(&y).map(|m| format!("side A: {m}")));
    out.extend(y.difference(&x).map(|m| format!("side B: {m}")));
    out
}

#[cfg(test)]
mod tests;
