//! Guest frames as ranges of one state.

use mmuscope_replay::{Certainty, Entry, MemoryKind, MemoryRange, Span, State, StateFilter, Timeline, VmId};

use crate::{model::MemoryReport, words};

/// Frames of an address space at the end; where nothing is mapped then although something was, at the moment `peak_at` of most memory.
/// The second value tells which.
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
        gfn_start: words::gfn(m.gfn_start),
        gfn_last: words::gfn(m.gfn_end.saturating_sub(1).max(m.gfn_start)),
        gpa: words::gpa(m.gfn_start),
        bytes: m.gfn_end.saturating_sub(m.gfn_start).saturating_mul(4096),
        kind: kind(m.kind),
        state: m.shade.name().to_owned(),
        shade: m.shade,
        size: if m.level == 0 { "mixed" } else { words::level_size(m.level) },
        certainty: m.certainty.name(),
        entries: m.entries,
        slot: m.slot,
    }
}

/// A range that may still grow.
struct Run {
    start: u64,
    end: u64,
    level: u8,
    certainty: Certainty,
    report: MemoryReport,
}

/// Neighbours of one state and size become one range.
fn join(mut live: Vec<(Entry, Span)>) -> Vec<MemoryReport> {
    live.retain(|(_, s)| matches!(s.state, State::Present | State::Mmio));
    live.sort_by_key(|(e, _)| (e.gfn, e.level));
    let mut out: Vec<Run> = Vec::new();
    for (e, s) in live {
        let end = e.gfn.saturating_add(e.pages());
        match out.last_mut() {
            Some(r) if r.end == e.gfn && r.level == e.level && r.report.shade == s.shade => {
                r.end = end;
                r.certainty = r.certainty.max(s.certainty);
                r.report.gfn_last = words::gfn(end - 1);
                r.report.bytes = (end - r.start).saturating_mul(4096);
                r.report.entries += 1;
                r.report.certainty = r.certainty.name();
            }
            _ => out.push(Run {
                start: e.gfn,
                end,
                level: e.level,
                certainty: s.certainty,
                report: MemoryReport {
                    gfn_start: words::gfn(e.gfn),
                    gfn_last: words::gfn(end.saturating_sub(1)),
                    gpa: words::gpa(e.gfn),
                    bytes: e.pages().saturating_mul(4096),
                    kind: kind(if s.state == State::Mmio { MemoryKind::Mmio } else { MemoryKind::Ram }),
                    state: s.shade.name().to_owned(),
                    shade: s.shade,
                    size: words::level_size(e.level),
                    certainty: s.certainty.name(),
                    entries: 1,
                    slot: None,
                },
            }),
        }
    }
    out.into_iter().map(|r| r.report).collect()
}

fn kind(kind: MemoryKind) -> &'static str {
    match kind {
        MemoryKind::Ram => "ram",
        MemoryKind::Gone => "gone",
        MemoryKind::Mmio => "mmio",
        MemoryKind::Unseen => "unseen",
    }
}
