//! The rule `fault-error`: faults on which KVM_RUN returned an error, or KVM_EXIT_MEMORY_FAULT, to the VMM.

use super::{Finding, Rule, Seen, Severity, counted, kind, place, vcpus};
use mmuscope_replay::{Fault, Outcome};
use std::collections::BTreeMap;

pub(super) static RULE: Rule = Rule {
    id: "fault-error",
    severity: Severity::Error,
    seen: "faults on one page with which KVM_RUN returned an error (-EFAULT: the host had no page to give) or KVM_EXIT_MEMORY_FAULT",
    why: "the host process has nothing mapped at the hva behind the frame, or maps it without the permission that is needed (a read-only mapping, a file that was truncated, a page of guest_memfd that is private where the guest wants it shared), or the memory is poisoned",
    remedy: "compare the memory slot's host range with /proc/PID/maps of the VMM (`mmuscope memslots`); for confidential guests, the VMM must convert the page (KVM_SET_MEMORY_ATTRIBUTES) and run on",
    refuted: "the VMM handles the exit and the next fault on the page succeeds: then it is the normal way of a conversion",
    find,
};

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    type Key = (u16, Option<u64>, Option<u64>, Option<i32>, &'static str);
    let mut groups: BTreeMap<Key, Vec<&Fault>> = BTreeMap::new();
    for f in seen.faults.iter().filter(|f| matches!(f.outcome, Outcome::Error | Outcome::MemoryFault)) {
        groups.entry((f.vm.0, f.gfn, f.gva.map(|a| a >> 12), f.errno, f.access.name())).or_default().push(f);
    }
    groups.into_values().map(|faults| one(&faults)).collect()
}

fn one(faults: &[&Fault]) -> Finding {
    let first = faults[0];
    let n = faults.len() as u64;
    let who = vcpus(faults.iter().filter_map(|f| f.vcpu).collect());
    let of = if who.is_empty() { String::new() } else { format!(" of {who}") };
    let absent = if first.access.present == Some(false) { ", where nothing is mapped," } else { "" };
    let ended = match first.errno {
        Some(-14) => {
            "ended in -EFAULT to user space: the host had no page to give for it that allows the access"
                .into()
        }
        Some(errno) => format!("ended in error {errno} to user space"),
        None => "ended in KVM_EXIT_MEMORY_FAULT to user space".into(),
    };
    let title = format!("{}{of} on {}{absent} {ended}", counted(n, &kind(first)), place(first));
    let mut out = Finding::new(&RULE, title);
    (out.vm, out.gfn) = (Some(first.vm.0), first.gfn);
    out.see_faults(faults.iter().copied());
    out
}
