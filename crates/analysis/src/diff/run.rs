//! [`Run`]: what is compared of one recording. It is made once, so that the trace and its replay need not be held.

use super::align::{Align, Course};
use super::judge::Value;
use crate::findings::{self, Severity};
use crate::stat::{Kind, Query, Row, Stat};
use mmuscope_replay::{Shade, State, Timeline, VmId};
use mmuscope_trace::Trace;
use mmuscope_units::level_size;
use rustc_hash::FxHashMap as HashMap;
use serde::Serialize;
use std::collections::BTreeMap;

/// What a number is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// Faults by outcome.
    Fault,
    /// Faults that installed a leaf, by its size.
    Install,
    /// Zaps by how they are known.
    Zap,
    /// Entries at the end, or before their VM is torn down, by what they allow and by size.
    Memory,
    /// Exits by reason.
    Exit,
    /// Returns to the VMM by reason.
    Vmm,
    /// The vCPUs' time.
    Time,
}

impl Group {
    /// Every group, in the order in which they are shown.
    pub const ALL: [Self; 7] =
        [Self::Fault, Self::Install, Self::Zap, Self::Memory, Self::Exit, Self::Vmm, Self::Time];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Install => "install",
            Self::Zap => "zap",
            Self::Memory => "memory",
            Self::Exit => "exit",
            Self::Vmm => "vmm",
            Self::Time => "time",
        }
    }

    /// What it lists.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Fault => "faults by outcome",
            Self::Install => "faults that mapped",
            Self::Zap => "zaps by how they are known",
            Self::Memory => "entries at the end, or before the VM is torn down",
            Self::Exit => "exits",
            Self::Vmm => "returns to the VMM",
            Self::Time => "time of the vCPUs",
        }
    }

    const fn of(kind: Kind) -> Option<Self> {
        Some(match kind {
            Kind::Time => Self::Time,
            Kind::Exit => Self::Exit,
            Kind::Vmm => Self::Vmm,
            Kind::Fault => Self::Fault,
            Kind::Install => Self::Install,
            Kind::Zap => Self::Zap,
            // Frames are compared on their own, and causes as findings gained and lost.
            Kind::ZapFor | Kind::Huge | Kind::Mmio => return None,
        })
    }
}

/// What is compared of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// How often it happened, or how many there are.
    Count,
    /// The sum of its times, in nanoseconds.
    Total,
    /// The median of its times.
    P50,
    /// The 99th percentile of its times.
    P99,
}

impl What {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Total => "total time",
            Self::P50 => "p50",
            Self::P99 => "p99",
        }
    }
}

/// A number: of what group, of what thing in it, and what of it.
pub(super) type Key = (Group, String, What);

/// The recording of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Facts {
    /// Input files.
    pub files: Vec<String>,
    /// Release of the host's kernel; `null` where the recording does not name it.
    pub kernel: Option<String>,
    /// The MMUs of the VMs.
    pub mmu: String,
    /// Description of the host's CPU.
    pub cpu: Option<String>,
    /// Format of the recording.
    pub format: String,
    /// Length of the recording, or of what was asked for, in nanoseconds.
    pub duration: u64,
    /// Number of events.
    pub events: u64,
    /// Number of faults in what was asked for.
    pub faults: u64,
    /// Whether events were lost or part of the file could not be read.
    pub partial: bool,
    /// Parameters of the kernel's modules.
    #[serde(skip)]
    pub params: BTreeMap<String, String>,
    /// What is not known because it was not recorded, one sentence each.
    pub missing: Vec<String>,
}

/// A finding of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) severity: Severity,
    pub(super) title: String,
}

/// What is compared of one recording.
#[derive(Clone, Debug)]
pub struct Run {
    pub(super) facts: Facts,
    pub(super) numbers: BTreeMap<Key, Value>,
    /// Groups of which a number that is not there is not 0.
    pub(super) unknown: Vec<Group>,
    /// Groups of which a filter let only a part be recorded.
    pub(super) partial: Vec<Group>,
    /// Faults, and the squares of the sizes of their bursts, by guest frame.
    pub(super) frames: HashMap<u64, (u64, u64)>,
    /// By id: the weightiest finding.
    pub(super) findings: BTreeMap<&'static str, Found>,
    pub(super) course: Course,
}

/// Times of fewer things than this are not compared: quantiles of so few say nothing.
const TIMED: u64 = 20;

impl Run {
    /// Gathers what is compared.
    pub fn new(trace: &Trace, timeline: &Timeline, q: &Query, align: Align) -> Self {
        let stat = Stat::new(trace, timeline, q);
        let mut numbers = BTreeMap::new();
        let only = stat.whose().len() == 1;
        for ((_, kind), rows) in &stat.rows {
            if let Some(group) = Group::of(*kind) {
                for r in rows {
                    add(&mut numbers, group, r, only);
                }
            }
        }
        let vm = q.vm.map(VmId);
        let (start, end) = timeline.range();
        let (from, to) = (q.from.unwrap_or(start).max(start), q.to.unwrap_or(end).min(end));
        entries(&mut numbers, timeline, vm, to);
        let unknown = stat.unknown.iter().filter_map(|k| Group::of(*k)).collect();
        let partial = stat.partial.iter().filter_map(|k| Group::of(*k)).collect();
        let asked = |f: &mmuscope_replay::Fault| {
            q.holds(f.ts) && q.vm.is_none_or(|v| f.vm.0 == v) && q.vcpu.is_none_or(|v| f.vcpu == Some(v))
        };
        let mut faults: Vec<_> = timeline.faults().filter(asked).collect();
        faults.sort_by_key(|f| f.event);
        let info = &trace.info;
        let facts = Facts {
            files: info.files.iter().map(|f| f.path.to_string_lossy().into_owned()).collect(),
            kernel: info.host.os_release.clone(),
            mmu: mmus(timeline, q.vm),
            cpu: info.host.cpu_desc.clone(),
            format: info.format.to_string(),
            duration: to.saturating_sub(from),
            events: info.events,
            faults: faults.len() as u64,
            partial: info.is_partial(),
            params: info.host.params.clone().into_iter().collect(),
            missing: stat.missing,
        };
        let mut found: BTreeMap<&'static str, Found> = BTreeMap::new();
        for f in findings::find(trace, timeline) {
            let asked = q.holds(f.first) || q.holds(f.last);
            if asked && q.vm.is_none_or(|v| f.vm.is_none_or(|of| of == v)) {
                let one = Found { severity: f.severity, title: f.title };
                found.entry(f.id).or_insert(one);
            }
        }
        Self {
            facts,
            numbers,
            unknown,
            partial,
            frames: frames(&faults),
            findings: found,
            course: Course::new(timeline, vm, &faults, (from, to), align),
        }
    }
}

/// Adds a row to the sums over all VMs. Quantiles cannot be added: they are there where the row is `only` one's.
fn add(numbers: &mut BTreeMap<Key, Value>, group: Group, r: &Row, only: bool) {
    let name = r.name.to_string();
    let mut sum = |what, value: u64, variance: Option<u64>| {
        let new = Value { variance: variance.map(|_| 0.0), ..Value::default() };
        let v = numbers.entry((group, name.clone(), what)).or_insert(new);
        v.value += value as f64;
        v.variance = v.variance.zip(variance).map(|(a, b)| a + b as f64);
    };
    // How often a vCPU's time was cut into stretches is the number of its exits.
    if group != Group::Time {
        sum(What::Count, r.count, Some(r.bursts.max(r.count)));
    }
    let t = &r.times;
    if t.measured < TIMED {
        return;
    }
    sum(What::Total, t.total, None);
    // A quantile without an interval is as good as the longest time: it says little.
    for (what, value, within) in [(What::P50, t.p50, t.p50_within), (What::P99, t.p99, t.p99_within)] {
        if let (Some(value), Some(within), true) = (value, within, only && group != Group::Time) {
            let v = Value {
                value: value as f64,
                variance: None,
                within: Some(within),
                median: what == What::P50,
            };
            numbers.insert((group, name.clone(), what), v);
        }
    }
}

/// Entries at a time, or before their VM is torn down, by what they allow and by size.
fn entries(numbers: &mut BTreeMap<Key, Value>, timeline: &Timeline, vm: Option<VmId>, at: u64) {
    for of in timeline.vms().iter().filter(|v| vm.is_none_or(|id| v.id == id)) {
        let lived = of.ended.as_ref().map_or(at, |e| at.min(e.start.saturating_sub(1)));
        let counts = timeline.counts_at_in(Some(of.id), lived);
        for shade in
            Shade::ALL.into_iter().filter(|s| !matches!(s.state(), State::Unknown | State::Nonpresent))
        {
            for level in 1..=5 {
                let n = counts.at(shade, level) as f64;
                if n > 0.0 {
                    let key = (Group::Memory, format!("{} {}", level_size(level), shade.name()), What::Count);
                    let v = numbers.entry(key).or_insert(Value { variance: Some(0.0), ..Value::default() });
                    (v.value, v.variance) = (v.value + n, v.variance.map(|s| s + n));
                }
            }
        }
    }
}

fn mmus(timeline: &Timeline, vm: Option<u16>) -> String {
    let mut names: Vec<&str> =
        timeline.vms().iter().filter(|v| vm.is_none_or(|n| v.id.0 == n)).map(|v| v.kind.name()).collect();
    names.dedup();
    names.join(" + ")
}

/// Faults of each frame.
fn frames(faults: &[mmuscope_replay::Fault]) -> HashMap<u64, (u64, u64)> {
    let mut out: HashMap<u64, (u64, u64)> = HashMap::default();
    let mut burst: HashMap<u32, (u64, u64)> = HashMap::default();
    for f in faults {
        let Some(gfn) = f.gfn else { continue };
        let b = burst.entry(f.tid).or_insert((gfn, 0));
        if b.0 != gfn {
            *b = (gfn, 0);
        }
        b.1 += 1;
        let one = out.entry(gfn).or_default();
        (one.0, one.1) = (one.0 + 1, one.1 + 2 * b.1 - 1);
    }
    out
}
