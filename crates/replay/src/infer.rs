//! Which layout a trace was written under, concluded from the trace itself.
//!
//! Facts the file carries win (measured masks, then module parameters); then what the values prove; then the release; the rest is
//! assumed. Each step is kept in words.

use mmuscope_spte::{
    Kernel, Known, Layout, LayoutSpec, MaskName, Mode, Provenance, Resolved, State as SpteState, Vendor,
};
use mmuscope_trace::{Body, Isa, RoleWord, Trace};

/// What replay is told about the layout instead of inferring it: whatever is set here is taken as it is.
#[derive(Clone, Debug, Default)]
pub struct LayoutOverride {
    /// Kernel, era, mode, host and masks the user gave; empty to infer everything.
    pub spec: LayoutSpec,
}

/// One part of a layout and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutPart {
    /// What: `family`, `paging mode`, `MMIO value` …
    pub what: String,
    /// Its value in words.
    pub value: String,
    /// Where from, in a word.
    pub from: Provenance,
    /// Where from, in a sentence.
    pub why: String,
}

/// A layout with the origin of each of its parts.
#[derive(Clone, Debug)]
pub struct LayoutInfo {
    /// The layout.
    pub layout: Layout,
    /// The same with the origin of each mask.
    pub resolved: Resolved,
    /// Its parts in words.
    pub parts: Vec<LayoutPart>,
    /// 0 to 1: how much the trace supports it.
    pub confidence: f32,
    /// MMIO values of the trace (or measured masks) confirm how MMIO entries are made here.
    pub mmio_sure: bool,
    /// Names of other layouts that the trace does not rule out.
    pub alternatives: Vec<String>,
    /// The spec it was made from (for `decode --from`).
    pub spec: LayoutSpec,
}

/// What the events of a trace show about the layout.
#[derive(Clone, Debug, Default)]
struct Seen {
    vmx: u32,
    svm: u32,
    pvm: u32,
    /// Values that link tables.
    links: Vec<u64>,
    /// Leaves, with the level.
    leaves: Vec<(u64, u8)>,
    removed: [u32; 4],
    empty_zero: u32,
    empty_63: u32,
    /// MMIO words with frame, generation, access where told.
    mmio: Vec<(u64, Option<u64>, Option<u32>)>,
    direct: u32,
    indirect: u32,
    four_byte: u32,
    top: u8,
    tdp_changes: u32,
    marks: u32,
    /// Faults whose code is that of nested paging, and of EPT.
    npf: u32,
    eptq: u32,
}

/// The constants of removed entries, in the order of `Seen::removed`.
const REMOVED: [u64; 4] = [1 << 59, 0x5a0, 0x8000_0000_0000_05a0, 0x8000_0000_0000_01a0];

impl Seen {
    fn value(&mut self, v: u64, level: u8) {
        if let Some(i) = REMOVED.iter().position(|r| *r == v) {
            self.removed[i] += 1;
        } else if v == 0 {
            self.empty_zero += 1;
        } else if v == 1 << 63 {
            self.empty_63 += 1;
        } else if level > 1 && v & 0x80 == 0 && v & 3 == 3 {
            if self.links.len() < 512 {
                self.links.push(v);
            }
        } else if self.leaves.len() < 2048 {
            self.leaves.push((v, level));
        }
    }

    fn gather(trace: &Trace) -> Self {
        let mut s = Self::default();
        let n = trace.events.len();
        // The first stretch whole, then samples: a boot shows everything early, a flight recorder anywhere.
        let head = n.min(120_000);
        let mut last_tdp: rustc_hash::FxHashMap<u32, (u64, u64)> = rustc_hash::FxHashMap::default();
        let mut checked: rustc_hash::FxHashMap<u32, usize> = rustc_hash::FxHashMap::default();
        let mut one = |s: &mut Self, e: &mmuscope_trace::Event| match e.body {
            Body::Exit { isa, .. } => match isa {
                Some(Isa::Vmx) => s.vmx += 1,
                Some(Isa::Svm) => s.svm += 1,
                Some(Isa::Other(_)) => s.pvm += 1,
                None => {}
            },
            Body::TdpSpteChanged { gfn, level, old_spte, new_spte, .. } => {
                s.tdp_changes += 1;
                s.value(old_spte, level);
                s.value(new_spte, level);
                if let Some(t) = e.tid {
                    last_tdp.insert(t, (gfn, new_spte));
                }
            }
            Body::SetSpte { spte, level, .. } => s.value(spte, level),
            Body::PageFault { encoding: mmuscope_trace::ErrorEncoding::NestedPageFault, .. } => s.npf += 1,
            Body::PageFault { encoding: mmuscope_trace::ErrorEncoding::EptQualification, .. } => s.eptq += 1,
            Body::FastPageFault { old_spte, new_spte, .. } => {
                for v in [old_spte, new_spte] {
                    if v == 0 {
                        s.empty_zero += 1;
                    } else if v == 1 << 63 {
                        s.empty_63 += 1;
                    }
                }
            }
            Body::MarkMmioSpte { gfn, generation, .. } => {
                s.marks += 1;
                if let Some((g, v)) = e.tid.and_then(|t| last_tdp.get(&t)).copied()
                    && g == gfn
                    && s.mmio.len() < 256
                {
                    s.mmio.push((v, Some(gfn), Some(generation)));
                }
            }
            Body::CheckMmioSpte { spte, spte_gen, .. } if s.mmio.len() < 256 => {
                // The fault that is handled next by this thread tells the frame.
                if let Some(t) = e.tid {
                    checked.insert(t, s.mmio.len());
                }
                s.mmio.push((spte, None, Some(spte_gen)));
            }
            Body::HandleMmioPageFault { gfn, .. } => {
                if let Some(m) = e.tid.and_then(|t| checked.remove(&t)).and_then(|i| s.mmio.get_mut(i)) {
                    m.1 = Some(gfn);
                }
            }
            Body::GetPage { page, .. } | Body::PrepareZapPage { page } => {
                if page.role.direct {
                    s.direct += 1;
                } else {
                    s.indirect += 1;
                    if page.role.gpte_bytes == Some(4) {
                        s.four_byte += 1;
                    }
                }
                s.top = s.top.max(page.role.level);
            }
            _ => {}
        };
        for e in trace.events.range(0..head) {
            one(&mut s, &e);
        }
        if n > head {
            let step = ((n - head) / 64).max(512);
            let mut at = head;
            while at < n {
                for e in trace.events.range(at..(at + 512).min(n)) {
                    one(&mut s, &e);
                }
                at += step;
            }
        }
        s
    }

    /// EPT entries have the memory type where the legacy format has nothing.
    fn ept_values(&self) -> Option<bool> {
        if let Some(v) = self.links.first() {
            return Some(v & 0x20 == 0);
        }
        let ept = self.leaves.iter().filter(|(v, _)| v & 0x10 != 0 && v & 7 != 6).count();
        let legacy = self.leaves.iter().filter(|(v, _)| v & 0x38 == 0x20 && v & 1 != 0).count();
        match (ept, legacy) {
            (0, 0) => None,
            (e, l) => Some(e > l),
        }
    }
}

struct Parts(Vec<LayoutPart>);
impl Parts {
    fn add(&mut self, what: &str, value: impl Into<String>, from: Provenance, why: impl Into<String>) {
        self.0.push(LayoutPart { what: what.to_owned(), value: value.into(), from, why: why.into() });
    }
}

/// Finds the layout of a trace.
pub(crate) fn infer(trace: &Trace, over: &LayoutOverride) -> LayoutInfo {
    let seen = Seen::gather(trace);
    let mut parts = Parts(Vec::new());
    let mut spec = over.spec.clone();
    let host = &trace.info.host;
    for (name, value) in &host.masks {
        if let Some(m) = MaskName::parse(name)
            && spec.masks.iter().any(|(x, _)| *x == m)
        {
            continue;
        }
        if spec.set_variable(name, *value, Provenance::Measured) {
            parts.add(
                name,
                format!("{value:#x}"),
                Provenance::Measured,
                "read from the kernel of the recording host",
            );
        }
    }
    let kernel = host.os_release.as_deref().and_then(Kernel::parse);
    if spec.kernel.is_none()
        && let Some(k) = kernel
    {
        spec.kernel = Some(Known { value: k, from: Provenance::Inferred });
        parts.add(
            "kernel",
            host.os_release.clone().unwrap_or_default(),
            Provenance::Measured,
            "the recording host's release, as the file tells it",
        );
    }
    let param = |name: &str| {
        host.params
            .iter()
            .find(|(k, _)| k.as_str() == name || k.rsplit(['.', '/']).next() == Some(name))
            .map(|(_, v)| matches!(v.trim(), "Y" | "y" | "1"))
    };
    if spec.host.mmio_caching.is_none()
        && let Some(on) = param("mmio_caching")
    {
        spec.host.mmio_caching = Some(Known::measured(on));
        parts.add(
            "MMIO caching",
            if on { "on" } else { "off" },
            Provenance::Measured,
            "module parameter kvm.mmio_caching",
        );
    }
    if spec.host.vendor.is_none() {
        let v = match host.vendor {
            Some(mmuscope_trace::Vendor::Intel) => {
                Some((Vendor::Intel, Provenance::Measured, "CPU vendor in the trace"))
            }
            Some(mmuscope_trace::Vendor::Amd) => {
                Some((Vendor::Amd, Provenance::Measured, "CPU vendor in the trace"))
            }
            _ if seen.svm > 0 => {
                Some((Vendor::Amd, Provenance::Inferred, "kvm_exit reasons are those of SVM"))
            }
            _ if seen.vmx > 0 => {
                Some((Vendor::Intel, Provenance::Inferred, "kvm_exit reasons are those of VMX"))
            }
            _ => None,
        };
        if let Some((v, from, why)) = v {
            spec.host.vendor = Some(Known { value: v, from });
            parts.add("vendor", v.name(), from, why);
        }
    }
    if spec.mode.is_none() {
        let (mode, from, why) = mode_of(&seen, &param);
        spec.mode = Some(Known { value: mode, from });
        parts.add("paging mode", mode.words(), from, why);
    } else if let Some(m) = spec.mode {
        parts.add("paging mode", m.value.words(), m.from, "given");
    }
    let mut confidence: f32 = 0.6;
    let mut alternatives = Vec::new();
    if over.spec.era.is_none() && over.spec.kernel.is_none() && over.spec.file.is_none() {
        let by_value = family_of(&seen, trace, spec.mode.map_or(Mode::Ept, |m| m.value));
        let by_release = spec.resolve().ok().and_then(|r| r.era).map(|e| e.value);
        match (by_value, by_release.filter(|_| kernel.is_some())) {
            (Some((eras, why)), Some(rel)) if eras.contains(&rel) => {
                confidence = 0.98;
                parts.add("era", rel, Provenance::Inferred, format!("{why}; the release agrees"));
            }
            (Some((eras, why)), rel) => {
                let era = eras.last().copied().unwrap_or("E11");
                let read_as = |era: &str| {
                    let era = Some(Known::inferred(era.to_owned()));
                    LayoutSpec { era, ..spec.clone() }.resolve().ok().map(|r| r.layout)
                };
                let taken = read_as(era);
                let alike = eras
                    .iter()
                    .all(|e| read_as(e).zip(taken).is_some_and(|(l, t)| Layout { name: t.name, ..l } == t));
                // Where eras fit equally well, the one that is taken is as likely as the others.
                confidence = match (rel, eras.len()) {
                    (Some(_), _) => 0.7,
                    (None, 1) => 0.9,
                    (None, _) if alike => 0.9,
                    (None, n) => 1.0 / n as f32,
                };
                let mut why = why;
                if let Some(r) = rel {
                    why.push_str(&format!("; the release says {r}, but values count more (backports)"));
                }
                if eras.len() > 1 {
                    let fit = if eras.len() == 2 { "both fit" } else { "all fit" };
                    let read = if alike {
                        "they read values alike".to_owned()
                    } else {
                        format!("what differs is read as in {era}")
                    };
                    why.push_str(&format!("; {fit} equally, and {read}"));
                }
                spec.era = Some(Known::inferred(era.to_owned()));
                let mut names = eras.clone();
                names.sort_unstable();
                parts.add("era", names.join(" or "), Provenance::Inferred, why);
                alternatives.extend(
                    eras.iter()
                        .rev()
                        .skip(1)
                        .map(|e| format!("{e}/{}", spec.mode.map_or("", |m| m.value.name()))),
                );
            }
            (None, Some(rel)) => {
                parts.add("era", rel, Provenance::Inferred, "release string; no value in the trace decides")
            }
            (None, None) => {
                confidence = 0.2;
                spec.era = Some(Known::assumed("E11".to_owned()));
                parts.add("era", "E11", Provenance::Assumed, "nothing in the trace decides");
            }
        }
    }
    let measured = host.masks.keys().any(|k| k == "shadow_mmio_value");
    let mmio_sure = fit_mmio(&seen, &mut spec, &mut parts) || measured;
    let resolved = spec.resolve().or_else(|_| {
        confidence = 0.0;
        LayoutSpec {
            mode: Some(Known::assumed(Mode::Ept)),
            era: Some(Known::assumed("E11".to_owned())),
            ..LayoutSpec::default()
        }
        .resolve()
    });
    let resolved = match resolved {
        Ok(r) => r,
        // The shipped files always resolve; a test of the spte crate holds that.
        Err(e) => unreachable_layout(&e),
    };
    for note in &resolved.notes {
        parts.add("note", note.clone(), Provenance::Assumed, "from the layout file");
    }
    LayoutInfo {
        layout: resolved.layout,
        resolved,
        parts: parts.0,
        confidence,
        mmio_sure,
        alternatives,
        spec,
    }
}

#[cold]
fn unreachable_layout(e: &mmuscope_spte::Error) -> ! {
    unreachable!("the shipped layout E11/ept does not resolve: {e}")
}

fn mode_of(seen: &Seen, param: &impl Fn(&str) -> Option<bool>) -> (Mode, Provenance, String) {
    let ept = seen.ept_values();
    let no_ad = |seen: &Seen| {
        // The A/D type "disabled": bit 52 (C, D) or bit 60 (E) of every entry; families A and B cannot be told so.
        let n = seen
            .links
            .iter()
            .filter(|v| *v & 0x100 == 0 && (*v >> 52 & 3 == 1 || *v >> 60 & 3 == 1 || *v >> 62 & 1 == 1))
            .count();
        let leaves: Vec<u64> = seen.leaves.iter().map(|l| l.0).filter(|v| *v & 0x30 == 0x30).collect();
        let m = leaves.iter().filter(|v| *v >> 52 & 3 == 1 || *v >> 60 & 3 == 1).count();
        n * 2 > seen.links.len() || (seen.links.is_empty() && m * 2 > leaves.len() && m > 0)
    };
    let tdp = seen.tdp_changes > 0 || seen.npf > 0 || (seen.direct > 0 && seen.indirect == 0);
    match ept {
        Some(true) => {
            let off = param("eptad").map_or_else(|| no_ad(seen), |on| !on);
            let mode = if off { Mode::EptNoAd } else { Mode::Ept };
            let how = if off { "; their A/D type says disabled" } else { "" };
            (mode, Provenance::Inferred, format!("entries have a memory type and R/W/X as EPT has{how}"))
        }
        Some(false) if tdp && seen.svm > 0 => (
            Mode::Npt,
            Provenance::Inferred,
            "entries in the legacy format, direct tables, SVM exits".to_owned(),
        ),
        Some(false) if tdp => {
            (Mode::Npt, Provenance::Inferred, "entries in the legacy format in direct tables: NPT".to_owned())
        }
        Some(false) if seen.pvm > 0 && seen.vmx == 0 && seen.svm == 0 => {
            (Mode::Pvm, Provenance::Inferred, "exits of the PVM back-end".to_owned())
        }
        Some(false) => {
            let pae = seen.four_byte > 0 || (seen.top > 0 && seen.top < 4);
            let mode = if pae { Mode::ShadowPae } else { Mode::Shadow64 };
            (
                mode,
                Provenance::Inferred,
                "entries in the legacy format in tables that shadow the guest's".to_owned(),
            )
        }
        None if seen.npf > 0 => {
            (Mode::Npt, Provenance::Inferred, "faults carry nested paging's error codes".to_owned())
        }
        None if seen.eptq > 0 => {
            (Mode::Ept, Provenance::Inferred, "faults carry EPT exit qualifications".to_owned())
        }
        None if seen.svm > 0 => {
            (Mode::Npt, Provenance::Assumed, "SVM exits; no entry value decides".to_owned())
        }
        None if seen.vmx > 0 => {
            (Mode::Ept, Provenance::Assumed, "VMX exits; no entry value decides".to_owned())
        }
        None => (Mode::Ept, Provenance::Assumed, "nothing in the trace decides".to_owned()),
    }
}

/// The eras that the values allow, oldest first, and what proves it.
fn family_of(seen: &Seen, trace: &Trace, mode: Mode) -> Option<(Vec<&'static str>, String)> {
    let ept = mode.format() == mmuscope_spte::Format::Ept;
    let dialect = trace.info.dialect.role.as_ref().map(|r| r.value);
    if seen.removed[3] > 0 {
        return Some((vec!["E14"], "removed entries are 0x80000000000001a0".into()));
    }
    if dialect == Some(RoleWord::AccessRead) {
        return Some((vec!["E14"], "roles have four access bits".into()));
    }
    if ept && seen.links.iter().any(|v| v >> 10 & 3 == 3) {
        return Some((
            vec!["E14"],
            "table links carry user-execute (bit 10) beside MMU-present (bit 11)".into(),
        ));
    }
    if seen.removed[2] > 0 {
        return Some((vec!["E12", "E13"], "removed entries are 0x80000000000005a0".into()));
    }
    if seen.empty_63 > 0 {
        return Some((vec!["E12", "E13"], "empty entries are 0x8000000000000000".into()));
    }
    if seen.removed[1] > 0 {
        return Some((vec!["E10", "E11"], "removed entries are 0x5a0".into()));
    }
    if seen.removed[0] > 0 {
        return Some((vec!["E09"], "removed entries are 1<<59".into()));
    }
    if let Some(v) = seen.links.first() {
        return Some(if v >> 11 & 1 == 1 {
            if ept && v >> 63 == 1 {
                (
                    vec!["E12", "E13"],
                    "table links carry MMU-present (bit 11) and suppress-#VE (bit 63)".into(),
                )
            } else if seen.empty_zero > 0 || dialect != Some(RoleWord::Has4ByteGpte) {
                (vec!["E10", "E11"], "table links carry MMU-present (bit 11), empty entries are 0".into())
            } else {
                (vec!["E10", "E11", "E12", "E13"], "table links carry MMU-present (bit 11)".into())
            }
        } else {
            (vec!["E08"], "table links do not carry MMU-present (bit 11)".into())
        });
    }
    let writable: Vec<u64> = seen.leaves.iter().map(|l| l.0).filter(|v| v & 3 == 3).collect();
    if writable.is_empty() {
        return None;
    }
    let all = |mask: u64| writable.iter().filter(|v| *v & mask == mask).count() * 10 > writable.len() * 9;
    if ept {
        if all(1 << 63 | 1 << 53 | 1 << 55) {
            Some((vec!["E14"], "writable leaves have host- and MMU-writable in bits 53 and 55".into()))
        } else if all(1 << 63 | 1 << 57 | 1 << 58) {
            Some((
                vec!["E12", "E13"],
                "writable leaves have host- and MMU-writable in bits 57 and 58, and suppress-#VE".into(),
            ))
        } else if all(1 << 57 | 1 << 58) {
            Some((vec!["E10", "E11"], "writable leaves have host- and MMU-writable in bits 57 and 58".into()))
        } else {
            Some((
                vec!["E04", "E05", "E06", "E07", "E08"],
                "writable leaves have host- and MMU-writable in bits 10 and 11".into(),
            ))
        }
    } else if all(0xe00) {
        let eras = match dialect {
            Some(RoleWord::GpteIs8Bytes) => vec!["E10"],
            _ => vec!["E10", "E12", "E13", "E11"],
        };
        Some((
            eras,
            "writable leaves have bits 9, 10 and 11: host-writable, MMU-writable, MMU-present".into(),
        ))
    } else {
        Some((
            vec!["E04", "E05", "E06", "E07", "E08"],
            "writable leaves have host- and MMU-writable in bits 10 and 11, nothing in bit 9".into(),
        ))
    }
}

/// Host facts that the MMIO words show: the L1TF split, reserved bits of another width.
fn fit_mmio(seen: &Seen, spec: &mut LayoutSpec, parts: &mut Parts) -> bool {
    let Ok(r) = spec.resolve() else { return false };
    let score = |l: &Layout| {
        seen.mmio
            .iter()
            .filter(|(v, gfn, generation)| {
                l.state(*v, 1) == SpteState::Mmio && {
                    let d = l.decode(*v, 1);
                    gfn.is_none_or(|g| d.gfn == Some(g))
                        && generation.is_none_or(|g| d.mmio_generation == Some(g))
                }
            })
            .count()
    };
    if seen.mmio.is_empty() {
        return false;
    }
    let base = score(&r.layout);
    if base == seen.mmio.len() {
        parts.add(
            "MMIO words",
            "agree",
            Provenance::Inferred,
            format!("{base} MMIO entries decode to the frames and generations that events named"),
        );
        return seen.mmio.iter().any(|m| m.1.is_some());
    }
    let mut best = (base, None::<(LayoutSpec, String)>);
    let mut consider = |s: LayoutSpec, why: String| {
        if let Ok(r) = s.resolve() {
            let n = score(&r.layout);
            if n > best.0 {
                best = (n, Some((s, why)));
            }
        }
    };
    if spec.host.l1tf.is_none_or(|k| k.from < Provenance::Given) {
        for bits in 36..=46u8 {
            let mut s = spec.clone();
            s.host.l1tf = Some(Known::inferred(true));
            s.host.cache_bits = Some(Known::inferred(bits));
            consider(
                s,
                format!(
                    "the CPU has the L1TF bug and {bits} address bits in its cache: MMIO frames are split so"
                ),
            );
        }
    }
    // The value itself, from what frame, generation and access leave over.
    for bits in (40..=52u8).rev() {
        let mut s = spec.clone();
        let rsvd = if bits >= 52 { 0 } else { ((1u64 << 52) - 1) & !((1u64 << bits) - 1) };
        let old = s.masks.len();
        let three = r.layout.masks.mmio_value & (3 << 52);
        for m in [MaskName::MmioValue, MaskName::VmMmioValue, MaskName::Mmio] {
            s.masks.push((m, Known::inferred(rsvd | 1 | three)));
        }
        if s.masks.len() > old {
            consider(s, format!("MMIO words have the reserved bits {bits}..51 set"));
        }
    }
    if let (n, Some((s, why))) = best {
        *spec = s;
        parts.add("MMIO words", format!("{n} of {} agree", seen.mmio.len()), Provenance::Inferred, why);
        n == seen.mmio.len() && seen.mmio.iter().any(|m| m.1.is_some())
    } else {
        parts.add(
            "MMIO words",
            format!("{base} of {} agree", seen.mmio.len()),
            Provenance::Assumed,
            "no host width tried makes the others decode to what events named",
        );
        false
    }
}
