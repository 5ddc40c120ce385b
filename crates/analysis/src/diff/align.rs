//! [`Course`]: what a run had mapped as it went on, at points that other runs have, too. [`Align`] says which points those are.

use mmuscope_replay::{Fault, Timeline, VmId};
use serde::Serialize;

/// How the courses of two runs are put beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Align {
    /// Where the same share of a run's faults had happened.
    #[default]
    Progress,
    /// At the ends of the phases that all runs have.
    Marker,
    /// After the same time.
    Time,
}

/// Points of a course, the beginning not included.
pub const POINTS: usize = 40;

/// One point of a run's course.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Point {
    /// When, since the beginning.
    pub(super) at: u64,
    /// Bytes of guest memory present, each frame once.
    pub(super) present: u64,
    /// Those of it that are mapped by 2M or more.
    pub(super) huge: u64,
    /// Faults so far.
    pub(super) faults: u64,
}

/// The course of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Course {
    /// The names of the points where they are phases, with their number among those of one name.
    pub(super) names: Vec<String>,
    pub(super) points: Vec<Point>,
    /// The time from one point to the next, where the points are after the same times.
    pub(super) step: u64,
}

impl Course {
    /// `faults` in the order of their events.
    pub(super) fn new(
        timeline: &Timeline,
        vm: Option<VmId>,
        faults: &[Fault],
        (from, to): (u64, u64),
        align: Align,
    ) -> Self {
        let mut out = Self::default();
        // A fault is over when the guest goes on: what it maps is there then.
        let mut times: Vec<u64> = faults.iter().map(|f| f.end_ts.unwrap_or(f.ts)).collect();
        times.sort_unstable();
        let at: Vec<u64> = match align {
            Align::Progress if times.is_empty() => Vec::new(),
            Align::Progress => (1..=POINTS).map(|n| times[(times.len() * n).div_ceil(POINTS) - 1]).collect(),
            Align::Time => {
                out.step = to.saturating_sub(from) / POINTS as u64;
                (1..=POINTS as u64).map(|n| from + out.step * n).collect()
            }
            Align::Marker => {
                let mut ends = Vec::new();
                for p in timeline.phases().iter().filter(|p| (from..=to).contains(&p.start)) {
                    let same = out.names.iter().filter(|n| n.split('#').next() == Some(&p.text)).count();
                    out.names.push(format!("{}#{}", p.text, same + 1));
                    ends.push(p.end.saturating_sub(1).clamp(from, to));
                }
                ends
            }
        };
        let point = |t: u64| {
            let counts = timeline.counts_at_in(vm, t);
            let present = counts.present_bytes(None);
            Point {
                at: t.saturating_sub(from),
                present,
                huge: present.saturating_sub(counts.present_bytes(Some(1))),
                faults: times.partition_point(|f| *f <= t) as u64,
            }
        };
        out.points = at.into_iter().map(point).collect();
        out
    }
}
