//! The rule `frame-in-two-vms`: one host frame that two VMs may write.

use super::{Finding, Rule, Seen, Severity, Sure, counted};
use mmuscope_replay::pages_of;
use mmuscope_replay::{Certainty, Shade, StateFilter};

pub(super) static RULE: Rule = Rule {
    id: "frame-in-two-vms",
    severity: Severity::Warning,
    seen: "while two VMs run, a host frame is mapped writable in both, and events stated both entries. It is looked at where the first VM is about \
           to end, or where the trace ends",
    why: "VMs that share memory on purpose (ivshmem, vhost-user, a forked VMM) map the same pages. The zero page and pages that KSM merged are never \
          writable, so that they are not meant. Without such sharing one guest can write the memory of another",
    remedy: "compare the VMMs' memory backends (/proc/PID/maps): a file or memfd that both map shared explains it",
    refuted: "the two VMs are one that was taken for two, or the entry of one was zapped without an event",
    find,
};

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let vms = seen.timeline.vms();
    if vms.len() < 2 || !seen.traces.changes || !seen.timeline.lost().is_empty() {
        return Vec::new();
    }
    let first_end = vms.iter().map(|v| v.ended.as_ref().map_or(v.end, |e| e.start.saturating_sub(1))).min();
    let Some(at) = first_end else { return Vec::new() };
    // Host frames: first, one past the last, VM, guest frame, and the event that stated it.
    let mut frames: Vec<(u64, u64, u16, u64, u64, u32)> = seen
        .timeline
        .at(at, &StateFilter::default())
        .iter()
        .filter(|(_, s)| s.shade == Shade::Writable && s.certainty == Certainty::Exact)
        .filter_map(|(e, s)| {
            let pfn = seen.timeline.decode(&e, &s)?.pfn?;
            Some((pfn, pfn + pages_of(e.level), e.vm.0, e.gfn, s.start, s.opened_by?))
        })
        .collect();
    frames.sort_unstable();
    let mut out: Option<Finding> = None;
    let mut last: Option<(u64, u64, u16, u64, u64, u32)> = None;
    let mut example = String::new();
    for f in frames {
        if let Some(l) = last.filter(|l| f.0 < l.1 && f.2 != l.2) {
            let found = out.get_or_insert_with(|| Finding::new(&RULE, String::new()));
            if found.count == 0 {
                example = format!(
                    "host frame {:#x} is gfn {:#x} of VM {} and gfn {:#x} of VM {}",
                    f.0, l.3, l.2, f.3, f.2
                );
            }
            found.see(f.4, f.5);
        }
        if last.is_none_or(|l| f.1 > l.1) {
            last = Some(f);
        }
    }
    if let Some(found) = &mut out {
        found.title = format!(
            "{} of host memory may be written by two VMs: {example}",
            counted(found.count, "mapping")
        );
        found.sure = Sure::Possible;
    }
    out.into_iter().collect()
}
