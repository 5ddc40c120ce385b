//! Grouping of candidates that give the same answer, what the groups agree on, and which fact would decide between them. The judge
//! ([`super::judge`]) calls it; it never scores anything.

use alloc::{format, string::String, vec, vec::Vec};

use super::{Candidate, Evidence, MARGIN, Reading};
use crate::{Decoded, Era, Format, LayoutSpec, Mode};

/// The parts of an answer on which two layouts can agree.
const PARTS: [&str; 9] = [
    "state",
    "level",
    "pfn",
    "guest frame",
    "permissions",
    "accessed and dirty",
    "host- and MMU-writable",
    "memory type",
    "generation",
];

fn same_part(part: &str, a: &Decoded, b: &Decoded) -> bool {
    match part {
        "state" => a.state == b.state,
        "level" => a.level == b.level,
        "pfn" => a.pfn == b.pfn,
        "guest frame" => a.gfn == b.gfn,
        "permissions" => (a.r, a.w, a.x, a.u) == (b.r, b.w, b.x, b.u) && a.access_tracked == b.access_tracked,
        "accessed and dirty" => (a.accessed, a.dirty) == (b.accessed, b.dirty),
        "host- and MMU-writable" => (a.host_writable, a.mmu_writable) == (b.host_writable, b.mmu_writable),
        "memory type" => (a.memtype, a.ignore_pat) == (b.memtype, b.ignore_pat),
        _ => a.mmio_generation == b.mmio_generation,
    }
}

fn has_part(part: &str, d: &Decoded) -> bool {
    match part {
        "state" | "level" => true,
        "pfn" => d.pfn.is_some(),
        "guest frame" => d.gfn.is_some(),
        "permissions" => d.r.is_some(),
        "accessed and dirty" => d.accessed.is_some(),
        "host- and MMU-writable" => d.host_writable.is_some(),
        "memory type" => d.memtype.is_some(),
        _ => d.mmio_generation.is_some(),
    }
}

/// Whether a value carries the marks of both an MMIO SPTE and a present entry.
fn is_both(c: &Candidate, d: &Decoded) -> bool {
    c.resolved.layout.is_mmio_and_present(d.raw)
}

fn mmio_frame(c: &Candidate, d: &Decoded) -> u64 {
    c.resolved.layout.mmio_gfn.get(d.raw)
}

pub(super) fn same_answer(a: &Candidate, b: &Candidate) -> bool {
    a.readings.iter().zip(&b.readings).all(|(x, y)| {
        is_both(a, x) == is_both(b, y)
            && PARTS.iter().all(|part| same_part(part, x, y))
            && x.reserved_bits == y.reserved_bits
            && (!is_both(a, x) || mmio_frame(a, x) == mmio_frame(b, y))
            && x.restored == y.restored
            && x.nonzero_nonpresent == y.nonzero_nonpresent
            && (x.pfn.is_none() || a.resolved.layout.unknown_bits(x) == b.resolved.layout.unknown_bits(y))
    })
}

pub(super) fn group(candidates: &[Candidate], eras: &[Era]) -> Vec<Reading> {
    let Some(best) = candidates.first() else { return Vec::new() };
    let mut readings: Vec<Reading> = Vec::new();
    for (at, candidate) in candidates.iter().enumerate() {
        if candidate.score < best.score - MARGIN || candidate.misfits > best.misfits {
            continue;
        }
        match readings.iter_mut().find(|r| same_answer(&candidates[r.candidates[0]], candidate)) {
            Some(reading) => reading.candidates.push(at),
            None => readings.push(Reading { candidates: vec![at], whose: String::new() }),
        }
    }
    for reading in &mut readings {
        reading.whose = whose(candidates, &reading.candidates, eras);
    }
    readings
}

/// Paging modes and releases in words: `EPT with A/D bits, kernels 5.13 – 6.9; NPT, kernels 6.10 – 7.1`.
pub(super) fn whose(candidates: &[Candidate], of: &[usize], eras: &[Era]) -> String {
    let mut text = String::new();
    let mut modes: Vec<Mode> = Vec::new();
    for &at in of {
        let mode = candidates[at].resolved.layout.mode;
        if !modes.contains(&mode) {
            modes.push(mode);
        }
    }
    for mode in modes.iter().take(4) {
        let mut ats: Vec<usize> = of
            .iter()
            .filter(|&&at| candidates[at].resolved.layout.mode == *mode)
            .filter_map(|&at| candidates[at].resolved.era)
            .filter_map(|e| eras.iter().position(|x| x.id == e.value))
            .collect();
        ats.sort_unstable();
        if !text.is_empty() {
            text += "; ";
        }
        text += mode.words();
        let mut first = true;
        let mut run = 0;
        while run < ats.len() {
            let mut end = run;
            while end + 1 < ats.len() && ats[end + 1] == ats[end] + 1 {
                end += 1;
            }
            let (a, b) = (eras[ats[run]].first, eras[ats[end]].last);
            let single = a == b && end + 1 == ats.len();
            text += match (first, single) {
                (true, true) => ", kernel ",
                (true, false) => ", kernels ",
                (false, _) => ", ",
            };
            text += &if a == b {
                format!("{}.{}", a.0, a.1)
            } else {
                format!("{}.{} – {}.{}", a.0, a.1, b.0, b.1)
            };
            first = false;
            run = end + 1;
        }
    }
    if modes.len() > 4 {
        text += &format!("; and {} other modes", modes.len() - 4);
    }
    text
}

pub(super) fn agreed(candidates: &[Candidate], plausible: &[Reading]) -> Vec<&'static str> {
    let Some(first) = plausible.first().map(|r| &candidates[r.candidates[0]]) else { return Vec::new() };
    // What an entry that is marked as MMIO, too, would map is no part of the answer.
    let both = plausible
        .iter()
        .map(|r| &candidates[r.candidates[0]])
        .any(|c| c.readings.iter().any(|d| is_both(c, d)));
    PARTS
        .into_iter()
        .filter(|part| !both || *part == "level")
        .filter(|part| {
            first.readings.iter().any(|d| has_part(part, d))
                && plausible.iter().all(|r| {
                    first
                        .readings
                        .iter()
                        .zip(&candidates[r.candidates[0]].readings)
                        .all(|(a, b)| same_part(part, a, b))
                })
        })
        .collect()
}

pub(super) fn settle(
    spec: &LayoutSpec,
    evidence: &Evidence,
    candidates: &[Candidate],
    plausible: &[Reading],
) -> Vec<String> {
    let mut facts = Vec::new();
    if plausible.len() < 2 {
        return facts;
    }
    let all: Vec<&Candidate> =
        plausible.iter().flat_map(|r| &r.candidates).map(|&at| &candidates[at]).collect();
    // A fact decides if, for each of its values, only one answer remains.
    let settles = |key: &dyn Fn(&Candidate) -> Vec<u8>| {
        all.iter()
            .enumerate()
            .all(|(n, a)| all[n + 1..].iter().all(|b| key(a) != key(b) || same_answer(a, b)))
    };
    let narrows = |key: &dyn Fn(&Candidate) -> Vec<u8>| all.iter().any(|c| key(c) != key(all[0]));
    let word = |settles: bool| if settles { "would settle it" } else { "would narrow it down" };
    let era = |c: &Candidate| c.resolved.era.map_or(Vec::new(), |e| e.value.as_bytes().to_vec());
    let format = |c: &Candidate| vec![u8::from(c.resolved.layout.format == Format::Ept)];
    let mode = |c: &Candidate| vec![c.resolved.layout.mode as u8];
    let level = |c: &Candidate| c.readings.iter().map(|d| d.level).collect();
    if evidence.values.iter().any(|v| v.level.is_none()) && narrows(&level) {
        facts.push(format!("the level of the entry {} (--level)", word(settles(&level))));
    }
    if spec.kernel.is_none() && spec.era.is_none() && narrows(&era) {
        facts.push(format!("the kernel release {} (--kernel)", word(settles(&era))));
    }
    if spec.mode.is_none() && spec.host.vendor.is_none() && narrows(&format) {
        facts.push(format!("the CPU vendor {} (--vendor)", word(settles(&format))));
    }
    if spec.mode.is_none() && narrows(&mode) {
        facts.push(format!("the paging mode {} (--paging)", word(settles(&mode))));
    }
    if facts.is_empty() || evidence.values.len() == 1 {
        facts.push(String::from(
            "a second value of the same host, best a leaf and the entry above it, usually settles it",
        ));
    }
    facts
}
