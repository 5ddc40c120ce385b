//! What follows `event: ` in a line: the kernel's own `print fmt`, libtraceevent's kvm plugin, or `name=value` pairs.

use crate::event::{Body, ErrorEncoding, Page, Role};
use crate::exits;
use crate::fields::{self, Meaning};
use crate::names::Tp;
use crate::strings::Strings;
use crate::text::pairs;
use crate::text::scan::Scan;

/// What a text leaves out, to be told once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gaps {
    /// Shadow-page events whose gfn the plugin dropped.
    pub(crate) page_gfn: u64,
    /// kvm_exit events whose vcpu the plugin dropped.
    pub(crate) exit_vcpu: u64,
    /// Hashed pointers.
    pub(crate) hashed: u64,
    /// Lines in which the kernel dropped strings.
    pub(crate) emptied: u64,
    /// Typed events whose text could not be read.
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

/// Reads the body of a typed event; `None` if the text has none of the known shapes.
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
    kernel(tp, Scan(rest), m, strings, gaps)
}

/// A pointer: real ones of 64-bit kernels begin with ffff; a hash has its upper half clear. On 32-bit kernels both have 8 digits, there
/// only an aligned address in the kernel's gigabyte counts.
pub(crate) fn pointer(digits: &[u8], gaps: &mut Gaps) -> Option<u64> {
    let mut s = Scan(digits);
    let v = s.hex().filter(|_| s.0.is_empty());
    let n = digits.strip_prefix(b"0x").unwrap_or(digits).len();
    let real = v.filter(|v| if n <= 8 { *v >= 0xc000_0000 && v % 8 == 0 } else { v >> 48 == 0xffff });
    gaps.hashed += u64::from(real.is_none());
    real
}

/// Access letters in any order; `None` if there is another letter.
fn access(word: &[u8], role: &mut Role) -> Option<()> {
    if !matches!(word.len(), 3 | 4) {
        return None;
    }
    role.r = word.len() == 3;
    for b in word {
        match b {
            b'r' => role.r = true,
            b'w' => role.w = true,
            b'u' => role.u = true,
            b'x' => role.x = true,
            b'-' => {}
            _ => return None,
        }
    }
    Some(())
}

/// `sp gen 0 gfn 3 l3 8-byte q0 direct wux invalid nxe ad root 0 sync`, and up to 5.0 `… l3 pae q0 wux !nxe root 0 sync`.
fn kernel_page(s: &mut Scan<'_>) -> Option<Page> {
    let mut page = Page { role: Role { r: true, ..Role::default() }, ..Page::default() };
    s.key(b"sp ")?;
    let mut generation = None;
    if s.key(b"gen ").is_some() {
        generation = Some(s.word());
    }
    s.key(b"gfn ")?;
    page.gfn = Some(s.hex()?);
    s.blanks();
    let _ = s.lit(b"l");
    page.role.level = s.dec()? as u8;
    let mut wide = true;
    if s.key(b"8-byte").is_some() {
        page.role.gpte_bytes = Some(8);
    } else if s.key(b"4-byte").is_some() {
        page.role.gpte_bytes = Some(4);
    } else {
        wide = false;
        page.role.gpte_bytes = Some(if s.key(b"pae").is_some() { 8 } else { 4 });
    }
    // A decimal byte since 5.4, which is younger than `N-byte`; a hexadecimal long before.
    if let Some(g) = generation {
        let mut g = Scan(g);
        page.mmu_valid_gen = Some(if wide { g.dec()? } else { g.hex()? });
    }
    s.key(b"q")?;
    page.role.quadrant = s.dec()? as u8;
    page.role.direct = s.key(b"direct").is_some();
    if !wide && page.role.direct {
        page.role.gpte_bytes = None;
    }
    access(s.word(), &mut page.role)?;
    page.role.invalid = s.key(b"invalid").is_some();
    page.role.nxe = Some(s.key(b"!nxe").is_none());
    if page.role.nxe == Some(true) {
        s.key(b"nxe")?;
    }
    page.role.ad_disabled = s.key(b"!ad").is_some();
    let _ = s.key(b"ad");
    s.key(b"root ")?;
    page.root_count = s.int()? as i32;
    s.blanks();
    page.unsync = s.lit(b"unsync").is_some();
    if !page.unsync {
        s.lit(b"sync")?;
    }
    Some(page)
}

/// The plugin: `1 q0 direct wux !pae nxe wp root 0 sync`. Its role layout is that of kernels before 5.1, of which level, quadrant,
/// direct, access, invalid and nxe are still right up to 7.1.
fn plugin_page(s: &mut Scan<'_>) -> Option<Page> {
    let mut page = Page { role: Role { r: true, ..Role::default() }, ..Page::default() };
    page.role.level = s.dec()? as u8;
    s.key(b"q")?;
    page.role.quadrant = s.dec()? as u8;
    page.role.direct = s.key(b"direct").is_some();
    access(s.word(), &mut page.role)?;
    loop {
        match s.word() {
            b"root" => break,
            b"invalid" => page.role.invalid = true,
            b"nxe" => page.role.nxe = Some(true),
            b"!nxe" => page.role.nxe = Some(false),
            b"" => return None,
            _ => {}
        }
    }
    page.root_count = s.int()? as i32;
    s.blanks();
    page.unsync = s.lit(b"unsync").is_some();
    Some(page)
}

fn page(s: &mut Scan<'_>, gaps: &mut Gaps) -> Option<Page> {
    let mut k = *s;
    if let Some(p) = kernel_page(&mut k) {
        *s = k;
        return Some(p);
    }
    let p = plugin_page(s)?;
    gaps.page_gfn += 1;
    Some(p)
}

/// `P|W|U|0x100000000`, or a plain number.
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

/// The kernel's and the plugin's shapes.
#[allow(clippy::many_single_char_names, reason = "r, w, x and u are the letters of the event")]
fn kernel(tp: Tp, mut s: Scan<'_>, m: &Meaning, strings: &mut Strings, gaps: &mut Gaps) -> Option<Body> {
    let _ = m;
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
                // 6.1 with nohash-ptr drops strings: what is there counts, R is (nearly) always set, W is that bit of the value.
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
        Tp::Exit => exit(s, strings, gaps)?,
        Tp::Entry => {
            s.key(b"vcpu ")?;
            let vcpu = s.dec()? as u32;
            let _ = s.lit(b",");
            let rip = if s.key(b"rip ").is_some() { Some(s.hex()?) } else { None };
            let intr_info = if s.key(b"intr_info ").is_some() { Some(s.hex()? as u32) } else { None };
            let error_code = if s.key(b"error_code ").is_some() { Some(s.hex()? as u32) } else { None };
            // The kernel prints the words when it is set; without them, a kernel that has no such field looks the same.
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
            // No flag at all prints as nothing: then `sptep` follows at once.
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
        Tp::GetPage => {
            // The kernel says at the end whether the page is new, the plugin at the start.
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
        Tp::ZapAllFast => {
            s.key(b"kvm-mmu-valid-gen ")?;
            let generation = s.word();
            let mmu_used_pages = if s.key(b"used_pages ").is_some() { Some(s.hex()? as u32) } else { None };
            let mut g = Scan(generation);
            // %u with the pages beside it; the older event prints %lx and no pages.
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
        Tp::UserspaceExit => {
            s.key(b"reason ")?;
            let name = s.until(b"(")?;
            let n = s.int()? as i32;
            match name.trim_ascii() {
                b"restart" | b"error" => Body::UserspaceExit { reason: 0, errno: -n },
                _ => Body::UserspaceExit { reason: n as u32, errno: 0 },
            }
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
        Tp::SetMemAttributes => {
            let start = s.hex()?;
            s.key(b"-- ")?;
            let end = s.hex()?;
            s.key(b"[")?;
            Body::SetMemAttributes { start, end, attributes: s.hex()? }
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
        Tp::Marker => {
            // tracefs: the text alone; trace-cmd and perf: the symbol of the writing function before it.
            let text = String::from_utf8_lossy(s.0);
            let text = text
                .strip_prefix("tracing_mark_write: ")
                .or_else(|| text.strip_prefix("[tracing_mark_write] "))
                .unwrap_or(&text);
            Body::Marker { text: strings.intern(text.trim_end_matches(['\n', '\0'])) }
        }
    })
}

/// Looks `name: value` pairs up anywhere in a line.
struct Named<'a>(Scan<'a>);

impl Named<'_> {
    fn get(&mut self, key: &[u8]) -> Option<u64> {
        let mut s = self.0;
        while !s.0.is_empty() {
            if s.word() == key {
                return s.hex();
            }
        }
        None
    }
}

/// `[vcpu 0 ]reason NAME[ FLAGS] rip 0x… info1 0x… info2 0x… intr_info 0x… error_code 0x…[ requests 0x…]`, or `… info %llx %llx`.
fn exit(mut s: Scan<'_>, strings: &mut Strings, gaps: &mut Gaps) -> Option<Body> {
    let mut vcpu = None;
    if s.key(b"vcpu ").is_some() {
        vcpu = Some(s.dec()? as u32);
    }
    s.key(b"reason ")?;
    let name = s.until(b" rip ")?.trim_ascii();
    let rip = s.hex()?;
    let (mut info1, mut info2, mut intr_info, mut error_code, mut requests) = (None, None, None, None, None);
    if s.key(b"info1 ").is_some() {
        info1 = Some(s.hex()?);
        s.key(b"info2 ")?;
        info2 = Some(s.hex()?);
        if s.key(b"intr_info ").is_some() {
            intr_info = Some(s.hex()? as u32);
            s.key(b"error_code ")?;
            error_code = Some(s.hex()? as u32);
        }
        if s.key(b"requests ").is_some() {
            requests = Some(s.hex()?);
        }
    } else if s.key(b"info ").is_some() {
        info1 = Some(s.hex()?);
        info2 = Some(s.hex()?);
        gaps.exit_vcpu += u64::from(vcpu.is_none());
    }
    let (reason, isa, reason_name) = reason(name, strings);
    Some(Body::Exit { vcpu, reason, reason_name, isa, rip, info1, info2, intr_info, error_code, requests })
}

/// Number, back-end and interned name of a reason text.
fn reason(
    text: &[u8],
    strings: &mut Strings,
) -> (Option<u32>, Option<crate::event::Isa>, crate::event::StrId) {
    let text = String::from_utf8_lossy(text);
    // A flag of VMX may follow the name, which is one word there (an SVM name may be two).
    let (base, failed) = match text.strip_suffix(" FAILED_VMENTRY") {
        Some(base) => (base, 0x8000_0000),
        None => (&*text, 0),
    };
    match exits::by_name(base) {
        Some((n, isa)) => {
            let reason = n | failed;
            let name = strings.exit_name(isa, n);
            (
                Some(reason),
                isa,
                if name == crate::event::StrId::default() && isa.is_some() {
                    strings.intern(base)
                } else {
                    name
                },
            )
        }
        None => (None, None, strings.intern(base)),
    }
}

/// Since 5.10 as kvm_exit; before, `rip: 0x… reason: NAME ext_inf1: 0x… ext_inf2: 0x… …`; the plugin misses fields of the newer event.
fn nested_vmexit(mut s: Scan<'_>) -> Option<Body> {
    let mut vcpu = None;
    if s.key(b"vcpu ").is_some() {
        vcpu = Some(s.dec()? as u32);
    }
    if s.key(b"reason ").is_some() {
        let name = s.until(b" rip ")?.trim_ascii();
        let name = String::from_utf8_lossy(name);
        let found = exits::by_name(name.strip_suffix(" FAILED_VMENTRY").unwrap_or(&name));
        let rip = s.hex();
        let info1 = s.key(b"info1 ").and_then(|()| s.hex());
        let info2 = s.key(b"info2 ").and_then(|()| s.hex());
        return Some(Body::NestedVmexit {
            vcpu,
            reason: found.map(|f| f.0),
            isa: found.and_then(|f| f.1),
            rip,
            info1,
            info2,
        });
    }
    let mut named = Named(s);
    let rip = named.get(b"rip:");
    let info1 = named.get(b"ext_inf1:");
    let info2 = named.get(b"ext_inf2:");
    let mut found = None;
    let mut t = s;
    if t.until(b"reason: ").is_some() {
        let name = t.until(b" ext_inf1").unwrap_or_else(|| t.word());
        found = exits::by_name(&String::from_utf8_lossy(name));
    }
    if rip.is_none() && found.is_none() {
        return None;
    }
    Some(Body::NestedVmexit {
        vcpu,
        reason: found.map(|f| f.0),
        isa: found.and_then(|f| f.1),
        rip,
        info1,
        info2,
    })
}
