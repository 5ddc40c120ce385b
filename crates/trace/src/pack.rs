//! Packing of event bodies: each [`Body`] is a kind and a fixed number of 64-bit words, and each word is stored as its difference
//! from the same word of the last event of that kind in the block.
//!
//! ```text
//! event = head u8 (kind in bits 0-5, bit 6: same CPU and task as the event before)
//!         time step (varint)  [who (varint)]  mask of the changed words (varint)
//!         a nibble for each changed word: its length in bytes             the changed words (zigzag, as many bytes as said)
//! ```
//! The encoding of a page fault's error code is part of the kind, so that it can be set when the event is packed already: what
//! decides it may be an exit in a part of the trace that another thread reads ([`set_encoding`]).

use std::sync::Arc;

use crate::event::{Body, ErrorEncoding, FastPfResult, Isa, Page, Role, StrId, TaskKind};

/// Most words a body has.
const MAX_WORDS: usize = 16;

/// The words of one body.
#[derive(Clone, Debug, Default)]
struct Words {
    v: [u64; MAX_WORDS],
    n: usize,
}

impl Words {
    #[inline]
    fn put(&mut self, w: u64) {
        self.v[self.n] = w;
        self.n += 1;
    }
    #[inline]
    fn take(&mut self) -> u64 {
        let w = self.v[self.n];
        self.n += 1;
        w
    }
}

/// A field that becomes words.
trait Field: Sized {
    /// How many.
    const N: usize;
    fn put(self, w: &mut Words);
    fn take(w: &mut Words) -> Self;
}

macro_rules! plain {
    ($($t:ty),*) => { $(
        impl Field for $t {
            const N: usize = 1;
            #[inline]
            fn put(self, w: &mut Words) { w.put(self as u64); }
            #[inline]
            fn take(w: &mut Words) -> Self { w.take() as $t }
        }
        impl Field for Option<$t> where $t: Small {
            const N: usize = 1;
            #[inline]
            fn put(self, w: &mut Words) { w.put(self.map_or(0, |v| v as u64 + 1)); }
            #[inline]
            fn take(w: &mut Words) -> Self { w.take().checked_sub(1).map(|v| v as $t) }
        }
    )* };
}
/// Types that leave room for "absent" in a word.
trait Small {}
impl Small for u32 {}
plain!(u32);

macro_rules! word {
    ($($t:ty),*) => { $(
        impl Field for $t {
            const N: usize = 1;
            #[inline]
            fn put(self, w: &mut Words) { w.put(self as u64); }
            #[inline]
            fn take(w: &mut Words) -> Self { w.take() as $t }
        }
    )* };
}
word!(u64, u8, i32);

impl Field for bool {
    const N: usize = 1;
    #[inline]
    fn put(self, w: &mut Words) {
        w.put(u64::from(self));
    }
    #[inline]
    fn take(w: &mut Words) -> Self {
        w.take() != 0
    }
}
impl Field for Option<bool> {
    const N: usize = 1;
    #[inline]
    fn put(self, w: &mut Words) {
        w.put(tri(self));
    }
    #[inline]
    fn take(w: &mut Words) -> Self {
        untri(w.take())
    }
}
impl Field for Option<u64> {
    const N: usize = 2;
    #[inline]
    fn put(self, w: &mut Words) {
        w.put(u64::from(self.is_some()));
        w.put(self.unwrap_or(0));
    }
    #[inline]
    fn take(w: &mut Words) -> Self {
        let some = w.take() != 0;
        let v = w.take();
        some.then_some(v)
    }
}
impl Field for StrId {
    const N: usize = 1;
    #[inline]
    fn put(self, w: &mut Words) {
        w.put(u64::from(self.0));
    }
    #[inline]
    fn take(w: &mut Words) -> Self {
        Self(w.take() as u32)
    }
}
impl Field for Option<StrId> {
    const N: usize = 1;
    #[inline]
    fn put(self, w: &mut Words) {
        self.map(|s| s.0).put(w);
    }
    #[inline]
    fn take(w: &mut Words) -> Self {
        <Option<u32> as Field>::take(w).map(StrId)
    }
}
// It is in the head: see `head_kind`.
impl Field for ErrorEncoding {
    const N: usize = 0;
    #[inline]
    fn put(self, _: &mut Words) {}
    #[inline]
    fn take(_: &mut Words) -> Self {
        Self::Ambiguous
    }
}
impl Field for Option<Isa> {
    const N: usize = 1;
    #[inline]
    fn put(self, w: &mut Words) {
        w.put(match self {
            None => 0,
            Some(Isa::Vmx) => 1,
            Some(Isa::Svm) => 2,
            Some(Isa::Other(n)) => 3 + u64::from(n),
        });
    }
    #[inline]
    fn take(w: &mut Words) -> Self {
        match w.take() {
            0 => None,
            1 => Some(Isa::Vmx),
            2 => Some(Isa::Svm),
            n => Some(Isa::Other((n - 3) as u32)),
        }
    }
}
impl Field for FastPfResult {
    const N: usize = 1;
    #[inline]
    fn put(self, w: &mut Words) {
        w.put(match self {
            Self::Invalid => 0,
            Self::Fixed => 1,
            Self::Spurious => 2,
            Self::Retry => 3,
            Self::Emulate => 4,
            Self::Other(n) => 5 + u64::from(n as u32),
        });
    }
    #[inline]
    fn take(w: &mut Words) -> Self {
        match w.take() {
            0 => Self::Invalid,
            1 => Self::Fixed,
            2 => Self::Spurious,
            3 => Self::Retry,
            4 => Self::Emulate,
            n => Self::Other((n - 5) as u32 as i32),
        }
    }
}
impl Field for TaskKind {
    const N: usize = 1;
    #[inline]
    fn put(self, w: &mut Words) {
        w.put(match self {
            Self::Fork => 0,
            Self::Comm { exec: false } => 1,
            Self::Comm { exec: true } => 2,
            Self::Exit => 3,
        });
    }
    #[inline]
    fn take(w: &mut Words) -> Self {
        match w.take() {
            0 => Self::Fork,
            1 => Self::Comm { exec: false },
            2 => Self::Comm { exec: true },
            _ => Self::Exit,
        }
    }
}

/// 0 absent, 1 false, 2 true.
#[inline]
fn tri(b: Option<bool>) -> u64 {
    b.map_or(0, |b| 1 + u64::from(b))
}
#[inline]
fn untri(n: u64) -> Option<bool> {
    match n & 3 {
        1 => Some(false),
        2 => Some(true),
        _ => None,
    }
}

impl Field for Role {
    const N: usize = 2;
    #[inline]
    fn put(self, w: &mut Words) {
        self.raw.put(w);
        let b = |b: bool, at: u32| u64::from(b) << at;
        w.put(
            u64::from(self.level)
                | u64::from(self.gpte_bytes.map_or(0, |n| n + 1)) << 8
                | u64::from(self.quadrant) << 16
                | b(self.direct, 24)
                | b(self.r, 25)
                | b(self.w, 26)
                | b(self.u, 27)
                | b(self.x, 28)
                | b(self.invalid, 29)
                | b(self.ad_disabled, 30)
                | tri(self.nxe) << 32
                | tri(self.guest_mode) << 34
                | tri(self.smm) << 36
                | tri(self.mirror) << 38,
        );
    }
    #[inline]
    fn take(w: &mut Words) -> Self {
        let raw = <Option<u32> as Field>::take(w);
        let n = w.take();
        let b = |at: u32| n >> at & 1 != 0;
        Self {
            raw,
            level: n as u8,
            gpte_bytes: ((n >> 8) as u8).checked_sub(1),
            quadrant: (n >> 16) as u8,
            direct: b(24),
            r: b(25),
            w: b(26),
            u: b(27),
            x: b(28),
            invalid: b(29),
            ad_disabled: b(30),
            nxe: untri(n >> 32),
            guest_mode: untri(n >> 34),
            smm: untri(n >> 36),
            mirror: untri(n >> 38),
        }
    }
}
impl Field for Page {
    const N: usize = 8;
    #[inline]
    fn put(self, w: &mut Words) {
        self.gfn.put(w);
        self.role.put(w);
        self.mmu_valid_gen.put(w);
        self.root_count.put(w);
        self.unsync.put(w);
    }
    #[inline]
    fn take(w: &mut Words) -> Self {
        Self {
            gfn: Field::take(w),
            role: Field::take(w),
            mmu_valid_gen: Field::take(w),
            root_count: Field::take(w),
            unsync: Field::take(w),
        }
    }
}

/// From the list of bodies: their kinds, word counts, and both directions.
macro_rules! bodies {
    ($($kind:literal $name:ident { $($field:ident: $t:ty),* })*) => {
        /// Number of kinds, the unused number 0 included.
        const KINDS: usize = 1 $(+ { let _ = $kind; 1 })*;
        /// Words of each kind.
        const WORDS: [usize; KINDS] = {
            let mut n = [0; KINDS];
            $( n[$kind] = 0 $(+ <$t as Field>::N)*; )*
            n
        };
        /// Body to words; gives the kind.
        #[inline]
        fn flatten(body: &Body, w: &mut Words) -> u8 {
            w.n = 0;
            match *body {
                $( Body::$name { $($field),* } => { $( Field::put($field, w); )* $kind } )*
            }
        }
        /// Words to body.
        #[inline]
        fn unflatten(kind: u8, w: &mut Words) -> Body {
            w.n = 0;
            match kind {
                $( $kind => Body::$name { $($field: <$t as Field>::take(w)),* }, )*
                _ => Body::Damage { index: u32::MAX },
            }
        }
    };
}

bodies! {
    1 PagetableWalk { addr: u64, pferr: u32 }
    2 PagingElement { pte: u64, level: u32 }
    3 SetAccessedBit { gpa: u64 }
    4 SetDirtyBit { gpa: u64 }
    5 WalkerError { pferr: u32 }
    6 GetPage { page: Page, created: bool }
    7 SyncPage { page: Page }
    8 UnsyncPage { page: Page }
    9 PrepareZapPage { page: Page }
    10 MarkMmioSpte { sptep: Option<u64>, gfn: u64, access: u32, generation: u32 }
    11 HandleMmioPageFault { addr: u64, gfn: u64, access: u32 }
    12 CheckMmioSpte { spte: u64, kvm_gen: u32, spte_gen: u32 }
    13 FastPageFault { vcpu: u32, cr2_or_gpa: u64, error_code: u64, sptep: Option<u64>, old_spte: u64, new_spte: u64, result: FastPfResult }
    14 ZapAllFast { mmu_valid_gen: u64, mmu_used_pages: u32 }
    15 SetSpte { gfn: u64, spte: u64, sptep: u64, level: u8, r: bool, w: bool, x: bool, u: Option<bool> }
    16 SpteRequested { gfn: u64, pfn: u64, level: u8, access: Option<u32> }
    17 TdpSpteChanged { as_id: u8, gfn: u64, level: u8, old_spte: u64, new_spte: u64 }
    18 SplitHugePage { gfn: u64, spte: u64, level: u8, errno: i32 }
    19 PageFault { vcpu: Option<u32>, rip: Option<u64>, address: u64, error_code: u64, encoding: ErrorEncoding }
    20 Exit { vcpu: Option<u32>, reason: Option<u32>, reason_name: StrId, isa: Option<Isa>, rip: u64, info1: Option<u64>, info2: Option<u64>,
              intr_info: Option<u32>, error_code: Option<u32>, requests: Option<u64> }
    21 Entry { vcpu: u32, rip: Option<u64>, immediate_exit: Option<bool>, intr_info: Option<u32>, error_code: Option<u32> }
    22 UserspaceExit { reason: u32, errno: i32 }
    23 Mmio { kind: u32, len: u32, gpa: u64, val: u64 }
    24 VcpuMatchMmio { gva: u64, gpa: u64, write: bool, gpa_match: bool }
    25 FastMmio { gpa: u64 }
    26 UnmapHvaRange { start: u64, end: u64 }
    27 AgeHva { start: u64, end: u64 }
    28 TestAgeHva { hva: u64 }
    29 SetSpteHva { hva: u64 }
    30 AgePage { hva: u64, gfn: u64, level: u8, young: bool }
    31 TryAsyncGetPage { gva: u64, gfn: u64, repeated: bool }
    32 AsyncPf { token: u64, gva: u64, ready: bool }
    33 AsyncPfCompleted { address: u64, gva: u64 }
    34 PmlFull { vcpu: u32 }
    35 DirtyRingPush { index: i32, dirty_index: u32, reset_index: u32, slot: u32, offset: u64 }
    36 DirtyRingReset { index: i32, dirty_index: u32, reset_index: u32 }
    37 DirtyRingExit { vcpu: u32 }
    38 NestedVmexit { vcpu: Option<u32>, reason: Option<u32>, isa: Option<Isa>, rip: Option<u64>, info1: Option<u64>, info2: Option<u64> }
    39 NestedVmenter { rip: Option<u64>, nested_rip: Option<u64>, nested_pgd: Option<u64> }
    40 RmpFault { vcpu: u32, gpa: u64, pfn: u64, error_code: u64, rmp_level: i32, psmash_ret: i32 }
    41 SetMemAttributes { start: u64, end: u64, attributes: u64 }
    42 SmmTransition { vcpu: u32, smbase: u64, entering: bool }
    43 EmulateInsn { rip: u64, failed: bool }
    44 Marker { text: StrId }
    45 Lost { count: Option<u64>, event: Option<StrId> }
    46 Damage { index: u32 }
    47 Task { kind: TaskKind, tid: u32, pid: Option<u32>, comm: StrId }
    48 Other { name: StrId, fields: StrId }
}

/// Kind of [`Body::PageFault`]; those whose encoding is known have kinds behind all others.
const FAULT: u8 = 19;
const FAULT_EPT: u8 = KINDS as u8;
const FAULT_NPF: u8 = KINDS as u8 + 1;
const FAULT_PF: u8 = KINDS as u8 + 2;

const _: () = {
    let mut k = 0;
    while k < KINDS {
        assert!(WORDS[k] <= MAX_WORDS);
        k += 1;
    }
    assert!(FAULT_PF < SAME_WHO);
};

/// In the head: CPU and task are those of the event before.
const SAME_WHO: u8 = 1 << 6;

/// The kind whose words an event of `kind` has.
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

/// Sets the encoding of a packed page fault, given the place of its head.
pub(crate) fn set_encoding(data: &mut [u8], head: usize, e: ErrorEncoding) {
    if let Some(b) = data.get_mut(head) {
        *b = *b & SAME_WHO | fault_kind(e);
    }
}

/// The last words of every kind in a block.
type Last = [[u64; MAX_WORDS]; KINDS];

/// Most bytes that one event takes, and eight that a write of a whole word may touch behind it.
const MAX_EVENT: usize = 1 + 10 + 5 + 3 + MAX_WORDS / 2 + 8 * MAX_WORDS + 8;

/// Bytes behind the packed events, so that words can be read eight bytes at a time.
const SLACK: usize = 8;

/// Writes a varint; gives the place behind it.
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
    /// Packed events, then room for the next.
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
    /// Appends an event; gives the place of its head. Its time must not be before the last one's.
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
        let mut kind = flatten(body, words);
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

    /// Number of events.
    pub(crate) fn len(&self) -> usize {
        self.events
    }

    /// Time of the last event, also of one that has been taken.
    pub(crate) fn last_ts(&self) -> u64 {
        self.ts
    }

    /// Time of the first event.
    pub(crate) fn first_ts(&self) -> u64 {
        self.first_ts
    }

    /// The packed events, to be read by an [`Unpacker`].
    pub(crate) fn data(&self) -> &[u8] {
        &self.data
    }

    /// Memory it takes.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.data.capacity() + size_of::<Last>()
    }

    /// The packed events; none are left.
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
    /// Time of the last event read.
    pub(crate) ts: u64,
    /// Its CPU and task.
    pub(crate) who: u32,
    kind: u8,
    last: Box<Last>,
}

impl<'a> Unpacker<'a> {
    pub(crate) fn new(data: &'a [u8], first_ts: u64) -> Self {
        Self { data, at: 0, ts: first_ts, who: u32::MAX, kind: 0, last: Box::new([[0; MAX_WORDS]; KINDS]) }
    }

    /// Reads the next event into the state, without building it.
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

    /// The body of the event last read.
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
