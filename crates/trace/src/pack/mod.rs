//! Packing of event bodies. The main types are [`Packer`] and [`Unpacker`]; the event store uses them. Each [`Body`] becomes a kind and a
//! fixed number of 64-bit words, and each word is stored as its difference from the same word of the last event of that kind in the block.
//!
//! ```text
//! event = head u8 (kind in bits 0-6, bit 7: same CPU and task as the event before)
//!         time step (varint)  [who (varint)]  mask of the changed words (varint)
//!         a nibble for each changed word: its length in bytes             the changed words (zigzag, as many bytes as said)
//! ```
//! The encoding of a page fault's error code is part of the kind, so that it can be set after the event was packed: the exit that decides it
//! may be in a part of the trace that another thread reads ([`set_encoding`]).

use std::sync::Arc;

use crate::event::{Body, ErrorEncoding, Kind};
use crate::schema::words::{MAX_WORDS, Words};
use crate::schema::{flatten, unflatten};

/// The number of kinds.
const KINDS: usize = Kind::COUNT;

/// The kind of [`Body::PageFault`]; the kinds of page faults whose encoding is known follow after all others.
const FAULT: u8 = Kind::PageFault as u8;
const FAULT_EPT: u8 = KINDS as u8;
const FAULT_NPF: u8 = KINDS as u8 + 1;
const FAULT_PF: u8 = KINDS as u8 + 2;

const _: () = {
    let mut k = 0;
    while k < KINDS {
        assert!(Kind::ALL[k].words() <= MAX_WORDS);
        k += 1;
    }
    assert!(FAULT_PF < SAME_WHO);
};

/// The bit in the head that says: CPU and task are those of the event before.
const SAME_WHO: u8 = 1 << 7;

/// The kind that decides about the words of an event of `kind`.
#[inline]
fn slot(kind: u8) -> u8 {
    if kind >= KINDS as u8 { FAULT } else { kind }
}

fn fault_kind(e: ErrorEncoding) -> u8 {
    match e {
        ErrorEncoding::EptQualification => FAULT_EPT,
        ErrorEncoding::NestedPageFault => FAULT_NPF,
        ErrorEncoding::PageFault => FAULT_PF,
        ErrorEncoding::Ambiguous => FAULT,
    }
}

/// Sets the encoding of a packed page fault whose head is at `head`.
pub(crate) fn set_encoding(data: &mut [u8], head: usize, e: ErrorEncoding) {
    if let Some(b) = data.get_mut(head) {
        *b = *b & SAME_WHO | fault_kind(e);
    }
}

/// The words of the last event of every kind in a block.
type Last = [[u64; MAX_WORDS]; KINDS];

/// The most bytes that one event takes, plus eight that writing a whole word may touch after it.
const MAX_EVENT: usize = 1 + 10 + 5 + 3 + MAX_WORDS / 2 + 8 * MAX_WORDS + 8;

/// The number of bytes after the packed events that lets words be read eight bytes at a time.
const SLACK: usize = 8;

/// Writes a varint and returns the offset after it.
#[inline]
fn put_varint(out: &mut [u8; MAX_EVENT], mut at: usize, mut v: u64) -> usize {
    while v >= 0x80 {
        out[at] = v as u8 | 0x80;
        v >>= 7;
        at += 1;
    }
    out[at] = v as u8;
    at + 1
}

#[inline]
fn take_varint(data: &[u8], at: &mut usize) -> u64 {
    let mut v = 0u64;
    let mut shift = 0;
    while let Some(&b) = data.get(*at) {
        *at += 1;
        v |= u64::from(b & 0x7f) << shift;
        shift += 7;
        if b < 0x80 || shift >= 70 {
            break;
        }
    }
    v
}

#[inline]
fn load(data: &[u8], at: usize) -> u64 {
    data.get(at..at + 8).and_then(|d| d.first_chunk()).map_or(0, |c| u64::from_le_bytes(*c))
}

/// Packs events one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Packer {
    /// The packed events, followed by room for the next one.
    data: Vec<u8>,
    used: usize,
    events: usize,
    first_ts: u64,
    ts: u64,
    who: u32,
    last: Box<Last>,
    words: Words,
}

impl Default for Packer {
    fn default() -> Self {
        Self {
            data: Vec::new(),
            used: 0,
            events: 0,
            first_ts: 0,
            ts: 0,
            who: 0,
            last: Box::new([[0; MAX_WORDS]; KINDS]),
            words: Words::default(),
        }
    }
}

impl Packer {
    /// Appends an event and returns the offset of its head. Its time must not be before that of the last one.
    #[inline]
    pub(crate) fn put(&mut self, ts: u64, who: u32, body: &Body) -> usize {
        if self.events == 0 {
            self.first_ts = ts;
            self.ts = ts;
            self.who = u32::MAX;
            self.last.fill([0; MAX_WORDS]);
        }
        let at = self.used;
        if self.data.len() < at + MAX_EVENT {
            self.data.resize(at + MAX_EVENT + (4 << 10), 0);
        }
        let words = &mut self.words;
        let mut kind = flatten(body, words) as u8;
        let last = &mut self.last[kind as usize];
        if let Body::PageFault { encoding, .. } = body {
            kind = fault_kind(*encoding);
        }
        let Some(out) = self.data[at..].first_chunk_mut::<MAX_EVENT>() else { return at };
        let same = who == self.who;
        out[0] = kind | if same { SAME_WHO } else { 0 };
        let mut n = put_varint(out, 1, ts.wrapping_sub(self.ts));
        if !same {
            n = put_varint(out, n, who.into());
        }
        let mut mask = 0u32;
        for (i, (new, old)) in words.v[..words.n].iter().zip(last.iter()).enumerate() {
            mask |= u32::from(new != old) << i;
        }
        n = put_varint(out, n, mask.into());
        let lengths_at = n;
        n += mask.count_ones().div_ceil(2) as usize;
        let mut lengths = 0u64;
        let mut shift = 0;
        while mask != 0 {
            let i = mask.trailing_zeros() as usize % MAX_WORDS;
            mask &= mask - 1;
            let step = words.v[i].wrapping_sub(last[i]) as i64;
            let zigzag = (step << 1 ^ step >> 63) as u64;
            let len = 8 - zigzag.leading_zeros() as usize / 8;
            if let Some(o) = out[n..].first_chunk_mut() {
                *o = zigzag.to_le_bytes();
            }
            n += len;
            lengths |= (len as u64) << shift;
            shift += 4;
            last[i] = words.v[i];
        }
        let mut nibbles = lengths_at;
        while lengths != 0 {
            out[nibbles] = lengths as u8;
            lengths >>= 8;
            nibbles += 1;
        }
        self.used = at + n;
        self.ts = ts;
        self.who = who;
        self.events += 1;
        at
    }

    /// The number of events.
    pub(crate) fn len(&self) -> usize {
        self.events
    }

    /// The time of the last event, which may have been taken already.
    pub(crate) fn last_ts(&self) -> u64 {
        self.ts
    }

    /// The time of the first event.
    pub(crate) fn first_ts(&self) -> u64 {
        self.first_ts
    }

    /// The packed events, to be read by an [`Unpacker`].
    pub(crate) fn data(&self) -> &[u8] {
        &self.data
    }

    /// The number of bytes of memory that it takes.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.data.capacity() + size_of::<Last>()
    }

    /// Returns the packed events and starts again without any.
    pub(crate) fn take(&mut self) -> Arc<[u8]> {
        let data = self.data[..(self.used + SLACK).min(self.data.len())].into();
        self.used = 0;
        self.events = 0;
        data
    }
}

/// Reads packed events one after the other.
#[derive(Debug)]
pub(crate) struct Unpacker<'a> {
    data: &'a [u8],
    at: usize,
    /// The time of the event that was read last.
    pub(crate) ts: u64,
    /// The CPU and task of that event.
    pub(crate) who: u32,
    kind: u8,
    last: Box<Last>,
}

impl<'a> Unpacker<'a> {
    pub(crate) fn new(data: &'a [u8], first_ts: u64) -> Self {
        Self { data, at: 0, ts: first_ts, who: u32::MAX, kind: 0, last: Box::new([[0; MAX_WORDS]; KINDS]) }
    }

    /// Reads the next event into the state, without building its body.
    #[inline]
    pub(crate) fn skip(&mut self) {
        let data = self.data;
        let head = data.get(self.at).copied().unwrap_or(0);
        let mut at = self.at + 1;
        self.kind = head & (SAME_WHO - 1);
        self.ts = self.ts.wrapping_add(take_varint(data, &mut at));
        if head & SAME_WHO == 0 {
            self.who = take_varint(data, &mut at) as u32;
        }
        let mut mask = take_varint(data, &mut at) as u32 & ((1 << MAX_WORDS) - 1);
        let mut lengths = load(data, at);
        at += mask.count_ones().div_ceil(2) as usize;
        if let Some(last) = self.last.get_mut(slot(self.kind) as usize) {
            while mask != 0 {
                let i = mask.trailing_zeros() as usize % MAX_WORDS;
                mask &= mask - 1;
                let len = (lengths & 15) as usize;
                lengths >>= 4;
                let z = load(data, at) & (u64::MAX >> (64 - 8 * len.clamp(1, 8)));
                at += len;
                let d = (z >> 1) as i64 ^ -((z & 1) as i64);
                last[i] = last[i].wrapping_add(d as u64);
            }
        }
        self.at = at;
    }

    /// Builds the body of the event that was read last.
    #[inline]
    pub(crate) fn body(&self) -> Body {
        let slot = slot(self.kind);
        let mut w = Words { v: self.last.get(slot as usize).copied().unwrap_or_default(), n: 0 };
        let mut body = unflatten(slot, &mut w);
        if let Body::PageFault { encoding, .. } = &mut body {
            *encoding = match self.kind {
                FAULT_EPT => ErrorEncoding::EptQualification,
                FAULT_NPF => ErrorEncoding::NestedPageFault,
                FAULT_PF => ErrorEncoding::PageFault,
                _ => ErrorEncoding::Ambiguous,
            };
        }
        body
    }
}
