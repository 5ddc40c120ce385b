//! The rule `internal-error`: KVM_EXIT_INTERNAL_ERROR, with which KVM gives up on an instruction.

use super::{Finding, Rule, Seen, Severity, counted, kind, place, vcpus};
use mmuscope_replay::Outcome;

pub(super) static RULE: Rule = Rule {
    id: "internal-error",
    severity: Severity::Error,
    seen: "KVM_EXIT_INTERNAL_ERROR, with the emulation that failed and the fault it happened in",
    why: "KVM cannot go on: most often it had to emulate an instruction that its emulator does not know, or that lies in memory it cannot fetch from",
    remedy: "look at the instruction at the rip. A vCPU that runs wild (firmware or kernel not loaded where it jumps to) ends so, too",
    refuted: "the VMM's message names another suberror than emulation",
    find,
};

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let ends = &seen.noted.internal;
    let Some(first) = ends.first() else { return Vec::new() };
    let who = vcpus(ends.iter().filter_map(|e| e.vcpu).collect());
    let who = if who.is_empty() { format!("thread {}", first.tid) } else { who };
    let failed = first.failed.map(|rip| format!(" after a failed emulation at rip {rip:#x}"));
    // The fault during which KVM gave up.
    let fault = seen.faults.iter().find(|f| f.outcome == Outcome::InternalError && f.tid == first.tid);
    let of = fault.map_or_else(String::new, |f| {
        let before = seen.faults.iter().filter(|o| {
            o.tid == f.tid && o.event < f.event && o.gfn == f.gfn && o.error_code == f.error_code
        });
        let again = match before.count() {
            0 => String::new(),
            n => format!(
                "; {} on it before had ended without an install that the trace shows",
                counted(n as u64, &kind(f))
            ),
        };
        format!(", in a {} on {}{again}", kind(f), place(f))
    });
    let times = if ends.len() > 1 { format!(" {} times", ends.len()) } else { String::new() };
    let title = format!("{who} ended in KVM_EXIT_INTERNAL_ERROR{times}{}{of}", failed.unwrap_or_default());
    let mut out = Finding::new(&RULE, title);
    (out.vm, out.gfn) = (fault.map(|f| f.vm.0), fault.and_then(|f| f.gfn));
    out.see_all(ends.iter().map(|e| (e.ts, e.event)));
    vec![out]
}
