//! The rule `reserved-on-present`: the CPU found reserved bits in an entry that maps a page.

use super::{Finding, Rule, Seen, Severity, Sure, counted};
use mmuscope_replay::{Certainty, Fault, Span, State};
use std::collections::BTreeMap;

/// The entry must have been so for as long before the fault, in nanoseconds: what another vCPU just changed may still have been an MMIO SPTE.
const BEFORE: u64 = 1_000_000;

pub(super) static RULE: Rule = Rule {
    id: "reserved-on-present",
    severity: Severity::Error,
    seen: "a fault with RSVD (bit 3 of a nested page fault's error code) on a frame that a present leaf maps, and had mapped for a millisecond. MMIO \
           SPTEs, which have reserved bits on purpose, are left out",
    why: "an entry of the page tables that KVM filled holds bits that this CPU takes for reserved: more physical address bits than it has (memory \
          encryption reduces them), a bit that a mode does not have, or memory corruption",
    remedy: "decode the entry (`mmuscope page`, `mmuscope decode`) and compare its address bits with the CPU's (`--maxphyaddr`, /proc/cpuinfo); the host's \
             kernel log has a dump of the walk (get_mmio_spte: reserved bits set)",
    refuted: "the entry was changed just then by a path that is not traced",
    find,
};

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let mut pages: BTreeMap<(u16, u64), (Vec<&Fault>, u64)> = BTreeMap::new();
    for f in seen.faults.iter().filter(|f| f.access.reserved && !f.access.ambiguous) {
        let Some(gfn) = f.gfn else { continue };
        if let Some(value) = present(seen, f, gfn) {
            pages.entry((f.vm.0, gfn)).or_insert((Vec::new(), value)).0.push(f);
        }
    }
    let one = |((vm, gfn), (faults, value)): ((u16, u64), (Vec<&Fault>, u64))| {
        let title = format!(
            "{} with RSVD on gfn {gfn:#x}{}, which {value:#x} maps: the CPU takes bits of it for reserved",
            counted(faults.len() as u64, "fault"),
            seen.of_vm(vm),
        );
        let mut out = Finding::new(&RULE, title);
        (out.vm, out.gfn, out.sure) = (Some(vm), Some(gfn), Sure::Likely);
        out.see_faults(faults.iter().copied());
        out
    };
    pages.into_iter().map(one).collect()
}

/// The value of the leaf that maps a frame from before a fault to its end; `None` where no event states one.
fn present(seen: &Seen<'_>, f: &Fault, gfn: u64) -> Option<u64> {
    // The fault itself may be what ends the span: an entry with reserved bits is taken for an MMIO SPTE.
    let by_fault = |s: &Span| {
        s.closed_by.is_some_and(|e| {
            (f.event..=f.last_event).contains(&e) && seen.trace.events.get(e as usize).tid == Some(f.tid)
        })
    };
    let whole = |s: &Span| {
        let on = s.end.is_none_or(|e| e > f.end_ts.unwrap_or(f.ts)) || by_fault(s);
        s.start.saturating_add(BEFORE) <= f.ts && on
    };
    let entries = seen.timeline.entries_at(f.vm, f.as_id, gfn);
    let spans = entries.into_iter().filter_map(|id| seen.timeline.span_at(id, f.ts.saturating_sub(1)));
    // Where two trees of page tables hold the frame, the one that the vCPU used is not known.
    let all: Vec<Span> = spans.filter(|s| !matches!(s.state, State::Table | State::Nonpresent)).collect();
    let [one] = all[..] else { return None };
    let stated = matches!(one.certainty, Certainty::Exact | Certainty::Observed);
    (one.state == State::Present && stated && whole(&one)).then_some(one.spte?)
}
