//! The part of a line after `event: `, in one of three forms: the kernel's own `print fmt`, libtraceevent's kvm plugin, or `name=value` pairs.

mod exit;
mod page;

use crate::event::{Body, ErrorEncoding};
use crate::fields::{self, Meaning};
use crate::names::Tp;
use crate::strings::Strings;
use crate::text::pairs;
use crate::text::scan::Scan;
use exit::{Named, exit, nested_vmexit};
use page::{kernel_page, page, plugin_page};

/// Counts of what a text leaves out. Each is reported once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gaps {
    /// The number of shadow-page events whose gfn the plugin dropped.
    pub(crate) page_gfn: u64,
    /// The number of kvm_exit events whose vCPU the plugin dropped.
    pub(crate) exit_vcpu: u64,
    /// The number of hashed pointers.
    pub(crate) hashed: u64,
    /// The number of lines in which the kernel dropped strings.
    pub(crate) emptied: u64,
    /// The number of typed events whose text could not be read.
    pub(crate) unread: u64,
}

impl Gaps {
    pub(crate) fn add(&mut self, o: &Self) {
        self.page_gfn += o.page_gfn;
        self.exit_vcpu += o.exit_vcpu;
        self.hashed += o.hashed;
        self.emptied += o.emptied;
        self.unread += o.unread;
    }
}

/// Reads the body of a typed event; `None` if the text has none of the known forms.
pub(crate) fn parse(
    tp: Tp,
    rest: &[u8],
    m: &Meaning,
    strings: &mut Strings,
    gaps: &mut Gaps,
) -> Option<Body> {
    if let Some(p) = pairs::looks_like(rest) {
        let mut f = pairs::Pairs::new(rest, p, tp, gaps);
        if let Some(b) = fields::body(tp, &mut f, m, strings) {
            return Some(b);
        }
    }
    kernel(tp, Scan(rest), strings, gaps)
}

/// Reads a pointer. A real one of a 64-bit kernel begins with ffff, and a hash has its upper half clear. On 32-bit kernels both have 8
/// digits, and only an aligned address in the kernel's gigabyte is taken as real.
pub(crate) fn pointer(digits: &[u8], gaps: &mut Gaps) -> Option<u64> {
    let mut s = Scan(digits);
    let v = s.hex().filter(|_| s.0.is_empty());
    let n = digits.strip_prefix(b"0x").unwrap_or(digits).len();
    let real = v.filter(|v| if n <= 8 { *v >= 0xc000_0000 && v % 8 == 0 } else { v >> 48 == 0xffff });
    gaps.hashed += u64::from(real.is_none());
    real
}

/// Reads `P|W|U|0x100000000`, or a plain number.
fn pferr_letters(word: &[u8]) -> Option<u64> {
    let mut v = 0;
    for part in word.split(|b| *b == b'|') {
        v |= match part {
            b"P" => 1,
            b"W" => 2,
            b"U" => 4,
            b"RSVD" => 8,
            b"F" => 16,
            b"PK" => 32,
            b"SS" => 64,
            b"SGX" => 1 << 15,
            b"" => 0,
            n => Scan(n).hex()?,
        };
    }
    Some(v)
}

/// Reads the kernel's and the plugin's forms.
fn kernel(tp: Tp, s: Scan<'_>, strings: &mut Strings, gaps: &mut Gaps) -> Option<Body> {
    match tp {
        Tp::TdpSpteChanged | Tp::SetSpte | Tp::SpteRequested | Tp::ZapAllFast | Tp::SplitHugePage => {
            change(tp, s, gaps)
        }
        Tp::GetPage | Tp::PrepareZapPage | Tp::SyncPage | Tp::UnsyncPage => page_event(tp, s, gaps),
        Tp::PagingElement | Tp::PagetableWalk | Tp::SetAccessedBit | Tp::SetDirtyBit | Tp::WalkerError => {
            walk(tp, s)
        }
        Tp::Exit
        | Tp::Entry
        | Tp::PageFault
        | Tp::FastPageFault
        | Tp::UserspaceExit
        | Tp::NestedVmexit
        | Tp::NestedVmenter
        | Tp::SmmTransition
        | Tp::EmulateInsn
        | Tp::RmpFault => vcpu(tp, s, strings, gaps),
        Tp::MarkMmioSpte
        | Tp::HandleMmioPageFault
        | Tp::CheckMmioSpte
        | Tp::Mmio
        | Tp::VcpuMatchMmio
        | Tp::FastMmio => mmio(tp, s, gaps),
        Tp::UnmapHvaRange
        | Tp::AgeHva
        | Tp::TestAgeHva
        | Tp::SetSpteHva
        | Tp::AgePage
        | Tp::TryAsyncGetPage
        | Tp::AsyncPfRepeated
        | Tp::AsyncPfNotPresent
        | Tp::AsyncPfReady
        | Tp::AsyncPfCompleted
        | Tp::SetMemAttributes => host(tp, s),
        Tp::PmlFull | Tp::DirtyRingPush | Tp::DirtyRingReset | Tp::DirtyRingExit => dirty_log(tp, s),
        Tp::Marker => Some(marker(s, strings)),
    }
}

/// Events of entries that change.
#[allow(clippy::many_single_char_names, reason = "r, w, x and u are the letters of the event")]
fn change(tp: Tp, mut s: Scan<'_>, gaps: &mut Gaps) -> Option<Body> {
    Some(match tp {
        Tp::TdpSpteChanged => {
            s.key(b"as id ")?;
            let as_id = s.dec()? as u8;
            s.key(b"gfn ")?;
            let gfn = s.hex()?;
            s.key(b"level ")?;
            let level = s.dec()? as u8;
            s.key(b"old_spte ")?;
            let old_spte = s.hex()?;
            s.key(b"new_spte ")?;
            Body::TdpSpteChanged { as_id, gfn, level, old_spte, new_spte: s.hex()? }
        }
        Tp::SetSpte => {
            s.key(b"gfn ")?;
            let gfn = s.hex()?;
            s.key(b"spte ")?;
            let spte = s.hex()?;
            s.key(b"(")?;
            let letters = s.until(b")")?;
            s.key(b"level ")?;
            let level = s.dec()? as u8;
            s.key(b"at ")?;
            let sptep = s.hex()?;
            match *letters {
                [r @ (b'r' | b'-'), w @ (b'w' | b'-'), x @ (b'x' | b'-'), ref u @ ..]
                    if matches!(u, b"" | b"u" | b"-") =>
                {
                    let u = u.first().map(|u| *u == b'u');
                    Body::SetSpte { gfn, spte, sptep, level, r: r == b'r', w: w == b'w', x: x == b'x', u }
                }
                // 6.1 with nohash-ptr drops strings: the letters that are left count, R is (nearly) always set, and W is a bit of the value.
                _ if letters.iter().all(|b| b"rwxu-".contains(b)) => {
                    gaps.emptied += 1;
                    let u = letters.contains(&b'u').then_some(true);
                    Body::SetSpte {
                        gfn,
                        spte,
                        sptep,
                        level,
                        r: true,
                        w: spte & 2 != 0,
                        x: letters.contains(&b'x'),
                        u,
                    }
                }
                _ => return None,
            }
        }
        Tp::SpteRequested => {
            s.key(b"gfn ")?;
            let gfn = s.hex()?;
            s.key(b"pfn ")?;
            let pfn = s.hex()?;
            s.key(b"level ")?;
            let level = s.dec()? as u8;
            let access = if s.key(b"access ").is_some() { Some(s.hex()? as u32) } else { None };
            Body::SpteRequested { gfn, pfn, level, access }
        }
        Tp::ZapAllFast => {
            s.key(b"kvm-mmu-valid-gen ")?;
            let generation = s.word();
            let mmu_used_pages = if s.key(b"used_pages ").is_some() { Some(s.hex()? as u32) } else { None };
            let mut g = Scan(generation);
            // The generation is printed with %u where the pages follow it; the older event prints %lx and no pages.
            let mmu_valid_gen = if mmu_used_pages.is_some() { g.dec()? } else { g.hex()? };
            Body::ZapAllFast { mmu_valid_gen, mmu_used_pages: mmu_used_pages.unwrap_or(0) }
        }
        Tp::SplitHugePage => {
            s.key(b"gfn ")?;
            let gfn = s.hex()?;
            s.key(b"spte ")?;
            let spte = s.hex()?;
            s.key(b"level ")?;
            let level = s.dec()? as u8;
            s.key(b"errno ")?;
            Body::SplitHugePage { gfn, spte, level, errno: s.int()? as i32 }
        }
        _ => return None,
    })
}

/// Events of page-table pages.
fn page_event(tp: Tp, mut s: Scan<'_>, gaps: &mut Gaps) -> Option<Body> {
    Some(match tp {
        Tp::GetPage => {
            // The kernel prints at the end whether the page is new, the plugin at the start.
            let mut created = None;
            if s.key(b"new ").is_some() {
                created = Some(true);
            } else if s.key(b"existing ").is_some() {
                created = Some(false);
            }
            if let Some(created) = created {
                s.key(b"sp ")?;
                s.key(b"gfn ")?;
                let gfn = s.hex()?;
                let mut page = plugin_page(&mut s)?;
                page.gfn = Some(gfn);
                return Some(Body::GetPage { page, created });
            }
            let page = kernel_page(&mut s)?;
            Body::GetPage { page, created: s.key(b"new").is_some() }
        }
        Tp::PrepareZapPage => Body::PrepareZapPage { page: page(&mut s, gaps)? },
        Tp::SyncPage => Body::SyncPage { page: page(&mut s, gaps)? },
        Tp::UnsyncPage => Body::UnsyncPage { page: page(&mut s, gaps)? },
        _ => return None,
    })
}

/// Events of walks over the guest's own tables.
fn walk(tp: Tp, mut s: Scan<'_>) -> Option<Body> {
    Some(match tp {
        Tp::PagingElement => {
            s.key(b"pte ")?;
            let pte = s.hex()?;
            s.key(b"level ")?;
            Body::PagingElement { pte, level: s.dec()? as u32 }
        }
        Tp::PagetableWalk => {
            s.key(b"addr ")?;
            let addr = s.hex()?;
            s.key(b"pferr ")?;
            Body::PagetableWalk { addr, pferr: s.hex()? as u32 }
        }
        Tp::SetAccessedBit => {
            s.key(b"gpa ")?;
            Body::SetAccessedBit { gpa: s.hex()? }
        }
        Tp::SetDirtyBit => {
            s.key(b"gpa ")?;
            Body::SetDirtyBit { gpa: s.hex()? }
        }
        Tp::WalkerError => {
            s.key(b"pferr ")?;
            Body::WalkerError { pferr: s.hex()? as u32 }
        }
        _ => return None,
    })
}

/// Events of a vCPU: entries, exits, faults.
fn vcpu(tp: Tp, mut s: Scan<'_>, strings: &mut Strings, gaps: &mut Gaps) -> Option<Body> {
    Some(match tp {
        Tp::Exit => exit(s, strings, gaps)?,
        Tp::Entry => {
            s.key(b"vcpu ")?;
            let vcpu = s.dec()? as u32;
            let _ = s.lit(b",");
            let rip = if s.key(b"rip ").is_some() { Some(s.hex()?) } else { None };
            let intr_info = if s.key(b"intr_info ").is_some() { Some(s.hex()? as u32) } else { None };
            let error_code = if s.key(b"error_code ").is_some() { Some(s.hex()? as u32) } else { None };
            // The kernel prints the words only when the flag is set, so that a kernel without the field prints the same.
            let immediate_exit = s.key(b"[immediate exit]").map(|()| true);
            Body::Entry { vcpu, rip, immediate_exit, intr_info, error_code }
        }
        Tp::PageFault => {
            let (mut vcpu, mut rip) = (None, None);
            if s.key(b"vcpu ").is_some() {
                vcpu = Some(s.dec()? as u32);
                s.key(b"rip ")?;
                rip = Some(s.hex()?);
            }
            s.key(b"address ")?;
            let address = s.hex()?;
            s.key(b"error_code ")?;
            Body::PageFault { vcpu, rip, address, error_code: s.hex()?, encoding: ErrorEncoding::Ambiguous }
        }
        Tp::FastPageFault => {
            s.key(b"vcpu ")?;
            let vcpu = s.dec()? as u32;
            s.key(b"gva ")?;
            let cr2_or_gpa = s.hex()?;
            s.key(b"error_code ")?;
            // A code without any flag prints nothing, and `sptep` follows at once.
            let mut t = s;
            let error_code = if t.key(b"sptep ").is_some() { 0 } else { pferr_letters(s.word())? };
            s.key(b"sptep ")?;
            let sptep = pointer(s.word(), gaps);
            s.key(b"old ")?;
            let old_spte = s.hex()?;
            s.key(b"new ")?;
            let new_spte = s.hex()?;
            s.key(b"spurious ")?;
            let spurious = s.dec()? != 0;
            s.key(b"fixed ")?;
            let fixed = s.dec()? != 0;
            let result = fields::fast_result_of_flags(spurious, fixed);
            Body::FastPageFault { vcpu, cr2_or_gpa, error_code, sptep, old_spte, new_spte, result }
        }
        Tp::UserspaceExit => {
            s.key(b"reason ")?;
            let name = s.until(b"(")?;
            let n = s.int()? as i32;
            match name.trim_ascii() {
                b"restart" | b"error" => Body::UserspaceExit { reason: 0, errno: n.wrapping_neg() },
                _ => Body::UserspaceExit { reason: n as u32, errno: 0 },
            }
        }
        Tp::NestedVmexit => nested_vmexit(s)?,
        Tp::NestedVmenter => {
            let mut named = Named(s);
            Body::NestedVmenter {
                rip: named.get(b"rip:"),
                nested_rip: named.get(b"nested_rip:").or_else(|| named.get(b"nrip:")),
                nested_pgd: [&b"nested_eptp:"[..], b"nested_cr3:", b"guest_cr3:"]
                    .iter()
                    .find_map(|k| named.get(k)),
            }
        }
        Tp::SmmTransition => {
            s.key(b"vcpu ")?;
            let vcpu = s.dec()? as u32;
            s.key(b":")?;
            let entering = s.word() == b"entering";
            s.key(b"SMM, smbase ")?;
            Body::SmmTransition { vcpu, smbase: s.hex()?, entering }
        }
        Tp::EmulateInsn => {
            s.hex()?;
            s.key(b":")?;
            let rip = s.hex()?;
            Body::EmulateInsn { rip, failed: s.0.ends_with(b" failed") }
        }
        Tp::RmpFault => {
            s.key(b"vcpu ")?;
            let vcpu = s.dec()? as u32;
            s.key(b"gpa ")?;
            let gpa = s.hex()?;
            s.key(b"pfn ")?;
            let pfn = s.hex()?;
            s.key(b"error_code ")?;
            let error_code = s.hex()?;
            s.key(b"rmp_level ")?;
            let rmp_level = s.int()? as i32;
            s.key(b"psmash_ret ")?;
            Body::RmpFault { vcpu, gpa, pfn, error_code, rmp_level, psmash_ret: s.int()? as i32 }
        }
        _ => return None,
    })
}

/// Events of MMIO entries and accesses.
fn mmio(tp: Tp, mut s: Scan<'_>, gaps: &mut Gaps) -> Option<Body> {
    Some(match tp {
        Tp::MarkMmioSpte => {
            s.key(b"sptep:")?;
            let sptep = pointer(s.word(), gaps);
            s.key(b"gfn ")?;
            let gfn = s.hex()?;
            s.key(b"access ")?;
            let access = s.hex()? as u32;
            s.key(b"gen ")?;
            Body::MarkMmioSpte { sptep, gfn, access, generation: s.hex()? as u32 }
        }
        Tp::HandleMmioPageFault => {
            s.key(b"addr:")?;
            let addr = s.hex()?;
            s.key(b"gfn ")?;
            let gfn = s.hex()?;
            s.key(b"access ")?;
            Body::HandleMmioPageFault { addr, gfn, access: s.hex()? as u32 }
        }
        Tp::CheckMmioSpte => {
            s.key(b"spte ")?;
            let spte = s.hex()?;
            s.key(b"kvm_gen ")?;
            let kvm_gen = s.hex()? as u32;
            s.key(b"spte-gen ")?;
            Body::CheckMmioSpte { spte, kvm_gen, spte_gen: s.hex()? as u32 }
        }
        Tp::Mmio => {
            s.key(b"mmio ")?;
            let kind = match s.word() {
                b"unsatisfied-read" => 0,
                b"read" => 1,
                b"write" => 2,
                n => Scan(n).hex()? as u32,
            };
            s.key(b"len ")?;
            let len = s.dec()? as u32;
            s.key(b"gpa ")?;
            let gpa = s.hex()?;
            s.key(b"val ")?;
            Body::Mmio { kind, len, gpa, val: s.hex()? }
        }
        Tp::VcpuMatchMmio => {
            s.key(b"gva ")?;
            let gva = s.hex()?;
            s.key(b"gpa ")?;
            let gpa = s.hex()?;
            let write = s.word() == b"Write";
            Body::VcpuMatchMmio { gva, gpa, write, gpa_match: s.word() == b"GPA" }
        }
        Tp::FastMmio => {
            s.key(b"fast mmio at gpa ")?;
            Body::FastMmio { gpa: s.hex()? }
        }
        _ => return None,
    })
}

/// Events of the host: mmu_notifiers, asynchronous page faults, memory attributes.
fn host(tp: Tp, mut s: Scan<'_>) -> Option<Body> {
    Some(match tp {
        Tp::UnmapHvaRange | Tp::AgeHva => {
            s.until(b": ")?;
            let start = s.hex()?;
            s.key(b"-- ")?;
            let end = s.hex()?;
            if tp == Tp::AgeHva { Body::AgeHva { start, end } } else { Body::UnmapHvaRange { start, end } }
        }
        Tp::TestAgeHva => {
            s.until(b": ")?;
            Body::TestAgeHva { hva: s.hex()? }
        }
        Tp::SetSpteHva => {
            s.until(b": ")?;
            Body::SetSpteHva { hva: s.hex()? }
        }
        Tp::AgePage => {
            s.key(b"hva ")?;
            let hva = s.hex()?;
            s.key(b"gfn ")?;
            let gfn = s.hex()?;
            s.key(b"level ")?;
            let level = s.dec()? as u8;
            Body::AgePage { hva, gfn, level, young: s.word() == b"YOUNG" }
        }
        Tp::TryAsyncGetPage | Tp::AsyncPfRepeated => {
            s.key(b"gva = ")?;
            let gva = s.hex()?;
            s.key(b", gfn = ")?;
            Body::TryAsyncGetPage { gva, gfn: s.hex()?, repeated: tp == Tp::AsyncPfRepeated }
        }
        Tp::AsyncPfNotPresent | Tp::AsyncPfReady => {
            s.key(b"token ")?;
            let token = s.hex()?;
            s.key(b"gva ")?;
            Body::AsyncPf { token, gva: s.hex()?, ready: tp == Tp::AsyncPfReady }
        }
        Tp::AsyncPfCompleted => {
            s.key(b"gva ")?;
            let gva = s.hex()?;
            s.key(b"address ")?;
            Body::AsyncPfCompleted { address: s.hex()?, gva }
        }
        Tp::SetMemAttributes => {
            let start = s.hex()?;
            s.key(b"-- ")?;
            let end = s.hex()?;
            s.key(b"[")?;
            Body::SetMemAttributes { start, end, attributes: s.hex()? }
        }
        _ => return None,
    })
}

/// Events of dirty logging.
fn dirty_log(tp: Tp, mut s: Scan<'_>) -> Option<Body> {
    Some(match tp {
        Tp::PmlFull => {
            s.key(b"vcpu ")?;
            Body::PmlFull { vcpu: s.dec()? as u32 }
        }
        Tp::DirtyRingPush | Tp::DirtyRingReset => {
            s.key(b"ring ")?;
            let index = s.int()? as i32;
            s.key(b": dirty ")?;
            let dirty_index = s.hex()? as u32;
            s.key(b"reset ")?;
            let reset_index = s.hex()? as u32;
            if tp == Tp::DirtyRingReset {
                return Some(Body::DirtyRingReset { index, dirty_index, reset_index });
            }
            s.key(b"slot ")?;
            let slot = s.dec()? as u32;
            s.key(b"offset ")?;
            Body::DirtyRingPush { index, dirty_index, reset_index, slot, offset: s.hex()? }
        }
        Tp::DirtyRingExit => {
            s.key(b"vcpu ")?;
            Body::DirtyRingExit { vcpu: s.dec()? as u32 }
        }
        _ => return None,
    })
}

/// A text that was written to trace_marker.
fn marker(s: Scan<'_>, strings: &mut Strings) -> Body {
    // tracefs prints the text alone; trace-cmd and perf print the symbol of the writing function before it.
    let text = String::from_utf8_lossy(s.0);
    let text = text
        .strip_prefix("tracing_mark_write: ")
        .or_else(|| text.strip_prefix("[tracing_mark_write] "))
        .unwrap_or(&text);
    Body::Marker { text: strings.intern(text.trim_end_matches(['\n', '\0'])) }
}
