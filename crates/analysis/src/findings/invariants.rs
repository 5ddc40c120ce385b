//! The rules `invariant-…`: what KVM's own page tables must never hold. The replay notes what does not fit (`Timeline::evidence`); what follows
//! a loss proves nothing about the kernel and is left out.

use super::{Finding, Rule, Seen, Severity, Sure, counted};
use mmuscope_replay::{Evidence, EvidenceKind, VmId};
use mmuscope_spte::Provenance;
use std::borrow::Cow;
use std::collections::BTreeMap;

const LOSSES: &str = "events were lost, or the recording left some out, although it does not say so (its sizes, filters and buffers show that), or the layout that \
     the values were read under is not the kernel's (`mmuscope layout`)";
const BUG: &str = "KVM itself, a driver or an out-of-tree module that writes its page tables, or memory corruption; no workload and no VMM can \
                   cause this";
const REPORT: &str = "keep the trace, and report it with the kernel's release to kvm@vger.kernel.org; `mmuscope page` shows the life of the page, \
                      CONFIG_KVM_PROVE_MMU=y and CONFIG_DEBUG_LIST=y make the kernel check more itself";

macro_rules! rule {
    ($name:ident, $id:literal, $kind:ident, $seen:literal) => {
        pub(super) static $name: Rule = Rule {
            id: $id,
            severity: Severity::Error,
            seen: $seen,
            why: BUG,
            remedy: REPORT,
            refuted: LOSSES,
            find: |seen| of(seen, &$name, &[EvidenceKind::$kind]),
        };
    };
}

rule!(
    PFN_CHANGED,
    "invariant-pfn",
    PfnChanged,
    "a present leaf was replaced by a present leaf with another host frame, without a zap between them. KVM stops with a BUG on that itself"
);
rule!(
    NONPRESENT,
    "invariant-nonpresent",
    NonpresentChanged,
    "an entry that is not present was given another value that is neither present, nor MMIO, nor removed"
);
rule!(
    MISALIGNED,
    "invariant-aligned",
    Misaligned,
    "an entry maps a frame that is not aligned to the size of its level"
);
rule!(
    INDEX,
    "invariant-index",
    Index,
    "the address of an entry in its page-table page does not fit the frame that it maps"
);
rule!(
    DEAD_TABLE,
    "invariant-dead-table",
    DeadTable,
    "an entry was installed in a page table that had been torn down"
);
rule!(
    SHARED_TABLE,
    "invariant-shared-table",
    TableShared,
    "one page-table page is linked from two entries of the TDP MMU at a time"
);

pub(super) static WRITABLE: Rule = Rule {
    id: "invariant-writable",
    severity: Severity::Error,
    seen: "a present leaf is writable without being MMU-writable, or writable without being host-writable",
    why: BUG,
    remedy: REPORT,
    refuted: LOSSES,
    find: writable,
};

pub(super) static RESERVED: Rule = Rule {
    id: "invariant-reserved",
    severity: Severity::Error,
    seen: "a leaf or a table was installed that the CPU refuses: reserved bits are set, or the memory type or the permissions are no valid \
           combination. It is looked for only where the width of physical addresses was measured on the host or given",
    why: BUG,
    remedy: REPORT,
    refuted: LOSSES,
    find: reserved,
};

pub(super) static VALUES: Rule = Rule {
    id: "invariant-values",
    severity: Severity::Warning,
    seen: "events of one entry disagree, and no loss was recorded: the old value of a change is not what the entry held, or \
           `kvm_mmu_set_spte` or `fast_page_fault` show another value than the changes do",
    why: "a change was not traced, or its event was not recorded. Of a kernel that traces all changes this is a bug; more often a recorder lost \
          events without counting them",
    remedy: "record again with larger buffers and without filters; if it repeats on the same kernel, report it to kvm@vger.kernel.org",
    refuted: LOSSES,
    find: values,
};

fn of(seen: &Seen<'_>, rule: &Rule, kinds: &[EvidenceKind]) -> Vec<Finding> {
    let mut groups: BTreeMap<(u16, EvidenceKind), Vec<&Evidence>> = BTreeMap::new();
    for e in seen.timeline.evidence().iter().filter(|e| kinds.contains(&e.kind) && !e.after_loss) {
        groups.entry((e.vm.0, e.kind)).or_default().push(e);
    }
    groups.into_iter().map(|((vm, kind), all)| one(rule, vm, kind, &all)).collect()
}

fn one(rule: &Rule, vm: u16, kind: EvidenceKind, all: &[&Evidence]) -> Finding {
    let first = all[0];
    let value = |v: Option<u64>| v.map_or_else(|| "none".into(), |v| format!("{v:#x}"));
    let times =
        if all.len() == 1 { String::new() } else { format!(", {}", counted(all.len() as u64, "time")) };
    let values = match (first.expected, first.found) {
        (None, None) => String::new(),
        (None, found) => format!(": value {}", value(found)),
        (old, found) => format!(": {} and {}", value(old), value(found)),
    };
    let title = format!(
        "{}{times}; first on gfn {:#x}, level {}, as_id {}, event {}{values}",
        kind.words(),
        first.gfn,
        first.level,
        first.as_id,
        first.event
    );
    let mut out = Finding::new(rule, title);
    (out.vm, out.gfn) = (Some(vm), (all.len() == 1).then_some(first.gfn));
    out.see_all(all.iter().map(|e| (e.ts, e.event)));
    out.sure = Sure::Likely;
    out
}

fn writable(seen: &Seen<'_>) -> Vec<Finding> {
    let mut out = of(seen, &WRITABLE, &[EvidenceKind::WritableBits]);
    let odd = &seen.noted.odd;
    out.extend(listed(
        &WRITABLE,
        &odd.host_writable,
        "a leaf was made writable although the host maps its page read-only",
    ));
    out
}

fn reserved(seen: &Seen<'_>) -> Vec<Finding> {
    let width = seen.timeline.layout(VmId(0)).resolved.host.maxphyaddr.from;
    if !matches!(width, Provenance::Measured | Provenance::Given) {
        return Vec::new();
    }
    listed(&RESERVED, &seen.noted.odd.refused, "an entry was installed that the CPU refuses")
        .into_iter()
        .collect()
}

fn values(seen: &Seen<'_>) -> Vec<Finding> {
    // Where the recorder lost events, or the trace does not say, disagreement says nothing of the kernel.
    let kinds = [EvidenceKind::OldValue, EvidenceKind::SetSpte, EvidenceKind::FastFault];
    let mut out = of(seen, &VALUES, &kinds);
    if let Some(why) = seen.trace.info.losses().unknown() {
        for f in &mut out {
            f.sure = Sure::Possible;
            f.why = Cow::Owned(format!("{why}, so that lost events are the likely cause"));
        }
    }
    out
}

/// Values that break a rule: VM, event, time, frame, level and value.
type Odd = (u16, u32, u64, u64, u8, u64);

/// What the pass over the events found wrong in values.
#[derive(Debug, Default)]
pub(super) struct OddValues {
    pub(super) host_writable: Vec<Odd>,
    pub(super) refused: Vec<Odd>,
}

fn listed(rule: &Rule, all: &[Odd], what: &str) -> Option<Finding> {
    let (vm, event, _, gfn, level, value) = *all.first()?;
    let times =
        if all.len() == 1 { String::new() } else { format!(", {}", counted(all.len() as u64, "time")) };
    let title =
        format!("{what}{times}; first on gfn {gfn:#x}, level {level}, event {event}: value {value:#x}");
    let mut out = Finding::new(rule, title);
    (out.vm, out.gfn) = (Some(vm), (all.len() == 1).then_some(gfn));
    out.see_all(all.iter().map(|o| (o.2, o.1)));
    out.sure = Sure::Likely;
    Some(out)
}
