//! The list of bodies, from which their kinds, their numbers of words and the conversions are made.

use super::words::{Field, Words};
use crate::event::{Body, ErrorEncoding, FastPfResult, Isa, Page, StrId, TaskKind};

/// Makes from the list of bodies their kinds, their numbers of words, and the conversion in both directions.
macro_rules! bodies {
    ($($kind:literal $name:ident { $($field:ident: $t:ty),* })*) => {
        /// The number of kinds, including the unused number 0.
        pub(super) const KINDS: usize = 1 $(+ { let _ = $kind; 1 })*;
        /// The number of words of each kind.
        pub(super) const WORDS: [usize; KINDS] = {
            let mut n = [0; KINDS];
            $( n[$kind] = 0 $(+ <$t as Field>::N)*; )*
            n
        };
        /// Converts a body to words and returns its kind.
        #[inline]
        pub(super) fn flatten(body: &Body, w: &mut Words) -> u8 {
            w.n = 0;
            match *body {
                $( Body::$name { $($field),* } => { $( Field::put($field, w); )* $kind } )*
            }
        }
        /// Converts words to the body of this kind.
        #[inline]
        pub(super) fn unflatten(kind: u8, w: &mut Words) -> Body {
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
    49 Snapshot { index: u32 }
}
