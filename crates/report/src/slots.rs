//! The memory slots of a report: [`SlotReport`] and [`OutsideReport`], how they are gathered, and their tables. The numbers and names are those of
//! [`mmuscope_analysis::slots`]; nothing is concluded here.

use maud::{Markup, html};
use mmuscope_analysis::part::Part;
use mmuscope_analysis::slots::{bands, outside_within};
use mmuscope_replay::{SlotAt, Timeline, VmId};
use serde::Serialize;

use crate::frames::FrameRange;
use crate::{json, words};

/// Most rows of a table.
const ROWS: usize = 40;

/// A memory slot, or the hole between two.
#[derive(Clone, Debug, Serialize)]
pub struct SlotReport {
    /// Its frames.
    #[serde(flatten)]
    pub frames: FrameRange,
    /// Number of the slot; `null` for a hole.
    pub slot: Option<u16>,
    /// What memory of this size usually is at this place: a guess.
    pub usually: String,
    /// Host-virtual address of the first frame, where the recording shows it.
    #[serde(serialize_with = "json::maybe_hex")]
    pub hva: Option<u64>,
    /// Writes to it are logged.
    pub dirty_logging: bool,
    /// Writes of the guest leave for the VMM.
    pub read_only: bool,
}

/// Faults on frames that are in no memory slot.
#[derive(Clone, Debug, Serialize)]
pub struct OutsideReport {
    /// Of so many faults it is known whether they hit a slot.
    pub known: u64,
    /// So many hit none.
    pub faults: u64,
    /// The number of frames that they hit.
    pub frames: u64,
}

/// The slots of an address space at `end`, or when its VM ends before; those of a part of the trace, and the holes between all.
pub(crate) fn slots(timeline: &Timeline, vm: VmId, as_id: u8, end: u64, part: &Part) -> Vec<SlotReport> {
    let ended = timeline.vms().iter().find(|v| v.id == vm).and_then(|v| v.ended.as_ref());
    let at = ended.map_or(end, |e| e.start.min(end));
    let report = |b: mmuscope_analysis::slots::Band| {
        let of = match timeline.slot_at(vm, as_id, b.first, at) {
            SlotAt::In(s) if !b.is_hole() => Some(s),
            _ => None,
        };
        SlotReport {
            frames: FrameRange::new(b.first, b.end),
            slot: b.slot,
            usually: b.name,
            hva: of.and_then(|s| s.hva),
            dirty_logging: of.is_some_and(mmuscope_replay::MemSlot::dirty_logging),
            read_only: of.is_some_and(mmuscope_replay::MemSlot::read_only),
        }
    };
    bands(timeline, vm, as_id, at)
        .into_iter()
        .filter(|b| part.holds_frames(b.first, b.end))
        .map(report)
        .collect()
}

/// The faults of a VM on frames of no slot.
pub(crate) fn outside_slots(timeline: &Timeline, vm: VmId, part: &Part) -> Option<OutsideReport> {
    outside_within(timeline, vm, part).map(|o| OutsideReport {
        known: o.known,
        faults: o.faults,
        frames: o.frames.len() as u64,
    })
}

/// In one sentence, how many faults hit no slot.
pub(crate) fn outside_words(outside: Option<&OutsideReport>) -> Option<String> {
    let o = outside.filter(|o| o.faults > 0)?;
    Some(format!(
        "{} of {} hit {} of no memory slot, where the guest's accesses are MMIO.",
        words::count(o.faults),
        words::counted(o.known, "fault", "faults"),
        words::counted(o.frames, "frame", "frames"),
    ))
}

/// The table of an address space on a page.
pub(crate) fn table(slots: &[SlotReport], outside: Option<&OutsideReport>) -> Markup {
    html! {
        table {
            caption {
                b { "Memory slots" } ": where the VMM put memory, and the holes between. What it usually is there is a guess from place and size."
                @if let Some(text) = outside_words(outside) { " " (text) }
            }
            thead { tr {
                th scope="col" class="r" { "slot" } th scope="col" { "frames" } th scope="col" { "address" } th scope="col" class="r" { "size" }
                th scope="col" { "usually" } th scope="col" { "host address" } th scope="col" { "flags" }
            } }
            tbody {
                @for s in slots.iter().take(ROWS) { tr {
                    td class="r" { @match s.slot { Some(n) => (n), None => span class="fa" { "–" } } }
                    td class="t mono" { (s.frames.text()) } td class="t mono" { (words::gpa(s.frames.gfn_start)) }
                    td class="r" { (words::bytes(s.frames.bytes)) } td { (s.usually) }
                    td class="t mono" { (s.hva.map(|h| format!("{h:#x}")).unwrap_or_default()) } td { (flags(s)) }
                } }
                @if slots.len() > ROWS { tr { td colspan="7" class="fa" { "and " (slots.len() - ROWS) " more" } } }
            }
        }
    }
}

/// The flags of a slot in words.
pub(crate) fn flags(s: &SlotReport) -> String {
    let all = [(s.dirty_logging, "dirty logging"), (s.read_only, "read-only")];
    all.iter().filter(|f| f.0).map(|f| f.1).collect::<Vec<_>>().join(", ")
}

/// What the slots of a stretch of frames usually are, each once, holes apart.
pub(crate) fn names(slots: &[SlotReport], start: u64, end: u64) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    let here = |s: &&SlotReport| s.slot.is_some() && s.frames.gfn_start < end && start <= s.frames.gfn_last;
    for s in slots.iter().filter(here) {
        if !names.contains(&s.usually.as_str()) {
            names.push(&s.usually);
        }
    }
    names
}
