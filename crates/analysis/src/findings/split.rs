//! The rule `split-failed`: KVM could not split a huge page.

use super::moment::At;
use super::{Finding, Rule, Seen, Severity, counted};
use mmuscope_trace::Body;

pub(super) static RULE: Rule = Rule {
    id: "split-failed",
    severity: Severity::Warning,
    seen: "`kvm_mmu_split_huge_page` with an error",
    why: "dirty logging splits huge pages before it write-protects them. Where that fails (no memory for page tables, most often), the next write \
          splits the page in the guest's time",
    remedy: "-12 (ENOMEM): free memory on the host, or a larger limit of the VM's memory cgroup, which page tables count against",
    refuted: "the same page is split by a later event without an error",
    find,
};

/// Failed splits: VM, time, event, frame, errno.
#[derive(Debug, Default)]
pub(super) struct Splits(Vec<(u16, u64, u32, u64, i32)>);

impl Splits {
    pub(super) fn event(&mut self, at: &At<'_>, body: &Body) {
        if let Body::SplitHugePage { gfn, errno, .. } = *body
            && errno != 0
        {
            self.0.push((at.vm, at.ts, at.event, gfn, errno));
        }
    }
}

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let one = |vm: u16| {
        let of: Vec<_> = seen.noted.splits.0.iter().filter(|e| e.0 == vm).collect();
        let first = of.first()?;
        let title = format!(
            "{} of huge pages failed; the first on gfn {:#x} with error {}",
            counted(of.len() as u64, "split"),
            first.3,
            first.4
        );
        let mut out = Finding::new(&RULE, title);
        out.see_all(of.iter().map(|e| (e.1, e.2)));
        out.vm = Some(vm);
        Some(out)
    };
    seen.vms().filter_map(one).collect()
}
