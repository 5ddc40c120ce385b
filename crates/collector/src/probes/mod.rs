//! Kprobes on functions of KVM, for what an MMU does without an event. [`choose`] says which this host's MMUs need and can have; the recorder opens
//! them like its tracepoints, through perf's `kprobe` PMU, so that nothing is written to tracefs and the probes are gone with the recorder.
//!
//! A probe samples the registers that hold the arguments ([`Probe::registers`]). Which argument is which is asked of the prototypes in KVM's
//! BTF, or of `list` for the kernels that have none there; a function of which neither knows is not probed. The compiler marks a function whose
//! arguments it has changed by a suffix (`.isra.0`), so the plain name is a function that has them all.

mod list;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use list::{FUNCTIONS, Function, INSTEAD, Needed};
use mmuscope_trace::ARGUMENT_REGISTERS as ARGUMENTS;

use crate::host;
use crate::options::Probes;
use crate::snapshot;
use crate::types::Types;

/// A function to probe, and the argument that holds each field of the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub function: CString,
    fields: Vec<(&'static str, usize)>,
}

impl Probe {
    /// The name of its event: `probe:mmu_spte_update`.
    pub(crate) fn full_name(&self) -> String {
        format!("probe:{}", self.function.to_string_lossy())
    }

    /// The registers to sample.
    pub(crate) fn registers(&self) -> u64 {
        self.fields.iter().map(|f| 1u64 << ARGUMENTS[f.1].1).sum()
    }

    /// What the capture says of it, so that a reader knows the fields: `mmu_spte_update sptep=di new_spte=si`.
    pub(crate) fn fact(&self) -> String {
        let mut out = self.function.to_string_lossy().into_owned();
        for (field, n) in &self.fields {
            let _ = write!(out, " {field}={}", ARGUMENTS[*n].0);
        }
        out
    }
}

/// What was decided, and why nothing more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub probes: Vec<Probe>,
    /// What the user should know of changes that stay without events.
    pub notes: Vec<String>,
}

/// What decides which probes are of use.
struct Host<'a> {
    release: &'a str,
    parameters: BTreeMap<String, String>,
    /// `kvm_tdp_mmu_spte_changed` exists.
    changes_traced: bool,
    /// A VM has shadow pages now, those of a nested guest beside the TDP MMU's.
    shadows: bool,
    /// Memory slots are read, and again when they change.
    slots: bool,
}

impl Host<'_> {
    fn off(&self, name: &str) -> bool {
        self.parameters.get(name).is_some_and(|v| matches!(v.as_str(), "N" | "0"))
    }

    /// Whether VMs of this host have the TDP MMU.
    fn tdp_mmu(&self) -> bool {
        let paging = self.off("kvm_intel.ept") || self.off("kvm_amd.npt");
        !paging && self.parameters.contains_key("kvm.tdp_mmu") && !self.off("kvm.tdp_mmu")
    }

    fn needs(&self, what: Needed) -> bool {
        match what {
            Needed::Untraced => self.shadows || !self.tdp_mmu() || !self.changes_traced,
            Needed::UntracedTdp => self.tdp_mmu() && !self.changes_traced,
            Needed::Slots => self.slots,
        }
    }
}

/// The number of perf's `kprobe` PMU; `None` where the kernel has none.
pub(crate) fn pmu() -> Option<u32> {
    fs::read_to_string("/sys/bus/event_source/devices/kprobe/type").ok()?.trim().parse().ok()
}

/// The fields of a function's event by the names of its parameters.
fn by_prototype(f: &Function, parameters: &[&str]) -> Option<Vec<(&'static str, usize)>> {
    let place = |names: &[&str]| parameters.iter().take(ARGUMENTS.len()).position(|p| names.contains(p));
    f.fields.iter().map(|(field, names)| place(names).map(|n| (*field, n))).collect()
}

/// The same by what is known of a kernel that has no prototypes.
fn by_release(f: &Function, release: &str) -> Option<Vec<(&'static str, usize)>> {
    let places = f.without_btf.iter().find(|(r, _)| release.starts_with(r))?.1;
    let held = f.fields.iter().zip(places).filter_map(|((field, _), n)| n.map(|n| (*field, usize::from(n))));
    Some(held.collect())
}

fn probe(f: &Function, types: Option<&Types<'_>>, release: &str) -> Option<Probe> {
    let fields = types
        .and_then(|t| t.parameters(f.name))
        .map_or_else(|| by_release(f, release), |p| by_prototype(f, &p))?;
    Some(Probe { function: CString::new(f.name).ok()?, fields })
}

/// Chooses the probes of a recording on this host; `slots` says that it reads memory slots. The kernel has the last word: the recorder leaves out
/// what it does not open.
pub(crate) fn choose(wanted: Probes, release: &str, changes_traced: bool, slots: bool) -> Chosen {
    let mut out = Chosen::default();
    let parameters = host::parameters(Path::new("/sys/module"));
    if wanted == Probes::Off || parameters.is_empty() {
        return out;
    }
    let shadows = wanted == Probes::Auto && snapshot::shadow_pages();
    let host = Host { release, parameters, changes_traced, shadows, slots };
    let functions: Vec<&Function> =
        FUNCTIONS.iter().filter(|f| wanted == Probes::On || host.needs(f.needed)).collect();
    if functions.is_empty() {
        return out;
    }
    let silent = wanted == Probes::On || host.needs(Needed::Untraced);
    if cfg!(not(target_arch = "x86_64")) {
        if silent {
            out.notes.push("no probes: the registers of arguments are only known on x86-64".into());
        }
        return out;
    }
    if pmu().is_none() {
        let without = silent.then_some(
            "no probes on what this host's MMU does without an event: the kernel has no kprobe PMU (CONFIG_KPROBE_EVENTS)",
        );
        out.notes.extend(without.map(Into::into));
        return out;
    }
    let vmlinux = fs::read("/sys/kernel/btf/vmlinux").ok();
    let module = fs::read("/sys/kernel/btf/kvm").ok();
    let types = vmlinux.as_deref().and_then(|v| Types::new(v, module.as_deref()));
    for f in functions {
        if f.name == INSTEAD.1 && out.probes.iter().any(|p| p.function.as_bytes() == INSTEAD.0.as_bytes()) {
            continue;
        }
        match probe(f, types.as_ref(), host.release) {
            Some(p) => out.probes.push(p),
            // Functions come and go with kernels; only one without which nothing is known is worth a word.
            None if f.name == "mmu_spte_clear_track_bits" => out.notes.push(format!(
                "no probe on {}: KVM's BTF does not have its prototype, and mmuscope does not know it for {release}",
                f.name
            )),
            None => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use mmuscope_trace::Tracepoint;

    use super::*;

    #[test]
    fn every_field_is_one_that_a_reader_of_such_events_knows() {
        for f in FUNCTIONS {
            let event = Tracepoint::find(f.name).unwrap_or_else(|| panic!("{} is an event", f.name));
            assert_eq!(event.system, "probe", "{}", f.name);
            for (field, _) in f.fields {
                assert!(event.fields.iter().any(|e| e.kernel.contains(field)), "{}: {field}", f.name);
            }
            assert!(f.fields.len() <= ARGUMENTS.len());
            assert!(
                f.name != INSTEAD.1
                    || INSTEAD.0
                        == FUNCTIONS[FUNCTIONS.iter().position(|g| g.name == f.name).unwrap_or(1) - 1].name
            );
            for (release, places) in f.without_btf {
                assert_eq!(places.len(), f.fields.len(), "{} on {release}", f.name);
            }
        }
    }

    #[test]
    fn arguments_are_found_by_name_and_by_release() {
        let clear = FUNCTIONS.iter().find(|f| f.name == "mmu_spte_clear_track_bits").expect("a function");
        let named = by_prototype(clear, &["kvm", "sptep"]).expect("both are there");
        assert_eq!(named, [("kvm", 0), ("sptep", 1)]);
        // Up to 5.15 the function has no kvm.
        assert_eq!(by_prototype(clear, &["sptep"]), None);
        assert_eq!(by_release(clear, "5.10.0-46-cloud-amd64"), Some(vec![("sptep", 0)]));
        assert_eq!(by_release(clear, "5.100.0"), None);
        let p = probe(clear, None, "5.10.9").expect("a probe");
        assert_eq!((p.fact().as_str(), p.registers()), ("mmu_spte_clear_track_bits sptep=di", 1 << 5));
        assert_eq!(p.full_name(), "probe:mmu_spte_clear_track_bits");
    }

    #[test]
    fn a_host_takes_what_its_mmu_needs() {
        let host = |params: &[(&str, &str)], changes_traced| Host {
            release: "6.1.0",
            parameters: params.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            changes_traced,
            shadows: false,
            slots: false,
        };
        let tdp = [("kvm.tdp_mmu", "Y"), ("kvm_amd.npt", "1")];
        let need = |h: &Host<'_>| [Needed::Untraced, Needed::UntracedTdp].map(|n| h.needs(n));
        assert_eq!(need(&host(&tdp, true)), [false, false]);
        assert!(
            Host { slots: true, ..host(&tdp, true) }.needs(Needed::Slots)
                && !host(&tdp, true).needs(Needed::Slots)
        );
        assert_eq!(need(&host(&tdp, false)), [true, true], "5.10");
        let nested = Host { shadows: true, ..host(&tdp, true) };
        assert_eq!(need(&nested), [true, false]);
        let shadow = [("kvm.tdp_mmu", "Y"), ("kvm_intel.ept", "N")];
        assert_eq!(need(&host(&shadow, true)), [true, false]);
        let legacy = [("kvm.tdp_mmu", "N"), ("kvm_amd.npt", "1")];
        assert_eq!(need(&host(&legacy, true)), [true, false]);
    }
}
