//! Known bugs of KVM, recognised by what values and traces show of them, and read from `layouts/bugs.toml`.
//!
//! The main type is [`Bugs`]. `decode` and the findings of a trace establish [`Trait`]s (from values with [`traits_of`], from a trace by
//! looking at its events) and ask [`Bugs::like`]. A match is a likeness and never a proof: each bug names what would confirm it.

use alloc::{format, vec::Vec};

use crate::{
    Decoded, Format, Layout, PresentRule, State,
    eras::release,
    file::{self, FileError, Value},
    infer::{Evidence, Judgement},
};

const TEXT: &str = include_str!("../layouts/bugs.toml");

/// A sign of a bug, seen in values, in a dump or in events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Trait {
    /// The text is a dump of the walk by `get_mmio_spte`.
    MmioWalkDump,
    /// The dump lists a level above the one where walks of this mode begin.
    SlotAboveRoot,
    /// No entry of the walk has reserved bits set, apart from the slots above the root.
    RestIsSound,
    /// The printed `value & rsvd bits` is bit 63 alone.
    ReservedOnlyNx,
    /// The entries are those of NPT.
    Npt,
    /// The tables have four levels.
    FourLevelRoot,
    /// The guest's first page (gfn 0xfffff) is installed again and again, and no other page is.
    StuckAtReset,
    /// A vCPU faults on one frame again and again, and KVM lets it go on each time without installing anything.
    FaultLoop,
    /// A vCPU faults on one frame again and again although the entry allows the access (`fast_page_fault`: spurious).
    SpuriousLoop,
    /// The faults are nested page faults or EPT violations.
    TdpFault,
    /// A value passes the MMIO test and carries MMU-present.
    MmioAndPresent,
    /// A leaf is MMU-writable but neither host-writable nor writable.
    MmuWritableAlone,
    /// The text is a dump of the walk at a #VE.
    VeDump,
    /// Every present entry of the walks has suppress-#VE set.
    VeSuppressed,
}

impl Trait {
    /// All traits, each with its word in the file.
    const NAMES: [(Trait, &'static str); 14] = [
        (Trait::MmioWalkDump, "mmio-walk-dump"),
        (Trait::SlotAboveRoot, "slot-above-root"),
        (Trait::RestIsSound, "rest-is-sound"),
        (Trait::ReservedOnlyNx, "reserved-only-nx"),
        (Trait::Npt, "npt"),
        (Trait::FourLevelRoot, "four-level-root"),
        (Trait::StuckAtReset, "stuck-at-reset"),
        (Trait::FaultLoop, "fault-loop"),
        (Trait::SpuriousLoop, "spurious-loop"),
        (Trait::TdpFault, "tdp-fault"),
        (Trait::MmioAndPresent, "mmio-and-present"),
        (Trait::MmuWritableAlone, "mmu-writable-alone"),
        (Trait::VeDump, "ve-dump"),
        (Trait::VeSuppressed, "ve-suppressed"),
    ];
}

/// A known bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bug {
    /// The name of the bug in the file.
    pub id: &'static str,
    /// What happens, in a sentence that follows "looks like".
    pub title: &'static str,
    /// The traits by which it is recognised; all of them must be seen.
    pub when: Vec<Trait>,
    /// The first release that has the bug, as `(major, minor)`.
    pub first: (u16, u16),
    /// The last release that has the bug.
    pub last: (u16, u16),
    /// The commit or release that fixed it.
    pub fixed: &'static str,
    /// The commit, mail or bug report that describes it.
    pub written: &'static str,
    /// Observations that would confirm it, one sentence each.
    pub confirm: Vec<&'static str>,
}

impl Bug {
    /// Whether the bug alone explains what is wrong with an entry: then neither memory nor layout has to be.
    pub fn explains(&self, layout: &Layout, d: &Decoded) -> bool {
        self.when.iter().any(|t| match t {
            Trait::MmioAndPresent => layout.is_mmio_and_present(d.raw),
            Trait::ReservedOnlyNx => d.reserved_bits == 1 << 63,
            Trait::MmuWritableAlone => is_mmu_writable_alone(layout, d),
            _ => false,
        })
    }

    /// The releases as they follow a noun: `kernels 5.16 – 6.2`, `kernel 5.10`.
    pub fn kernels(&self) -> alloc::string::String {
        format!("kernel{} {}", if self.first == self.last { "" } else { "s" }, self.releases())
    }

    /// The releases in words: `5.16 – 6.2`.
    pub fn releases(&self) -> alloc::string::String {
        let (a, b) = (self.first, self.last);
        if a == b { format!("{}.{}", a.0, a.1) } else { format!("{}.{} – {}.{}", a.0, a.1, b.0, b.1) }
    }
}

/// All known bugs.
#[derive(Clone, Debug)]
pub struct Bugs(pub Vec<Bug>);

impl Bugs {
    /// Reads the file that ships with the crate.
    pub fn known() -> Result<Self, FileError> {
        let mut bugs: Vec<Bug> = Vec::with_capacity(8);
        for raw in file::read("bugs.toml", TEXT)? {
            let bad = || FileError {
                file: "bugs.toml".into(),
                line: raw.line,
                reason: format!("{} is not what it should be", raw.key),
            };
            if bugs.last().is_none_or(|b| b.id != raw.header) {
                bugs.push(Bug {
                    id: raw.header,
                    title: "",
                    when: Vec::new(),
                    first: (0, 0),
                    last: (0, 0),
                    fixed: "",
                    written: "",
                    confirm: Vec::new(),
                });
            }
            let Some(bug) = bugs.last_mut() else { continue };
            match (raw.key, raw.value) {
                ("title", Value::Text(text)) => bug.title = text,
                ("fixed", Value::Text(text)) => bug.fixed = text,
                ("written", Value::Text(text)) => bug.written = text,
                ("confirm", Value::List(list)) => bug.confirm = list,
                ("first", Value::Text(text)) => bug.first = release(text).ok_or_else(bad)?,
                ("last", Value::Text(text)) => bug.last = release(text).ok_or_else(bad)?,
                ("when", Value::List(list)) => {
                    let named = |word: &&str| Trait::NAMES.iter().find(|(_, n)| n == word).map(|&(t, _)| t);
                    bug.when = list.iter().map(named).collect::<Option<_>>().ok_or_else(bad)?;
                }
                _ => return Err(bad()),
            }
        }
        Ok(Self(bugs))
    }

    /// The bugs whose traits were all seen, among those of kernels in this range of releases.
    pub fn like(&self, seen: &[Trait], releases: ((u16, u16), (u16, u16))) -> Vec<&Bug> {
        let fits = |b: &&Bug| {
            b.when.iter().all(|t| seen.contains(t)) && b.first <= releases.1 && b.last >= releases.0
        };
        self.0.iter().filter(fits).collect()
    }
}

fn is_mmu_writable_alone(layout: &Layout, d: &Decoded) -> bool {
    d.mmu_writable == Some(true)
        && d.host_writable == Some(false)
        && d.w == Some(false)
        && layout.present != PresentRule::NotSpecial
}

/// The traits that values and walks show under the best layout of the judgement.
pub fn traits_of(evidence: &Evidence, judgement: &Judgement) -> Vec<Trait> {
    let mut seen = Vec::new();
    let Some(best) = judgement.best() else { return seen };
    let layout = &best.resolved.layout;
    let start = crate::infer::walk_start(layout);
    let mut add = |on: bool, t: Trait| {
        if on && !seen.contains(&t) {
            seen.push(t);
        }
    };
    add(layout.mode.format() == Format::Legacy && layout.mode == crate::Mode::Npt, Trait::Npt);
    for (n, (value, d)) in evidence.values.iter().zip(&best.readings).enumerate() {
        add(value.printed_mask.is_some_and(|m| m & value.raw == 1 << 63), Trait::ReservedOnlyNx);
        // A frame number that is too large has the marks of an MMIO SPTE, too, but not for a frame that a guest has.
        let frame = layout.mmio_gfn.get(value.raw);
        let faulted = evidence.walks.iter().filter(|w| w.values.contains(&n)).find_map(|w| w.address);
        let likely = faulted.map_or(frame < 1 << 28, |a| a >> 12 == frame);
        add(layout.is_mmio_and_present(value.raw) && likely, Trait::MmioAndPresent);
        add(is_mmu_writable_alone(layout, d), Trait::MmuWritableAlone);
    }
    for walk in &evidence.walks {
        let of = || walk.values.iter().filter_map(|&n| best.readings.get(n));
        add(walk.reserved, Trait::MmioWalkDump);
        add(of().any(|d| walk.is_slot(d.level, layout)), Trait::SlotAboveRoot);
        let sound = |d: &&Decoded| d.level > start || !layout.refuses(d) && !d.nonzero_nonpresent;
        add(of().all(|d| sound(&d)), Trait::RestIsSound);
    }
    let mut present =
        best.readings.iter().filter(|d| matches!(d.state, State::Present | State::Table)).peekable();
    add(present.peek().is_some() && present.all(|d| d.suppress_ve == Some(true)), Trait::VeSuppressed);
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signature_is_whole() {
        let bugs = Bugs::known().expect("the shipped file");
        assert!(bugs.0.len() >= 6);
        for b in &bugs.0 {
            assert!(!b.title.is_empty() && !b.when.is_empty() && !b.fixed.is_empty(), "{}", b.id);
            assert!(!b.written.is_empty() && !b.confirm.is_empty(), "{}", b.id);
            assert!(b.first <= b.last && b.first >= (4, 13), "{}: {}", b.id, b.releases());
            // A bug is recognised by its own traits in its own releases, and not by a part of them.
            assert!(bugs.like(&b.when, (b.first, b.last)).contains(&b), "{}", b.id);
            assert!(!bugs.like(&b.when[1..], (b.first, b.last)).contains(&b), "{}", b.id);
            assert!(!bugs.like(&b.when, ((b.last.0 + 1, 0), (99, 0))).contains(&b), "{}", b.id);
        }
    }

    #[test]
    fn every_trait_has_a_word() {
        for (n, (t, word)) in Trait::NAMES.iter().enumerate() {
            assert!(Trait::NAMES[n + 1..].iter().all(|(u, w)| u != t && w != word), "{word}");
        }
    }
}
