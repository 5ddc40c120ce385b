//! The rule `mmio-hot`: pages of emulated devices that cost most MMIO faults.

use super::words::{device, vcpus};
use super::{Finding, Rule, Seen, Severity, counted, share};
use mmuscope_replay::Fault;
use mmuscope_units::{count, duration};
use std::collections::{BTreeMap, HashMap};

/// A page with fewer faults is not hot.
const MANY: usize = 200;
/// Most pages that are named.
const PAGES: usize = 3;
/// The length of time, in nanoseconds, in which the most faults of a page are looked for.
const BURST: u64 = 16_000_000;

pub(super) static RULE: Rule = Rule {
    id: "mmio-hot",
    severity: Severity::Info,
    seen: "200 MMIO faults or more on one guest page",
    why: "each access to an emulated register leaves the guest, is decoded and emulated, and often goes to the VMM and back",
    remedy: "a device that needs fewer accesses (virtio with ioeventfd, MSI-X in place of an I/O APIC, x2APIC or APICv in place of the xAPIC page), \
             or vfio; `--where 'gpa >= …'` of `mmuscope events` lists the accesses with their values",
    refuted: "`kvm_mmio` and `kvm_fast_mmio` events of the page are much fewer than its faults: then the faults are no accesses",
    find,
};

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let mut pages: BTreeMap<(u16, u64), Vec<&Fault>> = BTreeMap::new();
    for f in seen.faults.iter().filter(|f| f.mmio) {
        if let Some(gfn) = f.gfn {
            pages.entry((f.vm.0, gfn)).or_default().push(f);
        }
    }
    pages.retain(|_, faults| faults.len() >= MANY);
    seen.vms().filter_map(|vm| one(seen, vm, &pages)).collect()
}

fn one(seen: &Seen<'_>, vm: u16, pages: &BTreeMap<(u16, u64), Vec<&Fault>>) -> Option<Finding> {
    let mut of: Vec<_> = pages.iter().filter(|(k, _)| k.0 == vm).map(|(k, f)| (k.1, f)).collect();
    if of.is_empty() {
        return None;
    }
    of.sort_by_key(|(gfn, f)| (std::cmp::Reverse(f.len()), *gfn));
    let words: Vec<String> = of.iter().take(PAGES).map(|(gfn, f)| page(*gfn, f)).collect();
    let more =
        if of.len() > PAGES { format!("; and {} more pages", of.len() - PAGES) } else { String::new() };
    let mut out = Finding::new(&RULE, String::new());
    let mut faults: Vec<&Fault> = of.iter().flat_map(|(_, f)| f.iter().copied()).collect();
    faults.sort_by_key(|f| f.event);
    let mmio = seen.faults.iter().filter(|f| f.mmio && f.vm.0 == vm).count();
    out.see_faults(faults);
    let cost = share(seen, vm, out.cost);
    out.title = format!(
        "{} of {} went to {}{more}{cost}",
        count(out.count),
        counted(mmio as u64, "MMIO fault"),
        words.join("; "),
    );
    (out.vm, out.gfn) = (Some(vm), (of.len() == 1).then_some(of[0].0));
    Some(out)
}

fn page(gfn: u64, faults: &[&Fault]) -> String {
    let mut rips: HashMap<u64, u64> = HashMap::new();
    for rip in faults.iter().filter_map(|f| f.rip) {
        *rips.entry(rip).or_default() += 1;
    }
    let top = rips.iter().max_by_key(|(rip, n)| (**n, std::cmp::Reverse(**rip)));
    let rip = top.map_or_else(String::new, |(rip, n)| format!(", {} at rip {rip:#x}", count(*n)));
    // The most faults in a window of the length, both ends on a fault.
    let (mut from, mut most) = (0, (0usize, 0u64));
    for (n, f) in faults.iter().enumerate() {
        while f.ts - faults[from].ts > BURST {
            from += 1;
        }
        if n + 1 - from > most.0 {
            most = (n + 1 - from, f.ts - faults[from].ts);
        }
    }
    let who = vcpus(faults.iter().filter_map(|f| f.vcpu).collect());
    let who = if who.is_empty() { who } else { format!(" of {who}") };
    format!(
        "gfn {gfn:#x}{} ({} faults{who}; at most {} within {}{rip})",
        device(gfn),
        count(faults.len() as u64),
        count(most.0 as u64),
        duration(most.1),
    )
}
