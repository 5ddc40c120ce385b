//! The rule `request-loop`: KVM is asked for a page again and again while its entry stays in place.

use super::known_bugs::compare;
use super::{Finding, Rule, Seen, Severity};

/// At least this many requests beyond the number of installs are no race.
const IDLE: u64 = 3;

pub(super) static RULE: Rule = Rule {
    id: "request-loop",
    severity: Severity::Warning,
    seen: "without fault events: a thread asks for one frame again while its SPTE is set to one value, and nothing takes it away between",
    why: "the CPU goes on faulting on what is mapped: it does not use the page tables that KVM fills, or sees another translation than they hold",
    remedy: "record kvm_page_fault and kvm_exit as well; compare the number of levels that KVM uses with the CPU's (LA57)",
    refuted: "the requests are of several vCPUs that share the thread's number",
    find,
};

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    // Where faults were recorded, the rule `fault-loop` finds it.
    if !seen.faults.is_empty() {
        return Vec::new();
    }
    let mut out: Vec<Finding> = Vec::new();
    for r in &seen.noted.requests {
        let n = r.asked.len() as u64;
        let Some(value) = r.value.filter(|_| !r.changed && n >= r.sets + IDLE) else { continue };
        let sets = if r.sets == 1 { "once".into() } else { format!("{} times", r.sets) };
        let title = format!(
            "thread {} asks for gfn {:#x} (level {}) {n} times in a row, while its SPTE is {value:#x} each time it is set ({sets}): \
             the CPU goes on faulting on what is mapped",
            r.tid, r.gfn, r.level
        );
        let mut one = Finding::new(&RULE, title);
        one.gfn = Some(r.gfn);
        one.see_all(r.asked.iter().copied());
        compare(seen, &mut one, &[]);
        out.push(one);
    }
    out
}
