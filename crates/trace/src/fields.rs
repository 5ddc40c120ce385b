//! From named fields to a typed body. The binary readers and texts that print `name=value` share it; the main function is [`body`].

use crate::event::{Body, ErrorEncoding, FastPfResult, Isa, Page, StrId};
use crate::info::{RetPf, RoleWord};
use crate::names::Tp;
use crate::role;

/// A source of named fields.
pub(crate) trait Fields {
    /// The value of a field, sign-extended where the format says that it is signed.
    fn num(&mut self, name: &'static str) -> Option<u64>;
    /// The value of a pointer; `None` also where the text hashed it.
    fn ptr(&mut self, name: &'static str) -> Option<u64> {
        self.num(name)
    }
    /// The value of the first of several names that exists (for a field that was renamed).
    fn any(&mut self, names: &[&'static str]) -> Option<u64> {
        names.iter().find_map(|n| self.num(n))
    }
    /// The value of a string field.
    fn text(&mut self, name: &'static str) -> Option<String>;
}

/// A store for the strings of a body.
pub(crate) trait Names {
    /// The kernel's name of an exit reason; the empty string where it has none.
    fn exit_name(&mut self, isa: Option<Isa>, reason: u32) -> StrId;
    /// Stores any text.
    fn text(&mut self, s: &str) -> StrId;
}

/// What the kernel's format text says about the meaning of numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meaning {
    pub(crate) role: RoleWord,
    /// The numbers of `RET_PF_*`; `None` where the format does not show them, so that the values decide.
    pub(crate) ret_pf: Option<RetPf>,
}

/// The numbers of `RET_PF_*` from 5.10 to 5.17.
pub(crate) const RET_PF_5_10: RetPf = RetPf { retry: 0, emulate: 1, invalid: 2, fixed: 3, spurious: 4 };
/// The numbers from 5.18 to 6.11: RET_PF_CONTINUE took 0.
pub(crate) const RET_PF_5_18: RetPf = RetPf { retry: 1, emulate: 2, invalid: 3, fixed: 4, spurious: 5 };
/// The numbers since 6.12: RET_PF_WRITE_PROTECTED took 3.
pub(crate) const RET_PF_6_12: RetPf = RetPf { retry: 1, emulate: 2, invalid: 4, fixed: 5, spurious: 6 };

impl Default for Meaning {
    fn default() -> Self {
        Self { role: RoleWord::Has4ByteGpte, ret_pf: None }
    }
}

/// The numbers of `RET_PF_*` that one event shows: if W appeared, the fault was fixed; if the entry still does not allow a write, the slow
/// path follows; if it allowed the write before, the fault was spurious.
pub(crate) fn numbering_of(ret: i32, old: u64, new: u64) -> Option<RetPf> {
    let all = [RET_PF_5_10, RET_PF_5_18, RET_PF_6_12];
    let n = match (old & 2 != 0, new & 2 != 0) {
        (false, true) => all.iter().find(|n| n.fixed == ret),
        (_, false) => all.iter().find(|n| n.invalid == ret),
        (true, true) => all.iter().find(|n| n.spurious == ret),
    };
    n.copied()
}

/// The result of the fast path by its number.
pub(crate) fn fast_result(ret: i32, n: &RetPf) -> FastPfResult {
    if ret == n.fixed {
        FastPfResult::Fixed
    } else if ret == n.spurious {
        FastPfResult::Spurious
    } else if ret == n.invalid {
        FastPfResult::Invalid
    } else if ret == n.retry {
        FastPfResult::Retry
    } else if ret == n.emulate {
        FastPfResult::Emulate
    } else {
        FastPfResult::Other(ret)
    }
}

/// The result of the fast path from the kernel's two printed flags. With both clear the fast path gave up; with both set (the entry allowed
/// the write before and after) the fault was spurious.
pub(crate) fn fast_result_of_flags(spurious: bool, fixed: bool) -> FastPfResult {
    match (spurious, fixed) {
        (true, _) => FastPfResult::Spurious,
        (_, true) => FastPfResult::Fixed,
        _ => FastPfResult::Invalid,
    }
}

/// The back-end by the number in `isa`.
pub(crate) fn isa(n: u32) -> Isa {
    match n {
        1 => Isa::Vmx,
        2 => Isa::Svm,
        n => Isa::Other(n),
    }
}

fn page(f: &mut impl Fields, m: &Meaning) -> Option<Page> {
    Some(Page {
        gfn: f.num("gfn"),
        role: role::decode(f.num("role")? as u32, m.role),
        mmu_valid_gen: f.num("mmu_valid_gen"),
        root_count: f.num("root_count")? as i32,
        unsync: f.num("unsync")? != 0,
    })
}

/// Makes the body of a tracepoint from its fields; `None` where a required field is missing.
///
/// It is longer than 100 lines because it is a table: one arm for each tracepoint, and nothing shared between the arms.
#[expect(clippy::too_many_lines, reason = "a table: one arm for each tracepoint")]
pub(crate) fn body(tp: Tp, f: &mut impl Fields, m: &Meaning, names: &mut impl Names) -> Option<Body> {
    Some(match tp {
        Tp::PagetableWalk => Body::PagetableWalk { addr: f.num("addr")?, pferr: f.num("pferr")? as u32 },
        Tp::PagingElement => Body::PagingElement { pte: f.num("pte")?, level: f.num("level")? as u32 },
        Tp::SetAccessedBit => Body::SetAccessedBit { gpa: f.num("gpa")? },
        Tp::SetDirtyBit => Body::SetDirtyBit { gpa: f.num("gpa")? },
        Tp::WalkerError => Body::WalkerError { pferr: f.num("pferr")? as u32 },
        Tp::GetPage => Body::GetPage { page: page(f, m)?, created: f.num("created")? != 0 },
        Tp::SyncPage => Body::SyncPage { page: page(f, m)? },
        Tp::UnsyncPage => Body::UnsyncPage { page: page(f, m)? },
        Tp::PrepareZapPage => Body::PrepareZapPage { page: page(f, m)? },
        Tp::MarkMmioSpte => Body::MarkMmioSpte {
            sptep: f.ptr("sptep"),
            gfn: f.num("gfn")?,
            access: f.num("access")? as u32,
            generation: f.num("gen")? as u32,
        },
        Tp::HandleMmioPageFault => Body::HandleMmioPageFault {
            addr: f.num("addr")?,
            gfn: f.num("gfn")?,
            access: f.num("access")? as u32,
        },
        Tp::CheckMmioSpte => Body::CheckMmioSpte {
            spte: f.num("spte")?,
            kvm_gen: f.num("kvm_gen")? as u32,
            spte_gen: f.num("spte_gen")? as u32,
        },
        Tp::FastPageFault => {
            let old_spte = f.num("old_spte")?;
            let new_spte = f.num("new_spte")?;
            let result = if let Some(ret) = f.num("ret") {
                let numbering = m.ret_pf.or_else(|| numbering_of(ret as i32, old_spte, new_spte));
                numbering.map_or(FastPfResult::Other(ret as i32), |n| fast_result(ret as i32, &n))
            } else {
                // Up to 5.9, `retry` says that the fault was handled; the kernel printed it together with the W bit of both values.
                let handled = f.num("retry")? != 0;
                match (handled, old_spte & 2 != 0, new_spte & 2 != 0) {
                    (false, ..) => FastPfResult::Invalid,
                    (true, true, _) => FastPfResult::Spurious,
                    (true, false, true) => FastPfResult::Fixed,
                    _ => FastPfResult::Retry,
                }
            };
            Body::FastPageFault {
                vcpu: f.num("vcpu_id")? as u32,
                cr2_or_gpa: f.any(&["cr2_or_gpa", "gva"])?,
                error_code: f.num("error_code")?,
                sptep: f.ptr("sptep"),
                old_spte,
                new_spte,
                result,
            }
        }
        Tp::ZapAllFast => Body::ZapAllFast {
            mmu_valid_gen: f.num("mmu_valid_gen")?,
            mmu_used_pages: f.num("mmu_used_pages").unwrap_or(0) as u32,
        },
        Tp::SetSpte => {
            let spte = f.num("spte")?;
            Body::SetSpte {
                gfn: f.num("gfn")?,
                spte,
                sptep: f.num("sptep")?,
                level: f.num("level")? as u8,
                r: f.num("r")? != 0,
                // In every paging mode, the kernel prints the letter `w` from this bit of the value.
                w: spte & 2 != 0,
                x: f.num("x")? != 0,
                u: match f.num("u")? as u8 {
                    0 => Some(false),
                    0xff => None,
                    _ => Some(true),
                },
            }
        }
        Tp::SpteRequested => Body::SpteRequested {
            gfn: f.num("gfn")?,
            pfn: f.num("pfn")?,
            level: f.num("level")? as u8,
            access: f.num("access").map(|a| a as u32),
        },
        Tp::TdpSpteChanged => Body::TdpSpteChanged {
            as_id: f.num("as_id")? as u8,
            gfn: f.num("gfn")?,
            level: f.num("level")? as u8,
            old_spte: f.num("old_spte")?,
            new_spte: f.num("new_spte")?,
        },
        Tp::SplitHugePage => Body::SplitHugePage {
            gfn: f.num("gfn")?,
            spte: f.num("spte")?,
            level: f.num("level")? as u8,
            errno: f.num("errno")? as i32,
        },
        Tp::PageFault => Body::PageFault {
            vcpu: f.num("vcpu_id").map(|v| v as u32),
            rip: f.num("guest_rip"),
            address: f.num("fault_address")?,
            error_code: f.num("error_code")?,
            encoding: ErrorEncoding::Ambiguous,
        },
        Tp::Exit => {
            let reason = f.num("exit_reason")? as u32;
            let isa = f.num("isa").map(|n| isa(n as u32));
            Body::Exit {
                vcpu: f.num("vcpu_id").map(|v| v as u32),
                reason: Some(reason),
                reason_name: names.exit_name(isa, reason),
                isa,
                rip: f.num("guest_rip")?,
                info1: f.num("info1"),
                info2: f.num("info2"),
                intr_info: f.num("intr_info").map(|v| v as u32),
                error_code: f.num("error_code").map(|v| v as u32),
                requests: f.num("requests"),
            }
        }
        Tp::Entry => Body::Entry {
            vcpu: f.num("vcpu_id")? as u32,
            rip: f.num("rip"),
            immediate_exit: f.num("immediate_exit").map(|v| v != 0),
            intr_info: f.num("intr_info").map(|v| v as u32),
            error_code: f.num("error_code").map(|v| v as u32),
        },
        Tp::UserspaceExit => {
            Body::UserspaceExit { reason: f.num("reason")? as u32, errno: f.num("errno")? as i32 }
        }
        Tp::Mmio => Body::Mmio {
            kind: f.num("type")? as u32,
            len: f.num("len")? as u32,
            gpa: f.num("gpa")?,
            val: f.num("val")?,
        },
        Tp::VcpuMatchMmio => Body::VcpuMatchMmio {
            gva: f.num("gva")?,
            gpa: f.num("gpa")?,
            write: f.num("write")? != 0,
            gpa_match: f.num("gpa_match")? != 0,
        },
        Tp::FastMmio => Body::FastMmio { gpa: f.num("gpa")? },
        Tp::UnmapHvaRange => Body::UnmapHvaRange { start: f.num("start")?, end: f.num("end")? },
        Tp::AgeHva => Body::AgeHva { start: f.num("start")?, end: f.num("end")? },
        Tp::TestAgeHva => Body::TestAgeHva { hva: f.num("hva")? },
        Tp::SetSpteHva => Body::SetSpteHva { hva: f.num("hva")? },
        Tp::AgePage => Body::AgePage {
            hva: f.num("hva")?,
            gfn: f.num("gfn")?,
            level: f.num("level")? as u8,
            young: f.num("referenced")? != 0,
        },
        Tp::TryAsyncGetPage => {
            Body::TryAsyncGetPage { gva: f.num("gva")?, gfn: f.num("gfn")?, repeated: false }
        }
        Tp::AsyncPfRepeated => {
            Body::TryAsyncGetPage { gva: f.num("gva")?, gfn: f.num("gfn")?, repeated: true }
        }
        Tp::AsyncPfNotPresent => Body::AsyncPf { token: f.num("token")?, gva: f.num("gva")?, ready: false },
        Tp::AsyncPfReady => Body::AsyncPf { token: f.num("token")?, gva: f.num("gva")?, ready: true },
        Tp::AsyncPfCompleted => Body::AsyncPfCompleted { address: f.num("address")?, gva: f.num("gva")? },
        Tp::PmlFull => Body::PmlFull { vcpu: f.num("vcpu_id")? as u32 },
        Tp::DirtyRingPush => Body::DirtyRingPush {
            index: f.num("index")? as i32,
            dirty_index: f.num("dirty_index")? as u32,
            reset_index: f.num("reset_index")? as u32,
            slot: f.num("slot")? as u32,
            offset: f.num("offset")?,
        },
        Tp::DirtyRingReset => Body::DirtyRingReset {
            index: f.num("index")? as i32,
            dirty_index: f.num("dirty_index")? as u32,
            reset_index: f.num("reset_index")? as u32,
        },
        Tp::DirtyRingExit => Body::DirtyRingExit { vcpu: f.num("vcpu_id")? as u32 },
        Tp::NestedVmexit => Body::NestedVmexit {
            vcpu: f.num("vcpu_id").map(|v| v as u32),
            reason: Some(f.any(&["exit_reason", "exit_code"])? as u32),
            isa: f.num("isa").map(|n| isa(n as u32)),
            rip: f.any(&["guest_rip", "rip"]),
            info1: f.any(&["info1", "exit_info1"]),
            info2: f.any(&["info2", "exit_info2"]),
        },
        Tp::NestedVmenter => Body::NestedVmenter {
            rip: f.num("rip"),
            nested_rip: f.num("nested_rip"),
            nested_pgd: f.any(&["guest_pgd", "nested_pgd", "nested_cr3"]),
        },
        Tp::RmpFault => Body::RmpFault {
            vcpu: f.num("vcpu_id")? as u32,
            gpa: f.num("gpa")?,
            pfn: f.num("pfn")?,
            error_code: f.num("error_code")?,
            rmp_level: f.num("rmp_level")? as i32,
            psmash_ret: f.num("psmash_ret")? as i32,
        },
        Tp::SetMemAttributes => Body::SetMemAttributes {
            start: f.num("start")?,
            end: f.num("end")?,
            attributes: f.any(&["attr", "attributes"])?,
        },
        Tp::SmmTransition => Body::SmmTransition {
            vcpu: f.num("vcpu_id")? as u32,
            smbase: f.num("smbase")?,
            entering: f.num("entering")? != 0,
        },
        Tp::EmulateInsn => {
            Body::EmulateInsn { rip: f.num("rip")?, failed: f.num("failed").unwrap_or(0) != 0 }
        }
        Tp::Marker => {
            let text = f.text("buf")?;
            Body::Marker { text: names.text(text.trim_end_matches(['\n', '\0'])) }
        }
    })
}
