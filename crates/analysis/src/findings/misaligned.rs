//! The rule `slot-misaligned`: a memory slot whose guest addresses and host addresses differ by no multiple of 2 MiB is mapped by small pages only.

use super::{Finding, Rule, Seen, Severity, Sure, counted, share};
use mmuscope_replay::{Fault, MemSlot};
use mmuscope_units::bytes;

/// The frames of a page of 2 MiB: smaller slots hold none.
const LARGE: u64 = 512;
/// Fewer faults that mapped a small page are not worth a finding.
const MANY: usize = 64;

pub(super) static RULE: Rule = Rule {
    id: "slot-misaligned",
    severity: Severity::Warning,
    seen: "a memory slot of 2 MiB or more whose guest-physical and host-virtual addresses differ by no multiple of 2 MiB, and 64 faults or more that \
           mapped 4K pages of it. It is an info for a read-only slot (firmware), and where they took less than a hundredth of the time of all faults or a thousandth of the trace's. The slots and their host addresses \
           must be known (`mmuscope memslots`)",
    why: "a page of 2 MiB must begin at a multiple of 2 MiB in the guest and in the host alike. Where both differ by anything else, KVM never uses \
          huge pages in the slot, whatever backs it (transparent huge pages, hugetlbfs)",
    remedy: "let the VMM allocate the memory at a host address with the offset within 2 MiB (better 1 GiB) that the guest address has: mmap more, and \
             begin at the aligned address",
    refuted: "the slot is for a device or firmware that huge pages would not help",
    find,
};

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    seen.timeline.slots().iter().filter(|s| is_misaligned(s)).filter_map(|s| one(seen, s)).collect()
}

/// KVM compares both frame numbers below the size of a huge page, and forbids huge pages in all of the slot where they differ.
fn is_misaligned(s: &MemSlot) -> bool {
    s.pages >= LARGE && s.hva.is_some_and(|hva| (s.gfn ^ (hva >> 12)) & (LARGE - 1) != 0)
}

fn one(seen: &Seen<'_>, s: &MemSlot) -> Option<Finding> {
    let small = |f: &&Fault| {
        let here = f.gfn.is_some_and(|g| (s.gfn..s.end_gfn()).contains(&g));
        f.vm == s.vm && f.as_id == s.as_id && here && s.at(f.ts) && f.level == Some(1)
    };
    let faults: Vec<&Fault> = seen.faults.iter().filter(small).collect();
    if faults.len() < MANY {
        return None;
    }
    let mut out = Finding::new(&RULE, String::new());
    out.see_faults(faults.iter().copied());
    let (vm, hva) = (s.vm.0, s.hva?);
    let size = bytes(s.pages.saturating_mul(4096));
    out.title = format!(
        "memory slot {}{} ({size} at guest address {:#x}, host address {hva:#x}) can only be mapped by 4K pages, as both addresses differ by no multiple \
         of 2 MiB; {} mapped them{}",
        s.id,
        seen.of_vm(vm),
        s.gfn << 12,
        counted(faults.len() as u64, "fault"),
        share(seen, vm, out.cost),
    );
    let by_cost = super::words::by_cost(seen, vm, out.cost, 1);
    out.severity = if s.read_only() { Severity::Info } else { by_cost };
    (out.vm, out.sure) = (Some(vm), Sure::Certain);
    Some(out)
}
