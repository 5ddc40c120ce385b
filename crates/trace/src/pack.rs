//! Packing of event bodies: each [`Body`] is a kind and a fixed number of 64-bit words, and each word is stored as its difference
//! from the same word of the last event of that kind in the block.
//!
//! ```text
//! event = head u8 (kind in bits 0-5, bit 6: same CPU and task as the event before)
//!         time step (varint)  [who (varint)]  mask of the changed words (1 to 3 bytes)  changed words (zigzag varint each)
//! ```

use crate::event::{Body, ErrorEncoding, FastPfResult, Isa, Page, Role, StrId, TaskKind};

/// Most words a body has.
pub(crate) const MAX_WORDS: usize = 16;

/// The words of one body.
#[derive(Default)]
pub(crate) struct Words {
    pub(crate) v: [u64; MAX_WORDS],
    pub(crate) n: usize,
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
impl Field for ErrorEncoding {
    const N: usize = 1;
    #[inline]
    fn put(self, w: &mut Words) {
        w.put(self as u64);
    }
    #[inline]
    fn take(w: &mut Words) -> Self {
        match w.take() {
            0 => Self::EptQualification,
            1 => Self::NestedPageFault,
            2 => Self::PageFault,
            _ => Self::Ambiguous,
        }
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
        pub(crate) const KINDS: usize = 1 $(+ { let _ = $kind; 1 })*;
        /// Words of each kind.
        pub(crate) const WORDS: [usize; KINDS] = {
            let mut n = [0; KINDS];
            $( n[$kind] = 0 $(+ <$t as Field>::N)*; )*
            n
        };
        /// Body to words; gives the kind.
        #[inline]
        pub(crate) fn flatten(body: &Body, w: &mut Words) -> u8 {
            w.n = 0;
            match *body {
                $( Body::$name { $($field),* } => { $( Field::put($field, w); )* $kind } )*
            }
        }
        /// Words to body.
        #[inline]
        pub(crate) fn build(kind: u8, w: &mut Words) -> Body {
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

const _: () = {
    let mut k = 0;
    while k < KINDS {
        assert!(WORDS[k] <= MAX_WORDS && k < 64);
        k += 1;
    }
};

/// The last words of every kind in a block.
pub(crate) type Last = [[u64; MAX_WORDS]; KINDS];

#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

#[inline]
pub(crate) fn take_varint(data: &[u8], at: &mut usize) -> u64 {
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

/// Appends mask and changed words of a body of `kind`.
#[inline]
pub(crate) fn put_words(out: &mut Vec<u8>, kind: u8, w: &Words, last: &mut Last) {
    let last = &mut last[kind as usize];
    let mut mask = 0u32;
    for (i, (new, old)) in w.v[..w.n].iter().zip(last.iter()).enumerate() {
        mask |= u32::from(new != old) << i;
    }
    put_varint(out, u64::from(mask));
    let mut rest = mask;
    while rest != 0 {
        let i = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        let d = w.v[i].wrapping_sub(last[i]) as i64;
        put_varint(out, (d << 1 ^ d >> 63) as u64);
        last[i] = w.v[i];
    }
}

/// Reads what [`put_words`] wrote into `last`, which then holds the body's words.
#[inline]
pub(crate) fn take_words(data: &[u8], at: &mut usize, kind: u8, last: &mut Last) {
    let Some(last) = last.get_mut(kind as usize) else { return };
    let mut rest = take_varint(data, at) as u32 & ((1 << MAX_WORDS) - 1);
    while rest != 0 {
        let i = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        let z = take_varint(data, at);
        let d = (z >> 1) as i64 ^ -((z & 1) as i64);
        last[i] = last[i].wrapping_add(d as u64);
    }
}
