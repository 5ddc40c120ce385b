//! [`find`]: what a trace shows of trouble, cost and broken rules, each with its count, its cost and the events that prove it.
//!
//! `mmuscope check` prints all findings; `mmuscope summary` and the report begin with the weightiest. Each finding is a [`Rule`] in a file of its
//! own: its texts, and a function that looks at the faults, at the replay and at what `Noted` gathered in one pass over the events. A rule
//! says what the events show; it names a cause only where the events leave no other, and otherwise says how sure it is. It never blames what
//! this kernel does not trace: `Seen::traces` is the kernel's `[traces]` data.

mod aging;
mod async_pf;
mod beyond;
mod cause;
mod dirty;
mod ends;
mod fault_error;
mod fault_loop;
mod huge;
mod intercepts;
mod internal;
mod invariants;
mod known_bugs;
mod misaligned;
mod mmio_cache;
mod mmio_generation;
mod mmio_hot;
mod mmio_ram;
mod moment;
mod noted;
mod notifier_storm;
mod nx;
mod outside;
mod pingpong;
mod ranges;
mod request_loop;
mod reserved;
mod reserved_present;
mod retry;
mod rings;
mod rmp;
mod shadow;
mod shared_frames;
mod shared_page;
mod slow_page;
mod snapshot;
mod split;
mod stuck;
mod triple;
mod words;
mod zap_all;

pub use cause::{Cause, CauseKind};
pub use huge::SizeChange;
use mmuscope_replay::{Certainty, Fault, Span, State, Timeline, VmId};
use mmuscope_spte::Traces;
use mmuscope_trace::{ClockUnit, Trace};
use noted::Noted;
use rustc_hash::FxHashMap as HashMap;
use serde::Serialize;
use std::borrow::Cow;
use words::{counted, kind, place, share, task, vcpus};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The fact helps to read the trace, or says what something cost that was asked for.
    Info,
    /// Something costs time without need, or goes on without end.
    Warning,
    /// The guest or the VMM got an error, or a rule of KVM itself is broken.
    Error,
}

impl Severity {
    /// The word for it: `info`, `warning` or `error`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// How sure a finding's cause is. What was seen is always a fact of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sure {
    /// The events fit the cause, and others too.
    Possible,
    /// Other causes would leave events that are not there.
    Likely,
    /// The events leave no other cause.
    Certain,
}

impl Sure {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Possible => "possible",
            Self::Likely => "likely",
            Self::Certain => "certain",
        }
    }
}

/// One kind of finding.
#[derive(Debug)]
pub struct Rule {
    /// Its name, such as `fault-loop`; it never changes.
    pub id: &'static str,
    /// How much it matters; a finding may matter less.
    pub severity: Severity,
    /// When it is found: what the events show.
    pub seen: &'static str,
    /// Why it happens.
    pub why: &'static str,
    /// What to do.
    pub remedy: &'static str,
    /// What would refute it.
    pub refuted: &'static str,
    find: fn(&Seen<'_>) -> Vec<Finding>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the rule, such as `fault-loop`; it never changes.
    pub id: &'static str,
    /// How much the finding matters.
    pub severity: Severity,
    /// What was seen, in one sentence without a full stop.
    pub title: String,
    /// Number of the VM, where the finding is about one.
    pub vm: Option<u16>,
    /// Guest frame number, where the finding is about one frame.
    pub gfn: Option<u64>,
    /// Number of events that show it.
    pub count: u64,
    /// Time of the first of these events, in nanoseconds on the trace's clock.
    pub first: u64,
    /// Time of the last of these events, in nanoseconds on the trace's clock.
    pub last: u64,
    /// Numbers of the first of these events in the trace, from 0; at most 100.
    pub events: Vec<u64>,
    /// Nanoseconds that vCPUs spent in the faults that it is about, where it is about faults whose ends are in the trace.
    pub cost: Option<u64>,
    /// Why it happens.
    pub why: Cow<'static, str>,
    /// What to do.
    pub remedy: Cow<'static, str>,
    /// How sure the cause is.
    pub sure: Sure,
    /// What would refute it.
    pub refuted: &'static str,
}

/// Most events that a finding names.
const SHOWN: usize = 100;
/// Most findings of one rule; those with the highest counts are kept.
const EACH: usize = 50;

impl Finding {
    fn new(rule: &Rule, title: String) -> Self {
        Self {
            id: rule.id,
            severity: rule.severity,
            title,
            vm: None,
            gfn: None,
            count: 0,
            first: 0,
            last: 0,
            events: Vec::new(),
            cost: None,
            why: Cow::Borrowed(rule.why),
            remedy: Cow::Borrowed(rule.remedy),
            sure: Sure::Certain,
            refuted: rule.refuted,
        }
    }

    /// Counts events, given by time and number, that show the finding.
    fn see_all(&mut self, seen: impl IntoIterator<Item = (u64, u32)>) {
        for (ts, event) in seen {
            self.see(ts, event);
        }
    }

    fn see(&mut self, ts: u64, event: u32) {
        if self.count == 0 {
            self.first = ts;
        }
        self.first = self.first.min(ts);
        self.last = self.last.max(ts);
        self.count += 1;
        if self.events.len() < SHOWN {
            self.events.push(u64::from(event));
        }
    }

    /// Counts the events and the time of faults.
    fn see_faults<'a>(&mut self, faults: impl IntoIterator<Item = &'a Fault>) {
        for f in faults {
            self.see(f.ts, f.event);
            self.pay(f);
        }
    }

    /// Adds the time of a fault to the cost.
    fn pay(&mut self, f: &Fault) {
        if let Some(d) = f.duration() {
            self.cost = Some(self.cost.unwrap_or(0) + d);
        }
    }
}

/// What the rules look at.
struct Seen<'a> {
    trace: &'a Trace,
    timeline: &'a Timeline,
    faults: &'a [Fault],
    noted: &'a Noted,
    /// The numbers of each thread's faults in `faults`, in order.
    by_thread: HashMap<u32, Vec<usize>>,
    /// What this kernel traces.
    traces: Traces,
    /// Whether the ends of faults measure time.
    timed: bool,
    /// Whether the trace is only a few events, so that the other parts of a summary say little and the rules say more.
    fragment: bool,
}

impl Seen<'_> {
    /// Time of all faults of a VM whose ends are in the trace.
    fn fault_time(&self, vm: u16) -> u64 {
        self.faults.iter().filter(|f| f.vm.0 == vm).filter_map(Fault::duration).sum()
    }

    /// The fault during which a thread did something.
    fn fault_of(&self, tid: u32, event: u32, ts: u64) -> Option<&Fault> {
        let of = self.by_thread.get(&tid)?;
        let n = of.partition_point(|f| self.faults[*f].event <= event).checked_sub(1)?;
        let f = &self.faults[of[n]];
        (event <= f.last_event || f.end_ts.is_some_and(|e| ts <= e)).then_some(f)
    }

    /// Name of the thread of an event; empty where it was not recorded.
    fn comm_of(&self, event: u32) -> &str {
        self.trace.strings.get(self.trace.events.get(event as usize).comm)
    }

    /// The VMs, by number.
    fn vms(&self) -> impl Iterator<Item = u16> + '_ {
        self.timeline.vms().iter().map(|v| v.id.0)
    }

    /// ` of VM 1` where there is more than one.
    fn of_vm(&self, vm: u16) -> String {
        if self.timeline.vms().len() > 1 { format!(" of VM {vm}") } else { String::new() }
    }

    /// Whether an event before this one shows that a frame was present.
    fn was_present(&self, vm: u16, gfn: u64, event: u32) -> bool {
        let known = |s: &Span| {
            s.state == State::Present
                && matches!(s.certainty, Certainty::Exact | Certainty::Observed)
                && s.opened_by.is_some_and(|o| o < event)
        };
        let entries = self.timeline.entries_at(VmId(vm), 0, gfn);
        entries.into_iter().any(|id| self.timeline.spans(id).any(|s| known(&s)))
    }

    /// Whether a time is in the teardown of a VM, or after it.
    fn torn_down(&self, vm: u16, ts: u64) -> bool {
        let of = self.timeline.vms().iter().find(|v| v.id == VmId(vm));
        of.and_then(|v| v.ended.as_ref()).is_some_and(|e| ts >= e.start)
    }
}

/// Whether the ends of faults measure time: entries into the guest were recorded, and the clock counts nanoseconds. Where they were not, the
/// replay ends a fault at a later event, which is no measure of its time.
pub fn faults_are_timed(trace: &Trace, timeline: &Timeline) -> bool {
    timeline.has_events("kvm_entry") && trace.info.clock.unit == ClockUnit::Nanoseconds
}

/// The faults for sums of time: they have an end only where ends measure time ([`faults_are_timed`]).
pub fn timed_faults<'a>(trace: &Trace, timeline: &Timeline, faults: &'a [Fault]) -> Cow<'a, [Fault]> {
    if faults_are_timed(trace, timeline) {
        return faults.into();
    }
    faults.iter().map(|f| Fault { end_ts: None, ..*f }).collect::<Vec<_>>().into()
}

/// A trace of at most this many events is a fragment.
const FRAGMENT: usize = 1000;

/// All rules; findings of equal severity and cost are listed in this order.
pub static RULES: [&Rule; 45] = [
    &fault_error::RULE,
    &internal::RULE,
    &triple::RULE,
    &invariants::PFN_CHANGED,
    &invariants::NONPRESENT,
    &invariants::MISALIGNED,
    &invariants::INDEX,
    &invariants::DEAD_TABLE,
    &invariants::SHARED_TABLE,
    &invariants::WRITABLE,
    &invariants::RESERVED,
    &invariants::VALUES,
    &snapshot::RULE,
    &stuck::RULE,
    &reserved_present::RULE,
    &shared_frames::RULE,
    &fault_loop::RULE,
    &request_loop::RULE,
    &retry::RULE,
    &notifier_storm::RULE,
    &pingpong::RULE,
    &beyond::RULE,
    &outside::RULE,
    &reserved::RULE,
    &async_pf::RULE,
    &slow_page::RULE,
    &rmp::RULE,
    &split::RULE,
    &zap_all::RULE,
    &huge::LOST,
    &misaligned::RULE,
    &mmio_cache::RULE,
    &mmio_generation::RULE,
    &mmio_ram::RULE,
    &shadow::RULE,
    &nx::RULE,
    &dirty::RULE,
    &rings::FULL,
    &rings::PML,
    &shared_page::RULE,
    &huge::WON,
    &mmio_hot::RULE,
    &aging::RULE,
    &intercepts::RULE,
    &ends::RULE,
];

/// The findings of a trace, the most severe first, and of equal severity those that cost most.
pub fn find(trace: &Trace, timeline: &Timeline) -> Vec<Finding> {
    survey(trace, timeline).findings
}

/// What one pass over a trace finds.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// The findings, the most severe first, and of equal severity those that cost most.
    pub findings: Vec<Finding>,
    /// What changed many entries at once, in the order of their beginnings.
    pub causes: Vec<Cause>,
    /// Every huge page that was lost or won, in the order of time; in `causes`, those of one thread that follow each other closely are one.
    pub sizes: Vec<SizeChange>,
}

/// The findings of a trace and the causes of its changes.
pub fn survey(trace: &Trace, timeline: &Timeline) -> Survey {
    survey_with(trace, timeline, &timeline.faults_by_event())
}

/// [`survey`], where the faults of the trace are at hand in the order of their events.
pub fn survey_with(trace: &Trace, timeline: &Timeline, faults: &[Fault]) -> Survey {
    with_seen(trace, timeline, faults, |seen| Survey { findings: findings(seen), ..causes(seen) })
}

/// The causes of a trace's changes, as [`survey_with`] has them, without the findings.
pub fn causes_with(trace: &Trace, timeline: &Timeline, faults: &[Fault]) -> Survey {
    with_seen(trace, timeline, faults, causes)
}

/// Gathers what the rules look at, and lets them look.
fn with_seen<T>(
    trace: &Trace,
    timeline: &Timeline,
    faults: &[Fault],
    look: impl FnOnce(&Seen<'_>) -> T,
) -> T {
    let noted = Noted::gather(trace, timeline);
    let mut by_thread: HashMap<u32, Vec<usize>> = HashMap::default();
    for (n, f) in faults.iter().enumerate() {
        by_thread.entry(f.tid).or_default().push(n);
    }
    look(&Seen {
        by_thread,
        trace,
        timeline,
        faults,
        noted: &noted,
        traces: timeline.layout(VmId(0)).resolved.traces,
        timed: faults_are_timed(trace, timeline),
        fragment: trace.events.len() <= FRAGMENT,
    })
}

fn findings(seen: &Seen<'_>) -> Vec<Finding> {
    let mut all: Vec<Finding> = RULES
        .iter()
        .flat_map(|rule| {
            let mut found = (rule.find)(seen);
            found.sort_by_key(|f| std::cmp::Reverse(f.count));
            found.truncate(EACH);
            found
        })
        .collect();
    for f in all.iter_mut().filter(|_| !seen.timed) {
        f.cost = None;
    }
    all.sort_by_key(|f| std::cmp::Reverse((f.severity, f.cost)));
    all
}

/// The causes of changes, each with its VM where the trace shows it.
fn causes(seen: &Seen<'_>) -> Survey {
    let noted = seen.noted;
    let sizes = huge::changes(seen);
    let mut all: Vec<Cause> = noted.churn.causes().collect();
    all.extend_from_slice(&noted.slots);
    all.extend(noted.ranges.causes());
    all.extend(noted.logging.causes());
    all.extend(sizes.iter().map(huge::cause_of));
    all.extend(noted.recovery.causes());
    all.extend(noted.aging.causes());
    all.extend(ends::causes(seen));
    let mut causes = cause::joined(all);
    for c in &mut causes {
        c.vm = seen.timeline.attribution().vm(&seen.trace.events.get(c.event as usize));
    }
    Survey { causes, sizes, ..Survey::default() }
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod rare;
#[cfg(test)]
mod tests;
