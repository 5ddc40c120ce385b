//! The rule `beyond-tables`: faults at guest-physical addresses that four levels of page tables cannot map.

use super::{Finding, Rule, Seen, Severity, counted, vcpus};
use mmuscope_replay::Fault;
use std::collections::BTreeMap;

/// Number of bits of a guest-physical address that four levels of page tables translate.
const FOUR_LEVELS: u32 = 48;

pub(super) static RULE: Rule = Rule {
    id: "beyond-tables",
    severity: Severity::Warning,
    seen: "faults at guest-physical addresses above 48 bits, where no event shows page tables of five levels",
    why: "the guest uses an address that its EPT or NPT cannot map, however often it tries: the VMM gave it memory or a device above 256 TiB, or announced more physical address bits than four levels translate",
    remedy: "lower the guest's MAXPHYADDR (`host-phys-bits-limit` in QEMU), or use a host and a KVM with five levels",
    refuted: "a page-table page of level 5 is in use, and the trace just does not show it",
    find,
};

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    if seen.noted.five_levels {
        return Vec::new();
    }
    let mut pages: BTreeMap<(u16, u64), Vec<&Fault>> = BTreeMap::new();
    for f in seen.faults {
        let Some(gpa) = f.gpa.filter(|a| a >> FOUR_LEVELS != 0 && !f.access.ambiguous) else { continue };
        pages.entry((f.vm.0, gpa >> 12)).or_default().push(f);
    }
    let one = |((vm, gfn), faults): ((u16, u64), Vec<&Fault>)| {
        let who = vcpus(faults.iter().filter_map(|f| f.vcpu).collect());
        let of = if who.is_empty() { String::new() } else { format!(" of {who}") };
        let top = (gfn << 12).ilog2();
        let title = format!(
            "{}{of} on gfn {gfn:#x} ({}): bit {top} of its address is set, and four levels of page tables translate {FOUR_LEVELS} bits, so that \
             only five can ever map it",
            counted(faults.len() as u64, "fault"),
            faults[0].access.name()
        );
        let mut out = Finding::new(&RULE, title);
        (out.vm, out.gfn) = (Some(vm), Some(gfn));
        out.see_faults(faults.iter().copied());
        out
    };
    pages.into_iter().map(one).collect()
}
