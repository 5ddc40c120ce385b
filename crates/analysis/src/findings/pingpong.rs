//! The rule `map-zap`: one page is mapped and zapped in turn.

use super::{Finding, Rule, Seen, Severity, Sure, counted, task};
use mmuscope_replay::{EntryId, Zap};
use mmuscope_trace::Body;
use mmuscope_units::{count, duration, level_size};
use std::collections::BTreeMap;

/// At least this many zaps of one entry in a row …
const MANY: usize = 8;
/// … each within this many nanoseconds of the one before.
const APART: u64 = 10_000_000;

pub(super) static RULE: Rule = Rule {
    id: "map-zap",
    severity: Severity::Warning,
    seen: "one entry was mapped and zapped again 8 times or more, each time within 10 ms of the time before",
    why: "one side maps the page, and another takes it away at once: a vCPU's faults against the host's invalidations, or two users of the page \
          that need it in different ways (read-only and writable, private and shared)",
    remedy: "look at who zaps it: NUMA balancing (numactl, kernel.numa_balancing), KSM, khugepaged, ballooning, or the VMM's own madvise and mprotect",
    refuted: "the faults of these vCPUs are on other pages, and the entry is mapped by prefetching only",
    find,
};

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let mut by_vm: BTreeMap<u16, Vec<(EntryId, Vec<Zap>)>> = BTreeMap::new();
    let mut run: Vec<Zap> = Vec::new();
    let mut end = |run: &mut Vec<Zap>| {
        if run.len() >= MANY {
            let entry = seen.timeline.entry(run[0].entry);
            by_vm.entry(entry.vm.0).or_default().push((entry.id, std::mem::take(run)));
        }
        run.clear();
    };
    // Entry by entry, in the order of time.
    for z in seen.timeline.all_zaps().filter(|z| !z.implied()) {
        if run.last().is_some_and(|l| l.entry != z.entry || z.ts.saturating_sub(l.ts) > APART) {
            end(&mut run);
        }
        run.push(z);
    }
    end(&mut run);
    by_vm.into_iter().map(|(vm, runs)| one(seen, vm, &runs)).collect()
}

fn one(seen: &Seen<'_>, vm: u16, runs: &[(EntryId, Vec<Zap>)]) -> Finding {
    let worst = runs.iter().max_by_key(|(_, z)| z.len());
    let (id, zaps) = worst.map_or((EntryId(0), &[][..]), |(i, z)| (*i, z));
    let entry = seen.timeline.entry(id);
    let mut by: BTreeMap<(String, bool), u64> = BTreeMap::new();
    for z in zaps {
        let e = seen.trace.events.get(z.event as usize);
        let who =
            e.tid.map_or_else(|| "an unknown thread".into(), |t| task(seen.trace.strings.get(e.comm), t));
        let page = matches!(e.body, Body::PrepareZapPage { .. });
        *by.entry((who, page)).or_default() += 1;
    }
    let by: Vec<String> = by
        .into_iter()
        .map(|((who, page), n)| format!("{} by {who}{}", count(n), if page { " with its table" } else { "" }))
        .collect();
    let took = zaps.last().map_or(0, |l| l.ts.saturating_sub(zaps[0].ts));
    let more = match runs.len() {
        1 => String::new(),
        n => format!("; {} more were mapped and zapped so", counted(n as u64 - 1, "page")),
    };
    let mut out = Finding::new(&RULE, String::new());
    out.see_all(runs.iter().flat_map(|(_, z)| z).map(|z| (z.ts, z.event)));
    let frames: std::collections::HashSet<u64> =
        runs.iter().map(|(i, _)| seen.timeline.entry(*i).gfn).collect();
    let during = out.first..=out.last;
    for f in seen.faults.iter().filter(|f| f.vm.0 == vm && during.contains(&f.ts)) {
        if f.gfn.is_some_and(|g| frames.contains(&g)) {
            out.pay(f);
        }
    }
    out.title = format!(
        "the {} page at gfn {:#x} was mapped and zapped {} times within {} ({}){more}",
        level_size(entry.level),
        entry.gfn,
        count(zaps.len() as u64),
        duration(took),
        by.join(", "),
    );
    (out.vm, out.gfn, out.sure) = (Some(vm), (runs.len() == 1).then_some(entry.gfn), Sure::Likely);
    out
}
