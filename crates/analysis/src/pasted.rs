//! From pasted text to values and the layout that they are read under: [`read`] finds the values, [`gather`] makes them the evidence that
//! `mmuscope_spte::infer` judges, [`judge`] asks it. Events are read as the replay reads them. `mmuscope decode` and the viewer call this.

use crate::findings::{Finding, find};
use mmuscope_replay::{Gathered, ReplayOptions, replay};
use mmuscope_spte::clues::Clues;
use mmuscope_spte::infer::{self, Claim, Evidence, Fact, Judgement, Letters, Modes, Role, Value, Walk};
use mmuscope_spte::layouts::Library;
use mmuscope_spte::{Kernel, Layout, LayoutSpec, Mode, Vendor};
use mmuscope_trace::Trace;
use mmuscope_trace::paste::{self, Found, Group, Kind, Pasted, Stated};

/// Reads a word that is a value: hex digits, with or without 0x, of any length up to 16.
pub fn argument(word: &str) -> Option<u64> {
    let digits = word.strip_prefix("0x").or(word.strip_prefix("0X")).unwrap_or(word);
    let digits = digits.replace('_', "");
    let fits = (1..=16).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    fits.then(|| u64::from_str_radix(&digits, 16).ok()).flatten()
}

/// The values of words that are all values; `None` where one is not, or there is none.
pub fn bare<'a>(words: impl IntoIterator<Item = &'a str>) -> Option<Pasted> {
    let found = |word: &str| Some(Found { value: argument(word)?, line: 1, ..Found::default() });
    let values: Vec<Found> = words.into_iter().map(found).collect::<Option<_>>()?;
    let groups = vec![Group { kind: Kind::Bare, line: 1, address: None, event: None }];
    (!values.is_empty()).then(|| Pasted { values, groups, ..Pasted::default() })
}

/// The values of what was typed, and the evidence of its events where it has some. Bare values are values whatever they are; any other text is read
/// as a file with it is.
pub fn read(text: &str) -> (Pasted, Option<Gathered>) {
    match bare(text.split_whitespace()) {
        Some(pasted) => (pasted, None),
        None => (paste::scan(text.as_bytes()), events(text.as_bytes())),
    }
}

/// The values of each group.
pub fn by_group(pasted: &Pasted) -> Vec<Vec<&Found>> {
    let mut groups = vec![Vec::new(); pasted.groups.len()];
    for value in &pasted.values {
        if let Some(group) = groups.get_mut(value.group) {
            group.push(value);
        }
    }
    groups
}

/// Judges which layout the values come from; `level` is that of all values, where it is known.
pub fn judge(
    spec: &LayoutSpec,
    pasted: &Pasted,
    level: Option<u8>,
    evidence: &Evidence,
    library: &Library,
) -> Result<Judgement, mmuscope_spte::Error> {
    let memory = pasted.groups.iter().any(|g| g.kind == Kind::Memory);
    if !memory || level.is_some() {
        return infer::judge(spec, evidence, library);
    }
    // All entries of one table have the same level, so each level is tried for all of them.
    let at = |level: u8| {
        let mut at = evidence.clone();
        for value in &mut at.values {
            value.level = value.level.or(Some(level));
        }
        infer::judge(spec, &at, library)
    };
    let score = |j: &Judgement| j.best().map_or(i32::MIN, |c| c.score);
    let mut best = at(1)?;
    for level in 2..=4 {
        let judgement = at(level)?;
        if score(&judgement) > score(&best) {
            best = judgement;
        }
    }
    Ok(best)
}

/// The level that a value is read at, and whether the text or `given` says it. `judgement` is what was concluded from the values, where
/// anything was.
pub fn level_of(
    found: &Found,
    given: Option<u8>,
    judgement: Option<&Judgement>,
    layout: &Layout,
) -> (u8, bool) {
    if let Some(level) = found.level.or(given) {
        return (level, true);
    }
    let first = judgement.and_then(Judgement::best).and_then(|best| best.readings.first());
    match first.filter(|_| found.role == paste::Role::Word) {
        Some(first) => (first.level, false),
        None => (infer::likely_level(layout, found.value), false),
    }
}

/// The evidence of the trace events in a text, if it has any.
pub fn events(text: &[u8]) -> Option<Gathered> {
    let mut gathered = trace(text).map(|t| mmuscope_replay::evidence(&t))?;
    if paste::irq_flags(text) == Some(4)
        && let Ok(clues) = Clues::known()
    {
        clues.tell(&mut gathered.evidence, "irq-flags-four", FLAGS);
    }
    Some(gathered)
}

/// The weight of the column of irq flags: it shows the kernel that traced, and trees with a newer KVM keep the one they have. More would outweigh
/// a bit that only one layout has (40 points with a margin of 30).
const FLAGS: i32 = 12;

/// What the trace events in a text show beside values: the findings of a trace.
pub fn shown(text: &[u8]) -> Vec<Finding> {
    trace(text).map(|t| find(&t, &replay(&t, &ReplayOptions::default()))).unwrap_or_default()
}

fn trace(text: &[u8]) -> Option<Trace> {
    let text = String::from_utf8_lossy(text);
    if !text.contains("kvm_") && !text.contains("fast_page_fault") && !text.contains("mmio_spte") {
        return None;
    }
    Trace::from_text(&text).ok().filter(|t| !t.events.is_empty())
}

/// Whether the text says that reserved bits were found in this dump.
pub fn says_reserved(pasted: &Pasted, group: &Group, values: &[&Found]) -> bool {
    group.kind == Kind::ReservedDump
        && !is_misconfiguration(pasted, group)
        && (group.address.is_some() || values.iter().any(|v| v.rsvd_mask.is_some()))
}

/// Whether the dump is the one that kernels up to 4.2 print at every EPT misconfiguration. They name what they find wrong with an entry on lines of
/// their own, and most often find nothing: the dump itself says only that the CPU refused the walk.
pub fn is_misconfiguration(pasted: &Pasted, group: &Group) -> bool {
    group.kind == Kind::ReservedDump && pasted.clues.iter().any(is_ancient)
}

/// Whether the dump is worded as that of Linux 5.10.0, which prints all slots of its array, also the one above the root of the walk.
pub fn has_unwritten_slot(pasted: &Pasted, group: &Group) -> bool {
    let of_5_10 = |c: &paste::Clue| (*c.releases.start(), *c.releases.end()) == ((5, 10), (5, 12));
    group.kind == Kind::ReservedDump && pasted.clues.iter().any(of_5_10)
}

/// Whether the clue is of releases before all that have a layout here.
fn is_ancient(clue: &paste::Clue) -> bool {
    *clue.releases.end() < paste::OLDEST
}

/// Most values that are judged to find a layout; more would only cost time.
const MOST_JUDGED: usize = 256;

/// All evidence of a text. Values of events are taken from `events` where those could be read.
pub fn gather(pasted: &Pasted, level: Option<u8>, events: Option<&Gathered>) -> Evidence {
    let mut evidence = events.map(|g| g.evidence.clone()).unwrap_or_default();
    let read = !evidence.values.is_empty();
    for (group, found) in pasted.groups.iter().zip(by_group(pasted)) {
        if group.kind == Kind::Event && read || evidence.values.len() >= MOST_JUDGED {
            continue;
        }
        let first = evidence.values.len();
        let zeroes = found.iter().all(|v| v.value == 0) || found.len() < 8;
        evidence
            .values
            .extend(found.iter().filter(|v| zeroes || v.value != 0).map(|v| value(v, group, level)));
        evidence.values.truncate(MOST_JUDGED);
        if matches!(group.kind, Kind::ReservedDump | Kind::VeDump | Kind::Walk) {
            evidence.walks.push(Walk {
                values: (first..evidence.values.len()).collect(),
                address: group.address,
                reserved: says_reserved(pasted, group, &found),
                misconfigured: is_misconfiguration(pasted, group),
                unwritten_slots: has_unwritten_slot(pasted, group),
            });
        }
    }
    facts(pasted, &mut evidence);
    evidence
}

fn value(found: &Found, group: &Group, level: Option<u8>) -> Value {
    Value {
        raw: found.value,
        level: found.level.or(level),
        role: match (found.role, group.event.as_deref()) {
            (paste::Role::Leaf, Some("kvm_mmu_set_spte")) => Role::Installed,
            (paste::Role::Leaf, _) => Role::Leaf,
            (paste::Role::Mmio, _) => Role::Mmio { gfn: found.gfn, generation: found.generation },
            _ => Role::Unknown,
        },
        letters: found.letters.map(|l| Letters { r: l.r, w: l.w, x: l.x, u: l.u }),
        printed_mask: found.rsvd_mask,
        often: 0,
    }
}

fn facts(pasted: &Pasted, evidence: &mut Evidence) {
    if pasted.kernel.as_deref().is_some_and(|k| k.to_ascii_lowercase().contains("pkvm")) {
        let why = "the kernel's name has pkvm";
        evidence.fact(Claim::Modes(Modes::of(&[Mode::Pkvm])), Fact::WORDING, why);
    }
    if let Some(kernel) = pasted.kernel.as_deref().and_then(Kernel::parse) {
        let points = mmuscope_replay::release_points(&kernel);
        evidence.fact(
            Claim::Kernel(kernel),
            points,
            format!("the text names kernel {kernel} (trees carry backports: values count more)"),
        );
    }
    for clue in &pasted.clues {
        let releases = Claim::Releases(*clue.releases.start(), *clue.releases.end());
        let why = if is_ancient(clue) { clue.why.to_owned() } else { range(clue) };
        evidence.fact(releases, Fact::WORDING, why);
    }
    if let Some(vendor) = pasted.vendor.and_then(Vendor::parse) {
        let why = format!("the text names {}'s KVM module or a function of it", vendor.name());
        evidence.fact(Claim::Modes(Modes::vendor(vendor)), Fact::EVENTS, why);
    }
    let both = |a: Stated, b: Stated| {
        pasted.stated.iter().any(|(s, _)| *s == a) && pasted.stated.iter().any(|(s, _)| *s == b)
    };
    for (stated, words) in &pasted.stated {
        let modes = match *stated {
            // A text that names both vendors' paging proves neither.
            Stated::Ept | Stated::Npt if both(Stated::Ept, Stated::Npt) => continue,
            Stated::Ept => Modes::ept(),
            Stated::Npt => Modes::of(&[Mode::Npt, Mode::NestedNpt]),
            Stated::Tdp => Modes::tdp(),
            Stated::NestedEpt => Modes::of(&[Mode::NestedEpt, Mode::NestedEptNoAd]),
            Stated::EptPointer(pointer) => {
                let off = pointer >> 6 & 1 == 0;
                let why = format!("{words} has A/D bits {}", if off { "off" } else { "on" });
                let has = |m: Mode| m.format() == mmuscope_spte::Format::Ept;
                let without = |m: Mode| matches!(m, Mode::EptNoAd | Mode::NestedEptNoAd);
                let modes = Modes::that(|m| has(m) && without(m) == off);
                evidence.fact(Claim::Modes(modes), Fact::EVENTS, why);
                continue;
            }
            Stated::RunError(_) => continue,
        };
        evidence.fact(Claim::Modes(modes), Fact::EVENTS, format!("the text has {words}"));
    }
}

/// `the words "rsvd bits": kernel 5.14 or later`.
fn range(clue: &paste::Clue) -> String {
    let (a, b) = (clue.releases.start(), clue.releases.end());
    let until = if b.0 == u16::MAX { " or later".to_owned() } else { format!(" to {}.{}", b.0, b.1) };
    format!("{}: kernel {}.{}{until}", clue.why, a.0, a.1)
}
