//! The rule `snapshot-differs`: the kernel's own memory held something else than the events had shown.

use super::{Finding, Rule, Seen, Severity, Sure};
use mmuscope_units::{count, spte};

pub(super) static RULE: Rule = Rule {
    id: "snapshot-differs",
    severity: Severity::Error,
    seen: "a snapshot of KVM's memory shows another value in an entry than the one that the events had shown as a fact, and no later event is \
           that very change",
    why: "events are missing although no loss was recorded, KVM changed an entry on a path that is not traced, or mmuscope concluded something false",
    remedy: "record again with larger buffers (`record --buffer 64M`); if it comes again, keep the capture and report it: `mmuscope page` shows the \
             life of such a page",
    refuted: "the snapshot was torn: the table was freed and used anew while it was read",
    find,
};

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let differ = |s: &mmuscope_replay::Snapshot| {
        let first = s.differences.first()?;
        let title = format!(
            "{} of {} entries are otherwise in KVM's memory than the events had shown; first gfn {:#x}, level {}, as_id {}: {} by the trace, {} in memory",
            count(s.differ),
            count(s.equal + s.differ),
            first.gfn,
            first.level,
            first.as_id,
            spte(first.claimed),
            spte(first.found)
        );
        let mut out = Finding::new(&RULE, title);
        let one = s.differ == 1;
        (out.vm, out.gfn, out.sure) = (Some(first.vm.0), one.then_some(first.gfn), Sure::Certain);
        out.see(s.start, s.event);
        out.count = s.differ;
        Some(out)
    };
    seen.timeline.snapshots().iter().filter_map(differ).collect()
}
