//! [`memory`]: guest frames as ranges of one state.

use mmuscope_replay::{Entry, MemoryKind, MemoryRange, Span, State, StateFilter, Timeline, VmId};
use mmuscope_units::ranges;

use crate::model::{FrameRange, MemoryReport};

/// The guest frames of an address space at a moment, as far as they are of some frames.
pub(super) fn of_frames(
    timeline: &Timeline,
    (vm, as_id): (VmId, u8),
    at: u64,
    gfns: (u64, u64),
) -> Vec<MemoryReport> {
    let filter = StateFilter { vm: Some(vm), as_id: Some(as_id), gfns: Some(gfns), ..StateFilter::default() };
    join(timeline.state_at(at, &filter))
}

/// The guest frames of an address space at the end of the trace, or, where nothing is mapped by then although something was before, at
/// `peak_at`, the time when most memory was present. The second value is true for `peak_at`.
pub(super) fn memory(
    timeline: &Timeline,
    vm: VmId,
    as_id: u8,
    at_end: &[MemoryRange],
    peak_bytes: u64,
    peak_at: u64,
) -> (Vec<MemoryReport>, bool) {
    let own = || at_end.iter().filter(|m| m.as_id == as_id);
    if peak_bytes == 0 || own().any(|m| m.kind == MemoryKind::Ram) {
        return (own().map(range).collect(), false);
    }
    let filter = StateFilter { vm: Some(vm), as_id: Some(as_id), ..StateFilter::default() };
    (join(timeline.state_at(peak_at, &filter)), true)
}

fn range(m: &MemoryRange) -> MemoryReport {
    MemoryReport {
        frames: FrameRange::new(m.gfn_start, m.gfn_end),
        kind: m.kind,
        shade: m.shade,
        level: m.level,
        certainty: m.certainty,
        entries: m.entries,
        slot: m.slot,
    }
}

/// Joins adjacent entries of one state and size into ranges.
fn join(mut live: Vec<(Entry, Span)>) -> Vec<MemoryReport> {
    live.retain(|(_, s)| matches!(s.state, State::Present | State::Mmio));
    live.sort_by_key(|(e, _)| (e.gfn, e.level));
    let single = live.into_iter().map(|(e, s)| MemoryRange {
        vm: e.vm,
        as_id: e.as_id,
        gfn_start: e.gfn,
        gfn_end: e.gfn.saturating_add(e.pages()),
        kind: if s.state == State::Mmio { MemoryKind::Mmio } else { MemoryKind::Ram },
        level: e.level,
        shade: s.shade,
        certainty: s.certainty,
        entries: 1,
        slot: None,
    });
    ranges::fold(single, MemoryRange::take_in).iter().map(range).collect()
}
