//! The events of a whole trace in memory, packed.
//!
//! Blocks of [`BLOCK`] events; within a block everything is a difference from before (see [`pack`](crate::pack)), a block is decoded on
//! its own. The store is append-only, readers may be many and on any thread.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::event::{Body, Event, StrId};
use crate::pack::{Packer, Unpacker};

/// Events in a block.
pub const BLOCK: usize = 512;

/// Where and who: shared by many events.
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

/// Every [`Who`] of a trace, by number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Whos {
    list: Vec<Who>,
    ids: FxHashMap<Who, u32>,
    last: (Who, u32),
}

impl Whos {
    /// The number of one.
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

/// Packed events, [`BLOCK`] of them.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) first_ts: u64,
    /// Shared: a copy of the store as it is now costs next to nothing.
    pub(crate) data: Arc<[u8]>,
}

/// Events in time order, packed.
#[derive(Clone, Debug, Default)]
pub struct EventStore {
    blocks: Vec<Block>,
    whos: Whos,
    /// The block being written.
    tail: Packer,
    packed: usize,
    late: u64,
    /// Index and own time of the events that were pushed behind a later one.
    strays: Vec<(usize, u64)>,
}

impl EventStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.blocks.len() * BLOCK + self.tail.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends an event. Its time may not be before that of the last one; if it is, it gets the last one's time (readers sort before
    /// they push; [`late`](Self::late) counts the exceptions).
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

    /// What blocks that were packed elsewhere refer to.
    pub(crate) fn set_whos(&mut self, whos: Whos) {
        self.whos = whos;
    }

    /// Notes that the event with this number is `ts` old, earlier than those before it; [`sorted`](Self::sorted) is due.
    pub(crate) fn stray(&mut self, number: usize, ts: u64) {
        self.strays.push((number, ts));
        self.late += 1;
    }

    /// Appends an event as it is; if its time runs back, [`sorted`](Self::sorted) is due.
    pub(crate) fn push_any(&mut self, e: &Event) {
        if e.ts < self.tail.last_ts() {
            self.strays.push((self.len(), e.ts));
        }
        self.push(e);
    }

    /// The same events in order of their own times (stable), after [`push_any`](Self::push_any) saw some run back.
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

    /// Events that came too late and had their time moved up.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// Event number `i`. Decodes up to [`BLOCK`] events: for many accesses use [`iter`](Self::iter), [`range`](Self::range) or a
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

    /// Time of event number `i`; see [`get`](Self::get).
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

    /// Events `range`, cut to what there is.
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

    /// A reader that keeps the block it last looked at, for random access with some locality.
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor { store: self, block: usize::MAX, filled: 0, events: Vec::new() }
    }

    /// Number of the first event at or after a time; [`len`](Self::len) if there is none.
    pub fn first_at_or_after(&self, ts: u64) -> usize {
        let blocks = self.blocks.len() + usize::from(self.tail.len() > 0);
        // First block that starts at or after the time; the event may still be in the block before.
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

    /// Memory it takes.
    pub fn heap_bytes(&self) -> usize {
        self.packed
            + self.blocks.capacity() * size_of::<Block>()
            + self.tail.heap_bytes()
            + self.whos.heap_bytes()
    }

    /// Number of blocks.
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

    /// Shows the events of one thread in block `b`: their numbers, and each on demand. What is not asked for is passed over, which is several
    /// times as fast as [`block`](Self::block).
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

/// Events of a [`EventStore`] in order.
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

/// Random access that remembers the last block.
#[derive(Debug)]
pub struct Cursor<'a> {
    store: &'a EventStore,
    block: usize,
    filled: usize,
    events: Vec<Event>,
}

impl Cursor<'_> {
    /// Event number `i`, `None` past the end.
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
