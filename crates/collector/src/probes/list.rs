//! The functions of KVM that probes are set on, as data: which fields of which events they give, where a kernel without BTF has them, and which
//! MMUs need them. A function that a kernel does not have, or has inlined, is left out. What the events mean is the replay's.

/// What a host must have for a probe to be of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needed {
    /// An MMU that does not trace all of its changes: shadow paging, as a nested guest has it, too, the legacy direct MMU, or 5.10's TDP MMU.
    Untraced,
    /// A TDP MMU of a kernel that has no `kvm_tdp_mmu_spte_changed`.
    UntracedTdp,
    /// Any: the recording has snapshots of memory slots, which are read again when the VMM changes them.
    Slots,
}

/// A function and what its arguments say.
pub(super) struct Function {
    /// Its name, which is the name of the event.
    pub name: &'static str,
    /// The fields of the event, each with the names that the parameter has in the kernel's prototypes.
    pub fields: &'static [(&'static str, &'static [&'static str])],
    /// Kernels of which no BTF has the prototype, by the beginning of their release, and the place among the arguments of each field.
    pub without_btf: &'static [(&'static str, &'static [Option<u8>])],
    pub needed: Needed,
}

/// Functions of which the second is only probed where the kernel does not have the first, which it calls: the compiler puts a short one that
/// only takes a lock into its callers, and leaves a symbol that nobody calls.
pub(super) const INSTEAD: (&str, &str) = ("__kvm_set_memory_region", "kvm_set_memory_region");

const SPTEP: (&str, &[&str]) = ("sptep", &["sptep"]);
const NEW: (&str, &[&str]) = ("new_spte", &["new_spte", "new"]);
const KVM: (&str, &[&str]) = ("kvm", &["kvm"]);

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "mmu_spte_update",
        fields: &[SPTEP, NEW],
        without_btf: &[("5.10.", &[Some(0), Some(1)])],
        needed: Needed::Untraced,
    },
    Function {
        name: "mmu_spte_update_no_track",
        fields: &[SPTEP, NEW],
        without_btf: &[("5.10.", &[Some(0), Some(1)])],
        needed: Needed::Untraced,
    },
    Function {
        name: "mmu_spte_clear_track_bits",
        fields: &[KVM, SPTEP],
        without_btf: &[("5.10.", &[None, Some(0)])],
        needed: Needed::Untraced,
    },
    Function {
        name: "__handle_changed_spte",
        fields: &[
            KVM,
            ("as_id", &["as_id"]),
            ("gfn", &["gfn"]),
            ("old_spte", &["old_spte"]),
            NEW,
            ("level", &["level"]),
        ],
        without_btf: &[("5.10.", &[Some(0), Some(1), Some(2), Some(3), Some(4), Some(5)])],
        needed: Needed::UntracedTdp,
    },
    Function {
        name: "__kvm_set_memory_region",
        fields: &[KVM],
        without_btf: &[("5.10.", &[Some(0)])],
        needed: Needed::Slots,
    },
    Function { name: "kvm_set_memory_region", fields: &[KVM], without_btf: &[], needed: Needed::Slots },
    Function {
        name: "kvm_get_dirty_log_protect",
        fields: &[KVM],
        without_btf: &[("5.10.", &[Some(0)])],
        needed: Needed::Untraced,
    },
    Function {
        name: "kvm_clear_dirty_log_protect",
        fields: &[KVM],
        without_btf: &[("5.10.", &[Some(0)])],
        needed: Needed::Untraced,
    },
];
