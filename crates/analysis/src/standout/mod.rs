//! [`find`]: the facts of a trace that a reader should see first, each with its count and the events that show it.
//!
//! `mmuscope summary` and the report call [`find`] and print what it returns. Each rule is a file with a function that looks at the faults and
//! at what `Noted` gathered in one pass over the events. A rule says what the events show; it names a cause only where the events leave no
//! other. A rule never looks at the page tables.

mod beyond;
mod error;
mod intercepts;
mod internal;
mod noted;
mod notifier;
mod repeated;
mod requested;
mod triple;

use mmuscope_replay::{Fault, Timeline};
use mmuscope_trace::Trace;
use noted::Noted;
use serde::Serialize;

/// How much a fact matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The fact helps to read the trace.
    Info,
    /// Something costs time, or goes on without end.
    Warning,
    /// The guest or the VMM got an error.
    Error,
}

/// A fact that a reader should see first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StandOut {
    /// Name of the rule, such as `fault-loop`; it never changes.
    pub id: &'static str,
    /// How much the fact matters.
    pub severity: Severity,
    /// The fact in one sentence, without a full stop.
    pub title: String,
    /// Number of the VM, where the fact is about one.
    pub vm: Option<u16>,
    /// Guest frame number, where the fact is about one frame.
    pub gfn: Option<u64>,
    /// Number of events that show the fact.
    pub count: u64,
    /// Time of the first of these events, in nanoseconds on the trace's clock.
    pub first: u64,
    /// Time of the last of these events, in nanoseconds on the trace's clock.
    pub last: u64,
    /// Numbers of the first of these events in the trace, from 0; at most 100.
    pub events: Vec<u64>,
}

/// Most events that a fact names.
const SHOWN: usize = 100;
/// Most facts of one rule that are listed; the rule's facts with the highest counts come first.
const EACH: usize = 3;

impl StandOut {
    fn new(id: &'static str, severity: Severity, title: String) -> Self {
        Self { id, severity, title, vm: None, gfn: None, count: 0, first: 0, last: 0, events: Vec::new() }
    }

    /// Counts events, given by time and number, that show the fact.
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
}

/// What the rules look at.
struct Seen<'a> {
    faults: &'a [Fault],
    noted: &'a Noted,
    /// Whether the trace is only a few events, so that the other parts of a summary say little and the rules say more.
    fragment: bool,
}

/// A trace of at most this many events is a fragment.
const FRAGMENT: usize = 1000;

/// A rule: the facts that it finds.
type Rule = fn(&Seen<'_>) -> Vec<StandOut>;

/// All rules; facts of equal severity are listed in this order.
const RULES: [Rule; 8] = [
    error::find,
    internal::find,
    triple::find,
    repeated::find,
    requested::find,
    notifier::find,
    beyond::find,
    intercepts::find,
];

/// The facts of a trace that a reader should see first, the most severe first.
pub fn find(trace: &Trace, timeline: &Timeline) -> Vec<StandOut> {
    let noted = Noted::gather(trace);
    let faults: Vec<Fault> = timeline.faults().collect();
    let seen = Seen { faults: &faults, noted: &noted, fragment: trace.events.len() <= FRAGMENT };
    let mut all: Vec<StandOut> = RULES
        .iter()
        .flat_map(|rule| {
            let mut found = rule(&seen);
            found.sort_by_key(|f| std::cmp::Reverse(f.count));
            found.truncate(EACH);
            found
        })
        .collect();
    all.sort_by_key(|f| std::cmp::Reverse(f.severity));
    all
}

/// `vCPU 1`, `vCPUs 4 and 7`, or nothing where no event names a vCPU.
fn vcpus(mut ids: Vec<u32>) -> String {
    ids.sort_unstable();
    ids.dedup();
    let words: Vec<String> = ids.iter().map(ToString::to_string).collect();
    match words.as_slice() {
        [] => String::new(),
        [one] => format!("vCPU {one}"),
        [many @ .., last] => format!("vCPUs {} and {last}", many.join(", ")),
    }
}

/// The kind of a fault in words: `read fault`, `write fault`, `fetch fault`.
fn kind(f: &Fault) -> String {
    match f.access.name() {
        "unknown" => "fault".into(),
        name => format!("{name} fault"),
    }
}

/// The place of a fault: its guest frame, or the address where no frame is known.
fn place(f: &Fault) -> String {
    match (f.gfn, f.gva, f.gpa) {
        (Some(gfn), ..) => format!("gfn {gfn:#x}"),
        (None, Some(gva), _) => format!("gva {gva:#x}"),
        (None, None, Some(gpa)) => format!("gpa {gpa:#x}"),
        _ => "an unknown page".into(),
    }
}

/// `1 fault`, `2 faults`: a number and a noun whose plural ends in s.
fn counted(n: u64, one: &str) -> String {
    format!("{} {one}{}", crate::words::count(n), if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
