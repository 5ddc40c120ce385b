//! Reading a perf ring. The main type is [`Ring`]; it works over any memory that behaves like a mapped ring ([`RingMemory`]), so that tests can
//! use ordinary memory. It never interprets the content of a record.
//!
//! Records are aligned to 8 bytes and start with an 8-byte header, and the size of the ring is a power of two. So a header, and every aligned
//! u64 of a record, is in one piece, but a record itself may wrap.

/// Memory that behaves like a mapped perf ring.
pub trait RingMemory {
    /// The number of bytes of data, a power of two.
    fn len(&self) -> usize;
    /// Whether the ring has no room at all (this is never so for a real ring).
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The position of the producer. It only grows in a consumed ring, and only decreases in an overwriting one.
    fn head(&self) -> u64;
    /// Lets the producer write over everything before `tail`.
    fn release(&mut self, tail: u64);
    /// Bytes that the producer does not write to at the same time. The range must not wrap.
    fn bytes(&self, at: usize, len: usize) -> &[u8];
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The type, one of `PERF_RECORD_*`.
    pub kind: u32,
    /// The flags (`PERF_RECORD_MISC_*`).
    pub misc: u16,
    /// The size in bytes, including the header.
    pub size: u16,
}

/// The record types that the collector looks at.
pub mod kind {
    /// `PERF_RECORD_LOST`
    pub const LOST: u32 = 2;
    /// `PERF_RECORD_COMM`
    pub const COMM: u32 = 3;
    /// `PERF_RECORD_EXIT`
    pub const EXIT: u32 = 4;
    /// `PERF_RECORD_FORK`
    pub const FORK: u32 = 7;
    /// `PERF_RECORD_SAMPLE`
    pub const SAMPLE: u32 = 9;
    /// `PERF_RECORD_LOST_SAMPLES`
    pub const LOST_SAMPLES: u32 = 13;
}

/// A record in the ring that is not copied.
pub struct Record<'a, M> {
    memory: &'a M,
    at: u64,
    /// The header of the record.
    pub header: Header,
}

impl<M: RingMemory> Record<'_, M> {
    /// The u64 at this offset from the start of the record, if the record is long enough. The offset must be a multiple of 8.
    pub fn word(&self, offset: usize) -> Option<u64> {
        (offset.is_multiple_of(8) && offset + 8 <= self.header.size as usize)
            .then(|| word(self.memory, self.at + offset as u64))
    }

    /// Appends the whole record to a buffer, in one piece.
    pub fn copy_to(&self, out: &mut Vec<u8>) {
        copy(self.memory, self.at, self.header.size as usize, out);
    }
}

fn index<M: RingMemory>(memory: &M, at: u64) -> usize {
    (at as usize) & (memory.len() - 1)
}

fn word<M: RingMemory>(memory: &M, at: u64) -> u64 {
    let mut b = [0; 8];
    b.copy_from_slice(memory.bytes(index(memory, at), 8));
    u64::from_ne_bytes(b)
}

fn header<M: RingMemory>(memory: &M, at: u64) -> Header {
    let w = word(memory, at).to_ne_bytes();
    Header {
        kind: u32::from_ne_bytes([w[0], w[1], w[2], w[3]]),
        misc: u16::from_ne_bytes([w[4], w[5]]),
        size: u16::from_ne_bytes([w[6], w[7]]),
    }
}

fn copy<M: RingMemory>(memory: &M, at: u64, len: usize, out: &mut Vec<u8>) {
    let i = index(memory, at);
    let first = len.min(memory.len() - i);
    out.extend_from_slice(memory.bytes(i, first));
    if first < len {
        out.extend_from_slice(memory.bytes(0, len - first));
    }
}

/// Walks over the records of `[from, to)`, oldest first, as long as they are valid. It returns where it stopped (`to` if all are valid).
pub fn walk<M: RingMemory>(memory: &M, from: u64, to: u64, mut f: impl FnMut(&Record<'_, M>)) -> u64 {
    let mut at = from;
    while to.wrapping_sub(at) >= 8 {
        let h = header(memory, at);
        let size = u64::from(h.size);
        if size < 8 || !size.is_multiple_of(8) || size > to.wrapping_sub(at) {
            break;
        }
        f(&Record { memory, at, header: h });
        at = at.wrapping_add(size);
    }
    at
}

/// A ring whose records are consumed: the producer drops new ones when it is full.
pub struct Ring<M> {
    memory: M,
    tail: u64,
    /// The number of bytes that were not valid records and were skipped. That would be a kernel bug, or another reader; it was never seen.
    pub skipped: u64,
}

impl<M: RingMemory> Ring<M> {
    /// Starts at the beginning of the ring, of which nothing has been read yet.
    pub fn new(memory: M) -> Self {
        Self { memory, tail: 0, skipped: 0 }
    }

    /// The memory of the ring.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// How full the ring is, 0 to 1.
    pub fn fill(&self) -> f64 {
        self.memory.head().wrapping_sub(self.tail) as f64 / self.memory.len() as f64
    }

    /// Takes what has arrived. It shows every record to `each`, then passes the bytes on in pieces of at most `piece` bytes (a piece may end inside
    /// a record), and gives room back to the producer after each. It returns the number of bytes taken.
    pub fn drain(
        &mut self,
        piece: usize,
        each: impl FnMut(&Record<'_, M>),
        mut bytes: impl FnMut(&[u8]),
    ) -> u64 {
        let from = self.tail;
        let head = self.memory.head();
        let good = walk(&self.memory, from, head, each);
        let mut at = from;
        while at != good {
            let i = index(&self.memory, at);
            let len = (good.wrapping_sub(at) as usize).min(self.memory.len() - i).min(piece.max(1));
            bytes(self.memory.bytes(i, len));
            at = at.wrapping_add(len as u64);
            self.memory.release(at);
        }
        self.skip(good, head);
        good.wrapping_sub(from)
    }

    /// Takes what has arrived record by record, for records that must be changed on the way.
    pub fn records(&mut self, each: impl FnMut(&Record<'_, M>)) -> u64 {
        let from = self.tail;
        let head = self.memory.head();
        let good = walk(&self.memory, from, head, each);
        self.memory.release(good);
        self.skip(good, head);
        good.wrapping_sub(from)
    }

    fn skip(&mut self, good: u64, head: u64) {
        if good != head {
            self.skipped += head.wrapping_sub(good);
            self.memory.release(head);
        }
        self.tail = head;
    }
}

/// Appends the content of an overwriting ring, oldest record first. The ring must be paused.
///
/// Its head decreases. Walking up from the head shows the newest record first, until a header is not valid (never written, or half
/// overwritten) or the walk has gone once around.
pub fn overwritten<M: RingMemory>(memory: &M, out: &mut Vec<u8>) -> usize {
    let head = memory.head();
    let end = head.wrapping_add(memory.len() as u64);
    let mut found = Vec::new();
    walk(memory, head, end, |r| {
        // An untouched part of the ring is zero, and size 0 has stopped the walk already. The kernel never writes type 0.
        if r.header.kind != 0 {
            found.push((r.at, r.header.size as usize));
        }
    });
    out.reserve(found.iter().map(|f| f.1).sum());
    for &(at, len) in found.iter().rev() {
        copy(memory, at, len, out);
    }
    found.len()
}

/// Walks over records that lie one after the other in a buffer; a malformed rest is left out.
pub fn records(mut bytes: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    std::iter::from_fn(move || {
        let h: [u8; 8] = bytes.get(..8)?.try_into().ok()?;
        let header = Header {
            kind: u32::from_ne_bytes([h[0], h[1], h[2], h[3]]),
            misc: u16::from_ne_bytes([h[4], h[5]]),
            size: u16::from_ne_bytes([h[6], h[7]]),
        };
        let record = bytes.get(..header.size as usize).filter(|r| r.len() >= 8)?;
        bytes = &bytes[header.size as usize..];
        Some((header, record))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring in ordinary memory, with a producer that behaves like the kernel.
    struct Fake {
        data: Vec<u8>,
        head: u64,
        tail: u64,
        lost: u64,
    }

    impl Fake {
        fn new(len: usize) -> Self {
            Self { data: vec![0; len], head: 0, tail: 0, lost: 0 }
        }

        fn put(&mut self, at: u64, bytes: &[u8]) {
            for (i, b) in bytes.iter().enumerate() {
                let k = (at as usize + i) & (self.data.len() - 1);
                self.data[k] = *b;
            }
        }

        /// Writes a record as the kernel does: a record that does not fit is dropped, and the next one that fits has a LOST record before it.
        fn produce(&mut self, record: &[u8]) -> bool {
            let lost =
                if self.lost > 0 { super::tests::record(kind::LOST, &[0, self.lost]) } else { Vec::new() };
            let need = (lost.len() + record.len()) as u64;
            if self.head + need - self.tail > self.data.len() as u64 {
                self.lost += 1;
                return false;
            }
            self.lost = 0;
            self.put(self.head, &lost);
            self.head += lost.len() as u64;
            self.put(self.head, record);
            self.head += record.len() as u64;
            true
        }

        /// Writes a record of an overwriting ring, downwards.
        fn produce_backward(&mut self, record: &[u8]) {
            self.head = self.head.wrapping_sub(record.len() as u64);
            self.put(self.head, record);
        }
    }

    impl RingMemory for Fake {
        fn len(&self) -> usize {
            self.data.len()
        }
        fn head(&self) -> u64 {
            self.head
        }
        fn release(&mut self, tail: u64) {
            assert!(tail >= self.tail && tail <= self.head, "tail runs from {} to {tail}", self.tail);
            self.tail = tail;
        }
        fn bytes(&self, at: usize, len: usize) -> &[u8] {
            &self.data[at..at + len]
        }
    }

    fn record(kind: u32, words: &[u64]) -> Vec<u8> {
        let mut r = kind.to_ne_bytes().to_vec();
        r.extend(0u16.to_ne_bytes());
        r.extend((8 + 8 * words.len() as u16).to_ne_bytes());
        r.extend(words.iter().flat_map(|w| w.to_ne_bytes()));
        r
    }

    /// Records of different lengths with numbers.
    fn numbered(n: u64) -> Vec<u8> {
        let words: Vec<u64> = (0..=n % 5).map(|i| if i == 0 { n } else { !0 }).collect();
        record(kind::SAMPLE, &words)
    }

    #[test]
    fn what_goes_in_comes_out_across_many_laps() {
        for piece in [1, 7, 64, 1000] {
            let mut ring = Ring::new(Fake::new(256));
            let (mut sent, mut got, mut stream) = (Vec::new(), Vec::new(), Vec::new());
            let mut n = 0u64;
            for round in 0..500 {
                // In some rounds one record is written, in others as many as fit.
                for _ in 0..=round % 9 {
                    let r = numbered(n);
                    if ring.memory.head + r.len() as u64 - ring.memory.tail > 256 {
                        break;
                    }
                    assert!(ring.memory.produce(&r));
                    sent.extend(r);
                    n += 1;
                }
                ring.drain(piece, |r| got.push(r.word(8).unwrap()), |b| stream.extend_from_slice(b));
                assert_eq!(ring.memory.tail, ring.memory.head, "all room is given back");
            }
            assert_eq!(stream, sent, "pieces of {piece}");
            assert_eq!(got, (0..n).collect::<Vec<_>>());
            assert_eq!(ring.skipped, 0);
            assert!(n > 500);
        }
    }

    #[test]
    fn a_record_that_wraps_is_copied_in_one_piece() {
        let mut ring = Ring::new(Fake::new(64));
        ring.memory.produce(&record(kind::SAMPLE, &[1, 2, 3, 4])); // 40 bytes
        ring.records(|_| {});
        let wrapped = record(kind::SAMPLE, &[5, 6, 7, 8, 9]); // 48 bytes from 40 on: 24, then 24
        assert!(ring.memory.produce(&wrapped));
        let mut copy = Vec::new();
        ring.records(|r| {
            r.copy_to(&mut copy);
            assert_eq!(r.word(40), Some(9), "beyond the wrap");
            assert_eq!(r.word(48), None, "beyond the record");
            assert_eq!(r.word(12), None, "not aligned");
        });
        assert_eq!(copy, wrapped);
    }

    #[test]
    fn losses_show_where_they_happened() {
        let mut ring = Ring::new(Fake::new(128));
        let sent = (0..20).filter(|&n| ring.memory.produce(&record(kind::SAMPLE, &[n, 0]))).count();
        assert_eq!(sent, 5, "24 bytes each in 128");
        ring.records(|_| {});
        assert!(ring.memory.produce(&record(kind::SAMPLE, &[99, 0])));
        let mut seen = Vec::new();
        ring.records(|r| seen.push((r.header.kind, r.word(8), r.word(16))));
        assert_eq!(seen, [(kind::LOST, Some(0), Some(15)), (kind::SAMPLE, Some(99), Some(0))]);
    }

    #[test]
    fn rubbish_is_skipped_and_counted() {
        for (size, kind) in [(0u16, 9u32), (4, 9), (12, 9), (4096, 9)] {
            let mut ring = Ring::new(Fake::new(256));
            ring.memory.produce(&numbered(0));
            let mut bad = kind.to_ne_bytes().to_vec();
            bad.extend(0u16.to_ne_bytes());
            bad.extend(size.to_ne_bytes());
            ring.memory.produce(&bad);
            let mut n = 0;
            ring.drain(1000, |_| n += 1, |_| {});
            assert_eq!((n, ring.skipped), (1, 8), "size {size}");
            assert_eq!(ring.memory.tail, ring.memory.head);
            ring.memory.produce(&numbered(1));
            ring.drain(1000, |_| n += 1, |_| {});
            assert_eq!(n, 2, "the next records are read again");
        }
    }

    fn numbers(bytes: &[u8]) -> Vec<u64> {
        records(bytes).map(|(_, r)| u64::from_ne_bytes(r[8..16].try_into().unwrap())).collect()
    }

    #[test]
    fn an_overwriting_ring_shows_its_newest_records_oldest_first() {
        let mut fake = Fake::new(256);
        let mut out = Vec::new();
        assert_eq!(overwritten(&fake, &mut out), 0, "an untouched ring holds nothing");
        for n in 0..3 {
            fake.produce_backward(&numbered(n));
        }
        overwritten(&fake, &mut out);
        assert_eq!(numbers(&out), [0, 1, 2]);
        for n in 3..1000u64 {
            fake.produce_backward(&numbered(n));
            out.clear();
            let count = overwritten(&fake, &mut out);
            let got = numbers(&out);
            assert_eq!(got.len(), count);
            assert_eq!(*got.last().unwrap(), n, "the newest is there");
            assert!(got.windows(2).all(|w| w[1] == w[0] + 1), "without gaps: {got:?}");
            // Everything that fits is there: one more of the older records would not have fitted.
            let older = numbered(got[0].wrapping_sub(1)).len();
            assert!(got[0] == 0 || out.len() + older > 256 - 48, "{} bytes held", out.len());
        }
    }
}
