//! Merging the records of the CPUs by time, round by round. The main type is [`Queues`].
//!
//! A FINISHED_ROUND means that every ring has been emptied once more since the round before. Nothing older than the latest event of that
//! earlier round can come after it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use rustc_hash::FxHashMap;

use crate::event::Body;
use crate::perf::tasks::Tasks;
use crate::raw::RawBatch;
use crate::store::Whos;

/// One queue for each CPU (or for each thread, where samples do not name the CPU).
#[derive(Default)]
pub(crate) struct Queues {
    parts: Vec<Queue>,
    by_cpu: Vec<u32>,
    by_other: FxHashMap<u64, u32>,
    /// Events up to this time may be passed on.
    limit: u64,
    /// The time of the latest event that was seen.
    newest: u64,
    waiting: usize,
    /// The number of bytes that wait.
    held: usize,
    /// The most bytes that may wait. A file that has no rounds, or was made on purpose, is passed on roughly in the order it has.
    most: usize,
    clamped: u64,
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    /// The time of the newest event when the last round ended.
    at_last_round: u64,
    /// Whether there may be events at or before the limit.
    due: bool,
}

/// The queue to which an event belongs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Key {
    Cpu(u16),
    Other(u64),
}

/// When and where an event was recorded, and of which task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub(crate) ts: u64,
    pub(crate) cpu: u16,
    pub(crate) tid: Option<u32>,
    pub(crate) pid: Option<u32>,
}

/// A record that waits. No task has the number -1, so it means that there is none.
struct Waiting {
    ts: u64,
    tid: u32,
    pid: u32,
    /// The number of bytes of the record.
    len: u32,
    cpu: u16,
    how: u16,
}

/// [`Waiting::how`] of an item that is a body already.
const NOTE: u16 = u16::MAX;

#[derive(Default)]
struct Queue {
    items: VecDeque<Waiting>,
    /// The bytes of records; those from `from` on belong to records that still wait.
    bytes: Vec<u8>,
    from: usize,
    notes: VecDeque<Body>,
    last: u64,
    /// The order among equal times: CPUs in their order, before everything else.
    rank: u64,
}

/// The number of bytes of passed-on records after which a queue makes room.
const GONE: usize = 256 << 10;

impl Queue {
    fn make_room(&mut self) {
        if self.from > GONE && self.from * 2 > self.bytes.len() {
            self.bytes.drain(..self.from);
            self.from = 0;
        }
    }
}

impl Queues {
    fn index(&mut self, key: Key) -> usize {
        match key {
            Key::Cpu(cpu) => {
                let cpu = usize::from(cpu);
                if let Some(&i) = self.by_cpu.get(cpu)
                    && i != u32::MAX
                {
                    return i as usize;
                }
                if cpu >= self.by_cpu.len() {
                    self.by_cpu.resize(cpu + 1, u32::MAX);
                }
                self.by_cpu[cpu] = self.parts.len() as u32;
                self.parts.push(Queue { rank: cpu as u64, ..Queue::default() });
                self.by_cpu[cpu] as usize
            }
            Key::Other(n) => {
                let next = self.parts.len() as u32;
                let i = *self.by_other.entry(n).or_insert(next);
                if i == next {
                    self.parts.push(Queue { rank: n.max(1 << 16), ..Queue::default() });
                }
                i as usize
            }
        }
    }

    /// Sets the most bytes that may wait from now on.
    pub(crate) fn set_most(&mut self, most: usize) {
        self.most = most;
    }

    /// Appends a record to its queue. Times in a queue never run back: an event with an earlier time gets the time of the one before it.
    #[inline]
    pub(crate) fn record(&mut self, key: Key, s: Stamp, how: u16, record: &[u8]) {
        let i = self.index(key);
        self.parts[i].bytes.extend_from_slice(record);
        self.push(i, s, how, record.len());
    }

    /// Appends a body.
    pub(crate) fn note(&mut self, key: Key, s: Stamp, body: Body) {
        let i = self.index(key);
        self.parts[i].notes.push_back(body);
        self.push(i, s, NOTE, 0);
    }

    #[inline]
    fn push(&mut self, i: usize, s: Stamp, how: u16, len: usize) {
        let q = &mut self.parts[i];
        let mut ts = s.ts;
        if ts < q.last {
            self.clamped += 1;
            ts = q.last;
        }
        q.last = ts;
        self.newest = self.newest.max(ts);
        self.waiting += 1;
        self.held += len + size_of::<Waiting>();
        let (tid, pid) = (s.tid.unwrap_or(u32::MAX), s.pid.unwrap_or(u32::MAX));
        q.items.push_back(Waiting { ts, tid, pid, len: len as u32, cpu: s.cpu, how });
        // The event comes later than its round allowed.
        self.due |= ts <= self.limit;
        if self.held > self.most {
            self.overflow();
        }
    }

    /// Passes on the older half of the stretch of time that waits.
    #[cold]
    fn overflow(&mut self) {
        let oldest = self.parts.iter().filter_map(|q| q.items.front()).map(|w| w.ts).min();
        self.limit = self.limit.max(oldest.unwrap_or(0).midpoint(self.newest));
        self.due = true;
    }

    /// Adds a note of the reader itself, in a queue of its own.
    pub(crate) fn push_note(&mut self, s: Stamp, body: Body) {
        self.note(Key::Other(u64::MAX), s, body);
    }

    /// Whether some events must be taken before more are put in.
    pub(crate) fn is_full(&self) -> bool {
        self.held > self.most
    }

    /// Marks a round as complete.
    pub(crate) fn round(&mut self) {
        self.due |= self.at_last_round > self.limit;
        self.limit = self.limit.max(self.at_last_round);
        self.at_last_round = self.newest;
    }

    /// Declares that nothing more will come.
    pub(crate) fn end(&mut self) {
        self.limit = u64::MAX;
        self.due = true;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    pub(crate) fn clamped(&self) -> u64 {
        self.clamped
    }

    /// Whether some events may be passed on.
    pub(crate) fn is_due(&self) -> bool {
        self.waiting > 0 && self.due
    }

    /// Moves the events that may be passed on to `out`, in order of time, until it has `max` items. Tasks get their names on the way.
    pub(crate) fn take(&mut self, out: &mut RawBatch, max: usize, tasks: &mut Tasks, whos: &mut Whos) {
        if !self.is_due() {
            return;
        }
        self.heap.clear();
        for (i, q) in self.parts.iter().enumerate() {
            if let Some(e) = q.items.front().filter(|e| e.ts <= self.limit) {
                self.heap.push(Reverse((e.ts, q.rank, i as u32)));
            }
        }
        while out.len() < max {
            let Some(Reverse((_, rank, i))) = self.heap.pop() else {
                self.due = false;
                return;
            };
            let next = self.heap.peek().map_or((u64::MAX, u64::MAX, u32::MAX), |r| r.0);
            let q = &mut self.parts[i as usize];
            // Take the events of this queue, up to the next event of another queue.
            while let Some(e) = q.items.front() {
                if e.ts > self.limit {
                    break;
                }
                if (e.ts, rank, i) > next || out.len() >= max {
                    self.heap.push(Reverse((e.ts, rank, i)));
                    break;
                }
                if e.how == NOTE {
                    if let Some(mut body) = q.notes.pop_front() {
                        tasks.passes(&mut body);
                        out.note(e.ts, tasks.who(e.cpu, e.tid, e.pid, whos), body);
                    }
                } else {
                    let to = q.from + e.len as usize;
                    let record = q.bytes.get(q.from..to).unwrap_or(&[]);
                    out.record(e.ts, tasks.who(e.cpu, e.tid, e.pid, whos), e.how, record);
                    q.from = to;
                }
                self.held -= e.len as usize + size_of::<Waiting>();
                self.waiting -= 1;
                q.items.pop_front();
            }
            q.make_room();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(q: &mut Queues, ts: u64, cpu: u16) {
        let stamp = Stamp { ts, cpu, tid: None, pid: None };
        q.note(Key::Cpu(cpu), stamp, Body::PmlFull { vcpu: ts as u32 });
    }

    fn take(q: &mut Queues, out: &mut RawBatch, max: usize) {
        q.take(out, max, &mut Tasks::default(), &mut Whos::default());
    }

    fn times(out: &RawBatch) -> Vec<u64> {
        out.items.iter().map(|i| i.ts).collect()
    }

    #[test]
    fn rounds() {
        let mut q = Queues { most: 1 << 20, ..Queues::default() };
        let mut out = RawBatch::default();
        for (ts, cpu) in [(10, 0), (20, 0), (5, 1), (15, 1)] {
            put(&mut q, ts, cpu);
        }
        q.round();
        take(&mut q, &mut out, 100);
        assert_eq!(out.len(), 0, "the first round says nothing yet");
        for (ts, cpu) in [(30, 0), (18, 1), (25, 1)] {
            put(&mut q, ts, cpu);
        }
        q.round();
        take(&mut q, &mut out, 2);
        take(&mut q, &mut out, 100);
        assert_eq!(times(&out), [5, 10, 15, 18, 20]);
        q.end();
        take(&mut q, &mut out, 100);
        assert_eq!(times(&out), [5, 10, 15, 18, 20, 25, 30]);
        assert!(q.is_empty());
    }

    #[test]
    fn order_of_a_cpu_is_kept() {
        let mut q = Queues { most: 1 << 20, ..Queues::default() };
        put(&mut q, 10, 0);
        q.note(Key::Cpu(0), Stamp { ts: 9, cpu: 0, tid: None, pid: None }, Body::PmlFull { vcpu: 7 });
        q.end();
        let mut out = RawBatch::default();
        take(&mut q, &mut out, 100);
        assert_eq!((out.items[1].ts, q.clamped()), (10, 1));
        assert_eq!(out.note_of(&out.items[1]), Some(&Body::PmlFull { vcpu: 7 }));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut q = Queues { most: 100 * size_of::<Waiting>(), ..Queues::default() };
        let mut out = RawBatch::default();
        for ts in 0..10_000 {
            put(&mut q, ts, 0);
            if q.is_full() {
                take(&mut q, &mut out, usize::MAX);
            }
            assert!(q.waiting <= 101);
        }
        q.end();
        take(&mut q, &mut out, usize::MAX);
        assert_eq!(times(&out), (0..10_000).collect::<Vec<_>>());
    }

    #[test]
    fn late_and_timeless_events_go_too() {
        let mut q = Queues { most: 3 * size_of::<Waiting>(), ..Queues::default() };
        let mut out = RawBatch::default();
        for cpu in 0..100 {
            put(&mut q, 0, cpu);
            assert!(q.is_due());
            take(&mut q, &mut out, usize::MAX);
        }
        put(&mut q, 50, 0);
        q.round();
        q.round();
        take(&mut q, &mut out, usize::MAX);
        put(&mut q, 20, 1);
        assert!(q.is_due());
        take(&mut q, &mut out, usize::MAX);
        assert_eq!(times(&out)[100..], [50, 20]);
    }
}
