//! The rule `shared-page-first`: pages that were mapped read-only to one shared host page, and copied at the first write.

use super::words::by_cost;
use super::{Finding, Rule, Seen, Severity, Sure, counted, share};
use mmuscope_replay::{Fault, Outcome};
use mmuscope_units::count;
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};

/// A host page behind at least this many guest frames is shared on purpose.
const MANY: usize = 64;

pub(super) static RULE: Rule = Rule {
    id: "shared-page-first",
    severity: Severity::Warning,
    seen: "one host frame was mapped by read faults for 64 guest frames or more, and 16 of them or more were written later, which gave \
           them a host frame of their own. It is an info where that took less than a tenth of the time of all faults or a thousandth of the trace's",
    why: "a read of memory that nothing has touched yet maps the host's zero page (or a page that KSM has merged), read-only. The first write \
          then needs a fault that makes the host copy the page, which invalidates the mapping, and often one more that maps the copy",
    remedy: "let the VMM touch guest memory by writing before the guest runs (`prealloc=on` in QEMU, MAP_POPULATE, MADV_POPULATE_WRITE), or back \
             it with huge pages, for which one fault stands for 512; where KSM made it, `madvise(MADV_UNMERGEABLE)`",
    refuted: "/proc/kpageflags of the host frame has neither ZERO_PAGE (bit 24) nor KSM (bit 21): then the VMM itself maps one page many times",
    find,
};

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let reads = |f: &&Fault| f.outcome == Outcome::Fixed && !f.access.write && f.level.is_none_or(|l| l == 1);
    let mut frames: HashMap<(u16, u64), HashSet<u64>> = HashMap::default();
    for f in seen.faults.iter().filter(reads) {
        if let (Some(pfn), Some(gfn)) = (f.pfn, f.gfn) {
            frames.entry((f.vm.0, pfn)).or_default().insert(gfn);
        }
    }
    frames.retain(|_, gfns| gfns.len() >= MANY);
    if frames.is_empty() {
        return Vec::new();
    }
    let mut all: Vec<_> = frames.into_iter().collect();
    all.sort_unstable_by_key(|(k, _)| *k);
    all.iter().filter_map(|((vm, pfn), gfns)| one(seen, *vm, *pfn, gfns)).collect()
}

fn one(seen: &Seen<'_>, vm: u16, pfn: u64, gfns: &HashSet<u64>) -> Option<Finding> {
    // What each frame is waiting for: it maps the shared page, and was not copied yet.
    let mut shared: HashMap<u64, Vec<&Fault>> = HashMap::default();
    let (mut copied, mut needed) = (0u64, Vec::<&Fault>::new());
    for f in seen.faults.iter().filter(|f| f.vm.0 == vm) {
        let Some(gfn) = f.gfn.filter(|g| gfns.contains(g)) else { continue };
        if f.outcome == Outcome::Fixed && f.pfn == Some(pfn) && !f.access.write {
            shared.entry(gfn).or_default().push(f);
        } else if let Some(faults) = shared.get_mut(&gfn).filter(|_| f.access.write) {
            faults.push(f);
            // Another page behind it, and writable: the copy.
            if f.outcome == Outcome::Fixed && f.pfn.is_some_and(|p| p != pfn) {
                copied += 1;
                needed.extend(shared.remove(&gfn).unwrap_or_default());
            }
        }
    }
    if copied < MANY as u64 / 4 {
        return None;
    }
    let mut out = Finding::new(&RULE, String::new());
    needed.sort_by_key(|f| f.event);
    out.see_faults(needed);
    out.title = format!(
        "host frame {pfn:#x} was mapped read-only for {} (the host's zero page, or one that KSM merged); {} were written later and needed {} until they had a page of their own{}",
        counted(gfns.len() as u64, "guest frame"),
        count(copied),
        counted(out.count, "fault"),
        share(seen, vm, out.cost),
    );
    (out.vm, out.sure) = (Some(vm), Sure::Likely);
    out.severity = by_cost(seen, vm, out.cost, 10);
    Some(out)
}
