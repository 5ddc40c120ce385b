//! The events of a whole trace in memory, packed. The main type is [`EventStore`]; the loaders fill it and every analysis reads it.
//!
//! Events are stored in blocks of [`BLOCK`]. Within a block, everything is stored as a difference (see [`pack`](crate::pack)); a block can
//! be decoded without the others. Events are only ever appended. Any number of threads may read at the same time.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::event::{Body, Event, StrId};
use crate::pack::{Packer, Unpacker};

/// The number of events in a block.
pub const BLOCK: usize = 512;

/// The CPU and task of an event; many events share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Who {
    pub(crate) cpu: u16,
    pub(crate) tid: Option<u32>,
    pub(crate) pid: Option<u32>,
    pub(crate) comm: StrId,
}

impl Who {
    pub(crate) fn of(e: &Event) -> Self {
        Self { cpu: e.cpu, tid: e.tid, pid: e.pid, comm: e.comm }
    }

    pub(crate) fn event(self, ts: u64, body: Body) -> Event {
        Event { ts, cpu: self.cpu, tid: self.tid, pid: self.pid, comm: self.comm, body }
    }
}

/// All pairs of CPU and task of a trace, by number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Whos {
    list: Vec<Who>,
    ids: FxHashMap<Who, u32>,
    last: (Who, u32),
}

impl Whos {
    /// The number of a pair, which is added if it is new.
    #[inline]
    pub(crate) fn id(&mut self, who: Who) -> u32 {
        if self.last.0 == who && !self.list.is_empty() {
            return self.last.1;
        }
        let next = self.list.len() as u32;
        let id = *self.ids.entry(who).or_insert(next);
        if id == next {
            self.list.push(who);
        }
        self.last = (who, id);
        id
    }

    #[inline]
    pub(crate) fn get(&self, id: u32) -> Who {
        self.list.get(id as usize).copied().unwrap_or_default()
    }

    fn heap_bytes(&self) -> usize {
        self.list.capacity() * size_of::<Who>() + self.ids.capacity() * (size_of::<Who>() + 5)
    }
}

/// [`BLOCK`] packed events.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) first_ts: u64,
    /// The bytes are shared, so that a copy of the store costs very little.
    pub(crate) data: Arc<[u8]>,
}

/// Events in time order, packed.
#[derive(Clone, Debug, Default)]
pub struct EventStore {
    blocks: Vec<Block>,
    whos: Whos,
    /// The block that is being written.
    tail: Packer,
    packed: usize,
    late: u64,
    /// The index and the real time of each event that was pushed after a later one.
    strays: Vec<(usize, u64)>,
}

impl EventStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of events.
    pub fn len(&self) -> usize {
        self.blocks.len() * BLOCK + self.tail.len()
    }

    /// Whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends an event. Its time should not be before that of the last one; if it is, the event gets the time of the last one (readers sort
    /// before they push; [`late`](Self::late) counts the exceptions).
    pub fn push(&mut self, e: &Event) {
        let mut ts = e.ts;
        if ts < self.tail.last_ts() {
            self.late += 1;
            ts = self.tail.last_ts();
        }
        let who = self.whos.id(Who::of(e));
        self.tail.put(ts, who, &e.body);
        if self.tail.len() == BLOCK {
            let first_ts = self.tail.first_ts();
            let data = self.tail.take();
            self.push_block(Block { first_ts, data });
        }
    }

    /// Appends a block that was packed elsewhere; the tail must be empty.
    pub(crate) fn push_block(&mut self, block: Block) {
        self.packed += block.data.len();
        self.blocks.push(block);
    }

    /// Sets the pairs of CPU and task to which blocks packed elsewhere refer.
    pub(crate) fn set_whos(&mut self, whos: Whos) {
        self.whos = whos;
    }

    /// Notes that the event with this number has the time `ts`, which is before that of earlier events; [`sorted`](Self::sorted) must follow.
    pub(crate) fn stray(&mut self, number: usize, ts: u64) {
        self.strays.push((number, ts));
        self.late += 1;
    }

    /// Appends an event with its own time. If the time runs back, [`sorted`](Self::sorted) must follow.
    pub(crate) fn push_any(&mut self, e: &Event) {
        if e.ts < self.tail.last_ts() {
            self.strays.push((self.len(), e.ts));
        }
        self.push(e);
    }

    /// The same events in order of their own times (stable), after [`push_any`](Self::push_any) has seen times run back.
    pub(crate) fn sorted(mut self) -> Self {
        let strays: FxHashMap<usize, u64> = std::mem::take(&mut self.strays).into_iter().collect();
        let mut order: Vec<(u64, u32)> = self
            .iter()
            .enumerate()
            .map(|(i, e)| (strays.get(&i).copied().unwrap_or(e.ts), i as u32))
            .collect();
        order.sort_unstable();
        let mut out = Self::new();
        let mut c = self.cursor();
        for (ts, i) in order {
            if let Some(e) = c.get(i as usize) {
                out.push(&Event { ts, ..e });
            }
        }
        out
    }

    /// The number of events that came too late and got a later time than their own.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// Event number `i`. It decodes up to [`BLOCK`] events; for many accesses use [`iter`](Self::iter), [`range`](Self::range) or a
    /// [`Cursor`].
    ///
    /// # Panics
    /// When `i` is not below [`len`](Self::len), as a slice does.
    pub fn get(&self, i: usize) -> Event {
        assert!(i < self.len(), "event {i} of {}", self.len());
        let mut d = self.decoder(i / BLOCK);
        for _ in 0..i % BLOCK {
            d.skip();
        }
        self.next(&mut d)
    }

    /// The time of event number `i`; see [`get`](Self::get).
    ///
    /// # Panics
    /// When `i` is not below [`len`](Self::len).
    pub fn ts(&self, i: usize) -> u64 {
        assert!(i < self.len(), "event {i} of {}", self.len());
        let b = i / BLOCK;
        if i.is_multiple_of(BLOCK) {
            return self.first_ts(b);
        }
        let mut d = self.decoder(b);
        for _ in 0..=i % BLOCK {
            d.skip();
        }
        d.ts
    }

    /// All events.
    pub fn iter(&self) -> Iter<'_> {
        self.range(0..self.len())
    }

    /// The events in `range`, as far as they exist.
    pub fn range(&self, range: Range<usize>) -> Iter<'_> {
        let end = range.end.min(self.len());
        let at = range.start.min(end);
        let mut it = Iter { store: self, decoder: None, at, end };
        if at < end && !at.is_multiple_of(BLOCK) {
            let mut d = self.decoder(at / BLOCK);
            for _ in 0..at % BLOCK {
                d.skip();
            }
            it.decoder = Some(d);
        }
        it
    }

    /// A reader for random access that holds the block it last decoded.
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor { store: self, block: usize::MAX, filled: 0, events: Vec::new() }
    }

    /// The number of the first event at or after a time; [`len`](Self::len) if there is none.
    pub fn first_at_or_after(&self, ts: u64) -> usize {
        let blocks = self.blocks.len() + usize::from(self.tail.len() > 0);
        // Find the first block that starts at or after the time. The event may still be in the block before it.
        let b = (0..blocks).collect_partition(|b| self.first_ts(b) < ts);
        if b == 0 {
            return 0;
        }
        let mut d = self.decoder(b - 1);
        let n = self.block_len(b - 1);
        for i in 0..n {
            d.skip();
            if d.ts >= ts {
                return (b - 1) * BLOCK + i;
            }
        }
        (b - 1) * BLOCK + n
    }

    /// The number of bytes of memory that it takes.
    pub fn heap_bytes(&self) -> usize {
        self.packed
            + self.blocks.capacity() * size_of::<Block>()
            + self.tail.heap_bytes()
            + self.whos.heap_bytes()
    }

    /// The number of blocks.
    pub fn blocks(&self) -> usize {
        self.blocks.len() + usize::from(self.tail.len() > 0)
    }

    /// Decodes block `b` (events from `b * BLOCK`) into `out`, which is cleared first.
    pub fn block(&self, b: usize, out: &mut Vec<Event>) {
        out.clear();
        let n = self.block_len(b);
        if n == 0 {
            return;
        }
        out.reserve(n);
        let mut d = self.decoder(b);
        for _ in 0..n {
            out.push(self.next(&mut d));
        }
    }

    /// Shows the events of one thread in block `b`: the number of each, and a function that decodes it. Other events are skipped, which is
    /// several times as fast as [`block`](Self::block).
    pub fn block_of_thread(&self, b: usize, tid: u32, mut show: impl FnMut(usize, &dyn Fn() -> Event)) {
        let n = self.block_len(b);
        if n == 0 {
            return;
        }
        let mut d = self.decoder(b);
        for i in 0..n {
            d.skip();
            let who = self.whos.get(d.who);
            if who.tid == Some(tid) {
                show(b * BLOCK + i, &|| who.event(d.ts, d.body()));
            }
        }
    }

    fn first_ts(&self, b: usize) -> u64 {
        self.blocks.get(b).map_or(self.tail.first_ts(), |b| b.first_ts)
    }

    fn block_len(&self, b: usize) -> usize {
        match b.cmp(&self.blocks.len()) {
            Ordering::Less => BLOCK,
            Ordering::Equal => self.tail.len(),
            Ordering::Greater => 0,
        }
    }

    fn decoder(&self, b: usize) -> Unpacker<'_> {
        match self.blocks.get(b) {
            Some(b) => Unpacker::new(&b.data, b.first_ts),
            None => Unpacker::new(self.tail.data(), self.tail.first_ts()),
        }
    }

    #[inline]
    fn next(&self, d: &mut Unpacker<'_>) -> Event {
        d.skip();
        self.whos.get(d.who).event(d.ts, d.body())
    }
}

/// `partition_point` for a range of numbers.
trait PartitionPoint {
    fn collect_partition(self, before: impl Fn(usize) -> bool) -> usize;
}
impl PartitionPoint for Range<usize> {
    fn collect_partition(self, before: impl Fn(usize) -> bool) -> usize {
        let (mut lo, mut hi) = (self.start, self.end);
        while lo < hi {
            let mid = lo.midpoint(hi);
            if before(mid) {
                lo = mid + 1;
            } else {
                hi = mid;
            }
        }
        lo
    }
}

/// An iterator over the events of an [`EventStore`] in order.
#[derive(Debug)]
pub struct Iter<'a> {
    store: &'a EventStore,
    decoder: Option<Unpacker<'a>>,
    at: usize,
    end: usize,
}

impl Iterator for Iter<'_> {
    type Item = Event;

    #[inline]
    fn next(&mut self) -> Option<Event> {
        if self.at >= self.end {
            return None;
        }
        if self.at.is_multiple_of(BLOCK) || self.decoder.is_none() {
            self.decoder = Some(self.store.decoder(self.at / BLOCK));
        }
        self.at += 1;
        self.decoder.as_mut().map(|d| self.store.next(d))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.at, Some(self.end - self.at))
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a EventStore {
    type Item = Event;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Random access that holds the block it last decoded.
#[derive(Debug)]
pub struct Cursor<'a> {
    store: &'a EventStore,
    block: usize,
    filled: usize,
    events: Vec<Event>,
}

impl Cursor<'_> {
    /// Event number `i`; `None` past the end.
    pub fn get(&mut self, i: usize) -> Option<Event> {
        let (b, k) = (i / BLOCK, i % BLOCK);
        if b != self.block || k >= self.filled {
            self.store.block(b, &mut self.events);
            self.block = b;
            self.filled = self.events.len();
        }
        self.events.get(k).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::FastPfResult;

    fn event(i: u64) -> Event {
        Event {
            ts: 1_000 + i * 7,
            cpu: (i % 3) as u16,
            tid: (!i.is_multiple_of(5)).then_some(i as u32 % 4),
            pid: None,
            comm: StrId(i as u32 % 2),
            body: match i % 3 {
                0 => Body::TdpSpteChanged {
                    as_id: 1,
                    gfn: i.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                    level: 1,
                    old_spte: u64::MAX - i,
                    new_spte: i,
                },
                1 => Body::FastPageFault {
                    vcpu: 3,
                    cr2_or_gpa: i << 12,
                    error_code: 7,
                    sptep: i.is_multiple_of(2).then_some(u64::MAX),
                    old_spte: 0,
                    new_spte: i,
                    result: FastPfResult::Other(-5),
                },
                _ => Body::SplitHugePage { gfn: i, spte: 0, level: 2, errno: -16 },
            },
        }
    }

    #[test]
    fn the_events_of_a_thread_are_those_of_the_block_that_are_its() {
        let mut s = EventStore::new();
        for i in 0..BLOCK as u64 * 2 + 100 {
            s.push(&Event { tid: (i % 3 > 0).then_some((i % 5) as u32), ..event(i) });
        }
        for b in 0..4 {
            for tid in 0..6 {
                let mut all = Vec::new();
                s.block(b, &mut all);
                let want = all.into_iter().enumerate().filter(|(_, e)| e.tid == Some(tid));
                let want: Vec<_> = want.map(|(i, e)| (b * BLOCK + i, e)).collect();
                let mut got = Vec::new();
                s.block_of_thread(b, tid, |i, e| got.push((i, e())));
                assert_eq!(got, want, "{tid} in {b}");
            }
        }
    }

    #[test]
    fn what_goes_in_comes_out() {
        let mut s = EventStore::new();
        for i in 0..3_000 {
            s.push(&event(i));
        }
        assert_eq!(s.len(), 3_000);
        for (i, e) in s.iter().enumerate() {
            assert_eq!(e, event(i as u64));
        }
        let mut c = s.cursor();
        for i in [0, 1, 511, 512, 513, 1_023, 2_999, 17] {
            assert_eq!(s.get(i), event(i as u64));
            assert_eq!(c.get(i), Some(event(i as u64)));
            assert_eq!(s.ts(i), 1_000 + i as u64 * 7);
        }
        assert_eq!(c.get(3_000), None);
        assert_eq!(
            s.range(700..1_400).map(|e| e.ts).collect::<Vec<_>>(),
            (700..1_400).map(|i| event(i).ts).collect::<Vec<_>>()
        );
        for i in [0u64, 1, 511, 512, 2_999] {
            assert_eq!(s.first_at_or_after(1_000 + i * 7), i as usize);
            assert_eq!(s.first_at_or_after(1_000 + i * 7 + 1), i as usize + 1);
        }
        assert_eq!(s.first_at_or_after(0), 0);
    }

    #[test]
    fn time_never_runs_back() {
        let mut s = EventStore::new();
        s.push(&event(9));
        s.push(&event(3));
        assert_eq!((s.late(), s.ts(1)), (1, event(9).ts));
    }
}
