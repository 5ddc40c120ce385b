//! The rule `triple-fault`: the guest could not handle its double fault, and its vCPU shuts down.

use super::{Finding, Rule, Seen, Severity, vcpus};

/// The access that a #PF error code describes, in words.
fn access(pferr: u32) -> &'static str {
    match pferr {
        e if e & 16 != 0 => "fetch from",
        e if e & 2 != 0 => "write to",
        _ => "read of",
    }
}

pub(super) static RULE: Rule = Rule {
    id: "triple-fault",
    severity: Severity::Error,
    seen: "a TRIPLE_FAULT exit (SVM: shutdown), with the walk of the guest's own tables that was refused before",
    why: "the guest could not deliver the exception that an exception had raised: its stack, IDT or page tables are gone. Guests also reset themselves so",
    remedy: "look at the last exceptions before it (`mmuscope events --where \"event like 'kvm_inj*'\"`, with kvm_inj_exception recorded)",
    refuted: "the guest means to reset: a reboot that ends in a triple fault is no trouble",
    find,
};

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let ends = &seen.noted.triple;
    let Some(last) = ends.last() else { return Vec::new() };
    let who = vcpus(ends.iter().filter_map(|e| e.vcpu).collect());
    let who = if who.is_empty() { format!("thread {}", last.tid) } else { who };
    let at = last.rip.map_or_else(String::new, |rip| format!(" at rip {rip:#x}"));
    let before = last.walk.map_or_else(String::new, |(addr, pferr)| {
        let why = if pferr & 1 == 0 { "as nothing is mapped there" } else { "by permission" };
        let injected = if last.injected { ", and an exception was injected for it" } else { "" };
        format!(
            ": before that, the guest's own page tables refused a {} {addr:#x} {why} (walk error {pferr:#x}){injected}",
            access(pferr)
        )
    });
    let times = if ends.len() > 1 { format!(" {} times", ends.len()) } else { String::new() };
    let title = format!("{who} ended in a TRIPLE_FAULT exit{times}{at}{before}");
    let mut out = Finding::new(&RULE, title);
    out.see_all(ends.iter().map(|e| (e.ts, e.event)));
    vec![out]
}
