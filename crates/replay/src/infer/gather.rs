//! What the events of a trace and the facts of its host say about the layout: the evidence that the judge of the `spte` crate weighs.

use std::sync::Arc;

use mmuscope_spte::bugs::Trait;
use mmuscope_spte::clues::Clues;
use mmuscope_spte::infer::{Claim, Evidence, Fact, Letters, Modes, Role, Value};
use mmuscope_spte::{Distro, Kernel, Mode, Vendor};
use mmuscope_trace::snapshot::{Mmu, Piece, Table};
use mmuscope_trace::{Body, Event, HostFacts, Isa, RoleWord, Trace};
use rustc_hash::FxHashMap;

use super::loops::Loops;

/// The evidence of a trace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gathered {
    /// What the judge weighs. Values that differ in their frame only are one.
    pub evidence: Evidence,
    /// MMIO words, with frame and generation where events name them.
    pub(crate) mmio: Vec<(u64, Option<u64>, Option<u32>)>,
    /// What the events show of known bugs.
    pub traits: Vec<Trait>,
    /// What the file says of the host.
    pub(crate) host: HostFacts,
}

/// Distinct values that are judged; there are seldom a hundred.
const MOST_VALUES: usize = 400;

/// MMIO words that are judged; all of them are compared afterwards.
const MOST_MMIO: usize = 24;

/// MMIO words that are kept.
const MOST_MMIO_KEPT: usize = 256;

/// Events at the beginning that are all looked at.
const HEAD: usize = 120_000;

/// Events of a sample after that.
const WINDOW: usize = 512;

/// Samples lie apart by this part of how far they are behind the first stretch.
const SAMPLES: usize = 32;

/// What the events show, counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Events that need not be looked at again.
    upto: usize,
    /// The events that are looked at now, or next.
    window: std::ops::Range<usize>,
    values: Vec<(Value, u32)>,
    by_shape: FxHashMap<(u64, u8, Option<u8>), usize>,
    mmio: Vec<(u64, Option<u64>, Option<u32>)>,
    last_tdp: FxHashMap<u32, (u64, u64)>,
    checked: FxHashMap<u32, usize>,
    exits: [u32; 3],
    misconfig: u32,
    npf: u32,
    eptq: u32,
    page_faults: u32,
    tdp_changes: u32,
    tdp_tables: u32,
    direct: u32,
    indirect: u32,
    nested: u32,
    mirror: u32,
    four_byte: u32,
    top: u8,
    /// Clues to the release that events or their fields are.
    clues: Vec<&'static str>,
    loops: Loops,
}

/// Events, and fields of theirs, that only some releases have: names of `layouts/clues.toml` of the `spte` crate.
fn clue_of(body: &Body) -> Option<&'static str> {
    Some(match body {
        Body::PageFault { vcpu: Some(_), rip: Some(_), .. } => "page-fault-long",
        Body::PageFault { vcpu: None, rip: None, .. } => "page-fault-short",
        Body::Exit { requests: Some(_), .. } => "exit-requests",
        Body::Exit { intr_info: Some(_), error_code: Some(_), .. } => "exit-intr-info",
        Body::Entry { intr_info: Some(_), .. } => "entry-intr-info",
        Body::Entry { rip: Some(_), .. } => "entry-rip",
        Body::TdpSpteChanged { .. } => "tdp-spte-changed",
        Body::SplitHugePage { .. } => "split-huge-page",
        Body::SpteRequested { access: Some(_), .. } => "spte-requested-access",
        Body::UnmapHvaRange { .. } => "unmap-hva-range",
        Body::SetSpteHva { .. } => "set-spte-hva",
        Body::AgePage { .. } => "age-page",
        Body::RmpFault { .. } => "rmp-fault",
        Body::SetMemAttributes { .. } => "set-mem-attributes",
        _ => return None,
    })
}

/// Bits that tell values apart for the judge: all but a frame number below 2^34, of which the alignment counts.
fn shape(raw: u64, level: u8) -> u64 {
    let frame = 0x0000_3fff_ffff_f000;
    let aligned = raw & (1u64 << (12 + 9 * (u32::from(level.clamp(1, 4)) - 1))).wrapping_sub(1) & frame == 0;
    // Bit 12 is free in the result: it shows whether there is a frame and whether it is aligned.
    raw & !frame | u64::from(raw & frame != 0) << 13 | u64::from(aligned) << 12
}

impl Seen {
    fn value(&mut self, value: Value) {
        let role = match value.role {
            Role::Installed => 1,
            Role::Leaf => 2,
            _ => 0,
        };
        let key = (shape(value.raw, value.level.unwrap_or(1)), role, value.level);
        if let Some(&at) = self.by_shape.get(&key) {
            self.values[at].1 += 1;
        } else if self.values.len() < MOST_VALUES {
            self.by_shape.insert(key, self.values.len());
            self.values.push((value, 1));
        }
    }

    fn event(&mut self, e: &Event, read: &[Arc<Piece>]) {
        self.loops.event(e);
        if let Some(clue) = clue_of(&e.body)
            && !self.clues.contains(&clue)
        {
            self.clues.push(clue);
        }
        match e.body {
            Body::Snapshot { index } => {
                if let Some(Piece::Table(t)) = read.get(index as usize).map(|p| &**p) {
                    self.table(t);
                }
            }
            Body::Exit { isa, reason, .. } => {
                match isa {
                    Some(Isa::Vmx) => self.exits[0] += 1,
                    Some(Isa::Svm) => self.exits[1] += 1,
                    Some(Isa::Other(_)) => self.exits[2] += 1,
                    None => {}
                }
                self.misconfig += u32::from(isa == Some(Isa::Vmx) && reason == Some(49));
            }
            Body::PageFault { encoding, .. } => {
                use mmuscope_trace::ErrorEncoding as Code;
                match encoding {
                    Code::NestedPageFault => self.npf += 1,
                    Code::EptQualification => self.eptq += 1,
                    Code::PageFault => self.page_faults += 1,
                    Code::Ambiguous => {}
                }
            }
            Body::GetPage { page, .. } | Body::PrepareZapPage { page } => self.page(&page.role),
            _ => self.entry(e),
        }
    }

    fn page(&mut self, role: &mmuscope_trace::Role) {
        if role.direct {
            self.direct += 1;
        } else {
            self.indirect += 1;
            self.four_byte += u32::from(role.gpte_bytes == Some(4));
        }
        self.nested += u32::from(role.guest_mode == Some(true));
        self.mirror += u32::from(role.mirror == Some(true));
        self.top = self.top.max(role.level);
    }

    /// A table that the recorder read in the kernel's memory.
    fn table(&mut self, t: &Table) {
        match (t.mmu, t.direct) {
            (Mmu::Tdp, _) => self.tdp_tables += 1,
            // The direct MMU has such pages, and shadow paging while the guest has paging off.
            (Mmu::Shadow, true) => {}
            (Mmu::Shadow, false) => self.indirect += 1,
        }
        self.nested += u32::from(t.guest_mode && t.mmu == Mmu::Shadow);
        self.mirror += u32::from(t.mirror);
        self.top = self.top.max(t.level);
    }

    /// Events that name an entry.
    fn entry(&mut self, e: &Event) {
        match e.body.as_traced() {
            Body::TdpSpteChanged { gfn, level, old_spte, new_spte, .. } => {
                self.tdp_changes += 1;
                self.value(Value::at(old_spte, level));
                self.value(Value::at(new_spte, level));
                if let Some(t) = e.tid {
                    self.last_tdp.insert(t, (gfn, new_spte));
                }
            }
            Body::SetSpte { spte, level, r, w, x, u, .. } => {
                let letters = Some(Letters { r, w, x, u });
                self.value(Value { role: Role::Installed, letters, ..Value::at(spte, level) });
            }
            Body::SplitHugePage { spte, level, .. } => {
                self.value(Value { role: Role::Leaf, ..Value::at(spte, level) });
            }
            Body::FastPageFault { old_spte, new_spte, .. } => {
                // A walk that found nothing prints zero in every kernel.
                for raw in [old_spte, new_spte].into_iter().filter(|&v| v != 0) {
                    self.value(Value::bare(raw));
                }
            }
            Body::MarkMmioSpte { gfn, generation, .. } => {
                if let Some((g, v)) = e.tid.and_then(|t| self.last_tdp.get(&t)).copied()
                    && g == gfn
                    && self.mmio.len() < MOST_MMIO_KEPT
                {
                    self.mmio.push((v, Some(gfn), Some(generation)));
                }
            }
            Body::CheckMmioSpte { spte, spte_gen, .. } if self.mmio.len() < MOST_MMIO_KEPT => {
                // The fault that is handled next by this thread names the frame.
                if let Some(t) = e.tid {
                    self.checked.insert(t, self.mmio.len());
                }
                self.mmio.push((spte, None, Some(spte_gen)));
            }
            Body::HandleMmioPageFault { gfn, .. } => {
                if let Some(m) =
                    e.tid.and_then(|t| self.checked.remove(&t)).and_then(|i| self.mmio.get_mut(i))
                {
                    m.1 = Some(gfn);
                }
            }
            _ => {}
        }
    }

    /// Takes in the events that were appended since: the first stretch whole, then samples, ever further apart, since a boot shows everything
    /// early and a flight recorder anywhere. Which events are sampled depends on where they are and not on how many there are.
    pub(super) fn take_in(&mut self, trace: &Trace) {
        let n = trace.events.len();
        while self.upto < n {
            if self.upto == self.window.end {
                // The first window is the whole head.
                let start = self.upto + self.upto.saturating_sub(HEAD) / SAMPLES;
                self.window = start..start + if start == 0 { HEAD } else { WINDOW };
            }
            let to = self.window.end.min(n);
            for e in trace.events.range(self.upto.max(self.window.start).min(to)..to) {
                self.event(&e, &trace.info.snapshots);
            }
            self.upto = to;
        }
    }

    /// What they show, with what the file says of its host.
    pub(super) fn gathered(&self, trace: &Trace) -> Gathered {
        let mut evidence = Evidence::default();
        self.values(&mut evidence);
        self.modes(&mut evidence);
        // A test of the spte crate holds that the file reads.
        if let Ok(clues) = Clues::known() {
            for clue in &self.clues {
                clues.tell(&mut evidence, clue, Fact::WORDING);
            }
            type_information(trace, &clues, &mut evidence);
        }
        host(trace, &mut evidence);
        let mut traits = self.loops.traits();
        if self.npf + self.eptq > 0 {
            traits.push(Trait::TdpFault);
        }
        if self.top == 4 {
            traits.push(Trait::FourLevelRoot);
        }
        Gathered { evidence, mmio: self.mmio.clone(), traits, host: trace.info.host.clone() }
    }

    fn values(&self, evidence: &mut Evidence) {
        let often = |count: u32| match count {
            0..4 => 0,
            4..32 => 1,
            32..512 => 2,
            _ => 3,
        };
        evidence.values.extend(self.values.iter().map(|&(v, count)| Value { often: often(count), ..v }));
        let mut taken: Vec<(u64, Option<u64>, Option<u32>)> = Vec::new();
        // Those with a frame first: they tell most.
        for told in [true, false] {
            for &m in self.mmio.iter().filter(|m| m.1.is_some() == told) {
                if taken.len() < MOST_MMIO && !taken.iter().any(|t| t.0 == m.0) {
                    taken.push(m);
                }
            }
        }
        evidence.values.extend(taken.into_iter().map(|(raw, gfn, generation)| Value {
            role: Role::Mmio { gfn, generation },
            ..Value::bare(raw)
        }));
    }

    /// What exits, faults and shadow pages say of the paging mode.
    fn modes(&self, evidence: &mut Evidence) {
        let mut fact = |modes, points, why: &str| evidence.fact(Claim::Modes(modes), points, why);
        let [vmx, svm, other] = self.exits;
        match (vmx > 0, svm > 0, other > 0) {
            (true, false, _) => {
                fact(Modes::vendor(Vendor::Intel), Fact::EVENTS, "kvm_exit reasons are those of VMX");
            }
            (false, true, _) => {
                fact(Modes::vendor(Vendor::Amd), Fact::EVENTS, "kvm_exit reasons are those of SVM");
            }
            (false, false, true) => {
                fact(Modes::of(&[Mode::Pvm]), Fact::EVENTS, "exits are of the PVM back-end")
            }
            _ => {}
        }
        if self.eptq + self.misconfig > 0 {
            fact(Modes::ept(), Fact::EVENTS, "EPT violations or misconfigurations");
        }
        if self.npf > 0 {
            let npt = Modes::of(&[Mode::Npt, Mode::NestedNpt]);
            fact(npt, Fact::EVENTS, "faults carry nested paging's error codes");
        }
        let tdp = self.tdp_changes + self.tdp_tables + self.npf + self.eptq + self.misconfig > 0;
        if tdp || self.direct > 0 && self.indirect == 0 && self.page_faults == 0 {
            fact(
                Modes::tdp(),
                Fact::EVENTS,
                "direct tables, which the CPU walks for guest-physical addresses",
            );
        } else if self.page_faults > 0 || self.indirect > 0 {
            let shadow = Modes::of(&[Mode::Shadow64, Mode::ShadowPae, Mode::Pvm]);
            let why = if self.indirect > 0 {
                "tables that shadow the guest's"
            } else {
                "#PF exits and no EPT violation or nested page fault: shadow paging"
            };
            fact(shadow, Fact::EVENTS, why);
            if self.four_byte > 0 {
                let pae = Modes::that(|m| m != Mode::Shadow64);
                fact(pae, Fact::WORDING, "guest tables with entries of 4 bytes are shadowed in PAE format");
            } else if self.top >= 4 {
                let long = Modes::that(|m| m != Mode::ShadowPae);
                fact(long, Fact::WORDING, "shadow pages of level 4 and above");
            } else if self.top >= 2 {
                fact(Modes::that(|m| m != Mode::Shadow64), 20, "no shadow page above level 3");
            }
        }
        if self.mirror > 0 {
            let tdx = Modes::of(&[Mode::TdxShared, Mode::TdxMirror]);
            fact(tdx, Fact::EVENTS, "mirror pages of a TDX guest");
        }
        if self.nested > 0 && self.nested == self.direct + self.indirect {
            fact(Modes::that(Mode::is_nested), Fact::EVENTS, "all shadow pages are of a nested guest");
        }
    }
}

/// What the file says of the host beside the events.
fn host(trace: &Trace, evidence: &mut Evidence) {
    let host = &trace.info.host;
    if let Some(kernel) = host.os_release.as_deref().and_then(Kernel::parse) {
        evidence.fact(
            Claim::Kernel(kernel),
            release_points(&kernel),
            format!("the recording host's release is {kernel}"),
        );
    }
    let param = |name: &str| {
        let found = host.params.iter().find(|(k, _)| k.rsplit(['.', '/']).next() == Some(name));
        found.map(|(_, on)| matches!(on.trim(), "Y" | "y" | "1"))
    };
    for (name, module) in [("npt", "kvm_amd"), ("ept", "kvm_intel")] {
        let shadow = |m| matches!(m, Mode::Shadow64 | Mode::ShadowPae);
        if let Some(on) = param(name) {
            let why = format!("module parameter {module}.{name} is {}", if on { "Y" } else { "N" });
            evidence.fact(Claim::Modes(Modes::that(|m| shadow(m) != on)), Fact::HOST, why);
        }
    }
    if let Some(on) = param("eptad") {
        let other = if on { Mode::EptNoAd } else { Mode::Ept };
        let why = format!("module parameter kvm_intel.eptad is {}", if on { "Y" } else { "N" });
        evidence.fact(Claim::Modes(Modes::that(|m| m != other)), Fact::HOST, why);
    }
}

/// Fields of the role word by their BTF, `level:0:4 has_4_byte_gpte:4:1 …`, and the clue each is.
const FIELDS: [(&str, &str); 6] = [
    ("cr4_pae:", "role-cr4-pae"),
    ("gpte_is_8_bytes:", "role-gpte-is-8-bytes"),
    ("has_4_byte_gpte:", "role-has-4-byte-gpte"),
    ("passthrough:", "role-passthrough"),
    ("is_mirror:", "role-mirror"),
    ("access:8:3", "role-three-access-bits"),
];

/// What print formats and the kernel's BTF say of the role word and of RET_PF_*.
fn type_information(trace: &Trace, clues: &Clues, evidence: &mut Evidence) {
    let mut told: Vec<&str> = Vec::new();
    if let Some(word) = &trace.info.dialect.role {
        told.extend(match word.value {
            RoleWord::Cr4Pae => &["role-cr4-pae"][..],
            RoleWord::GpteIs8Bytes => &["role-gpte-is-8-bytes"],
            RoleWord::Has4ByteGpte => &["role-has-4-byte-gpte", "role-three-access-bits"],
            RoleWord::AccessRead => &["role-four-access-bits"],
        });
    }
    let fact =
        |key: &str| trace.info.host.facts.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v.as_str());
    let role = fact("btf.role");
    let has = |name: &str| role.split_whitespace().any(|f| f.starts_with(name));
    told.extend(FIELDS.iter().filter(|(name, _)| has(name)).map(|(_, clue)| *clue));
    told.extend(has("access:8:4").then_some("role-four-access-bits"));
    // `RET_PF_CONTINUE=0 RET_PF_RETRY=1 …`
    let numbers = fact("btf.ret_pf");
    let is = |number: &str| numbers.split_whitespace().any(|n| n == number);
    if numbers.contains("RET_PF_WRITE_PROTECTED") {
        told.push("ret-pf-write-protected");
    } else if is("RET_PF_RETRY=1") && is("RET_PF_INVALID=3") {
        told.push("ret-pf-invalid-3");
    } else if is("RET_PF_RETRY=0") {
        told.push("ret-pf-retry-0");
    }
    for clue in told {
        clues.tell(evidence, clue, Fact::HOST);
    }
}

/// Trees of distributions that carry KVM of later releases say less by their number.
pub fn release_points(kernel: &Kernel) -> i32 {
    match kernel.distro {
        Distro::RedHat { .. } | Distro::Suse => Fact::RELEASE / 2,
        _ => Fact::RELEASE,
    }
}

/// Everything a trace says about its layout.
pub fn evidence(trace: &Trace) -> Gathered {
    let mut seen = Seen::default();
    seen.take_in(trace);
    seen.gathered(trace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mmuscope_spte::LayoutSpec;
    use mmuscope_spte::infer::judge;
    use mmuscope_spte::layouts::Library;

    /// A leaf that reads alike in every era from 5.13 on (NPT), and what the recorder found in BTF.
    fn eras(facts: &[(&str, &str)]) -> Vec<&'static str> {
        let text = "vm-7 [001] 5.2: kvm_mmu_set_spte: gfn 2 spte 7e6fe67 (rwxu) level 1 at 9c16a010\n";
        let mut trace = Trace::from_text(text).expect("a trace");
        trace.info.host.facts = facts.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let gathered = evidence(&trace);
        judge(&LayoutSpec::default(), &gathered.evidence, &Library::new()).expect("shipped files").eras()
    }

    #[test]
    fn type_information_of_the_kernel_tells_the_era() {
        assert_eq!(eras(&[]), ["E10", "E11", "E12", "E13", "E14"]);
        let role = |fields: &str| eras(&[("btf.role", fields)]);
        // 5.15, 6.1, 6.18 and 7.2, as their BTF has them.
        assert_eq!(
            role("level:0:4 gpte_is_8_bytes:4:1 quadrant:5:2 direct:7:1 access:8:3 guest_mode:17:1"),
            ["E10"]
        );
        let six = "level:0:4 has_4_byte_gpte:4:1 direct:7:1 access:8:3 guest_mode:17:1 passthrough:18:1";
        assert_eq!(role(six), ["E11", "E12", "E13"]);
        assert_eq!(role(&format!("{six} is_mirror:19:1")), ["E13"]);
        let seven = "level:0:4 has_4_byte_gpte:4:1 direct:7:1 access:8:4 passthrough:18:1 is_mirror:19:1 cr4_smep:20:1";
        assert_eq!(role(seven), ["E14"]);
        let numbers = |n: &str| eras(&[("btf.ret_pf", n)]);
        assert_eq!(
            numbers("RET_PF_RETRY=0 RET_PF_EMULATE=1 RET_PF_INVALID=2 RET_PF_FIXED=3 RET_PF_SPURIOUS=4"),
            ["E10"]
        );
        assert_eq!(
            numbers("RET_PF_CONTINUE=0 RET_PF_RETRY=1 RET_PF_EMULATE=2 RET_PF_INVALID=3 RET_PF_FIXED=4"),
            ["E10", "E11", "E12"]
        );
        assert_eq!(
            numbers(
                "RET_PF_CONTINUE=0 RET_PF_RETRY=1 RET_PF_EMULATE=2 RET_PF_WRITE_PROTECTED=3 RET_PF_INVALID=4"
            ),
            ["E12", "E13", "E14"]
        );
    }

    #[test]
    fn values_that_differ_in_their_frame_are_one() {
        let mut text = String::new();
        for n in 0..200u64 {
            text += &format!(
                "vm-7 [001] 5.{n:06}: kvm_tdp_mmu_spte_changed: as id 0 gfn {n:x} level 1 old_spte 0 new_spte {:x}\n",
                0x1_2000_0e67 + (n << 12)
            );
        }
        let gathered = evidence(&Trace::from_text(&text).expect("a trace"));
        assert_eq!(gathered.evidence.values.len(), 2, "{:x?}", gathered.evidence.values);
        assert!(gathered.evidence.values.iter().all(|v| v.often == 2));
    }

    /// Beyond the head, where events are sampled, values differ from place to place so that another choice of samples would show.
    #[test]
    fn what_is_taken_in_by_steps_is_what_is_taken_in_at_once() {
        let text = "vm-7 [001] 5.2: kvm_mmu_set_spte: gfn 2 spte 7e6fe67 (rwxu) level 1 at 9c16a010\n";
        let one = Trace::from_text(text).expect("a trace");
        let event = one.events.iter().next().expect("an event");
        let mut trace = Trace::default();
        let mut steps = Seen::default();
        for i in 0..(HEAD + 100 * WINDOW) as u64 {
            let mut e = event;
            if let Body::SetSpte { spte, .. } = &mut e.body {
                *spte = *spte & !0xfff | (((i / 700) % 300) << 2) | 1;
            }
            trace.events.push(&e);
            if i % 911 == 0 {
                steps.take_in(&trace);
            }
        }
        steps.take_in(&trace);
        let gathered = steps.gathered(&trace);
        assert_eq!(gathered, evidence(&trace));
        assert!(gathered.evidence.values.len() > 200, "{}", gathered.evidence.values.len());
    }
}
