//! Which layout a trace was written under, concluded from the trace itself.
//!
//! The judge is the one of the `spte` crate, which `decode` asks, too: this module gathers the evidence (`gather`), holds it against what
//! is measured or given, and keeps in words where each part of the answer comes from.

mod gather;
mod loops;

use mmuscope_spte::infer::{Claim, Judgement, Modes, judge};
use mmuscope_spte::layouts::Library;
use mmuscope_spte::{
    Format, Known, Layout, LayoutSpec, MaskName, Mode, Provenance, Resolved, State as SpteState, Vendor,
};
use mmuscope_trace::Trace;

use gather::Seen;
pub use gather::{Gathered, evidence, release_points};

/// What replay is given about the layout instead of inferring it: whatever is set here is taken as it is.
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

struct Parts(Vec<LayoutPart>);

impl Parts {
    fn add(&mut self, what: &str, value: impl Into<String>, from: Provenance, why: impl Into<String>) {
        self.0.push(LayoutPart { what: what.to_owned(), value: value.into(), from, why: why.into() });
    }
}

/// The layout of a trace that may grow: what its events have shown so far, so that each is looked at once.
#[derive(Clone, Debug)]
pub(crate) struct Inference {
    seen: Seen,
    /// What the present answer was concluded from.
    gathered: Gathered,
}

impl Inference {
    /// Finds the layout of a trace.
    pub(crate) fn new(trace: &Trace, over: &LayoutOverride) -> (Self, LayoutInfo) {
        let mut seen = Seen::default();
        seen.take_in(trace);
        let gathered = seen.gathered(trace);
        let layout = of_gathered(trace, over, &gathered);
        (Self { seen, gathered }, layout)
    }

    /// The layout after events were appended; `None` where they taught nothing new.
    pub(crate) fn grown(&mut self, trace: &Trace, over: &LayoutOverride) -> Option<LayoutInfo> {
        self.seen.take_in(trace);
        let gathered = self.seen.gathered(trace);
        if gathered == self.gathered {
            return None;
        }
        self.gathered = gathered;
        Some(of_gathered(trace, over, &self.gathered))
    }
}

fn of_gathered(trace: &Trace, over: &LayoutOverride, gathered: &Gathered) -> LayoutInfo {
    let mut parts = Parts(Vec::new());
    let mut spec = over.spec.clone();
    known(trace, gathered, &mut spec, &mut parts);
    let library = Library::new();
    // A layout file of the user's is what it says; there is nothing to judge.
    let judged = if spec.file.is_some() { None } else { judge(&spec, &gathered.evidence, &library).ok() };
    let mut confidence = 0.6;
    let mut alternatives = Vec::new();
    let taken = judged.as_ref().and_then(|j| j.best().map(|best| (j, best)));
    if let Some((judgement, best)) = taken {
        mode_part(&spec, gathered, judgement, &mut parts);
        (confidence, alternatives) = era_part(&spec, gathered, judgement, &mut parts);
        spec = best.spec.clone();
    }
    let resolved = spec.resolve_in(&library).or_else(|_| {
        confidence = 0.0;
        LayoutSpec {
            mode: Some(Known::assumed(Mode::Ept)),
            era: Some(Known::assumed("E11".to_owned())),
            ..LayoutSpec::default()
        }
        .resolve_in(&library)
    });
    let resolved = match resolved {
        Ok(r) => r,
        // The shipped files always resolve; a test of the spte crate holds that.
        Err(e) => unreachable_layout(&e),
    };
    let concluded = taken.map_or(&[][..], |(_, best)| &best.concluded);
    let confirmed = mmio_part(&resolved.layout, gathered, concluded, &mut parts);
    let masks = trace.info.host.masks.keys().any(|k| k == "shadow_mmio_value");
    for note in &resolved.notes {
        parts.add("note", note.clone(), Provenance::Assumed, "from the layout file");
    }
    LayoutInfo {
        layout: resolved.layout,
        resolved,
        parts: parts.0,
        confidence,
        mmio_sure: confirmed || masks,
        alternatives,
        spec,
    }
}

#[cold]
fn unreachable_layout(e: &mmuscope_spte::Error) -> ! {
    unreachable!("the shipped layout E11/ept does not resolve: {e}")
}

/// What is known of the host before anything is judged: masks, parameters, release, vendor.
fn known(trace: &Trace, gathered: &Gathered, spec: &mut LayoutSpec, parts: &mut Parts) {
    let host = &trace.info.host;
    for (name, value) in &host.masks {
        if let Some(m) = MaskName::parse(name)
            && spec.masks.iter().any(|(x, _)| *x == m)
        {
            continue;
        }
        if spec.set_variable(name, *value, Provenance::Measured) {
            let why = "read from the kernel of the recording host";
            parts.add(name, format!("{value:#x}"), Provenance::Measured, why);
        }
    }
    if spec.kernel.is_none()
        && let Some(release) = &host.os_release
        && mmuscope_spte::Kernel::parse(release).is_some()
    {
        let why = "the recording host's release, as the file states it";
        parts.add("kernel", release.clone(), Provenance::Measured, why);
    }
    let caching = host
        .params
        .iter()
        .find(|(k, _)| k.as_str() == "mmio_caching" || k.rsplit(['.', '/']).next() == Some("mmio_caching"));
    if let (None, Some((_, value))) = (spec.host.mmio_caching, caching) {
        let on = matches!(value.trim(), "Y" | "y" | "1");
        spec.host.mmio_caching = Some(Known::measured(on));
        let value = if on { "on" } else { "off" };
        parts.add("MMIO caching", value, Provenance::Measured, "module parameter kvm.mmio_caching");
    }
    if spec.host.vendor.is_none() {
        let vendor = match host.vendor {
            Some(mmuscope_trace::Vendor::Intel) => Some(Vendor::Intel),
            Some(mmuscope_trace::Vendor::Amd) => Some(Vendor::Amd),
            _ => None,
        };
        if let Some(vendor) = vendor {
            spec.host.vendor = Some(Known::measured(vendor));
            parts.add("vendor", vendor.name(), Provenance::Measured, "CPU vendor in the trace");
        } else if let Some((vendor, why)) = shown_vendor(gathered) {
            spec.host.vendor = Some(Known::inferred(vendor));
            parts.add("vendor", vendor.name(), Provenance::Inferred, why);
        }
    }
}

/// The vendor that exits show.
fn shown_vendor(gathered: &Gathered) -> Option<(Vendor, String)> {
    [Vendor::Intel, Vendor::Amd].into_iter().find_map(|vendor| {
        let claim = Claim::Modes(Modes::vendor(vendor));
        gathered.evidence.facts.iter().find(|f| f.claim == claim).map(|f| (vendor, f.why.clone()))
    })
}

/// The paging mode, and what shows it.
fn mode_part(spec: &LayoutSpec, gathered: &Gathered, judgement: &Judgement, parts: &mut Parts) {
    let Some(best) = judgement.best() else { return };
    let mode = best.resolved.layout.mode;
    if let Some(m) = spec.mode {
        let why = if m.from == Provenance::Given { "given" } else { "a mask of the recording host shows it" };
        parts.add("paging mode", mode.words(), m.from, why);
        return;
    }
    let mut why = Vec::new();
    let shown = gathered.evidence.values.iter().any(|v| v.raw & !(1 << 63) != 0);
    if shown {
        why.push(match (mode.format(), mode) {
            (_, Mode::EptNoAd | Mode::NestedEptNoAd) => {
                "entries in the EPT format, whose A/D type says disabled".to_owned()
            }
            (Format::Ept, _) => "entries in the EPT format: R/W/X and a memory type".to_owned(),
            (Format::Legacy, _) => "entries in the legacy format".to_owned(),
        });
    }
    for fact in &gathered.evidence.facts {
        if let Claim::Modes(modes) = fact.claim
            && modes.has(mode)
        {
            why.push(fact.why.clone());
        }
    }
    let rivals: Vec<&str> = judgement.rival_modes().into_iter().map(Mode::words).collect();
    if why.is_empty() {
        parts.add("paging mode", mode.words(), Provenance::Assumed, "nothing in the trace decides");
    } else if let Some((last, others)) = rivals.split_last() {
        let (all, fit) = match others {
            [] => ((*last).to_owned(), "fits"),
            _ => (format!("{} and {last}", others.join(", ")), "fit"),
        };
        let why = format!("{}; {all} {fit} as well", why.join("; "));
        parts.add("paging mode", mode.words(), Provenance::Assumed, why);
    } else {
        parts.add("paging mode", mode.words(), Provenance::Inferred, why.join("; "));
    }
}

/// The era, how sure it is, and the names of the others that fit.
fn era_part(
    spec: &LayoutSpec,
    gathered: &Gathered,
    judgement: &Judgement,
    parts: &mut Parts,
) -> (f32, Vec<String>) {
    let Some(best) = judgement.best() else { return (0.6, Vec::new()) };
    if spec.era.is_some() || spec.kernel.is_some() {
        return (0.6, Vec::new());
    }
    let mode = best.resolved.layout.mode;
    let era = best.resolved.era.map_or("", |e| e.value);
    let named = gathered.evidence.kernel().is_some();
    let dated = gathered.evidence.facts.iter().any(|f| matches!(f.claim, Claim::Releases(..)));
    if gathered.evidence.values.is_empty() && !dated {
        if named {
            parts.add("era", era, Provenance::Inferred, "release string; no value in the trace decides");
            return (0.6, Vec::new());
        }
        parts.add("era", era, Provenance::Assumed, "nothing in the trace decides");
        return (0.2, Vec::new());
    }
    let tied = judgement.eras();
    let agrees = best.resolved.kernel.is_some();
    let mut why = judgement.why.era.join("; ");
    if why.is_empty() {
        "what the values hold".clone_into(&mut why);
    }
    if named && agrees {
        parts.add("era", era, Provenance::Inferred, format!("{why}; the release agrees"));
        return (0.98, Vec::new());
    }
    let alike = judgement
        .candidates
        .iter()
        .filter(|c| c.resolved.layout.mode == mode && c.resolved.era.is_some_and(|e| tied.contains(&e.value)))
        .all(|c| Layout { name: best.resolved.layout.name, ..c.resolved.layout } == best.resolved.layout);
    if named {
        why.push_str("; the release says otherwise, but values count more (backports)");
    }
    if tied.len() > 1 {
        let fit = if tied.len() == 2 { "both fit" } else { "all fit" };
        let read = if alike {
            "they read values alike".to_owned()
        } else {
            format!("what differs is read as in {era}")
        };
        why.push_str(&format!("; {fit} equally, and {read}"));
    }
    // Where eras fit equally well, the one that is taken is as likely as the others.
    let confidence = match tied.len() {
        _ if named => 0.7,
        0 | 1 => 0.9,
        _ if alike => 0.9,
        n => 1.0 / n as f32,
    };
    parts.add("era", eras_in_words(&tied), Provenance::Inferred, why);
    let others = tied.iter().rev().filter(|e| **e != era).map(|e| format!("{e}/{}", mode.name())).collect();
    (confidence, others)
}

/// Eras as people read them: `E10 or E11`; more than two that follow each other are a range, `E01 to E05`.
fn eras_in_words(eras: &[&str]) -> String {
    let number = |e: &str| e.strip_prefix('E').and_then(|n| n.parse::<u32>().ok());
    let follow = eras.windows(2).all(|w| number(w[0]).zip(number(w[1])).is_some_and(|(a, b)| b == a + 1));
    match eras {
        [first, _, .., last] if follow => format!("{first} to {last}"),
        _ => eras.join(" or "),
    }
}

/// Whether the MMIO words of the trace decode to what events named.
fn mmio_part(layout: &Layout, gathered: &Gathered, concluded: &[String], parts: &mut Parts) -> bool {
    if gathered.mmio.is_empty() {
        return false;
    }
    let agrees = |(v, gfn, generation): &&(u64, Option<u64>, Option<u32>)| {
        layout.state(*v, 1) == SpteState::Mmio && {
            let d = layout.decode(*v, 1);
            gfn.is_none_or(|g| d.gfn == Some(g)) && generation.is_none_or(|g| d.mmio_generation == Some(g))
        }
    };
    let (agree, all) = (gathered.mmio.iter().filter(agrees).count(), gathered.mmio.len());
    let framed = gathered.mmio.iter().any(|m| m.1.is_some());
    if agree == all && concluded.is_empty() {
        let why = format!("{all} MMIO entries decode to the frames and generations that events named");
        parts.add("MMIO words", "agree", Provenance::Inferred, why);
    } else if !concluded.is_empty() {
        let value = format!("{agree} of {all} agree");
        parts.add("MMIO words", value, Provenance::Inferred, concluded.join("; "));
    } else {
        let why = "no host width tried makes the others decode to what events named";
        parts.add("MMIO words", format!("{agree} of {all} agree"), Provenance::Assumed, why);
    }
    agree == all && framed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(text: &str) -> LayoutPart {
        let trace = Trace::from_text(text).expect("a trace");
        let (_, info) = Inference::new(&trace, &LayoutOverride::default());
        info.parts.into_iter().find(|p| p.what == "paging mode").expect("a paging mode")
    }

    /// A fact is not taken for more than it says: what it leaves open is assumed, and said to be open.
    #[test]
    fn a_paging_mode_is_inferred_only_as_far_as_the_others_are_ruled_out() {
        let violation = "vm-7 [001] 5.1: kvm_exit: reason EPT_VIOLATION rip 0x1000 info 181 0\n\
            vm-7 [001] 5.2: kvm_page_fault: address 2000 error_code 181\n";
        let open = mode_of(violation);
        assert_eq!((open.value.as_str(), open.from), ("EPT with A/D bits", Provenance::Assumed));
        assert!(open.why.ends_with("; EPT without A/D bits fits as well"), "{}", open.why);

        // A direct table is the same to Intel's and AMD's hosts.
        let page = "vm-7 [001] 5.1: kvm_mmu_get_page: sp gen 0 gfn 14b600 l1 8-byte q0 direct wux nxe ad root 0 sync new\n";
        let open = mode_of(page);
        assert_eq!(open.from, Provenance::Assumed);
        for other in ["EPT without A/D bits", "NPT"] {
            assert!(open.why.contains(other), "{}", open.why);
        }

        // #PF exits without a shadow page: the guest may have paging off, or any kind of paging.
        let fault = "vm-7 [001] 5.1: kvm_exit: reason EXCEPTION_NMI rip 0x1000 info 1000 80000b0e\n\
            vm-7 [001] 5.2: kvm_page_fault: address 1000 error_code 14\n";
        let open = mode_of(fault);
        assert_eq!(open.from, Provenance::Assumed);
        assert!(open.why.contains("PAE fits as well"), "{}", open.why);

        // Leaves of 6.1 with A/D bits in hardware, and without: bits 53:52 say which.
        for (spte, mode) in
            [("6000001234dfb77", "EPT with A/D bits"), ("61000034d4fe877", "EPT without A/D bits")]
        {
            let leaf = format!(
                "{violation}vm-7 [001] 5.3: kvm_mmu_set_spte: gfn 2 spte {spte} (rwxu) level 1 at 9c16a010\n"
            );
            let settled = mode_of(&leaf);
            assert_eq!(
                (settled.value.as_str(), settled.from),
                (mode, Provenance::Inferred),
                "{}",
                settled.why
            );
        }
    }
}
