//! The rule `host-page-slow`: faults in which a vCPU waited long for the host's page, which then was mapped.

use super::words::{by_cost, ranges};
use super::{Finding, Rule, Seen, Severity, Sure, counted, share, vcpus};
use mmuscope_replay::{Fault, Outcome};
use mmuscope_trace::{Body, Cursor};
use mmuscope_units::{count, duration, level_size};
use std::collections::{BTreeMap, BTreeSet};

/// A fault that took at least this many nanoseconds is slow: to clear a page of 4 KiB or 2 MiB takes a thousandth of that, or a tenth.
const SLOW: u64 = 10_000_000;
/// Fewer slow faults are what a busy host has now and then.
const MANY: usize = 8;
/// One fault alone that took this many nanoseconds is worth a finding.
const VERY_SLOW: u64 = 1_000_000_000;

pub(super) static RULE: Rule = Rule {
    id: "host-page-slow",
    severity: Severity::Warning,
    seen: "8 faults or more that each took 10 ms or longer, most of it before KVM had the host's page (`kvm_mmu_spte_requested`), and then mapped it, and together a tenth of the time of all faults or more (and a thousandth of the trace's); or one that took a second. It is silent where a fifth of the slow faults took their time elsewhere, as threads do that have no CPU",
    why: "the vCPU stands still in the fault until the host has the page: the handler of a userfaultfd provides it (migration by post-copy, a snapshot that is restored \
          page by page), it is read from swap or from a file, a memory limit makes the host reclaim others first, or it is huge and must be cleared. \
          Waiting for the MMU lock looks the same",
    remedy: "populate memory before the guest runs, let the handler provide pages ahead of the faults and in larger pieces, and look at the host's memory pressure \
             (/proc/pressure/memory, memory.high of the VMM's cgroup, swap). `perf trace -F all` shows which mapping is slow, a probe on handle_userfault whether it is \
             userfaultfd",
    refuted: "the vCPU's thread was runnable meanwhile and had no CPU (`perf sched timehist`): then the host has too few CPUs",
    find,
};

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    if !seen.timed {
        return Vec::new();
    }
    // Faults are looked at again, event by event, up to about as many events as the trace has.
    let mut budget = seen.trace.events.len();
    let mut events = seen.trace.events.cursor();
    let mut by_vm: BTreeMap<u16, (Vec<&Fault>, usize)> = BTreeMap::new();
    let slow = |f: &&Fault| f.outcome == Outcome::Fixed && f.duration().is_some_and(|d| d >= SLOW);
    for f in seen.faults.iter().filter(slow) {
        let of = by_vm.entry(f.vm.0).or_default();
        match waited(&mut events, f, &mut budget) {
            Some(true) => of.0.push(f),
            Some(false) => of.1 += 1,
            None => {}
        }
    }
    by_vm.into_iter().filter_map(|(vm, (faults, elsewhere))| one(seen, vm, &faults, elsewhere)).collect()
}

/// Whether a slow fault spent its time before KVM had the host's page, which `kvm_mmu_spte_requested` shows; else its thread waited somewhere else, as
/// one does that has no CPU. `None` where that event is missing.
fn waited(events: &mut Cursor<'_>, f: &Fault, budget: &mut usize) -> Option<bool> {
    let mut last = f.ts;
    for i in f.event..=f.last_event {
        *budget = budget.checked_sub(1)?;
        let e = events.get(i as usize)?;
        if e.tid != Some(f.tid) {
            continue;
        }
        if e.ts.saturating_sub(last) >= SLOW / 2 {
            return Some(true);
        }
        last = e.ts;
        if matches!(e.body, Body::SpteRequested { .. }) {
            return Some(false);
        }
    }
    None
}

fn one(seen: &Seen<'_>, vm: u16, faults: &[&Fault], elsewhere: usize) -> Option<Finding> {
    // Where threads wait at other places as well, they wait for a CPU.
    if elsewhere * 4 > faults.len() {
        return None;
    }
    let mut out = Finding::new(&RULE, String::new());
    out.see_faults(faults.iter().copied());
    let slowest = faults.iter().filter_map(|f| f.duration()).max()?;
    let much = by_cost(seen, vm, out.cost, 10) == Severity::Warning;
    if slowest < VERY_SLOW && !(faults.len() >= MANY && much) {
        return None;
    }
    let who = vcpus(faults.iter().filter_map(|f| f.vcpu).collect());
    let of = if who.is_empty() { String::new() } else { format!(" of {who}") };
    let frames: BTreeSet<u64> = faults.iter().filter_map(|f| f.gfn).collect();
    let at = if frames.is_empty() { String::new() } else { format!(" on gfn {}", ranges(frames)) };
    let mut sizes: BTreeMap<u8, u64> = BTreeMap::new();
    for level in faults.iter().filter_map(|f| f.level).filter(|l| *l > 1) {
        *sizes.entry(level).or_default() += 1;
    }
    let huge: Vec<String> =
        sizes.iter().map(|(l, n)| format!("{} mapped {}", count(*n), level_size(*l))).collect();
    let huge = if huge.is_empty() { String::new() } else { format!(" ({})", huge.join(", ")) };
    out.title = format!(
        "{}{of}{at} waited {} or longer for the host's page{huge}, the slowest {}{}",
        counted(faults.len() as u64, "fault"),
        duration(SLOW),
        duration(slowest),
        share(seen, vm, out.cost),
    );
    (out.vm, out.sure) = (Some(vm), Sure::Likely);
    Some(out)
}
