//! Merging the CPUs' events by time, round by round.
//!
//! When a FINISHED_ROUND comes, every ring has been emptied once more since the round before: nothing older than the latest event of
//! that earlier round can still come.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use rustc_hash::FxHashMap;

use crate::event::Event;

/// Bytes of events that may wait; a file without rounds, or made on purpose, goes on in the order it has.
const MAX_WAITING: usize = (1 << 30) / size_of::<Event>();

/// One queue for each CPU (or thread, where samples do not tell the CPU).
#[derive(Default)]
pub(crate) struct Queues {
    parts: Vec<Queue>,
    by_cpu: Vec<u32>,
    by_other: FxHashMap<u64, u32>,
    /// Up to this time events may go.
    limit: u64,
    /// Latest event seen.
    newest: u64,
    waiting: usize,
    clamped: u64,
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    /// The newest event when the last round ended.
    at_last_round: u64,
    /// Everything up to here has gone.
    done: u64,
}

/// Which queue an event belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Key {
    Cpu(u16),
    Other(u64),
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    last: u64,
    /// Which of equal stamps comes first: CPUs in their order, before all else.
    rank: u64,
}

impl Queues {
    fn index(&mut self, key: Key) -> usize {
        match key {
            Key::Cpu(cpu) => {
                let cpu = usize::from(cpu);
                if cpu >= self.by_cpu.len() {
                    self.by_cpu.resize(cpu + 1, u32::MAX);
                }
                if self.by_cpu[cpu] == u32::MAX {
                    self.by_cpu[cpu] = self.parts.len() as u32;
                    self.parts.push(Queue { rank: cpu as u64, ..Queue::default() });
                }
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

    /// Appends an event to its queue. Within one queue stamps never run back: an event that would gets the stamp before it.
    #[inline]
    pub(crate) fn push(&mut self, key: Key, mut e: Event) {
        let i = self.index(key);
        let q = &mut self.parts[i];
        if e.ts < q.last {
            self.clamped += 1;
            e.ts = q.last;
        }
        q.last = e.ts;
        self.newest = self.newest.max(e.ts);
        self.waiting += 1;
        q.events.push_back(e);
        if self.waiting > MAX_WAITING {
            self.limit = self.newest;
        } else if e.ts <= self.limit {
            // Later than its round promised.
            self.done = 0;
        }
    }

    /// A note of the reader: in a queue of its own.
    pub(crate) fn push_note(&mut self, e: Event) {
        self.push(Key::Other(u64::MAX), e);
    }

    /// A round is complete.
    pub(crate) fn round(&mut self) {
        self.limit = self.limit.max(self.at_last_round);
        self.at_last_round = self.newest;
    }

    /// Nothing more will come.
    pub(crate) fn end(&mut self) {
        self.limit = u64::MAX;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    pub(crate) fn clamped(&self) -> u64 {
        self.clamped
    }

    /// Moves what may go to `out`, in order of time, until that has `max` events.
    pub(crate) fn take(&mut self, out: &mut Vec<Event>, max: usize) {
        if self.waiting == 0 || self.limit == self.done && self.limit != u64::MAX {
            return;
        }
        self.heap.clear();
        for (i, q) in self.parts.iter().enumerate() {
            if let Some(e) = q.events.front().filter(|e| e.ts <= self.limit) {
                self.heap.push(Reverse((e.ts, q.rank, i as u32)));
            }
        }
        while out.len() < max {
            let Some(Reverse((_, rank, i))) = self.heap.pop() else {
                self.done = self.limit;
                return;
            };
            let next = self.heap.peek().map_or((u64::MAX, u64::MAX, u32::MAX), |r| r.0);
            let q = &mut self.parts[i as usize];
            // A run of this queue, up to the head of another.
            while let Some(e) = q.events.front() {
                if e.ts > self.limit {
                    break;
                }
                if (e.ts, rank, i) > next || out.len() >= max {
                    self.heap.push(Reverse((e.ts, rank, i)));
                    break;
                }
                out.push(*e);
                q.events.pop_front();
                self.waiting -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Body, StrId};

    fn at(ts: u64, cpu: u16) -> Event {
        Event {
            ts,
            cpu,
            tid: None,
            pid: None,
            comm: StrId::default(),
            body: Body::PmlFull { vcpu: ts as u32 },
        }
    }

    #[test]
    fn rounds() {
        let mut q = Queues::default();
        let mut out = Vec::new();
        for (ts, cpu) in [(10, 0), (20, 0), (5, 1), (15, 1)] {
            q.push(Key::Cpu(cpu), at(ts, cpu));
        }
        q.round();
        q.take(&mut out, 100);
        assert!(out.is_empty(), "the first round says nothing yet");
        for (ts, cpu) in [(30, 0), (18, 1), (25, 1)] {
            q.push(Key::Cpu(cpu), at(ts, cpu));
        }
        q.round();
        q.take(&mut out, 2);
        q.take(&mut out, 100);
        assert_eq!(out.iter().map(|e| e.ts).collect::<Vec<_>>(), [5, 10, 15, 18, 20]);
        q.end();
        q.take(&mut out, 100);
        assert_eq!(out.iter().map(|e| e.ts).collect::<Vec<_>>(), [5, 10, 15, 18, 20, 25, 30]);
        assert!(q.is_empty());
    }

    #[test]
    fn order_of_a_cpu_is_kept() {
        let mut q = Queues::default();
        q.push(Key::Cpu(0), at(10, 0));
        q.push(Key::Cpu(0), Event { body: Body::PmlFull { vcpu: 7 }, ..at(9, 0) });
        q.end();
        let mut out = Vec::new();
        q.take(&mut out, 100);
        assert_eq!((out[1].ts, out[1].body, q.clamped()), (10, Body::PmlFull { vcpu: 7 }, 1));
    }
}
