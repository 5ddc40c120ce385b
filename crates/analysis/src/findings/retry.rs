//! The rule `retry-invalidation`: faults that come to nothing because the host is invalidating their page.

use super::ranges::{Range, Ranges};
use super::words::by_cost;
use super::{Finding, Rule, Seen, Severity, Sure, counted, share, task, vcpus};
use mmuscope_replay::{Fault, Outcome, SlotAt};
use mmuscope_units::{bytes, count, duration};
use rustc_hash::FxHashSet as HashSet;
use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

/// Fewer tries than this are no loop: one retry is what any race with an invalidation costs.
const MANY: usize = 8;
/// Most invalidations that follow each other without a time at which none is open, as far as they are remembered.
const MOST_SPANNED: usize = 64;

pub(super) static RULE: Rule = Rule {
    id: "retry-invalidation",
    severity: Severity::Warning,
    seen: "a vCPU faults on one frame 8 times or more, KVM asks for no page and installs nothing, and each time another thread may still be \
           inside an mmu_notifier invalidation (`kvm_unmap_hva_range`) that covers the frame, or two are inside invalidations on both sides of it, or one that has ended since covers it and \
           not all were over at any time in between. A range covers a frame if the thread zapped entries on both sides of it, or by the host address of the frame's memory slot, \
           which snapshots show, or invalidations of which every page was mapped. It is an info where that took less than a hundredth of the time of all faults or a thousandth of the trace's",
    why: "KVM must not map a page while an mmu_notifier invalidation of it is open, so that the fault does nothing and the vCPU runs into it \
          again until the invalidation ends. Of several that are open at a time KVM keeps the one range that spans them all, until none is open. How long that takes is up to the thread that invalidates: it may wait for a lock, for a CPU, or for \
          the flush of remote TLBs",
    remedy: "find out what the thread does there (madvise, mprotect, munmap, fork, page migration; `perf trace -p`, `perf sched`), give it CPU \
             time or let it work in smaller pieces, and keep it away from memory that vCPUs use",
    refuted: "a probe on kvm_mmu_notifier_invalidate_range_end shows that the invalidation had ended before these faults",
    find,
};

type Loop<'a> = Vec<&'a Fault>;

/// The invalidations that hold a fault up: one that another thread may still be in, and, where it does not cover the frame, another with which it
/// makes a range that does.
type Holders = (usize, Option<usize>);

/// Loops by VM, the ranges that hold them up, thread and frame.
type Loops<'a> = BTreeMap<(u16, Holders, u32, u64), Loop<'a>>;

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let loops = loops(seen);
    seen.vms()
        .filter_map(|vm| {
            let of: Vec<_> =
                loops.iter().filter(|(k, l)| k.0 == vm && l.len() >= 2).map(|(k, l)| (k.1, l)).collect();
            let (held, worst) = of.iter().max_by_key(|(_, l)| l.len())?;
            (worst.len() >= MANY).then(|| one(seen, vm, *held, worst, &of))
        })
        .collect()
}

/// The events of the faults that this rule's findings are about, of loops that are long enough for one.
pub(super) fn held(seen: &Seen<'_>) -> HashSet<u32> {
    loops(seen).into_values().filter(|l| l.len() >= MANY).flatten().map(|f| f.event).collect()
}

/// The invalidations at a time.
#[derive(Default)]
struct Open {
    /// Those that their thread may still be in.
    now: Vec<usize>,
    /// By VM, all since none was open: KVM's one range spans them until then, also those that have ended.
    spanned: BTreeMap<u16, Vec<usize>>,
}

impl Open {
    /// What has ended before an event is open no more.
    fn until(&mut self, ranges: &Ranges, event: u32) {
        self.now.retain(|i| ranges.all[*i].closed.is_none_or(|(e, _)| e > event));
    }

    fn begin(&mut self, ranges: &Ranges, i: usize) {
        let r = &ranges.all[i];
        self.until(ranges, r.event);
        let spanned = self.spanned.entry(r.vm).or_default();
        if !self.now.iter().any(|o| ranges.all[*o].vm == r.vm) {
            spanned.clear();
        }
        if spanned.len() == MOST_SPANNED {
            spanned.remove(0);
        }
        spanned.push(i);
        self.now.push(i);
    }
}

fn loops<'a>(seen: &Seen<'a>) -> Loops<'a> {
    let ranges = &seen.noted.ranges;
    let (mut next, mut open) = (0, Open::default());
    let mut loops = Loops::new();
    for f in seen.faults.iter().filter(|f| f.outcome == Outcome::Retry && f.level_wanted.is_none()) {
        while ranges.all.get(next).is_some_and(|r| r.event < f.event) {
            open.begin(ranges, next);
            next += 1;
        }
        open.until(ranges, f.event);
        if let Some(gfn) = f.gfn
            && let Some(holders) = holders(seen, &open, f, gfn)
        {
            loops.entry((f.vm.0, holders, f.tid, gfn)).or_default().push(f);
        }
    }
    loops
}

/// Which of the invalidations hold up a fault on a frame.
fn holders(seen: &Seen<'_>, open: &Open, f: &Fault, gfn: u64) -> Option<Holders> {
    let ranges = &seen.noted.ranges;
    let hva = match seen.timeline.slot_at(f.vm, f.as_id, gfn, f.ts) {
        SlotAt::In(slot) => slot.hva.map(|h| h.wrapping_add((gfn - slot.gfn) << 12)),
        SlotAt::Outside | SlotAt::NotKnown => None,
    };
    let covers = |i: &usize| ranges.covers(&ranges.all[*i], gfn, hva);
    let lies = |i: &usize, side: Ordering| ranges.side(&ranges.all[*i], gfn, hva) == Some(side);
    let others = || {
        open.now.iter().rev().copied().filter(|i| {
            let r = &ranges.all[*i];
            r.vm == f.vm.0 && r.tid != f.tid
        })
    };
    if let Some(i) = others().find(covers) {
        return Some((i, None));
    }
    let sides = [(Ordering::Less, Ordering::Greater), (Ordering::Greater, Ordering::Less)];
    if let (Some(below), Some(above)) =
        (others().find(|i| lies(i, Ordering::Less)), others().find(|i| lies(i, Ordering::Greater)))
    {
        return Some((below, Some(above)));
    }
    // An invalidation that ended spans the frame, alone or with one that is open. Of a thread that makes no further event nothing is known.
    let i = others().find(|i| ranges.all[*i].closed.is_some())?;
    let spanned = open.spanned.get(&f.vm.0)?;
    let together = |q: &&usize| sides.iter().any(|(a, b)| lies(&i, *a) && lies(q, *b));
    let other = spanned.iter().rev().find(|q| covers(q)).or_else(|| spanned.iter().rev().find(together))?;
    Some((i, Some(*other)))
}

/// `vm-88 was invalidating hva 0x1000 to 0x2000 (4 KiB; event 7)`.
fn holding(seen: &Seen<'_>, r: &Range) -> String {
    format!(
        "{} was invalidating hva {:#x} to {:#x} ({}; event {})",
        task(seen.comm_of(r.event), r.tid),
        r.start,
        r.end,
        bytes(r.end.saturating_sub(r.start)),
        r.event
    )
}

fn one(
    seen: &Seen<'_>,
    vm: u16,
    (range, other): Holders,
    worst: &Loop<'_>,
    all: &[(Holders, &Loop<'_>)],
) -> Finding {
    let first = worst[0];
    let who = vcpus(first.vcpu.into_iter().collect());
    let who = if who.is_empty() { task("", first.tid) } else { who };
    let ranges = &seen.noted.ranges.all;
    let mut held = holding(seen, &ranges[range]);
    if let Some(other) = other {
        let with = holding(seen, &ranges[other]);
        let ended = ranges[other].closed.is_some_and(|(e, _)| e <= first.event);
        held = if ended {
            format!(
                "{held}, and {with} since the last time at which no invalidation was open: KVM takes them for one range"
            )
        } else {
            format!("{held}, below it, and {with}, above it, which KVM takes for one range")
        };
    }
    let took = worst.last().map_or(0, |l| l.end_ts.unwrap_or(l.ts).saturating_sub(first.ts));
    let mut out = Finding::new(&RULE, String::new());
    let mut faults: Vec<&Fault> = all.iter().flat_map(|(_, l)| l.iter().copied()).collect();
    faults.sort_by_key(|f| f.event);
    out.see_faults(faults);
    let mut pages: BTreeMap<u64, usize> = BTreeMap::new();
    for (_, l) in all {
        *pages.entry(l[0].gfn.unwrap_or(0)).or_default() += l.len();
    }
    let total = if out.count as usize > worst.len() {
        let mut others: Vec<(u64, usize)> =
            pages.iter().map(|(g, n)| (*g, *n)).filter(|(g, _)| Some(*g) != first.gfn).collect();
        others.sort_by_key(|(g, n)| (Reverse(*n), *g));
        let names: Vec<String> = others.iter().take(2).map(|(g, n)| format!("gfn {g:#x}: {n}")).collect();
        let names = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
        let pages = counted(pages.len() as u64, "page");
        format!("; in all {} on {pages} came to nothing so{names}", counted(out.count, "fault"))
    } else {
        String::new()
    };
    out.title = format!(
        "{who} faulted {} times on gfn {:#x} within {} and nothing was installed, as {held}{total}{}",
        count(worst.len() as u64),
        first.gfn.unwrap_or(0),
        duration(took),
        share(seen, vm, out.cost),
    );
    (out.vm, out.sure) = (Some(vm), Sure::Likely);
    out.severity = by_cost(seen, vm, out.cost, 1);
    out
}
