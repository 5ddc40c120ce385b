//! Trying layouts one by one, and concluding what the values show about the host: address widths, the L1TF split, the marks of MMIO
//! SPTEs. The main type is [`Trial`]; [`super::judge`] makes one and asks it to score every candidate.

use alloc::{format, string::String, vec::Vec};

use super::{
    Candidate, MARGIN,
    evidence::{Claim, Evidence, Role, Walk},
    rules::{Tally, best_level, fit},
};
use crate::{
    Decoded, Era, Error, Kernel, Known, Layout, LayoutSpec, MaskName, Mode, Provenance, Resolved, State,
    Vendor, bits, layouts::Library,
};

/// What all trials of one judgement share.
pub(super) struct Trial<'a> {
    pub(super) evidence: &'a Evidence,
    pub(super) library: &'a Library,
    pub(super) eras: &'a [Era],
}

/// The score of one layout, with the decoded values.
pub(super) struct Scored {
    pub(super) tally: Tally,
    readings: Vec<Decoded>,
    misfits: usize,
    rest: i32,
}

/// Address widths in bits of CPUs with the L1TF bug, the most common first.
const WIDTHS: [u8; 11] = [46, 44, 39, 36, 42, 40, 38, 45, 43, 41, 37];

/// How common a mode is, as points. A rare mode needs evidence of its own.
const fn common(mode: Mode) -> i32 {
    match mode {
        Mode::Ept | Mode::Npt => 0,
        Mode::EptNoAd | Mode::Shadow64 => -8,
        Mode::ShadowPae => -14,
        Mode::NestedEpt | Mode::NestedNpt => -24,
        Mode::NestedEptNoAd => -30,
        Mode::TdxShared | Mode::TdxMirror | Mode::Pvm | Mode::Pkvm => -120,
    }
}

/// What the reserved masks that the kernel printed show about the host: they cover bits 51 down to its width, without the C-bit.
pub(super) fn widths(spec: &LayoutSpec, evidence: &Evidence) -> LayoutSpec {
    let mut spec = spec.clone();
    let mut high = evidence.values.iter().filter_map(|v| v.printed_mask).map(|m| m & bits::range(51, 32));
    if spec.host.maxphyaddr.is_none()
        && let Some(high) = high.next()
    {
        let width = if high == 0 { 52 } else { high.trailing_zeros() as u8 };
        spec.host.maxphyaddr = Some(Known::inferred(width));
        let hole = if width < 52 { bits::range(51, u32::from(width)) & !high } else { 0 };
        if hole.is_power_of_two() && spec.host.c_bit.is_none() {
            spec.host.c_bit = Some(Known::inferred(hole.trailing_zeros() as u8));
            spec.host.sme = spec.host.sme.or(Some(Known::inferred(true)));
        }
    }
    spec
}

/// The level at which walks begin. The four entries of a PAE root are not SPTEs.
pub fn walk_start(layout: &Layout) -> u8 {
    if layout.root_level <= 3 { 2 } else { layout.root_level }
}

impl Trial<'_> {
    pub(super) fn candidate(&self, spec: LayoutSpec, at: usize, mode: Mode) -> Result<Candidate, Error> {
        let candidate = self.once(spec, at, mode, Vec::new())?;
        if self.evidence.values.iter().all(|v| v.printed_mask.is_none()) {
            return Ok(candidate);
        }
        self.fit_printed_masks(candidate, at, mode)
    }

    fn once(
        &self,
        spec: LayoutSpec,
        at: usize,
        mode: Mode,
        concluded: Vec<String>,
    ) -> Result<Candidate, Error> {
        let resolved = spec.resolve_in(self.library)?;
        let scored = self.score(&resolved, at, false);
        let prior = self.prior(at, mode);
        Ok(Candidate {
            resolved,
            spec,
            score: scored.tally.score + prior,
            prior,
            readings: scored.readings,
            misfits: scored.misfits,
            concluded,
            era: at,
            rest: scored.rest + prior,
        })
    }

    fn prior(&self, at: usize, mode: Mode) -> i32 {
        let shown = self.evidence.facts.iter().any(|f| match f.claim {
            Claim::Modes(modes) => modes.has(mode) && !modes.has(Mode::Ept) && !modes.has(Mode::Npt),
            _ => false,
        });
        let mode = if shown { common(mode).max(-24) } else { common(mode) };
        mode + self.eras.get(at).map_or(0, |e| 2 * e.long_term.len() as i32)
    }

    pub(super) fn score(&self, resolved: &Resolved, at: usize, wordy: bool) -> Scored {
        let layout = &resolved.layout;
        let mut all = Tally { wordy, ..Tally::default() };
        for fact in &self.evidence.facts {
            // A fact that agrees adds a point, so that it appears among the reasons: the other layouts lack it.
            let agrees = fact.agrees(at, self.eras, layout.mode);
            all.add(if agrees { 1 } else { -fact.points }, || fact.why.clone());
        }
        let mut scored = Scored { tally: all, readings: Vec::new(), misfits: 0, rest: 0 };
        for (n, value) in self.evidence.values.iter().enumerate() {
            let walk = self.evidence.walks.iter().find(|w| w.values.contains(&n));
            let reserved = value.printed_mask.is_some() || walk.is_some_and(|w| w.reserved);
            let decoded = best_level(layout, value, reserved);
            scored.readings.push(decoded);
            if self.is_slot(n, &decoded, layout) {
                continue;
            }
            let mut one = Tally { wordy, ..Tally::default() };
            fit(layout, &decoded, value, reserved, &mut one);
            scored.misfits += usize::from(one.score <= -30);
            let points = one.score * (1 + i32::from(value.often.min(3)));
            scored.tally.score += points;
            if decoded.state != State::Mmio && !matches!(value.role, Role::Mmio { .. }) {
                scored.rest += points;
            }
            let many = self.evidence.values.len() > 1;
            let place = |text: String| if many { format!("{:#x}: {text}", value.raw) } else { text };
            scored.tally.reasons.extend(one.reasons.into_iter().map(|(p, text)| (p, place(text))));
        }
        for walk in &self.evidence.walks {
            let before = scored.tally.score;
            self.walk(walk, layout, &scored.readings, &mut scored.tally);
            scored.rest += scored.tally.score - before;
            address(walk, layout, &scored.readings, &mut scored.tally);
        }
        let facts = self
            .evidence
            .facts
            .iter()
            .map(|f| if f.agrees(at, self.eras, layout.mode) { 1 } else { -f.points });
        scored.rest += facts.sum::<i32>();
        scored
    }

    /// Whether a value is an array slot above the root that the dump prints although the walk never wrote it.
    fn is_slot(&self, n: usize, d: &Decoded, layout: &Layout) -> bool {
        d.level > walk_start(layout)
            && self.evidence.walks.iter().any(|w| w.unwritten_slots && w.values.contains(&n))
    }

    /// Scores what the entries of a dumped walk show together.
    fn walk(&self, walk: &Walk, layout: &Layout, readings: &[Decoded], tally: &mut Tally) {
        let start = walk_start(layout);
        let of: Vec<&Decoded> = walk.values.iter().filter_map(|&n| readings.get(n)).collect();
        let slots = of.iter().filter(|d| d.level > start).count();
        if slots > 0 {
            tally.add(if walk.unwritten_slots { -6 } else { -60 }, || {
                format!("walks of this mode begin at level {start}, and the dump begins above")
            });
        }
        if let Some(first) = of.iter().find(|d| d.level <= start)
            && first.level < start
            && walk.reserved
        {
            tally.add(-20, || format!("a walk would begin at level {start}, not {}", first.level));
        }
        if walk.reserved {
            let masks = |n: &usize| self.evidence.values.get(*n).and_then(|v| v.printed_mask);
            if walk.values.iter().all(|n| masks(n).is_none()) {
                let hit = of.iter().find(|d| {
                    let checked = d.level > start || !matches!(d.state, State::Mmio | State::Nonpresent);
                    layout.reserved_bits(d.raw, d.level) != 0 && checked || d.bad_mt_xwr
                });
                tally.add(if hit.is_some() { 30 } else { -30 }, || match hit {
                    Some(d) => {
                        format!("the text says that reserved bits were found: level {} has some", d.level)
                    }
                    None => {
                        String::from("the text says that reserved bits were found, and it would have none")
                    }
                });
            }
        }
        for pair in of.windows(2) {
            if pair[0].level <= start && pair[0].level > pair[1].level && pair[0].state != State::Table {
                tally.add(-30, || format!("level {} would not link the level below it", pair[0].level));
            }
        }
    }

    /// Adjusts widths, 1 GiB pages, the guest's NX and the release within the era, where the printed masks require others.
    fn fit_printed_masks(&self, base: Candidate, at: usize, mode: Mode) -> Result<Candidate, Error> {
        let same = |c: &Candidate| {
            self.evidence.values.iter().zip(&c.readings).all(|(v, d)| {
                v.printed_mask.is_none_or(|m| c.resolved.layout.reserved_mask(d.raw, d.level) == m)
            })
        };
        if same(&base) {
            return Ok(base);
        }
        let (mut best, start) = (base.clone(), base.spec);
        let era = &self.eras[at];
        let given = |k: Provenance| k >= Provenance::Given;
        let free =
            start.kernel.is_none_or(|k| !given(k.from)) && start.era.as_ref().is_none_or(|e| !given(e.from));
        let releases = if free { [None, Some(era.first), Some(era.last)] } else { [None; 3] };
        for release in releases {
            for (pages_1g, guest_nx) in [(true, true), (false, true), (true, false), (false, false)] {
                let mut spec = start.clone();
                if let Some((major, minor)) = release {
                    spec.kernel = Some(Known::inferred(Kernel::new(major, minor, None)));
                    spec.era = None;
                }
                let known = |k: Option<Known<bool>>, on| k.is_some_and(|k| k.value != on);
                // The guest's NX matters only where its tables are shadowed.
                if !guest_nx && mode.is_tdp()
                    || known(spec.host.pages_1g, pages_1g)
                    || known(spec.host.guest_nx, guest_nx)
                {
                    continue;
                }
                spec.host.pages_1g = spec.host.pages_1g.or((!pages_1g).then_some(Known::inferred(false)));
                spec.host.guest_nx = spec.host.guest_nx.or((!guest_nx).then_some(Known::inferred(false)));
                let mut concluded = Vec::new();
                if let Some((major, minor)) = release {
                    concluded.push(format!("the reserved mask is that of {major}.{minor}"));
                }
                let other = self.once(spec, at, mode, concluded)?;
                if other.score > best.score {
                    best = other;
                }
            }
        }
        Ok(best)
    }

    /// Tries other hosts for MMIO SPTEs, which depend on the L1TF bug and on an address width that may not be known.
    pub(super) fn fit_hosts(&self, candidates: &mut [Candidate]) -> Result<(), Error> {
        let best = candidates.iter().map(|c| c.rest).max().unwrap_or(0);
        for candidate in candidates.iter_mut().filter(|c| c.rest >= best - 2 * MARGIN) {
            if self.mmio_fits(candidate) {
                continue;
            }
            let start = candidate.spec.clone();
            let (at, mode) = (candidate.era, candidate.resolved.layout.mode);
            let free = |k: Option<Provenance>| k.is_none_or(|k| k < Provenance::Given);
            let host = &start.host;
            let unknown = host.cache_bits.is_none() && free(host.maxphyaddr.map(|k| k.from));
            if unknown && host.l1tf.is_none_or(|k| k.value || k.from < Provenance::Given) {
                let amd = matches!(mode, Mode::Npt | Mode::NestedNpt)
                    || host.vendor.is_some_and(|v| v.value == Vendor::Amd);
                for bits in WIDTHS {
                    let mut spec = start.clone();
                    let mut said = format!("frames of MMIO SPTEs are split at {bits} address bits");
                    if !amd {
                        spec.host.l1tf = Some(Known::inferred(true));
                        spec.host.vendor = spec.host.vendor.or(Some(Known::inferred(Vendor::Intel)));
                        said = format!(
                            "the CPU has the L1TF bug and {bits} address bits in its cache: MMIO frames are split so"
                        );
                    }
                    spec.host.cache_bits = Some(Known::inferred(bits));
                    // The kernel counts at least 44 cache address bits on Nehalem to Kaby Lake, whatever their physical width is.
                    if bits != 44 && spec.host.maxphyaddr.is_none() {
                        spec.host.maxphyaddr = Some(Known::inferred(bits));
                    }
                    self.consider(candidate, spec, (at, mode), said)?;
                }
            }
            let measured = start.masks.iter().any(|(m, _)| *m == MaskName::MmioValue);
            if mode.format() == crate::Format::Legacy && !measured {
                self.fit_marks(candidate, &start, (at, mode))?;
            }
        }
        Ok(())
    }

    /// Tries MMIO values that have the reserved bits of each address width from 40 to 52 bits set.
    fn fit_marks(
        &self,
        candidate: &mut Candidate,
        start: &LayoutSpec,
        of: (usize, Mode),
    ) -> Result<(), Error> {
        let three = start.resolve_in(self.library)?.layout.masks.mmio_value & (3 << 52);
        for bits in (40..=52u32).rev() {
            let mut spec = start.clone();
            let reserved = if bits == 52 { 0 } else { bits::range(51, bits) };
            for mask in [MaskName::MmioValue, MaskName::VmMmioValue, MaskName::Mmio] {
                spec.masks.retain(|(m, _)| *m != mask);
                spec.masks.push((mask, Known::inferred(reserved | 1 | three)));
            }
            self.consider(candidate, spec, of, format!("MMIO words have the reserved bits {bits}..51 set"))?;
        }
        Ok(())
    }

    fn consider(
        &self,
        best: &mut Candidate,
        spec: LayoutSpec,
        (at, mode): (usize, Mode),
        said: String,
    ) -> Result<(), Error> {
        let other = self.once(spec, at, mode, alloc::vec![said])?;
        if other.score > best.score {
            *best = other;
        }
        Ok(())
    }

    /// Whether the MMIO SPTEs among the values fit this host.
    fn mmio_fits(&self, c: &Candidate) -> bool {
        let layout = &c.resolved.layout;
        let values = self.evidence.values.iter().zip(&c.readings).enumerate().all(|(n, (v, d))| {
            if self.is_slot(n, d, layout) {
                return true;
            }
            let named = match v.role {
                Role::Mmio { gfn, .. } => Some(gfn),
                _ => None,
            };
            if d.state != State::Mmio {
                return named.is_none();
            }
            let (gfn, generation) = (d.gfn.unwrap_or(0), d.mmio_generation.unwrap_or(0));
            layout.mmio(gfn, d.mmio_access.unwrap_or(0), generation) == d.raw
                && match named {
                    Some(Some(frame)) => frame == gfn,
                    _ => gfn < 1 << 28,
                }
        });
        let walks = self.evidence.walks.iter().all(|w| {
            let start = walk_start(layout);
            let mmio = |n: &usize| c.readings.get(*n).filter(|d| d.state == State::Mmio && d.level <= start);
            w.address.is_none_or(|a| w.values.iter().filter_map(mmio).all(|d| d.gfn == Some(a >> 12)))
        });
        values && walks
    }
}

/// The frame of an MMIO SPTE must be that of the faulting address under TDP; under shadow paging that address is guest-virtual.
fn address(walk: &Walk, layout: &Layout, readings: &[Decoded], tally: &mut Tally) {
    let Some(address) = walk.address else { return };
    let start = walk_start(layout);
    let mmio = |d: &&Decoded| d.state == State::Mmio && d.level <= start;
    for d in walk.values.iter().filter_map(|&n| readings.get(n)).filter(mmio) {
        let frame = d.gfn.unwrap_or(0);
        if frame == address >> 12 {
            tally.add(40, || format!("the MMIO frame {frame:#x} is the one that faulted ({address:#x})"));
        } else if layout.mode.is_tdp() || layout.mode.is_nested() {
            tally.add(-60, || format!("the MMIO frame would be {frame:#x}, not that of {address:#x}"));
        }
    }
}
