//! What stands out in a trace: plain facts that a reader should see first, each with its count and the events that show it.
//!
//! A rule is a file with a function that looks at the faults and at what `Noted` gathered in one pass over the events. A rule says what
//! the events show, and a cause only where they leave no other.

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

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// It costs time, or goes on without an end.
    Warning,
    /// The guest or the VMM got an error.
    Error,
}

/// A fact that stands out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StandOut {
    /// Name of the rule, which stays.
    pub id: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// One sentence.
    pub title: String,
    /// VM, where it is about one.
    pub vm: Option<u16>,
    /// Guest frame, where it is about one.
    pub gfn: Option<u64>,
    /// How often.
    pub count: u64,
    /// First moment, on the trace's clock.
    pub first: u64,
    /// Last moment.
    pub last: u64,
    /// Numbers of the events that show it, the first few.
    pub events: Vec<u64>,
}

/// Events named for a fact, at most.
const SHOWN: usize = 100;
/// Facts of one rule that are told one by one.
const EACH: usize = 3;

impl StandOut {
    fn new(id: &'static str, severity: Severity, title: String) -> Self {
        Self { id, severity, title, vm: None, gfn: None, count: 0, first: 0, last: 0, events: Vec::new() }
    }

    /// Counts events that show it.
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

/// What rules look at.
struct Seen<'a> {
    faults: &'a [Fault],
    noted: &'a Noted,
    /// All there is, is a few events: what a reader of more finds in the other parts of a summary is told here.
    fragment: bool,
}

/// Events up to which a trace is a fragment.
const FRAGMENT: usize = 1000;

/// A rule.
type Rule = fn(&Seen<'_>) -> Vec<StandOut>;

/// All rules.
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

/// What stands out in a trace, what matters most first.
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

/// `vCPU 1`, `vCPUs 4 and 7`, or nothing where no event says which.
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

/// What a fault is for: `read fault`, `write fault`, `fetch`.
fn kind(f: &Fault) -> String {
    match f.access.name() {
        "unknown" => "fault".into(),
        name => format!("{name} fault"),
    }
}

/// Where a fault is: its frame, or the guest-virtual address where that is all there is.
fn place(f: &Fault) -> String {
    match (f.gfn, f.gva, f.gpa) {
        (Some(gfn), ..) => format!("gfn {gfn:#x}"),
        (None, Some(gva), _) => format!("gva {gva:#x}"),
        (None, None, Some(gpa)) => format!("gpa {gpa:#x}"),
        _ => "an unknown page".into(),
    }
}

/// `1 fault`, `2 faults`.
fn counted(n: u64, one: &str) -> String {
    format!("{} {one}{}", crate::words::count(n), if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
