//! The rule `fault-loop`: a vCPU takes the same fault again and again and makes no progress.

use super::known_bugs::compare;
use super::{Finding, Rule, Seen, Severity, counted, kind, place, vcpus};
use mmuscope_replay::{Fault, Outcome};
use mmuscope_spte::bugs::Trait;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

/// At least this many equal faults in a row that together take at least `LONG` nanoseconds are a loop. Fewer, or faster ones, can be a
/// race: while an invalidation is going on each try fails, eighty times in two milliseconds on a slow host.
const MANY: usize = 16;
const LONG: u64 = 100_000_000;

/// Loops that ended are findings of their own on up to so many pages of a VM.
const EACH: usize = 3;

/// Consecutive faults of one thread at one place with one error code.
type Run<'a> = Vec<&'a Fault>;

pub(super) static RULE: Rule = Rule {
    id: "fault-loop",
    severity: Severity::Warning,
    seen: "a vCPU faults on one page with one error code at one instruction, at least twice up to the end of the trace, or 16 times and longer than 100 ms, without an install; or each fault is spurious",
    why: "KVM lets the vCPU go on without having mapped the page (it finds the fault out of date each time, or the page busy), or it finds nothing to do while the CPU does not see what the SPTE holds",
    remedy: "take a longer trace with mmu_notifier events, and look at the VM's mmu_invalidate_seq and mmu_invalidate_in_progress (crash, drgn)",
    refuted: "the same vCPU makes progress: other exits come between the faults",
    find,
};

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let mut open: HashMap<u32, Run<'_>> = HashMap::new();
    let mut runs: Vec<Run<'_>> = Vec::new();
    for f in seen.faults {
        let run = open.entry(f.tid).or_default();
        let in_vain = matches!(f.outcome, Outcome::Retry | Outcome::Spurious | Outcome::Untold);
        let same = run.last().is_some_and(|l| key(l) == key(f));
        // A fault that has not ended when the trace ends continues the run.
        if !same || !in_vain && f.outcome != Outcome::Unfinished {
            let ended = std::mem::take(run);
            runs.extend(Some(ended).filter(|r| is_long(r)));
        }
        if in_vain || same && f.outcome == Outcome::Unfinished {
            run.push(f);
        }
    }
    let last = open.into_values().filter(|r| {
        is_long(r) || r.len() > 1 && r.last().is_some_and(|f| seen.noted.last_exit(f.tid) <= f.last_event)
    });
    runs.extend(last);
    // What an invalidation explains is `retry-invalidation`'s to say; one fault in ten may have come before it or after.
    let held = super::retry::held(seen);
    runs.retain(|r| r.iter().filter(|f| held.contains(&f.event)).count() * 10 < r.len() * 9);
    let mut groups: BTreeMap<_, Vec<Run<'_>>> = BTreeMap::new();
    for run in runs {
        let f = run[0];
        groups.entry((f.vm.0, f.gfn, f.gva, f.access.name())).or_default().push(run);
    }
    // Many loops that all came to an end, as while the host gives memory back again and again, are one thing to know and not fifty.
    let (many, mut all): (Vec<_>, Vec<_>) = groups.into_values().partition(|runs| ended(seen, runs));
    let mut by_vm: BTreeMap<u16, Vec<Vec<Run<'_>>>> = BTreeMap::new();
    for runs in many {
        by_vm.entry(runs[0][0].vm.0).or_default().push(runs);
    }
    let mut found: Vec<Finding> = Vec::new();
    for mut of in by_vm.into_values() {
        if of.len() <= EACH {
            all.append(&mut of);
        } else {
            found.push(several(seen, of));
        }
    }
    found.extend(all.iter().map(|runs| one(seen, runs)));
    found
}

/// Whether loops ended before the trace did, and were not spurious faults only.
fn ended(seen: &Seen<'_>, runs: &[Run<'_>]) -> bool {
    let open = |r: &Run<'_>| r.last().is_some_and(|f| seen.noted.last_exit(f.tid) <= f.last_event);
    !runs.iter().any(open) && runs.iter().flatten().any(|f| f.outcome != Outcome::Spurious)
}

/// One finding of the loops on many pages, which names the worst.
fn several(seen: &Seen<'_>, mut pages: Vec<Vec<Run<'_>>>) -> Finding {
    let faults = |runs: &[Run<'_>]| runs.iter().map(Vec::len).sum::<usize>();
    pages.sort_by_key(|runs| std::cmp::Reverse(faults(runs)));
    let mut out = one(seen, &pages[0]);
    let more = pages.len() as u64 - 1;
    let rest: usize = pages[1..].iter().map(|runs| faults(runs)).sum();
    let _ = write!(
        out.title,
        "; so it was on {} with {}",
        counted(more, "more page"),
        counted(rest as u64, "fault")
    );
    let mut others: Vec<&Fault> = pages[1..].iter().flatten().flatten().copied().collect();
    others.sort_by_key(|f| f.event);
    out.see_faults(others);
    out.events.sort_unstable();
    out.gfn = None;
    out
}

fn is_long(run: &[&Fault]) -> bool {
    // The first fault may have waited long for the host; the time of those after it counts.
    let took = run.last().zip(run.get(1)).map_or(0, |(last, second)| last.ts.saturating_sub(second.ts));
    run.len() >= MANY && took >= LONG
}

/// Two faults with equal keys are the same fault again.
fn key(f: &Fault) -> (Option<u64>, Option<u64>, Option<u64>, Option<u64>) {
    (f.gpa.map(|a| a >> 12), f.gva, f.error_code, f.rip)
}

fn one(seen: &Seen<'_>, runs: &[Run<'_>]) -> Finding {
    let all = || runs.iter().flatten().copied();
    let (n, first) = (all().count(), runs[0][0]);
    let who = vcpus(all().filter_map(|f| f.vcpu).collect());
    let who = if who.is_empty() { format!("thread {}", first.tid) } else { who };
    let verb = if who.starts_with("vCPUs") { "fault" } else { "faults" };
    let ends = runs.iter().any(|r| r.last().is_some_and(|f| seen.noted.last_exit(f.tid) <= f.last_event));
    let until = if ends { ", up to the end of the trace" } else { "" };
    let code = first.error_code.map_or_else(String::new, |c| format!(" (error code {c:#x})"));
    let one = format!("{}{code}", kind(first));
    let why = if all().all(|f| f.outcome == Outcome::Spurious) {
        format!(
            "each {one} is spurious, as the SPTE grants the access already: the CPU uses another translation"
        )
    } else if all().any(|f| f.outcome == Outcome::Untold) {
        format!("each {one} is followed by the same, and no event shows an install")
    } else {
        format!("each {one} is followed by the same, without an install")
    };
    let table = if first.access.guest_table { ", a page table of the guest," } else { "" };
    let title = format!("{who} {verb} on {}{table} again and again ({n} times{until}): {why}", place(first));
    let mut out = Finding::new(&RULE, title);
    (out.vm, out.gfn) = (Some(first.vm.0), first.gfn);
    let mut faults: Vec<&Fault> = all().collect();
    faults.sort_by_key(|f| f.event);
    out.see_faults(faults.iter().copied());
    let spurious = all().all(|f| f.outcome == Outcome::Spurious);
    let mut traits = vec![if spurious { Trait::SpuriousLoop } else { Trait::FaultLoop }];
    if first.gpa.is_some() {
        traits.push(Trait::TdpFault);
    }
    compare(seen, &mut out, &traits);
    out
}
