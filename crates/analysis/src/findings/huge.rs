//! The rules `huge-lost` and `huge-won`: memory that was mapped by huge pages and then by small ones, and the other way round, by cause.

use super::cause::{Cause, What};
use super::moment::{At, Change};
use super::{Finding, Rule, Seen, Severity, Sure, counted};
use mmuscope_replay::{MmuKind, VmId, pages_of};
use mmuscope_spte::State;
use mmuscope_trace::Body;
use mmuscope_units::{count, level_size};
use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Fewer ranges that stay small are no warning.
const MANY: usize = 8;

pub(super) static LOST: Rule = Rule {
    id: "huge-lost",
    severity: Severity::Warning,
    seen: "a leaf of 2M or 1G was split into a table, or was zapped and its range was then mapped by a smaller leaf. The cause is read off the \
           thread and what it was doing: a fetch fault (the NX mitigation), a write fault or an eager split without a fault (dirty logging), an \
           mmu_notifier invalidation (the host split or moved the page), a zap-all (memory slots). Only the TDP MMU since 5.11 traces this",
    why: "smaller pages need more faults, more page-table memory and more TLB entries",
    remedy: "dirty logging: KVM wins the pages back when it ends. NX: kvm.nx_huge_pages and its recovery ratio and period. The host: \
             transparent_hugepage settings, KSM, NUMA balancing and ballooning of the VMM's memory, or hugetlbfs",
    refuted: "`pages_2m` and `pages_1g` in KVM's debugfs do not fall at that time",
    find: lost,
};

pub(super) static WON: Rule = Rule {
    id: "huge-won",
    severity: Severity::Info,
    seen: "a leaf of 2M or 1G was installed where smaller leaves had mapped the range before: in place of their table, or by a fault after the \
           table was zapped. Only the TDP MMU since 5.11 traces this",
    why: "dirty logging ended, the NX mitigation's worker recovered the range, or the host made a huge page of small ones (khugepaged)",
    remedy: "nothing: this is what is wanted. Where it repeats together with huge-lost, the two work against each other",
    refuted: "`pages_2m` and `pages_1g` in KVM's debugfs do not rise at that time",
    find: won,
};

/// What a change was part of, as far as the thread's events show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum During {
    Notifier,
    NxRecovery,
    ZapAll,
    /// Something else: a fault, or an ioctl.
    Other,
}

/// What is known of one range of a huge page's size.
#[derive(Clone, Copy, Debug, Default)]
struct Range {
    huge: bool,
    small: bool,
    /// The huge leaf, or the table of small ones, was taken away: event, thread, time and by what.
    taken: Option<(u32, u32, u64, u8)>,
    /// How many zap-alls its VM had had.
    had: u32,
}

/// One huge page lost or won.
#[derive(Clone, Copy, Debug)]
struct Turn {
    vm: u16,
    as_id: u8,
    level: u8,
    gfn: u64,
    /// What took the old mapping away.
    event: u32,
    tid: u32,
    ts: u64,
    during: During,
    /// The new mapping took its place in one change.
    in_place: bool,
}

/// Sizes of mappings over time.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    ranges: HashMap<(u16, u8, u8, u64), Range>,
    zap_alls: HashMap<u16, u32>,
    lost: Vec<Turn>,
    won: Vec<Turn>,
}

const fn base(level: u8, gfn: u64) -> u64 {
    gfn & !((1 << (9 * (level as u32 - 1))) - 1)
}

impl Sizes {
    /// Whether a range is mapped by a huge page at the end of its VM or of the trace.
    fn is_huge(&self, (vm, as_id, level, gfn): (u16, u8, u8, u64)) -> bool {
        let huge = |l: u8| {
            self.ranges.get(&(vm, as_id, l, base(l, gfn))).is_some_and(|r| r.huge && r.taken.is_none())
        };
        (level..=3).any(huge)
    }

    pub(super) fn event(&mut self, at: &At<'_>, body: &Body) {
        if let Body::ZapAllFast { .. } = body {
            *self.zap_alls.entry(at.vm).or_default() += 1;
        }
    }

    pub(super) fn change(&mut self, c: &Change, notifier: bool, comm: &str) {
        if c.level > 3 {
            return;
        }
        let during = if notifier {
            During::Notifier
        } else if comm.starts_with("kvm-nx-lpage") {
            During::NxRecovery
        } else {
            During::Other
        };
        let had = self.zap_alls.get(&c.vm).copied().unwrap_or(0);
        if c.level >= 2 {
            self.large(c, during, had);
        }
        if c.new.state == State::Present && c.old.state != State::Present {
            for level in (c.level + 1)..=3 {
                self.small(c, level, had);
            }
        }
    }

    /// A change at the level of a huge page.
    fn large(&mut self, c: &Change, during: During, had: u32) {
        let range = self.ranges.entry((c.vm, c.as_id, c.level, c.gfn)).or_default();
        let turn = |during, (event, tid, ts), in_place| Turn {
            vm: c.vm,
            as_id: c.as_id,
            level: c.level,
            gfn: c.gfn,
            event,
            tid,
            ts,
            during,
            in_place,
        };
        let here = (c.event, c.tid, c.ts);
        match (c.old.state, c.new.state) {
            (State::Present, State::Table) => {
                self.lost.push(turn(during, here, true));
                // The split installs the small ones; that is one event.
                *range = Range { small: true, had, ..Range::default() };
            }
            (old, State::Present) if old != State::Present => {
                if old == State::Table {
                    self.won.push(turn(during, here, true));
                } else if range.small
                    && let Some((event, tid, ts, by)) = range.taken
                {
                    self.won.push(turn(DURING[usize::from(by)], (event, tid, ts), false));
                }
                *range = Range { huge: true, had, ..Range::default() };
            }
            (State::Present | State::Table, _) if c.new.state != State::Present && range.had == had => {
                let by = if range.huge || range.small { Some(during) } else { None };
                range.taken = by.map(|d| (c.event, c.tid, c.ts, d as u8));
            }
            _ => {}
        }
    }

    /// A smaller leaf was installed in a range of this level.
    fn small(&mut self, c: &Change, level: u8, had: u32) {
        let gfn = base(level, c.gfn);
        let range = self.ranges.entry((c.vm, c.as_id, level, gfn)).or_default();
        if range.huge {
            let (event, tid, ts, during) = match range.taken {
                Some((event, tid, ts, by)) => (event, tid, ts, DURING[usize::from(by)]),
                None if range.had < had => (c.event, c.tid, c.ts, During::ZapAll),
                // Another page table of the same range, as of a second root.
                None => return,
            };
            self.lost.push(Turn {
                vm: c.vm,
                as_id: c.as_id,
                level,
                gfn,
                event,
                tid,
                ts,
                during,
                in_place: false,
            });
        }
        *range = Range { small: true, had, ..Range::default() };
    }
}

/// By number.
const DURING: [During; 4] = [During::Notifier, During::NxRecovery, During::ZapAll, During::Other];

/// The cause of a turn in words.
fn cause(seen: &Seen<'_>, t: &Turn, lost: bool) -> &'static str {
    let fault = seen.fault_of(t.tid, t.event, t.ts);
    let nested = seen.timeline.vms().iter().any(|v| v.id.0 == t.vm && v.kind != MmuKind::Tdp);
    match (t.during, lost) {
        (During::Notifier, true) => "the host invalidated them (mmu_notifier)",
        (During::Notifier, false) => {
            "the host changed the pages (mmu_notifier: khugepaged, or a new mapping)"
        }
        (During::NxRecovery, _) => "the NX mitigation's worker zapped the small ones",
        (During::ZapAll, _) => "all page tables were made anew (memory slots changed)",
        (During::Other, true) => match fault {
            Some(f) if f.access.fetch => "the guest executed from them (the NX mitigation)",
            Some(f) if f.access.write && nested => {
                "write faults needed small pages (dirty logging, or page tables of a nested guest in the range)"
            }
            Some(f) if f.access.write => "write faults needed small pages (dirty logging)",
            Some(_) => "faults needed small pages",
            None if t.in_place => "they were split outside of any fault (eagerly, for dirty logging)",
            None => "a thread zapped them outside of any fault or invalidation (an ioctl)",
        },
        (During::Other, false) => match fault {
            Some(_) => "faults found that the range may be huge",
            None => "an ioctl brought huge pages back (dirty logging ended)",
        },
    }
}

/// A huge page that was lost (split, or zapped and then mapped by smaller ones) or won (the other way round), once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeChange {
    /// VM.
    pub vm: VmId,
    /// Address space.
    pub as_id: u8,
    /// Level of the huge page: 2 is 2M, 3 is 1G.
    pub level: u8,
    /// Its first guest frame.
    pub gfn: u64,
    /// When the old mapping was taken away, in nanoseconds on the trace's clock.
    pub ts: u64,
    /// Number of the event that took it away.
    pub event: u32,
    /// Thread that did it.
    pub tid: u32,
    /// Whether the huge page was lost; else it was won.
    pub lost: bool,
    /// Whether the new mapping took the place of the old one in one change.
    pub in_place: bool,
    /// Why, as far as the thread's events show.
    pub why: &'static str,
}

/// Every huge page that was lost or won, in the order in which the old mappings were taken away; none where the MMU does not trace its changes.
pub(super) fn changes(seen: &Seen<'_>) -> Vec<SizeChange> {
    if !seen.traces.changes {
        return Vec::new();
    }
    let sizes = &seen.noted.sizes;
    let all = sizes.lost.iter().map(|t| (t, true)).chain(sizes.won.iter().map(|t| (t, false)));
    let mut out: Vec<SizeChange> = all
        .filter(|(t, _)| !seen.torn_down(t.vm, t.ts))
        .map(|(t, lost)| SizeChange {
            vm: VmId(t.vm),
            as_id: t.as_id,
            level: t.level,
            gfn: t.gfn,
            ts: t.ts,
            event: t.event,
            tid: t.tid,
            lost,
            in_place: t.in_place,
            why: cause(seen, t, lost),
        })
        .collect();
    out.sort_by_key(|c| (c.ts, c.event, c.gfn));
    out
}

/// The same as a cause of changes.
pub(super) fn cause_of(c: &SizeChange) -> Cause {
    Cause {
        gfns: Some((c.gfn, c.gfn.saturating_add(pages_of(c.level) - 1))),
        ..Cause::new(c.tid, (c.ts, c.event), What::Sizes { count: 1, lost: c.lost, why: c.why })
    }
}

fn lost(seen: &Seen<'_>) -> Vec<Finding> {
    turns(seen, &LOST, &seen.noted.sizes.lost, true)
}

fn won(seen: &Seen<'_>) -> Vec<Finding> {
    turns(seen, &WON, &seen.noted.sizes.won, false)
}

fn turns(seen: &Seen<'_>, rule: &Rule, all: &[Turn], lost: bool) -> Vec<Finding> {
    if !seen.traces.changes {
        return Vec::new();
    }
    let one = |vm: u16| {
        let of: Vec<&Turn> = all.iter().filter(|t| t.vm == vm && !seen.torn_down(vm, t.ts)).collect();
        if of.is_empty() {
            return None;
        }
        let mut out = Finding::new(rule, String::new());
        let mut causes: BTreeMap<&str, BTreeMap<Reverse<u8>, u64>> = BTreeMap::new();
        for t in &of {
            out.see(t.ts, t.event);
            *causes.entry(cause(seen, t, lost)).or_default().entry(Reverse(t.level)).or_default() += 1;
        }
        let mut causes: Vec<_> = causes.into_iter().collect();
        causes.sort_by_key(|c| Reverse(c.1.values().sum::<u64>()));
        let sizes = |by: &BTreeMap<Reverse<u8>, u64>| {
            let one = |(l, n): (&Reverse<u8>, &u64)| format!("{} of {}", count(*n), level_size(l.0));
            by.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        let words: Vec<String> = causes.iter().map(|(c, by)| format!("{c}, {}", sizes(by))).collect();
        let ranges: HashSet<_> = of.iter().map(|t| (t.as_id, t.level, t.gfn)).collect();
        let huge = ranges.iter().filter(|(a, l, g)| seen.noted.sizes.is_huge((vm, *a, *l, *g))).count();
        let back = match (lost, huge == ranges.len()) {
            (false, _) => String::new(),
            (true, true) => "; all of these ranges are huge again at the end".into(),
            (true, false) => format!("; of these ranges, {huge} are huge at the end"),
        };
        if lost && ranges.len() - huge < MANY {
            out.severity = Severity::Info;
        }
        let verb = if lost { "lost" } else { "won" };
        out.title = format!(
            "{} {verb}{} on {}: {}{back}",
            counted(of.len() as u64, "huge page"),
            seen.of_vm(vm),
            counted(ranges.len() as u64, "range"),
            words.join("; "),
        );
        (out.vm, out.sure) = (Some(vm), Sure::Likely);
        Some(out)
    };
    seen.vms().filter_map(one).collect()
}
