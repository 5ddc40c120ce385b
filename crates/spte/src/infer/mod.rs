//! Which layout do these values come from? This is the one judge, for pasted text and for traces alike.
//!
//! The main function is [`judge`]; `decode` and the replay call it. A caller gathers an [`Evidence`]: values with what is known about them,
//! walks, and facts that wording, events and hosts state. None of it is proof. The judge scores under each layout how well a value fits
//! what KVM writes (are there bits without a meaning, combinations that KVM never makes, an MMIO SPTE that would not encode back to
//! itself) and whether each fact agrees, and it ranks layouts by the sum. It rules no layout of Linux out by evidence: only what a
//! [`LayoutSpec`] holds already (options, measured masks) does that. A hypervisor that keeps other tables (pKVM) is offered only if no layout
//! of Linux can be. The reasons for the best layout and against the next one are kept in words: [`Judgement::why`].

mod evidence;
mod foreign;
mod readings;
mod rules;
mod tries;
mod why;

use alloc::{string::String, vec::Vec};

pub use evidence::{Claim, Evidence, Fact, Letters, Modes, Role, Value, Walk, walk_start};
pub use rules::{letters_fit, likely_level, printed_letters};
pub use why::Why;

use crate::{Decoded, Error, Known, LayoutSpec, Mode, Provenance, Resolved, eras::OLDER, layouts::Library};
use evidence::vendor_has;
use tries::Trial;

/// A layout that was tried.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The layout.
    pub resolved: Resolved,
    /// The spec it was made from: what was known, and what was concluded about the host.
    pub spec: LayoutSpec,
    /// How well everything fits; only differences between candidates have a meaning.
    pub score: i32,
    /// The part of the score that says how common such a host is; it does not depend on the values.
    pub prior: i32,
    /// The decoded values, in the order of the evidence, each at the level that fits it best.
    pub readings: Vec<Decoded>,
    /// Values that KVM would not write under this layout.
    pub misfits: usize,
    /// What the values showed about the host, one sentence each.
    pub concluded: Vec<String>,
    /// The index of the era.
    pub(crate) era: usize,
    /// The score without MMIO SPTEs, which depend on the host.
    rest: i32,
}

/// Layouts that give the same answer and are therefore shown as one.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Indices into [`Judgement::candidates`], the most likely first.
    pub candidates: Vec<usize>,
    /// Their paging modes and releases in words: `EPT with A/D bits, kernels 5.13 – 6.9`.
    pub whose: String,
}

/// The result of judging an evidence.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// Every layout that was tried, the best first.
    pub candidates: Vec<Candidate>,
    /// The plausible layouts, grouped by equal answers, the best first. It is never empty if any layout was tried.
    pub plausible: Vec<Reading>,
    /// The parts of the answer on which all plausible readings agree: `state`, `pfn`, `permissions` …
    pub agreed: Vec<&'static str>,
    /// The facts that would decide between the plausible readings, one sentence each.
    pub settle: Vec<String>,
    /// Why the first reading is preferred to the next.
    pub why: Why,
    /// Signs of a release that no layout of the first reading is of, in words.
    pub contradicted: Vec<String>,
    /// The first and the last release of each era.
    spans: Vec<((u16, u16), (u16, u16))>,
    /// The first and the last release that the facts and the known kernel leave possible.
    possible: ((u16, u16), (u16, u16)),
}

/// How far below the best score a layout may be and still count as plausible.
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
    let stated = if spec.host.vendor.is_none() { evidence.vendor() } else { None };
    let mut candidates = Vec::new();
    for (at, era) in eras.iter().enumerate() {
        if spec.era.as_ref().is_some_and(|e| e.value != era.id)
            || spec.era.is_none() && kernel_era.is_some_and(|k| k != at)
        {
            continue;
        }
        for mode in Mode::ALL {
            let fits = library.era_has(eras, at, mode)
                && spec.mode.is_none_or(|m| m.value == mode)
                && mode_of_masks.is_none_or(|m| m.format() == mode.format())
                && vendor.is_none_or(|v| vendor_has(v, mode));
            if !fits {
                continue;
            }
            let mut this = spec.clone();
            if spec.mode.is_none() {
                this.mode = Some(Known::inferred(mode));
            }
            if let Some(stated) = stated.filter(|&v| vendor_has(v, mode)) {
                this.host.vendor = Some(Known::inferred(stated));
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
    foreign::leave_out(&trial, &spec, &mut candidates)?;
    let plausible = readings::group(&candidates, eras);
    let agreed = readings::agreed(&candidates, &plausible);
    let settle = readings::settle(&spec, evidence, &candidates, &plausible);
    let why = why::why(&trial, &candidates, &plausible);
    let spans = eras.iter().map(|e| (e.first, e.last)).collect();
    let possible = possible(&spec, evidence);
    let contradicted = contradicted(evidence, eras, &candidates, &plausible);
    if let Some(best) = plausible.first().and_then(|r| candidates.get_mut(r.candidates[0])) {
        let said = best.resolved.notes.iter().any(|n| n.contains(OLDER));
        for fact in evidence.facts.iter().filter(|_| !said) {
            if matches!(fact.claim, Claim::Releases(_, last) if evidence::is_before(last, eras)) {
                let era = best.resolved.era.map_or("", |e| e.value);
                let note = alloc::format!("{}, {}: read as {era}", fact.why, OLDER);
                best.resolved.notes.push(note);
            }
        }
    }
    Ok(Judgement { candidates, plausible, agreed, settle, why, contradicted, spans, possible })
}

/// What evidence shows of the release and no layout of the first reading agrees with.
fn contradicted(
    evidence: &Evidence,
    eras: &[crate::Era],
    candidates: &[Candidate],
    plausible: &[Reading],
) -> Vec<String> {
    let of: Vec<&Candidate> =
        plausible.first().into_iter().flat_map(|r| &r.candidates).map(|&at| &candidates[at]).collect();
    let mut list = Vec::new();
    for fact in &evidence.facts {
        let dated = matches!(fact.claim, Claim::Releases(..) | Claim::Kernel(_));
        if dated && !of.iter().any(|c| fact.agrees(c.era, eras, c.resolved.layout.mode)) {
            list.push(fact.why.clone());
        }
    }
    list
}

/// The releases that all wording leaves possible; a kernel that is named counts as its release.
fn possible(spec: &LayoutSpec, evidence: &Evidence) -> ((u16, u16), (u16, u16)) {
    let mut possible = ((0, 0), (u16::MAX, u16::MAX));
    if let Some(kernel) = spec.kernel {
        possible = (kernel.value.release(), kernel.value.release());
    }
    for fact in &evidence.facts {
        if let Claim::Releases(first, last) = fact.claim {
            possible = (possible.0.max(first), possible.1.min(last));
        }
    }
    // Wording that contradicts itself comes from a tree with backports.
    if possible.0 <= possible.1 { possible } else { ((0, 0), (u16::MAX, u16::MAX)) }
}

/// The error that names the two parts of a spec that together leave no layout.
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
    /// The best candidate; what was concluded about its host is marked as inferred.
    pub fn best(&self) -> Option<&Candidate> {
        self.plausible.first().and_then(|r| self.candidates.get(r.candidates[0]))
    }

    /// Whether only one answer is plausible.
    pub fn is_settled(&self) -> bool {
        self.plausible.len() == 1
    }

    /// The first and the last release that the best reading and the facts leave possible.
    pub fn releases(&self) -> ((u16, u16), (u16, u16)) {
        let best = self.plausible.first().map_or(&[][..], |r| &r.candidates);
        let top = self.best().map_or(0, |c| c.score - c.prior);
        let of = |&&at: &&usize| self.candidates[at].score - self.candidates[at].prior >= top - MARGIN;
        let spans = best.iter().filter(of).filter_map(|&at| self.spans.get(self.candidates[at].era)).copied();
        let (first, last) =
            spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or(((0, 0), (u16::MAX, u16::MAX)));
        (first.max(self.possible.0), last.min(self.possible.1))
    }

    /// The origin of the best answer, as a measure of how sure it is.
    pub fn confidence(&self) -> Provenance {
        if self.is_settled() { Provenance::Inferred } else { Provenance::Assumed }
    }

    /// What in the text or trace is of another release than the first reading, as a sentence without its full stop; `None` where nothing is.
    pub fn contradiction(&self) -> Option<String> {
        let signs = self.contradicted.join("; ");
        let said = alloc::format!("the layout is of other releases than the text shows: {signs}");
        (!signs.is_empty()).then_some(said)
    }

    /// The paging modes of an ordinary guest that fit as well as the best layout's, which is not among them: what is rare (pKVM, PVM, TDX, the tables of
    /// a nested guest) is not named unless something shows it.
    pub fn rival_modes(&self) -> Vec<Mode> {
        let ordinary = [Mode::Ept, Mode::EptNoAd, Mode::Npt, Mode::Shadow64, Mode::ShadowPae];
        let Some(best) = self.candidates.first() else { return Vec::new() };
        let fits = |m: &Mode| {
            let of = |c: &&Candidate| c.resolved.layout.mode == *m;
            self.candidates.iter().filter(of).any(|c| c.score - c.prior >= best.score - best.prior - 2)
        };
        let mode = best.resolved.layout.mode;
        ordinary.into_iter().filter(|m| *m != mode && ordinary.contains(&mode)).filter(fits).collect()
    }

    /// The eras that fit as well as the best one in its paging mode, oldest first.
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
