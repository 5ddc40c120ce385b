//! The rule `mmio-uncached`: MMIO is emulated again and again, and no MMIO SPTE remembers that it is MMIO.

use super::{Finding, Rule, Seen, Severity, Sure, counted, share};
use mmuscope_replay::{Coverage, Fault, Outcome};
use std::collections::BTreeMap;

/// Fewer emulated faults are not worth a cache.
const MANY: u64 = 16;

pub(super) static RULE: Rule = Rule {
    id: "mmio-uncached",
    severity: Severity::Warning,
    seen: "16 MMIO faults or more were emulated, two or more of them on one page, on frames that were never present, and the trace, which has `mark_mmio_spte` events recorded, holds no MMIO SPTE at all",
    why: "MMIO caching is off: kvm.mmio_caching=0, or the CPU leaves no reserved bit for it (52 physical address bits without another way). Each \
          access then goes through the whole fault path, with a search of the memory slots, before it is emulated",
    remedy: "kvm.mmio_caching=1, where the host's CPU allows it (/sys/module/kvm/parameters/mmio_caching shows what is in effect since 5.19)",
    refuted: "kvm.mmio_caching reads Y, or `mark_mmio_spte` events come when the same guest is recorded from its start",
    find,
};

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let off = seen.timeline.coverage("mark_mmio_spte") != Some(Coverage::NotRecorded)
        && !seen.timeline.has_events("mark_mmio_spte")
        && !seen.timeline.has_events("handle_mmio_page_fault");
    // A text does not say what was recorded: other events of the same set do, by being there.
    let recorded = seen.timeline.coverage("mark_mmio_spte") == Some(Coverage::Recorded)
        || seen.timeline.has_events("kvm_mmu_spte_requested") && seen.timeline.has_events("kvm_mmu_get_page");
    if !off || !recorded {
        return Vec::new();
    }
    let mut pages: BTreeMap<(u16, u64), Vec<&Fault>> = BTreeMap::new();
    for f in seen.faults.iter().filter(|f| f.outcome == Outcome::Emulated && f.mmio && f.entry.is_none()) {
        if let Some(gfn) = f.gfn {
            pages.entry((f.vm.0, gfn)).or_default().push(f);
        }
    }
    // A write to a read-only memory slot is emulated, too.
    pages.retain(|(vm, gfn), _| !seen.was_present(*vm, *gfn, u32::MAX));
    seen.vms().filter_map(|vm| one(seen, vm, &pages)).collect()
}

fn one(seen: &Seen<'_>, vm: u16, pages: &BTreeMap<(u16, u64), Vec<&Fault>>) -> Option<Finding> {
    let of: Vec<_> = pages.iter().filter(|(k, _)| k.0 == vm).collect();
    let worst = of.iter().max_by_key(|(_, f)| f.len())?;
    if worst.1.len() < 2 {
        return None;
    }
    let mut out = Finding::new(&RULE, String::new());
    let mut faults: Vec<&Fault> = of.iter().flat_map(|(_, f)| f.iter().copied()).collect();
    faults.sort_by_key(|f| f.event);
    out.see_faults(faults);
    if out.count < MANY {
        return None;
    }
    out.title = format!(
        "{} on {} were emulated without an MMIO SPTE, most ({}) on gfn {:#x}, and the trace has no MMIO SPTE at all: MMIO caching is off{}",
        counted(out.count, "MMIO fault"),
        counted(of.len() as u64, "page"),
        worst.1.len(),
        worst.0.1,
        share(seen, vm, out.cost),
    );
    (out.vm, out.sure) = (Some(vm), Sure::Likely);
    Some(out)
}
