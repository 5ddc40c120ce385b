//! The rule `request-loop`: KVM is asked for a page again and again while its entry stays in place.

use super::{Seen, Severity, StandOut};

/// At least this many requests beyond the number of installs are no race.
const IDLE: u64 = 3;

pub(super) fn find(seen: &Seen<'_>) -> Vec<StandOut> {
    // Where faults were recorded, the rule `fault-loop` finds it.
    if !seen.faults.is_empty() {
        return Vec::new();
    }
    let mut out: Vec<StandOut> = Vec::new();
    for r in &seen.noted.requests {
        let n = r.asked.len() as u64;
        let Some(value) = r.value.filter(|_| !r.changed && n >= r.sets + IDLE) else { continue };
        let sets = if r.sets == 1 { "once".into() } else { format!("{} times", r.sets) };
        let title = format!(
            "thread {} asks for gfn {:#x} (level {}) {n} times in a row, while its SPTE is {value:#x} each time it is set ({sets}): \
             the CPU goes on faulting on what is mapped",
            r.tid, r.gfn, r.level
        );
        let mut one = StandOut::new("request-loop", Severity::Warning, title);
        one.gfn = Some(r.gfn);
        one.see_all(r.asked.iter().copied());
        out.push(one);
    }
    out
}
