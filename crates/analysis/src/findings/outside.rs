//! The rule `outside-slots`: the guest executes, or ends a fault in an error, where the VMM put no memory.

use super::{Finding, Rule, Seen, Severity, counted, vcpus};
use mmuscope_replay::{Fault, Outcome, SlotAt};
use std::collections::BTreeMap;

pub(super) static RULE: Rule = Rule {
    id: "outside-slots",
    severity: Severity::Warning,
    seen: "instruction fetches from a guest frame that is in no memory slot, or faults on one that end in an error of KVM_RUN. The slots must be \
           known (`mmuscope memslots`)",
    why: "the guest jumped into nowhere, or the VMM gave it a memory map with memory that no slot backs. Reads and writes there are MMIO, which the \
          VMM emulates; instructions cannot be fetched from MMIO",
    remedy: "compare the guest's memory map (e820, `/proc/iomem`) with the slots, and look at the guest's instruction pointer before the fault",
    refuted: "the VMM made the slot just then, and its request came after the fault",
    find,
};

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let mut pages: BTreeMap<(u16, u8, u64), Vec<&Fault>> = BTreeMap::new();
    for f in seen.faults {
        let failed = matches!(f.outcome, Outcome::Error | Outcome::InternalError | Outcome::MemoryFault);
        let Some(gfn) = f.gfn.filter(|_| failed || f.access.fetch && !f.access.ambiguous) else { continue };
        if seen.timeline.slot_at(f.vm, f.as_id, gfn, f.ts) == SlotAt::Outside {
            pages.entry((f.vm.0, f.as_id, gfn)).or_default().push(f);
        }
    }
    let one = |((vm, _, gfn), faults): ((u16, u8, u64), Vec<&Fault>)| {
        let who = vcpus(faults.iter().filter_map(|f| f.vcpu).collect());
        let of = if who.is_empty() { String::new() } else { format!(" of {who}") };
        let title = format!(
            "{}{of} on gfn {gfn:#x} ({}), which is in no memory slot: {}",
            counted(faults.len() as u64, "fault"),
            faults[0].access.name(),
            faults[0].outcome.name()
        );
        let mut out = Finding::new(&RULE, title);
        (out.vm, out.gfn) = (Some(vm), Some(gfn));
        out.see_faults(faults.iter().copied());
        out
    };
    pages.into_iter().map(one).collect()
}
