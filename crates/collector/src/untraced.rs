//! Tracepoints that exist on a host but never fire there, because the loaded vendor module does not call them.

use std::path::Path;

use crate::trigger::{Condition, Trigger};

/// Vendor modules, and the tracepoints of KVM that they never call. `kvm.ko` defines them all, so tracefs shows them whatever is loaded.
///
/// The source for kvm_pvm: recordings of all events of such hosts (6.18) have thousands of installs and none of these events.
const NEVER: &[(&str, &[&str])] =
    &[("kvm_pvm", &["kvm_page_fault", "kvm_entry", "kvm_exit", "fast_page_fault"])];

/// The vendor module of this host that does not call some tracepoints, and which.
pub(crate) fn here() -> Option<(&'static str, &'static [&'static str])> {
    of(Path::new("/sys/module"))
}

/// Only one vendor module can be KVM's at a time. Where several are loaded, the result is `None`.
fn of(modules: &Path) -> Option<(&'static str, &'static [&'static str])> {
    let loaded = |m: &str| modules.join(m).exists();
    NEVER.iter().copied().find(|(m, _)| loaded(m) && !loaded("kvm_intel") && !loaded("kvm_amd"))
}

/// The events that a condition needs to be fulfilled.
fn needs(c: &Condition) -> Vec<&str> {
    match c {
        Condition::ReservedBits | Condition::Exit(_) => vec!["kvm_userspace_exit"],
        Condition::Faults(..) => vec!["kvm_page_fault"],
        Condition::FaultTime(_) => vec!["kvm_page_fault", "kvm_entry"],
        Condition::ZapAll(_) => vec!["kvm_mmu_zap_all_fast"],
        Condition::Event { name, .. } => vec![name.split_once(':').map_or(name.as_str(), |(_, n)| n)],
    }
}

/// A sentence for each condition of a trigger that cannot be fulfilled on this host.
pub(crate) fn impossible(trigger: &Trigger) -> Vec<String> {
    here().map_or(Vec::new(), |(module, never)| impossible_under(trigger, module, never))
}

fn impossible_under(trigger: &Trigger, module: &str, never: &[&str]) -> Vec<String> {
    let missing = |c: &Condition| needs(c).into_iter().find(|e| never.contains(e)).map(str::to_owned);
    trigger
        .any
        .iter()
        .filter_map(|c| missing(c).map(|e| (c.to_string(), e)))
        .map(|(c, e)| format!("the trigger `{c}` cannot fire on this host: {module} does not trace {e}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_that_cannot_fire_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let module = |m: &str| std::fs::create_dir(dir.path().join(m)).expect("a folder");
        assert_eq!(of(dir.path()), None);
        module("kvm");
        module("kvm_pvm");
        let (name, never) = of(dir.path()).expect("kvm_pvm is known");
        let said = |t: &str| impossible_under(&t.parse().expect(t), name, never);
        assert_eq!(
            said("faults(gfn) > 100/10ms or exit == internal_error"),
            [
                "the trigger `faults(gfn) > 100/10ms` cannot fire on this host: kvm_pvm does not trace kvm_page_fault"
            ]
        );
        assert_eq!(said("fault-time > 5ms, event kvm:kvm_exit").len(), 2);
        assert!(said("zap-all > 3/s or reserved-bits or event kvm_mmu_set_spte").is_empty());
        module("kvm_intel");
        assert_eq!(of(dir.path()), None, "which of them is KVM's is not known");
    }
}
