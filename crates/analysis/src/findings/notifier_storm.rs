//! The rule `notifier-storm`: the host invalidates one page of the VM's memory again and again.

use super::{Finding, Rule, Seen, Severity};
use crate::words::{count, duration, printable};

/// A storm is at least this many events about one page …
const MANY: u64 = 16;
/// … that on average follow each other within this many nanoseconds.
const APART: u64 = 1_000_000;

pub(super) static RULE: Rule = Rule {
    id: "notifier-storm",
    severity: Severity::Warning,
    seen: "16 or more mmu_notifier events of a thread, and at least half of all events of the thread, are about one host page, less than 1 ms apart",
    why: "something in the host unmaps or replaces this one page again and again: KSM that merges and copies in turn, a page that two processes share copy-on-write, NUMA balancing, or a nested guest's hypervisor below",
    remedy: "look at what the thread does (`perf trace`, `perf record -g -e kvm:kvm_unmap_hva_range`): the call stack names it",
    refuted: "the events are of several pages of one large range that the VMM unmaps page by page",
    find,
};

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let mut out = Vec::new();
    for ((tid, page), one) in &seen.noted.notifier {
        let n = one.unmaps + one.sets;
        let of_thread = seen.noted.notifiers.get(tid).copied().unwrap_or(n);
        let apart = one.last.saturating_sub(one.first) / n.max(2).saturating_sub(1);
        if n < MANY || n * 2 < of_thread || apart > APART {
            continue;
        }
        let mut kinds = Vec::new();
        if one.unmaps > 0 {
            kinds.push(format!("{} kvm_unmap_hva_range", count(one.unmaps)));
        }
        if one.sets > 0 {
            kinds.push(format!("{} kvm_set_spte_hva", count(one.sets)));
        }
        let who = if one.comm.is_empty() {
            format!("thread {tid}")
        } else {
            format!("{}-{tid}", printable(&one.comm))
        };
        let every = if apart > 0 { format!(", one every {}", duration(apart)) } else { String::new() };
        let title = format!(
            "{} mmu_notifier events of {who} ({}) are about one host page, hva {:#x}{every}",
            count(n),
            kinds.join(", "),
            page << 12
        );
        let mut fact = Finding::new(&RULE, title);
        fact.see_all(one.events.iter().map(|e| (one.first, *e)));
        (fact.count, fact.first, fact.last) = (n, one.first, one.last);
        out.push(fact);
    }
    out.sort_by(|a, b| a.events.cmp(&b.events));
    out
}
