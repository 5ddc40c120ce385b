//! The fields of bodies as 64-bit words, in both directions.

use super::values::{ErrorEncoding, FastPfResult, Isa, Page, Role, StrId, TaskKind};

/// The most words that a body has.
pub(crate) const MAX_WORDS: usize = 16;

/// The words of one body.
#[derive(Clone, Debug, Default)]
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

/// A field that can be stored as words.
pub(crate) trait Field: Sized {
    /// The number of words.
    const N: usize;
    fn put(self, w: &mut Words);
    fn take(w: &mut Words) -> Self;
}

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
word!(u64, u32, u8, i32);

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
// A word has room for "absent" beside a u32: it is stored as 0, and the number one higher.
impl Field for Option<u32> {
    const N: usize = 1;
    #[inline]
    fn put(self, w: &mut Words) {
        w.put(self.map_or(0, |v| u64::from(v) + 1));
    }
    #[inline]
    fn take(w: &mut Words) -> Self {
        w.take().checked_sub(1).map(|v| v as u32)
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
// The encoding is in the head of the event: see `fault_kind` in `pack`.
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

/// Stored as 0 for absent, 1 for false, 2 for true.
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
