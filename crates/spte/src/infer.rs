//! Which layout do these values come from? Judges them under every layout that the known facts allow.
//!
//! Nothing here is proof: each value is asked how well it fits what KVM writes under a layout (are there bits that mean nothing,
//! combinations KVM never makes, an MMIO SPTE that would not encode back to itself), and the layouts are ranked by the sum. Values
//! of one host are judged together, which usually settles it.

use alloc::{format, string::String, vec::Vec};

use crate::{
    AdType, Decoded, Era, Error, FieldKind, Format, GfnRule, Known, Layout, LayoutSpec, Mode, PresentRule,
    Provenance, Resolved, State, Vendor, layouts::Library,
};

/// What is known about an entry besides its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Role {
    /// Nothing.
    #[default]
    Unknown,
    /// It maps a page (`kvm_mmu_set_spte`).
    Leaf,
    /// It points to a table.
    Table,
    /// It was zapped, or is the old value of an entry filled for the first time.
    Empty,
    /// It was frozen (removed).
    Frozen,
    /// It is an MMIO SPTE (`mark_mmio_spte`, `check_mmio_spte`) of this frame and generation, where known.
    Mmio {
        /// Guest frame, where an event told it.
        gfn: Option<u64>,
        /// Generation, where an event told it.
        generation: Option<u32>,
    },
}

/// The letters `kvm_mmu_set_spte` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Letters {
    /// `r`.
    pub r: bool,
    /// `w`.
    pub w: bool,
    /// `x`.
    pub x: bool,
    /// `u`; `None` where nothing is printed for it.
    pub u: Option<bool>,
}

/// A value seen on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Evidence {
    /// The value.
    pub raw: u64,
    /// Level of its entry, where known.
    pub level: Option<u8>,
    /// What is known about the entry.
    pub role: Role,
    /// What the kernel printed about it.
    pub letters: Option<Letters>,
}

impl Evidence {
    /// A bare value.
    pub const fn value(raw: u64) -> Self {
        Self { raw, level: None, role: Role::Unknown, letters: None }
    }

    /// A value at a level.
    pub const fn at(raw: u64, level: u8) -> Self {
        Self { level: Some(level), ..Self::value(raw) }
    }
}

/// A layout that was tried.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The layout.
    pub resolved: Resolved,
    /// How well the values fit; only differences mean something.
    pub score: i32,
    /// Readings of the values, in their order, each at the level it fits best.
    pub readings: Vec<Decoded>,
    /// Values that KVM would not write under this layout.
    pub misfits: usize,
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
}

/// How far below the best a layout may score to stay plausible.
const MARGIN: i32 = 30;

/// Judges values under every layout that `spec` leaves open.
pub fn judge(spec: &LayoutSpec, values: &[Evidence], library: &Library) -> Result<Judgement, Error> {
    let eras = library.eras()?;
    let mut candidates = Vec::new();
    let kernel_era = spec.kernel.as_ref().map(|k| crate::eras::era_of(&k.value, eras, &mut Vec::new()));
    let vendor = spec.host.vendor.map(|v| v.value);
    let mode_of_masks = spec.mode_of_masks();
    for (at, era) in eras.iter().enumerate() {
        if spec.era.as_ref().is_some_and(|e| e.value != era.id)
            || spec.era.is_none() && kernel_era.is_some_and(|k| k != at)
        {
            continue;
        }
        if spec.releases.is_some_and(|(first, last)| era.last < first || era.first > last) {
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
            let mut trial = spec.clone();
            if spec.mode.is_none() {
                trial.mode = Some(Known::inferred(mode));
            }
            if spec.era.is_none() && spec.kernel.is_none() {
                trial.era = Some(Known::inferred(era.id.into()));
            }
            candidates.push(try_layout(&trial, values, at as i32, library)?);
        }
    }
    candidates.sort_by_key(|c| core::cmp::Reverse(c.score));
    let plausible = group(&candidates, eras);
    let agreed = agreed(&candidates, &plausible);
    let settle = settle(spec, values, &candidates, &plausible);
    Ok(Judgement { candidates, plausible, agreed, settle })
}

const fn vendor_has(vendor: Vendor, mode: Mode) -> bool {
    match vendor {
        Vendor::Intel => !matches!(mode, Mode::Npt | Mode::NestedNpt),
        Vendor::Amd => !matches!(mode.format(), Format::Ept),
    }
}

fn try_layout(
    spec: &LayoutSpec,
    values: &[Evidence],
    era: i32,
    library: &Library,
) -> Result<Candidate, Error> {
    let mut best = score_all(spec.resolve_in(library)?, values, era);
    // MMIO SPTEs depend on the host: on a width nobody told, and on the L1TF bug.
    let host = &spec.host;
    if host.l1tf.is_none() && host.maxphyaddr.is_none() && host.cache_bits.is_none() {
        let wide = |c: &Candidate| {
            c.readings.iter().any(|d| d.state == State::Mmio && d.raw & crate::bits::range(50, 31) != 0)
        };
        if wide(&best) && best.resolved.layout.format == Format::Ept {
            for bits in [46, 44, 39, 36, 42, 40, 38] {
                let mut trial = spec.clone();
                trial.host.l1tf = Some(Known::inferred(true));
                trial.host.maxphyaddr = Some(Known::inferred(bits));
                let other = score_all(trial.resolve_in(library)?, values, era);
                if other.score > best.score {
                    best = other;
                }
            }
        }
    }
    Ok(best)
}

fn score_all(resolved: Resolved, values: &[Evidence], era: i32) -> Candidate {
    let mut candidate = Candidate {
        score: prior(resolved.layout.mode) + era / 2,
        resolved,
        readings: Vec::with_capacity(values.len()),
        misfits: 0,
    };
    for value in values {
        let (decoded, score) = best_level(&candidate.resolved.layout, value);
        candidate.misfits += usize::from(score <= -30);
        candidate.score += score;
        candidate.readings.push(decoded);
    }
    candidate
}

/// How common a mode is.
const fn prior(mode: Mode) -> i32 {
    match mode {
        Mode::Ept | Mode::Npt => 0,
        Mode::EptNoAd | Mode::Shadow64 => -8,
        Mode::ShadowPae => -14,
        Mode::NestedEpt | Mode::NestedNpt => -16,
        Mode::NestedEptNoAd | Mode::TdxShared | Mode::TdxMirror => -22,
        Mode::Pvm => -30,
        Mode::Pkvm => -36,
    }
}

fn best_level(layout: &Layout, value: &Evidence) -> (Decoded, i32) {
    if let Some(level) = value.level {
        let decoded = layout.decode(value.raw, level);
        return (decoded, fit(layout, &decoded, value));
    }
    let mut best = (layout.decode(value.raw, 1), i32::MIN);
    for level in 1..=4u8 {
        let decoded = layout.decode(value.raw, level);
        // Level 1 is by far the most common; a tie goes to the lower level.
        let score = fit(layout, &decoded, value) - i32::from(level > 1) * 2 - i32::from(level > 2);
        if score > best.1 {
            best = (decoded, score);
        }
    }
    best
}

/// The level a bare value most likely has under a layout.
pub fn likely_level(layout: &Layout, raw: u64) -> u8 {
    best_level(layout, &Evidence::value(raw)).0.level
}

/// How well a reading fits what KVM writes; negative where it would not.
fn fit(layout: &Layout, d: &Decoded, value: &Evidence) -> i32 {
    let mut score = match (value.role, d.state) {
        (Role::Unknown, _) => 0,
        (Role::Leaf, State::Present)
        | (Role::Table, State::Table)
        | (Role::Empty, State::Nonpresent)
        | (Role::Frozen, State::Removed) => 40,
        (Role::Mmio { gfn, generation }, State::Mmio) => {
            let gfn = gfn.is_none_or(|g| d.gfn == Some(g));
            let generation = generation.is_none_or(|g| d.mmio_generation == Some(g));
            if gfn { 40 + if generation { 20 } else { -20 } } else { -60 }
        }
        _ => -80,
    };
    if let Some(letters) = value.letters {
        score += if letters_fit(layout, d, letters) { 8 } else { -60 };
    }
    score
        + match d.state {
            State::Removed => 50,
            State::Nonpresent if d.host_entry => -10,
            State::Nonpresent if d.nonzero_nonpresent => -90,
            State::Nonpresent if d.raw == 0 && layout.zapped != 0 => -8,
            State::Nonpresent if d.raw == 0 => 2,
            State::Nonpresent => 40,
            State::Mmio => fit_mmio(layout, d),
            State::Table => fit_table(layout, d),
            State::Present => fit_leaf(layout, d),
        }
}

/// Whether `kvm_mmu_set_spte` would print these letters for the value.
pub fn letters_fit(layout: &Layout, d: &Decoded, letters: Letters) -> bool {
    let ours = printed_letters(layout, d.raw);
    // 5.3 and early 5.4 print `u` where there is no user mask.
    ours.r == letters.r
        && ours.w == letters.w
        && ours.x == letters.x
        && (ours.u == letters.u || ours.u.is_none())
}

/// What `kvm_mmu_set_spte` prints for a value: `r` is also printed where every present entry has a mask, `u` only where there is one.
pub fn printed_letters(layout: &Layout, raw: u64) -> Letters {
    let m = &layout.masks;
    let user = if m.xu_mask != 0 { m.xu_mask } else { m.user_mask };
    Letters {
        r: m.present_mask != 0 || raw & 1 != 0,
        w: raw & 2 != 0,
        x: layout.is_executable(raw),
        u: (user != 0).then_some(raw & user != 0),
    }
}

fn fit_mmio(layout: &Layout, d: &Decoded) -> i32 {
    let gfn = d.gfn.unwrap_or(0);
    let generation = d.mmio_generation.unwrap_or(0);
    let again = layout.mmio(gfn, d.mmio_access.unwrap_or(0), generation);
    let mut score = if again == d.raw {
        30
    } else if let GfnRule::Plain { .. } = layout.mmio_gfn {
        -20
    } else {
        -40
    };
    // Emulated devices sit below 4 GiB or in a window below the end of guest memory.
    if gfn >= 1 << 28 {
        score -= 15;
    }
    // Generations grow by small steps from zero (or, up to 5.0, from near the end).
    if generation > 0x1000 && generation < 0xfff00 {
        score -= 6;
    }
    score
}

fn unknown_bits(layout: &Layout, d: &Decoded) -> u64 {
    let named = layout
        .bit_runs(d.state, d.level)
        .iter()
        .filter(|r| r.kind != FieldKind::Unused)
        .fold(0, |mask, r| mask | r.mask());
    d.raw & !named
}

fn fit_present(layout: &Layout, d: &Decoded) -> i32 {
    let mut score = 0;
    score -= 40 * unknown_bits(layout, d).count_ones().min(3) as i32;
    if d.is_malformed() {
        score -= 50;
    }
    if layout.suppress_ve != 0 {
        score += if d.suppress_ve == Some(true) { 10 } else { -60 };
    }
    if layout.present != PresentRule::NotSpecial {
        // One bit in the right place is worth something: half of all random words lack it.
        score += 4;
    }
    if d.pfn == Some(0) {
        score -= 10;
    }
    if d.pfn.unwrap_or(0) >= 1 << 34 {
        score -= 25;
    }
    let nested = matches!(layout.mode, Mode::NestedEpt | Mode::NestedNpt);
    let expected = match d.ad_type {
        Some(AdType::Enabled) => !matches!(layout.mode, Mode::EptNoAd | Mode::NestedEptNoAd),
        Some(AdType::Disabled) => matches!(layout.mode, Mode::EptNoAd | Mode::NestedEptNoAd),
        Some(AdType::WrprotOnly) => nested,
        Some(AdType::Reserved) => false,
        None => true,
    };
    score + if expected { 0 } else { -45 }
}

fn fit_table(layout: &Layout, d: &Decoded) -> i32 {
    let made = layout.table(d.pfn.unwrap_or(0), d.ad_type.unwrap_or(AdType::Enabled));
    let difference = (made ^ d.raw) & !layout.masks.accessed_mask;
    fit_present(layout, d) + if difference == 0 { 30 } else { -30 } - i32::from(d.level == 1) * 50
}

fn fit_leaf(layout: &Layout, d: &Decoded) -> i32 {
    let mut score = fit_present(layout, d) + 6;
    match (d.host_writable, d.mmu_writable, d.w) {
        (None, ..) => {}
        (Some(true), Some(true), _) => score += 8,
        (Some(_), Some(false), Some(false)) => score += 2,
        _ => score -= 35,
    }
    let tracked = d.access_tracked == Some(true);
    if tracked {
        score += if d.raw & layout.saved_mask() != 0 { 15 } else { -10 };
    } else if d.raw & layout.saved_mask() != 0 {
        score -= 40;
    } else if d.r != Some(true) {
        score -= 35;
    }
    match layout.format {
        Format::Ept => {
            score += match (d.memtype, d.ignore_pat) {
                (Some(6), _) => 8,
                (Some(0), Some(false)) => 0,
                (Some(0 | 1 | 4 | 5), _) => -8,
                _ => -30,
            };
        }
        Format::Legacy => {
            if layout.mode == Mode::Npt && d.u == Some(false) && layout.ad_type.shift != 60 {
                score -= 40;
            }
            if layout.mode == Mode::Pvm && d.u == Some(false) {
                score -= 40;
            }
        }
    }
    if d.dirty == Some(true) && d.accessed == Some(false) && d.ad_type == Some(AdType::Enabled) {
        score -= 12;
    }
    // Accessed and Dirty in software (6.13 and later): a writable entry is made dirty, and what cleans it takes W away as well.
    if d.dirty == Some(false) && d.w == Some(true) && d.ad_type == Some(AdType::Disabled) {
        score -= 15;
    }
    score
}

/// The parts of an answer two layouts can agree on.
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

fn same_answer(a: &Candidate, b: &Candidate) -> bool {
    a.readings.iter().zip(&b.readings).all(|(x, y)| {
        PARTS.iter().all(|part| same_part(part, x, y))
            && x.reserved_bits == y.reserved_bits
            && x.restored == y.restored
            && x.nonzero_nonpresent == y.nonzero_nonpresent
    })
}

fn group(candidates: &[Candidate], eras: &[Era]) -> Vec<Reading> {
    let Some(best) = candidates.first() else { return Vec::new() };
    let mut readings: Vec<Reading> = Vec::new();
    for (at, candidate) in candidates.iter().enumerate() {
        if candidate.score < best.score - MARGIN || candidate.misfits > best.misfits {
            continue;
        }
        match readings.iter_mut().find(|r| same_answer(&candidates[r.candidates[0]], candidate)) {
            Some(reading) => reading.candidates.push(at),
            None => readings.push(Reading { candidates: alloc::vec![at], whose: String::new() }),
        }
    }
    for reading in &mut readings {
        reading.whose = whose(candidates, &reading.candidates, eras);
    }
    readings
}

/// `EPT with A/D bits, kernels 5.13 – 6.9; NPT, kernels 6.10 – 7.1`.
fn whose(candidates: &[Candidate], of: &[usize], eras: &[Era]) -> String {
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
            text += if first { ", kernels " } else { ", " };
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

fn agreed(candidates: &[Candidate], plausible: &[Reading]) -> Vec<&'static str> {
    let Some(first) = plausible.first().map(|r| &candidates[r.candidates[0]]) else { return Vec::new() };
    PARTS
        .into_iter()
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

fn settle(
    spec: &LayoutSpec,
    values: &[Evidence],
    candidates: &[Candidate],
    plausible: &[Reading],
) -> Vec<String> {
    let mut facts = Vec::new();
    if plausible.len() < 2 {
        return facts;
    }
    let all: Vec<&Candidate> =
        plausible.iter().flat_map(|r| &r.candidates).map(|&at| &candidates[at]).collect();
    // A fact settles it if, for each of its values, one answer remains.
    let settles = |key: &dyn Fn(&Candidate) -> u64| {
        all.iter()
            .enumerate()
            .all(|(n, a)| all[n + 1..].iter().all(|b| key(a) != key(b) || same_answer(a, b)))
    };
    let narrows = |key: &dyn Fn(&Candidate) -> u64| all.iter().any(|c| key(c) != key(all[0]));
    let word = |settles: bool| if settles { "would settle it" } else { "would narrow it down" };
    let era =
        |c: &Candidate| c.resolved.era.map_or(0, |e| e.value.bytes().fold(0, |n, b| n << 8 | u64::from(b)));
    let format = |c: &Candidate| u64::from(c.resolved.layout.format == Format::Ept);
    let mode = |c: &Candidate| c.resolved.layout.mode as u64;
    let level = |c: &Candidate| c.readings.iter().fold(0, |n, d| n * 8 + u64::from(d.level));
    if values.iter().any(|v| v.level.is_none()) && narrows(&level) {
        facts.push(format!("the level of the entry {} (--level)", word(settles(&level))));
    }
    if spec.kernel.is_none() && narrows(&era) {
        facts.push(format!("the kernel release {} (--kernel)", word(settles(&era))));
    }
    if spec.mode.is_none() && spec.host.vendor.is_none() && narrows(&format) {
        facts.push(format!("the CPU vendor {} (--vendor)", word(settles(&format))));
    }
    if spec.mode.is_none() && narrows(&mode) {
        facts.push(format!("the paging mode {} (--paging)", word(settles(&mode))));
    }
    if facts.is_empty() || values.len() == 1 {
        facts.push(String::from(
            "a second value of the same host, best a leaf and the entry above it, usually settles it",
        ));
    }
    facts
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

    /// How sure the best answer is.
    pub fn confidence(&self) -> Provenance {
        if self.is_settled() { Provenance::Inferred } else { Provenance::Assumed }
    }
}
