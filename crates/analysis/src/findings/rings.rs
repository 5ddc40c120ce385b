//! The rules `dirty-ring-full` and `pml-full`: buffers of dirty logging that ran full.

use super::moment::At;
use super::{Finding, Rule, Seen, Severity, counted, vcpus};
use mmuscope_trace::Body;
use mmuscope_units::rate;

/// Fewer exits for a full PML buffer (512 pages each) are no cost worth naming.
const MANY: usize = 16;

pub(super) static FULL: Rule = Rule {
    id: "dirty-ring-full",
    severity: Severity::Warning,
    seen: "`kvm_dirty_ring_exit`: a vCPU returned to the VMM because its dirty ring was full",
    why: "the VMM collects dirty pages more slowly than the guest writes them. The vCPU stands still until it does",
    remedy: "a larger ring (KVM_CAP_DIRTY_LOG_RING; dirty-ring-size in QEMU), or collect more often. As a throttle of migration it is wanted",
    refuted: "KVM_RUN returned KVM_EXIT_DIRTY_RING_FULL less often than this",
    find: full,
};

pub(super) static PML: Rule = Rule {
    id: "pml-full",
    severity: Severity::Info,
    seen: "16 `kvm_pml_full` events or more: the CPU's page-modification log was full and the vCPU left the guest",
    why: "dirty logging by PML: every 512 pages that become dirty make one exit",
    remedy: "nothing: it is cheaper than write-protection",
    refuted: "dirty logging is off, and no nested guest runs",
    find: pml,
};

/// Events of full buffers: VM, time, event, vCPU.
#[derive(Debug, Default)]
pub(super) struct Rings {
    full: Vec<(u16, u64, u32, u32)>,
    pml: Vec<(u16, u64, u32, u32)>,
}

impl Rings {
    pub(super) fn event(&mut self, at: &At<'_>, body: &Body) {
        match *body {
            Body::DirtyRingExit { vcpu } => self.full.push((at.vm, at.ts, at.event, vcpu)),
            Body::PmlFull { vcpu } => self.pml.push((at.vm, at.ts, at.event, vcpu)),
            _ => {}
        }
    }
}

fn full(seen: &Seen<'_>) -> Vec<Finding> {
    of(seen, &FULL, &seen.noted.rings.full, 1, "left the guest as the dirty ring was full")
}

fn pml(seen: &Seen<'_>) -> Vec<Finding> {
    of(seen, &PML, &seen.noted.rings.pml, MANY, "left the guest as the page-modification log was full")
}

fn of(seen: &Seen<'_>, rule: &Rule, all: &[(u16, u64, u32, u32)], many: usize, what: &str) -> Vec<Finding> {
    let one = |vm: u16| {
        let of: Vec<_> = all.iter().filter(|e| e.0 == vm).collect();
        if of.len() < many {
            return None;
        }
        let mut out = Finding::new(rule, String::new());
        out.see_all(of.iter().map(|e| (e.1, e.2)));
        out.vm = Some(vm);
        let often = rate(out.count, out.last - out.first).map_or_else(String::new, |r| format!(" ({r})"));
        let who = vcpus(of.iter().map(|e| e.3).collect());
        out.title = format!("{who} {what} {}{often}", counted(out.count, "time"));
        Some(out)
    };
    seen.vms().filter_map(one).collect()
}
