//! The rule `nx-churn`: the mitigation of iTLB multihit splits huge pages that are executed, and its worker zaps the small pages again.

use super::cause::{Cause, What};
use super::moment::Change;
use super::{Finding, Rule, Seen, Severity, Sure, counted, share, task};
use mmuscope_replay::Fault;
use mmuscope_spte::State;
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

pub(super) static RULE: Rule = Rule {
    id: "nx-churn",
    severity: Severity::Info,
    seen: "a fetch fault split or zapped a huge page that may not be executed, or the worker kvm-nx-lpage-recovery zapped what had been split. It \
           is a warning where the worker zapped pages that were then split again. Only the TDP MMU since 5.11 traces this",
    why: "with kvm.nx_huge_pages on (CPUs with the iTLB multihit erratum), huge pages are mapped without execute. Executing from one splits it; a \
          worker zaps what was split from time to time, so that it may become huge again, and the next fetch splits it again",
    remedy: "on CPUs without the erratum kvm.nx_huge_pages=off (`auto` decides by the CPU); else a lower kvm.nx_huge_pages_recovery_ratio's share \
             (a higher number), or a longer nx_huge_pages_recovery_period_ms. A VM that never executes hostile code may opt out \
             (KVM_CAP_VM_DISABLE_NX_HUGE_PAGES)",
    refuted: "kvm.nx_huge_pages is off in /sys/module/kvm/parameters",
    find,
};

/// The worker's name begins so; it is cut off at 15 letters.
const WORKER: &str = "kvm-nx-lpage";

/// Splits and recoveries.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// Thread, event, time, VM and range of a huge page without execute that went.
    splits: Vec<(u32, u32, u64, u16, u64)>,
    /// Thread, event, time, VM and range of what the worker zapped.
    recovered: Vec<(u32, u32, u64, u16, u64)>,
    worker: Option<(String, u32)>,
    /// Ranges that the worker zapped.
    ranges: HashMap<u16, HashSet<u64>>,
}

impl Recovery {
    /// Each range that the worker zapped.
    pub(super) fn causes(&self) -> impl Iterator<Item = Cause> + '_ {
        self.recovered.iter().map(|(tid, event, ts, _, gfn)| Cause {
            gfns: Some((*gfn, gfn + 511)),
            ..Cause::new(*tid, (*ts, *event), What::Recovery { ranges: 1 })
        })
    }

    pub(super) fn change(&mut self, c: &Change, comm: &str) {
        let huge = c.level >= 2 && c.old.state == State::Present && c.old.x == Some(false);
        if huge && c.new.state != State::Present {
            self.splits.push((c.tid, c.event, c.ts, c.vm, c.gfn));
        }
        if comm.starts_with(WORKER)
            && c.level == 2
            && c.old.state == State::Table
            && c.new.state != State::Table
        {
            self.recovered.push((c.tid, c.event, c.ts, c.vm, c.gfn));
            self.ranges.entry(c.vm).or_default().insert(c.gfn);
            self.worker.get_or_insert_with(|| (comm.to_owned(), c.tid));
        }
    }
}

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    if !seen.traces.changes {
        return Vec::new();
    }
    seen.vms().filter_map(|vm| one(seen, vm)).collect()
}

fn one(seen: &Seen<'_>, vm: u16) -> Option<Finding> {
    let noted = &seen.noted.recovery;
    let fetch = |s: &&(u32, u32, u64, u16, u64)| {
        s.3 == vm && seen.fault_of(s.0, s.1, s.2).is_some_and(|f| f.access.fetch)
    };
    let splits: Vec<_> = noted.splits.iter().filter(fetch).collect();
    let recovered: Vec<_> =
        noted.recovered.iter().filter(|r| r.3 == vm && !seen.torn_down(vm, r.2)).collect();
    if splits.is_empty() && recovered.is_empty() {
        return None;
    }
    let mut out = Finding::new(&RULE, String::new());
    let mut events: Vec<(u64, u32)> =
        splits.iter().map(|s| (s.2, s.1)).chain(recovered.iter().map(|r| (r.2, r.1))).collect();
    events.sort_unstable();
    out.see_all(events);
    let mut faults: Vec<&Fault> = splits.iter().filter_map(|s| seen.fault_of(s.0, s.1, s.2)).collect();
    faults.dedup_by_key(|f| f.event);
    for f in faults {
        out.pay(f);
    }
    let empty = HashSet::default();
    let ranges = noted.ranges.get(&vm).unwrap_or(&empty);
    let first = recovered.first().map_or(u64::MAX, |r| r.2);
    let again = splits.iter().filter(|s| s.2 > first && ranges.contains(&s.4)).count() as u64;
    if again == 0 {
        out.severity = Severity::Info;
    } else {
        out.severity = Severity::Warning;
    }
    let worker = noted.worker.as_ref().map_or_else(String::new, |(c, t)| format!(" by {}", task(c, *t)));
    let back = if recovered.is_empty() {
        String::new()
    } else {
        let n = counted(recovered.len() as u64, "split range");
        format!("; {n} zapped{worker}, and {again} of the splits are of ranges that it had zapped")
    };
    let cost = share(seen, vm, out.cost);
    out.title = format!(
        "{} without execute{} split by fetch faults{back}{cost}",
        counted(splits.len() as u64, "huge page"),
        seen.of_vm(vm),
    );
    (out.vm, out.sure) = (Some(vm), Sure::Likely);
    Some(out)
}
