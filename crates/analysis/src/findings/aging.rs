//! The rule `aging-faults`: aging without Accessed bits, which the guest pays for with faults.

use super::cause::{Cause, What};
use super::moment::At;
use super::{Finding, Rule, Seen, Severity, counted, share};
use mmuscope_replay::Fault;
use mmuscope_spte::Layout;
use mmuscope_trace::{Body, FastPfResult};

/// Fewer faults are no cost worth naming.
const MANY: usize = 64;

pub(super) static RULE: Rule = Rule {
    id: "aging-faults",
    severity: Severity::Info,
    seen: "64 faults or more in which `fast_page_fault` gives an access-tracked entry its permissions back",
    why: "the CPU has no Accessed bits for these entries (EPT before Haswell, kvm_intel.eptad=0, a nested guest's EPT without them): to see whether a \
          page is used, aging takes its permissions away, and the next access faults",
    remedy: "kvm_intel.eptad=1 where the CPU has it; else less aging: reclaim under memory pressure, DAMON, idle-page tracking",
    refuted: "kvm_intel.eptad reads Y, and no guest of the VM runs guests of its own",
    find,
};

/// Most ranges that are kept.
const MOST: usize = 1 << 20;

/// What is known of aging.
#[derive(Debug, Default)]
pub(super) struct Aging {
    /// Access-tracked entries that faults restored: VM, thread, event, time.
    restored: Vec<(u16, u32, u32, u64)>,
    /// Ranges that were aged.
    aged: Vec<Cause>,
}

impl Aging {
    /// Every range that was aged.
    pub(super) fn causes(&self) -> impl Iterator<Item = Cause> + '_ {
        self.aged.iter().cloned()
    }

    fn aged(&mut self, at: &At<'_>, bytes: u64, gfn: Option<u64>) {
        if self.aged.len() < MOST {
            let cause = Cause::new(at.tid, (at.ts, at.event), What::Aging { ranges: 1, bytes });
            self.aged.push(Cause { gfns: gfn.map(|g| (g, g)), ..cause });
        }
    }

    pub(super) fn event(&mut self, at: &At<'_>, body: &Body, layout: &Layout) {
        match *body {
            Body::AgeHva { start, end } => self.aged(at, end.saturating_sub(start), None),
            Body::TestAgeHva { .. } => self.aged(at, 4096, None),
            Body::AgePage { gfn, .. } => self.aged(at, 4096, Some(gfn)),
            _ => {}
        }
        let Body::FastPageFault { old_spte, new_spte, result: FastPfResult::Fixed, .. } = *body else {
            return;
        };
        let tracked = |v| layout.decode(v, 1).access_tracked == Some(true);
        if tracked(old_spte) && !tracked(new_spte) {
            self.restored.push((at.vm, at.tid, at.event, at.ts));
        }
    }
}

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let one = |vm: u16| {
        let of: Vec<_> = seen.noted.aging.restored.iter().filter(|e| e.0 == vm).collect();
        if of.len() < MANY {
            return None;
        }
        let faults: Vec<&Fault> = of.iter().filter_map(|e| seen.fault_of(e.1, e.2, e.3)).collect();
        let mut out = Finding::new(&RULE, String::new());
        out.see_all(of.iter().map(|e| (e.3, e.2)));
        for f in faults {
            out.pay(f);
        }
        out.title = format!(
            "{} only gave back permissions that aging had taken away{}",
            counted(out.count, "fault"),
            share(seen, vm, out.cost)
        );
        out.vm = Some(vm);
        Some(out)
    };
    seen.vms().filter_map(one).collect()
}
