//! Which layout do these values come from? The one judge, of pasted text and of traces alike.
//!
//! Callers gather an [`Evidence`]: values with what is known of them, walks, and facts that wording, events and hosts state. Nothing
//! here is proof: each value is asked how well it fits what KVM writes under a layout (are there bits that mean nothing, combinations
//! KVM never makes, an MMIO SPTE that would not encode back to itself), each fact whether the layout agrees, and layouts are ranked by
//! the sum. Only what a [`LayoutSpec`] holds already (options, measured masks) rules a layout out. What spoke for the best reading and
//! against the next is kept in words: [`Judgement::why`].

mod evidence;
mod readings;
mod rules;
mod tries;
mod why;

use alloc::{string::String, vec::Vec};

pub use evidence::{Claim, Evidence, Fact, Letters, Modes, Role, Value, Walk};
pub use rules::{letters_fit, likely_level, printed_letters};
pub use tries::walk_start;
pub use why::Why;

use crate::{Decoded, Error, Known, LayoutSpec, Mode, Provenance, Resolved, layouts::Library};
use evidence::vendor_has;
use tries::Trial;

/// A layout that was tried.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The layout.
    pub resolved: Resolved,
    /// What it was made from: what was known, and what was concluded of the host.
    pub spec: LayoutSpec,
    /// How well everything fits; only differences mean something.
    pub score: i32,
    /// The part of the score that says how common such a host is, not how well it fits.
    pub prior: i32,
    /// Readings of the values, in their order, each at the level it fits best.
    pub readings: Vec<Decoded>,
    /// Values that KVM would not write under this layout.
    pub misfits: usize,
    /// What the values showed of the host, one sentence each.
    pub concluded: Vec<String>,
    /// Index of the era.
    pub(crate) era: usize,
    /// The score without MMIO SPTEs, which depend on the host.
    rest: i32,
}

/// Layouts that give the same answer, told as one.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Eras and modes, most likely first: indices into [`Judgement::candidates`].
    pub candidates: Vec<usize>,
    /// `EPT with A/D bits, kernels 5.13 – 6.9`.
    pub whose: String,
}

/// The result.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// Every layout tried, best first.
    pub candidates: Vec<Candidate>,
    /// The plausible ones, those with equal answers together, best first. Never empty if any layout was tried.
    pub plausible: Vec<Reading>,
    /// What the plausible readings agree on: `state`, `pfn`, `permissions` …
    pub agreed: Vec<&'static str>,
    /// Facts that would settle what is open, one sentence each.
    pub settle: Vec<String>,
    /// Why the first reading and not the next.
    pub why: Why,
    /// First and last release of each era.
    spans: Vec<((u16, u16), (u16, u16))>,
    /// First and last release that facts or the kernel known leave.
    told: ((u16, u16), (u16, u16)),
}

/// How far below the best a layout may score to stay plausible.
const MARGIN: i32 = 30;

/// Judges evidence under every layout that `spec` leaves open.
pub fn judge(spec: &LayoutSpec, evidence: &Evidence, library: &Library) -> Result<Judgement, Error> {
    let eras = library.eras()?;
    let spec = tries::widths(spec, evidence);
    let trial = Trial { evidence, library, eras };
    let kernel_era = spec.kernel.as_ref().map(|k| crate::eras::era_of(&k.value, eras, &mut Vec::new()));
    let vendor = spec.host.vendor.filter(|v| v.from != Provenance::Inferred).map(|v| v.value);
    let mode_of_masks = spec.mode_of_masks();
    let named = evidence.kernel().map(|k| (k, crate::eras::era_of(&k, eras, &mut Vec::new())));
    let mut candidates = Vec::new();
    for (at, era) in eras.iter().enumerate() {
        if spec.era.as_ref().is_some_and(|e| e.value != era.id)
            || spec.era.is_none() && kernel_era.is_some_and(|k| k != at)
        {
            continue;
        }
        for mode in Mode::ALL {
            let fits = library.has(era.family, mode)
                && spec.mode.is_none_or(|m| m.value == mode)
                && mode_of_masks.is_none_or(|m| m.format() == mode.format())
                && vendor.is_none_or(|v| vendor_has(v, mode))
                && !(matches!(mode, Mode::TdxShared | Mode::TdxMirror) && era.id < "E13");
            if !fits {
                continue;
            }
            let mut this = spec.clone();
            if spec.mode.is_none() {
                this.mode = Some(Known::inferred(mode));
            }
            if spec.era.is_none() && spec.kernel.is_none() {
                match named {
                    Some((kernel, of)) if of == at => this.kernel = Some(Known::inferred(kernel)),
                    _ => this.era = Some(Known::inferred(era.id.into())),
                }
            }
            candidates.push(trial.candidate(this, at, mode)?);
        }
    }
    if candidates.is_empty() {
        return Err(clash(&spec));
    }
    trial.fit_hosts(&mut candidates)?;
    candidates.sort_by_key(|c| core::cmp::Reverse((c.score, c.era)));
    let plausible = readings::group(&candidates, eras);
    let agreed = readings::agreed(&candidates, &plausible);
    let settle = readings::settle(&spec, evidence, &candidates, &plausible);
    let why = why::why(&trial, &candidates, &plausible);
    let spans = eras.iter().map(|e| (e.first, e.last)).collect();
    let told = told(&spec, evidence);
    Ok(Judgement { candidates, plausible, agreed, settle, why, spans, told })
}

/// The releases that all wording leaves; a kernel that is named counts as its release.
fn told(spec: &LayoutSpec, evidence: &Evidence) -> ((u16, u16), (u16, u16)) {
    let mut told = ((0, 0), (u16::MAX, u16::MAX));
    if let Some(kernel) = spec.kernel {
        told = (kernel.value.release(), kernel.value.release());
    }
    for fact in &evidence.facts {
        if let Claim::Releases(first, last) = fact.claim {
            told = (told.0.max(first), told.1.min(last));
        }
    }
    // Wording that contradicts itself is of a tree with backports.
    if told.0 <= told.1 { told } else { ((0, 0), (u16::MAX, u16::MAX)) }
}

/// The two parts of a spec that leave no layout.
fn clash(spec: &LayoutSpec) -> Error {
    let mut parts: Vec<String> = Vec::new();
    if let Some(era) = &spec.era {
        parts.push(alloc::format!("layout era {}", era.value));
    } else if let Some(kernel) = &spec.kernel {
        parts.push(alloc::format!("kernel {}", kernel.value));
    }
    if let Some(vendor) = spec.host.vendor
        && spec.mode.is_none_or(|m| !vendor_has(vendor.value, m.value))
    {
        parts.insert(0, alloc::format!("vendor {}", vendor.value.name()));
    }
    if let Some(mode) = spec.mode_of_masks()
        && spec.mode.is_none_or(|m| m.value.format() != mode.format())
    {
        parts.insert(0, alloc::format!("masks of {}", mode.words()));
    }
    if let Some(mode) = spec.mode {
        parts.insert(1.min(parts.len()), alloc::format!("paging mode {}", mode.value.name()));
    }
    parts.truncate(2);
    Error::Clash(parts)
}

impl Judgement {
    /// The best layout, with the answers as inferred.
    pub fn best(&self) -> Option<&Candidate> {
        self.plausible.first().and_then(|r| self.candidates.get(r.candidates[0]))
    }

    /// Whether one answer stands out.
    pub fn is_settled(&self) -> bool {
        self.plausible.len() == 1
    }

    /// First and last release that the best reading and the facts leave.
    pub fn releases(&self) -> ((u16, u16), (u16, u16)) {
        let best = self.plausible.first().map_or(&[][..], |r| &r.candidates);
        let top = self.best().map_or(0, |c| c.score - c.prior);
        let of = |&&at: &&usize| self.candidates[at].score - self.candidates[at].prior >= top - MARGIN;
        let spans = best.iter().filter(of).filter_map(|&at| self.spans.get(self.candidates[at].era)).copied();
        let (first, last) =
            spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or(((0, 0), (u16::MAX, u16::MAX)));
        (first.max(self.told.0), last.min(self.told.1))
    }

    /// How sure the best answer is.
    pub fn confidence(&self) -> Provenance {
        if self.is_settled() { Provenance::Inferred } else { Provenance::Assumed }
    }

    /// Eras that fit as well as the best one in its paging mode, oldest first.
    pub fn eras(&self) -> Vec<&'static str> {
        let Some(best) = self.candidates.first() else { return Vec::new() };
        let mut tied: Vec<&Candidate> = self
            .candidates
            .iter()
            .filter(|c| c.resolved.layout.mode == best.resolved.layout.mode)
            .filter(|c| c.score - c.prior >= best.score - best.prior - 2)
            .collect();
        tied.sort_by_key(|c| c.era);
        tied.iter().filter_map(|c| c.resolved.era).map(|e| e.value).collect()
    }
}
