//! What a trace holds, at a glance: counted while its events pass, in memory that does not grow with their number.

use crate::events::{Who, gfn_of};
use mmuscope_replay::MmioAccesses;
use mmuscope_trace::{Body, Event, StrId, Strings, event_name};
use std::collections::HashMap;

/// Pages that are counted one by one; more than that and the least seen are dropped (the counts of the busiest stay close).
const TRACKED: usize = 1 << 16;

/// Counts over the events of a trace.
#[derive(Clone, Debug, Default)]
pub struct EventCounts {
    /// Events by name, unsorted.
    by_name: HashMap<String, u64>,
    /// Events by thread and name of the thread, unsorted.
    by_task: HashMap<(u32, StrId), (String, u64)>,
    faults: Busiest,
    mmio: Busiest,
    accesses: MmioAccesses,
    /// All events ([`Body::is_event`]).
    pub events: u64,
    /// `kvm_page_fault` events.
    pub page_faults: u64,
    /// Markers and when they were written, the first few.
    pub marks: Vec<(String, u64)>,
}

/// How many markers [`EventCounts`] keeps.
const MARKS: usize = 1000;

impl EventCounts {
    /// Counts an event.
    pub fn add(&mut self, e: &Event, strings: &Strings, who: &Who) {
        if !e.body.is_event() {
            return;
        }
        self.events += 1;
        let name = event_name(&e.body, strings);
        match self.by_name.get_mut(name) {
            Some(n) => *n += 1,
            None => {
                self.by_name.insert(name.to_string(), 1);
            }
        }
        if let Some(tid) = e.tid {
            let tasks = self.by_task.len();
            match self.by_task.get_mut(&(tid, e.comm)) {
                Some((_, n)) => *n += 1,
                None if tasks < TRACKED => {
                    self.by_task.insert((tid, e.comm), (strings.get(e.comm).to_string(), 1));
                }
                None => {}
            }
        }
        let page = |gfn| (who.vm(e).unwrap_or(0), gfn);
        if let Some(gpa) = self.accesses.address(e) {
            self.mmio.add(Some(page(gpa >> 12)));
        }
        match e.body {
            Body::PageFault { .. } => {
                self.page_faults += 1;
                self.faults.add(gfn_of(&e.body).map(page));
            }
            Body::Marker { text } if self.marks.len() < MARKS => {
                self.marks.push((strings.text(text).to_string(), e.ts));
            }
            _ => {}
        }
    }

    /// Event names with their counts, the most frequent first.
    pub fn names(&self) -> Vec<(&str, u64)> {
        let mut all: Vec<(&str, u64)> = self.by_name.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        all
    }

    /// Threads (tid, name) with their counts, the busiest first.
    pub fn tasks(&self) -> Vec<(u32, &str, u64)> {
        let mut all: Vec<_> =
            self.by_task.iter().map(|((tid, _), (comm, v))| (*tid, comm.as_str(), *v)).collect();
        all.sort_by(|a, b| b.2.cmp(&a.2).then(a.0.cmp(&b.0)));
        all
    }

    /// The `n` frames with the most `kvm_page_fault` events: VM, frame, count. A replay knows more faults and more of their frames.
    pub fn top_faults(&self, n: usize) -> Vec<(u32, u64, u64)> {
        self.faults.top(n)
    }

    /// The `n` frames most often accessed as MMIO: VM, frame, count.
    pub fn top_mmio(&self, n: usize) -> Vec<(u32, u64, u64)> {
        self.mmio.top(n)
    }
}

/// Counts per page in bounded memory.
#[derive(Clone, Debug, Default)]
struct Busiest(HashMap<(u32, u64), u64>);

impl Busiest {
    fn add(&mut self, page: Option<(u32, u64)>) {
        let Some(page) = page else { return };
        *self.0.entry(page).or_insert(0) += 1;
        if self.0.len() > TRACKED {
            // Halves the table: what has been seen least goes first.
            let mut counts: Vec<u64> = self.0.values().copied().collect();
            let middle = counts.len() / 2;
            let (_, median, _) = counts.select_nth_unstable(middle);
            let median = *median;
            self.0.retain(|_, n| *n > median);
        }
    }

    fn top(&self, n: usize) -> Vec<(u32, u64, u64)> {
        let mut all: Vec<_> = self.0.iter().map(|(&(vm, gfn), &count)| (vm, gfn, count)).collect();
        all.sort_by(|a, b| b.2.cmp(&a.2).then((a.0, a.1).cmp(&(b.0, b.1))));
        all.truncate(n);
        all
    }
}
