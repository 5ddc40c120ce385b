//! The rule `pf-intercepts`: in a fragment whose faults all are intercepted #PFs, it says that the guest runs on shadow page tables.

use super::{Finding, Rule, Seen, Severity, counted, place};
use mmuscope_replay::{Fault, Outcome};

pub(super) static RULE: Rule = Rule {
    id: "pf-intercepts",
    severity: Severity::Info,
    seen: "in a trace of at most 1,000 events: all faults are #PF that KVM intercepts (shadow paging), and which of them hit MMIO SPTEs",
    why: "EPT or NPT is off or not there, so that KVM shadows the guest's own page tables",
    remedy: "kvm_intel.ept=1 or kvm_amd.npt=1, where the CPU has it and shadow paging is not wanted",
    refuted: "the host has EPT or NPT on: then these are #PF that KVM intercepts for another reason, such as async page faults",
    find,
};

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let of_pf = |f: &&Fault| f.gva.is_some() && f.error_code.is_some();
    let faults: Vec<&Fault> = seen.faults.iter().filter(of_pf).collect();
    if !seen.fragment || faults.is_empty() || faults.len() != seen.faults.len() {
        return Vec::new();
    }
    let hit: Vec<&&Fault> = faults.iter().filter(|f| f.access.reserved).collect();
    let mmio = hit.first().map_or_else(String::new, |f| {
        let code = f.error_code.unwrap_or(0);
        let emulated = hit
            .iter()
            .filter(|f| matches!(f.outcome, Outcome::Emulated | Outcome::MmioHit | Outcome::MmioInstalled))
            .count();
        let emulated = match (emulated == hit.len(), hit.len()) {
            (false, _) => "",
            (true, 1) => " and was emulated",
            (true, _) => " and were emulated",
        };
        format!(
            "; {} of them, on {} with error code {code:#x} (RSVD), hit an MMIO SPTE{emulated}",
            hit.len(),
            place(f)
        )
    });
    let title = format!(
        "{} {} #PF that KVM intercepts, none of EPT or NPT: the guest runs on shadow page tables, and addresses are guest-virtual{mmio}",
        counted(faults.len() as u64, "fault"),
        if faults.len() == 1 { "is a" } else { "are" },
    );
    let mut out = Finding::new(&RULE, title);
    out.vm = Some(faults[0].vm.0);
    out.see_faults(faults.iter().copied());
    vec![out]
}
