//! [`EventCounts`]: what a trace holds, counted while its events pass.
//!
//! `mmuscope summary` feeds it every event, also of a trace that is too large to keep: its memory does not grow with the number of events.
//! It never replays; what only a replay knows (zaps, address spaces) is not here.

use mmuscope_replay::{Attribution, MmioAccesses};
use mmuscope_trace::{Body, Event, StrId, Strings, event_name};
use std::collections::HashMap;

/// Most pages, and most threads, that are counted one by one. Beyond that the pages with the fewest events are dropped, and the counts of
/// the busiest become lower bounds.
const TRACKED: usize = 1 << 16;

/// Numbers of events of a trace, by name, thread and page.
#[derive(Clone, Debug, Default)]
pub struct EventCounts {
    /// Number of events by event name.
    by_name: HashMap<String, u64>,
    /// Name of the thread and number of events, by thread id and name.
    by_task: HashMap<(u32, StrId), (String, u64)>,
    faults: Busiest,
    mmio: Busiest,
    accesses: MmioAccesses,
    /// Number of all events ([`Body::is_event`]).
    pub events: u64,
    /// Number of `kvm_page_fault` events.
    pub page_faults: u64,
    /// Texts of the first markers and the times they were written, in nanoseconds on the trace's clock; at most 1,000.
    pub marks: Vec<(String, u64)>,
}

/// Most markers that [`EventCounts`] keeps.
const MARKS: usize = 1000;

impl EventCounts {
    /// Counts an event. Records that are no event (losses, damage) are passed over.
    pub fn add(&mut self, e: &Event, strings: &Strings, whose: &Attribution) {
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
        let page = |gfn| (whose.vm(e).map(|v| v.0.into()), gfn);
        if let Some(gpa) = self.accesses.address(e) {
            self.mmio.add(Some(page(gpa >> 12)));
        }
        match e.body {
            Body::PageFault { .. } => {
                self.page_faults += 1;
                self.faults.add(e.body.gfn().map(page));
            }
            Body::Marker { text } if self.marks.len() < MARKS => {
                self.marks.push((strings.text(text).to_string(), e.ts));
            }
            _ => {}
        }
    }

    /// Event names with their numbers of events, the most frequent first.
    pub fn names(&self) -> Vec<(&str, u64)> {
        let mut all: Vec<(&str, u64)> = self.by_name.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        all
    }

    /// Thread id, thread name and number of events of each thread, the busiest first.
    pub fn tasks(&self) -> Vec<(u32, &str, u64)> {
        let mut all: Vec<_> =
            self.by_task.iter().map(|((tid, _), (comm, v))| (*tid, comm.as_str(), *v)).collect();
        all.sort_by(|a, b| b.2.cmp(&a.2).then(a.0.cmp(&b.0)));
        all
    }

    /// The `n` guest frames with the most `kvm_page_fault` events: VM, where it is known, frame, number of events. A replay knows more faults, and the frames of
    /// more of them.
    pub fn top_faults(&self, n: usize) -> Vec<(Option<u32>, u64, u64)> {
        self.faults.top(n)
    }

    /// The `n` guest frames with the most MMIO accesses: VM, where it is known, frame, number of accesses.
    pub fn top_mmio(&self, n: usize) -> Vec<(Option<u32>, u64, u64)> {
        self.mmio.top(n)
    }
}

/// Number of events per page (VM and frame), in bounded memory.
#[derive(Clone, Debug, Default)]
struct Busiest(HashMap<(Option<u32>, u64), u64>);

impl Busiest {
    fn add(&mut self, page: Option<(Option<u32>, u64)>) {
        let Some(page) = page else { return };
        *self.0.entry(page).or_insert(0) += 1;
        if self.0.len() > TRACKED {
            // This halves the table: pages with at most the median number of events are dropped.
            let mut counts: Vec<u64> = self.0.values().copied().collect();
            let middle = counts.len() / 2;
            let (_, median, _) = counts.select_nth_unstable(middle);
            let median = *median;
            self.0.retain(|_, n| *n > median);
        }
    }

    fn top(&self, n: usize) -> Vec<(Option<u32>, u64, u64)> {
        let mut all: Vec<_> = self.0.iter().map(|(&(vm, gfn), &count)| (vm, gfn, count)).collect();
        all.sort_by(|a, b| b.2.cmp(&a.2).then((a.0, a.1).cmp(&(b.0, b.1))));
        all.truncate(n);
        all
    }
}
