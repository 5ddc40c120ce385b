//! The rule `vm-torn-down`: a VM's end.

use super::cause::{Cause, What};
use super::{Finding, Rule, Seen, Severity};
use crate::words::printable;
use mmuscope_units::{duration, moment};

pub(super) static RULE: Rule = Rule {
    id: "vm-torn-down",
    severity: Severity::Info,
    seen: "all page tables of a VM were zapped from the roots down, and nothing was built after. Only the TDP MMU since 5.11 traces this",
    why: "the last thread that held the VM exited or closed it: everything after that is no trouble of the guest",
    remedy: "nothing, if the VM was meant to end; else look at what the VMM did just before",
    refuted: "the VM's vCPUs enter the guest afterwards",
    find,
};

/// Every teardown.
pub(super) fn causes<'a>(seen: &'a Seen<'_>) -> impl Iterator<Item = Cause> + 'a {
    seen.timeline.vms().iter().filter_map(|v| v.ended.as_ref()).map(|e| Cause {
        end: Some(e.end),
        last_event: e.last_event,
        ..Cause::new(e.tid, (e.start, e.event), What::Teardown)
    })
}

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let one = |vm: &mmuscope_replay::Vm| {
        let end = vm.ended.as_ref()?;
        let title = format!(
            "VM {} was torn down after {}, in {}, by {}",
            vm.id.0,
            moment(end.start.saturating_sub(seen.trace.info.first_ts)),
            duration(end.end.saturating_sub(end.start)),
            printable(&end.by()),
        );
        let mut out = Finding::new(&RULE, title);
        out.vm = Some(vm.id.0);
        out.see_all([(end.start, end.event), (end.end, end.last_event)]);
        Some(out)
    };
    seen.timeline.vms().iter().filter_map(one).collect()
}
