//! The rule `rmp-fault`: an SEV-SNP guest's fault in the reverse map table that KVM could not resolve.

use super::moment::At;
use super::{Finding, Rule, Seen, Severity, Sure, counted};
use mmuscope_trace::Body;

pub(super) static RULE: Rule = Rule {
    id: "rmp-fault",
    severity: Severity::Warning,
    seen: "`kvm_rmp_fault` with psmash_ret other than 0: the firmware could not split a 2M entry of the reverse map table",
    why: "the guest and the host disagree on the size of a page: the guest validates 4K pages (PVALIDATE) of a 2M page, and PSMASH failed",
    remedy: "psmash_ret is the firmware's status (SEV-SNP firmware ABI, status codes); a busy entry is tried again by the next fault",
    refuted: "the next fault on the page succeeds at once: then it was a race with another vCPU",
    find,
};

/// Failed splits: VM, time, event, frame, status.
#[derive(Debug, Default)]
pub(super) struct Rmp(Vec<(u16, u64, u32, u64, i32)>);

impl Rmp {
    pub(super) fn event(&mut self, at: &At<'_>, body: &Body) {
        if let Body::RmpFault { gpa, psmash_ret, .. } = *body
            && psmash_ret != 0
        {
            self.0.push((at.vm, at.ts, at.event, gpa >> 12, psmash_ret));
        }
    }
}

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let one = |vm: u16| {
        let of: Vec<_> = seen.noted.rmp.0.iter().filter(|e| e.0 == vm).collect();
        let first = of.first()?;
        let title = format!(
            "{} in the reverse map table failed to split a 2M entry; the first on gfn {:#x} with status {}",
            counted(of.len() as u64, "fault"),
            first.3,
            first.4
        );
        let mut out = Finding::new(&RULE, title);
        out.see_all(of.iter().map(|e| (e.1, e.2)));
        (out.vm, out.sure) = (Some(vm), Sure::Possible);
        Some(out)
    };
    seen.vms().filter_map(one).collect()
}
