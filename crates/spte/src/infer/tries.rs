//! Trying layouts one by one, and concluding what the values show about the host: address widths, the L1TF split, the marks of MMIO
//! SPTEs. The main type is [`Trial`]; [`super::judge`] makes one and asks it to score every candidate.

use alloc::{format, string::String, vec::Vec};

use super::{
    Candidate, MARGIN,
    evidence::{Claim, Evidence, Role, Walk, walk_start},
    rules::{Tally, best_level, fit},
};
use crate::{
    Decoded, Era, Error, Format, Kernel, Known, Layout, LayoutSpec, MaskName, Mode, Provenance, Resolved,
    State, Vendor, bits, layouts::Library,
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

/// The levels that the root of a mode's tables can have, the most common first.
const fn roots(mode: Mode) -> &'static [u8] {
    match mode {
        Mode::ShadowPae => &[3],
        // A 32-bit host runs NPT with a PAE root.
        Mode::Npt | Mode::NestedNpt => &[4, 5, 3],
        _ => &[4, 5],
    }
}

/// How common a root level is beside the usual one, as points.
const fn common_root(mode: Mode, root: u8) -> i32 {
    match (mode, root) {
        (Mode::ShadowPae, _) | (_, 4) => 0,
        (_, 3) => -20,
        _ => -4,
    }
}

/// The positions of the C-bit: 47 on Zen and Zen 2, 51 since Zen 3.
const C_BITS: [u8; 2] = [47, 51];

/// Points against an AMD CPU of so few address bits that old kernels split the frames of its MMIO SPTEs: its server CPUs have 48.
const NARROW_AMD: i32 = 12;

/// Points against SME, which few hosts run with.
const ENCRYPTED: i32 = 12;

/// Points against a mode whose walks begin below an entry that was dumped: more than any values can weigh against.
const BELOW_THE_ROOT: i32 = 300;

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

impl Trial<'_> {
    pub(super) fn candidate(&self, spec: LayoutSpec, at: usize, mode: Mode) -> Result<Candidate, Error> {
        let plain = self.with_masks(spec, at, mode, Vec::new())?;
        let mut best = self.with_encryption(plain, at, mode)?;
        let start = best.spec.clone();
        if start.host.root_level.is_some() || self.root_fits(&best) {
            return Ok(best);
        }
        for &root in &roots(mode)[1..] {
            let mut spec = start.clone();
            spec.host.root_level = Some(Known::inferred(root));
            let other = self.with_masks(spec, at, mode, alloc::vec![format!("the root has level {root}")])?;
            if other.score > best.score {
                best = other;
            }
        }
        Ok(best)
    }

    /// Tries a layout, and where the kernel printed reserved masks also what would explain them.
    fn with_masks(
        &self,
        spec: LayoutSpec,
        at: usize,
        mode: Mode,
        concluded: Vec<String>,
    ) -> Result<Candidate, Error> {
        let candidate = self.once(spec, at, mode, concluded)?;
        if self.masks_fit(&candidate) {
            return Ok(candidate);
        }
        self.fit_printed_masks(candidate, at, mode)
    }

    /// Tries the two positions that the C-bit has on AMD's CPUs, where entries have that bit set and nothing is known of encryption: under SME
    /// it is in every table and in every page of memory, and is no part of the frame.
    fn with_encryption(&self, plain: Candidate, at: usize, mode: Mode) -> Result<Candidate, Error> {
        let host = &plain.spec.host;
        let free =
            host.c_bit.is_none() && host.sme.is_none() && host.vendor.is_none_or(|v| v.value == Vendor::Amd);
        if !free || mode.format() != Format::Legacy || mode == Mode::Pvm {
            return Ok(plain);
        }
        let mut best = plain.clone();
        for bit in C_BITS {
            let mut entries = plain.readings.iter().filter(|d| d.pfn.is_some()).peekable();
            let set = |d: &Decoded| d.raw >> bit & 1 != 0;
            if entries.peek().is_none() || !entries.any(set) {
                continue;
            }
            let mut spec = plain.spec.clone();
            spec.host.c_bit = Some(Known::inferred(bit));
            spec.host.sme = Some(Known::inferred(true));
            let said = format!("bit {bit} is the C-bit of SME");
            let mut other = self.with_masks(spec, at, mode, alloc::vec![said])?;
            other.score -= ENCRYPTED;
            other.prior -= ENCRYPTED;
            if other.score > best.score {
                best = other;
            }
        }
        Ok(best)
    }

    /// Whether the reserved masks that the kernel printed are those of this layout.
    fn masks_fit(&self, c: &Candidate) -> bool {
        self.evidence
            .values
            .iter()
            .zip(&c.readings)
            .all(|(v, d)| v.printed_mask.is_none_or(|m| c.resolved.layout.reserved_mask(d.raw, d.level) == m))
    }

    /// Whether the walks begin at this layout's root, and the printed masks are those of its levels.
    fn root_fits(&self, c: &Candidate) -> bool {
        let start = walk_start(&c.resolved.layout);
        let fits = |w: &Walk| {
            let top = w.values.iter().filter_map(|&n| c.readings.get(n)).map(|d| d.level).max();
            // The kernel dumps a walk from its root; what others print may begin below it.
            let whole = w.reserved || w.misconfigured;
            top.is_none_or(|top| if whole { top == start } else { top <= start })
        };
        self.evidence.walks.iter().all(fits) && self.masks_fit(c)
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
        let prior = self.prior(at, mode) + common_root(mode, resolved.layout.root_level);
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
            let reserved =
                value.printed_mask.is_some() || walk.is_some_and(|w| w.reserved || w.misconfigured);
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
            let place = |text: String| {
                if many && !text.is_empty() { format!("{:#x}: {text}", value.raw) } else { text }
            };
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

    /// Whether a value is the array slot above the root that the dump prints although the walk never wrote it.
    fn is_slot(&self, n: usize, d: &Decoded, layout: &Layout) -> bool {
        self.evidence.walks.iter().any(|w| w.values.contains(&n) && w.is_slot(d.level, layout))
    }

    /// Scores what the entries of a dumped walk show together.
    fn walk(&self, walk: &Walk, layout: &Layout, readings: &[Decoded], tally: &mut Tally) {
        let start = walk_start(layout);
        let of: Vec<&Decoded> = walk.values.iter().filter_map(|&n| readings.get(n)).collect();
        if let Some(top) = of.iter().find(|d| d.level > start) {
            let slot = of.iter().all(|d| d.level <= start || walk.is_slot(d.level, layout));
            tally.add(if slot { -6 } else { -BELOW_THE_ROOT }, || {
                format!(
                    "the dump begins at level {}, and walks of this mode begin at level {start}",
                    top.level
                )
            });
        }
        if let Some(first) = of.iter().find(|d| d.level <= start)
            && first.level < start
            && (walk.reserved || walk.misconfigured)
        {
            tally.add(-20, || format!("a walk would begin at level {start}, not {}", first.level));
        }
        if walk.reserved || walk.misconfigured {
            // What overwrites an entry or flips a bit of it hits one entry; several are wrong where the layout is.
            let wrong =
                of.iter().filter(|d| d.level <= start && (d.reserved_bits != 0 || d.bad_mt_xwr)).count();
            tally.add(-25 * wrong.saturating_sub(1).min(4) as i32, || {
                format!("{wrong} entries of one walk would be malformed")
            });
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
        let (mut best, start, known) = (base.clone(), base.spec, base.concluded);
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
                let differs = |k: Option<Known<bool>>, on| k.is_some_and(|k| k.value != on);
                // The guest's NX matters only where its tables are shadowed.
                if !guest_nx && mode.is_tdp()
                    || differs(spec.host.pages_1g, pages_1g)
                    || differs(spec.host.guest_nx, guest_nx)
                {
                    continue;
                }
                spec.host.pages_1g = spec.host.pages_1g.or((!pages_1g).then_some(Known::inferred(false)));
                spec.host.guest_nx = spec.host.guest_nx.or((!guest_nx).then_some(Known::inferred(false)));
                let mut concluded = known.clone();
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
                    // Only where this kernel splits frames at that width does it say anything of the host.
                    if spec.resolve_in(self.library)?.layout.masks.nonpresent_or_rsvd_mask != 0 {
                        let cost = if amd { NARROW_AMD } else { 0 };
                        self.consider(candidate, spec, (at, mode), said, cost)?;
                    }
                }
            }
            let measured = start.masks.iter().any(|(m, _)| *m == MaskName::MmioValue);
            if mode.format() == Format::Legacy && !measured {
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
        let usual = start.resolve_in(self.library)?;
        let three = usual.layout.masks.mmio_value & (3 << 52);
        for bits in (40..=52u32).rev() {
            let mut spec = start.clone();
            let reserved = if bits == 52 { 0 } else { bits::range(51, bits) };
            for mask in [MaskName::MmioValue, MaskName::VmMmioValue, MaskName::Mmio] {
                spec.masks.retain(|(m, _)| *m != mask);
                spec.masks.push((mask, Known::inferred(reserved | 1 | three)));
            }
            // Memory encryption takes address bits away from the kernel, and the marks begin above those that are left.
            let phys_bits = usual.host.phys_bits;
            if bits < u32::from(phys_bits.value) && phys_bits.from < Provenance::Given {
                spec.host.phys_bits = Some(Known::inferred(bits as u8));
            }
            let said = format!("MMIO words have the reserved bits {bits}..51 set");
            self.consider(candidate, spec, of, said, 0)?;
        }
        Ok(())
    }

    fn consider(
        &self,
        best: &mut Candidate,
        spec: LayoutSpec,
        (at, mode): (usize, Mode),
        said: String,
        cost: i32,
    ) -> Result<(), Error> {
        let mut other = self.once(spec, at, mode, alloc::vec![said])?;
        other.score -= cost;
        other.prior -= cost;
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
            let marked = |n: &usize| {
                let d = c.readings.get(*n).filter(|d| d.level <= start)?;
                marked_frame(layout, d)
            };
            w.address.is_none_or(|a| w.values.iter().filter_map(marked).all(|frame| frame == a >> 12))
        });
        values && walks
    }
}

/// The frame of an entry that is marked as MMIO, whether it counts as such or carries MMU-present as well.
fn marked_frame(layout: &Layout, d: &Decoded) -> Option<u64> {
    d.gfn.or_else(|| layout.is_mmio_and_present(d.raw).then(|| layout.mmio_gfn.get(d.raw)))
}

/// The frame of an MMIO SPTE must be that of the faulting address under TDP; under shadow paging that address is guest-virtual.
fn address(walk: &Walk, layout: &Layout, readings: &[Decoded], tally: &mut Tally) {
    let Some(address) = walk.address else { return };
    let start = walk_start(layout);
    for d in walk.values.iter().filter_map(|&n| readings.get(n)).filter(|d| d.level <= start) {
        let Some(frame) = marked_frame(layout, d) else { continue };
        if frame == address >> 12 {
            tally.add(40, || format!("the MMIO frame {frame:#x} is the one that faulted ({address:#x})"));
        } else if d.state == State::Mmio && (layout.mode.is_tdp() || layout.mode.is_nested()) {
            tally.add(-60, || format!("the MMIO frame would be {frame:#x}, not that of {address:#x}"));
        }
    }
}
