//! The names of exit reasons: those that the kernel prints, and those of libtraceevent's kvm plugin; and those of the reasons for which `KVM_RUN`
//! returns to the VMM.

use crate::schema::values::{Isa, StrId};

/// VMX basic exit reasons and their names.
const VMX: &[(u32, &str)] = &[
    (0, "EXCEPTION_NMI"),
    (1, "EXTERNAL_INTERRUPT"),
    (2, "TRIPLE_FAULT"),
    (3, "INIT_SIGNAL"),
    (4, "SIPI_SIGNAL"),
    (7, "INTERRUPT_WINDOW"),
    (8, "NMI_WINDOW"),
    (9, "TASK_SWITCH"),
    (10, "CPUID"),
    (12, "HLT"),
    (13, "INVD"),
    (14, "INVLPG"),
    (15, "RDPMC"),
    (16, "RDTSC"),
    (18, "VMCALL"),
    (19, "VMCLEAR"),
    (20, "VMLAUNCH"),
    (21, "VMPTRLD"),
    (22, "VMPTRST"),
    (23, "VMREAD"),
    (24, "VMRESUME"),
    (25, "VMWRITE"),
    (26, "VMOFF"),
    (27, "VMON"),
    (28, "CR_ACCESS"),
    (29, "DR_ACCESS"),
    (30, "IO_INSTRUCTION"),
    (31, "MSR_READ"),
    (32, "MSR_WRITE"),
    (33, "INVALID_STATE"),
    (34, "MSR_LOAD_FAIL"),
    (36, "MWAIT_INSTRUCTION"),
    (37, "MONITOR_TRAP_FLAG"),
    (39, "MONITOR_INSTRUCTION"),
    (40, "PAUSE_INSTRUCTION"),
    (41, "MCE_DURING_VMENTRY"),
    (43, "TPR_BELOW_THRESHOLD"),
    (44, "APIC_ACCESS"),
    (45, "EOI_INDUCED"),
    (46, "GDTR_IDTR"),
    (47, "LDTR_TR"),
    (48, "EPT_VIOLATION"),
    (49, "EPT_MISCONFIG"),
    (50, "INVEPT"),
    (51, "RDTSCP"),
    (52, "PREEMPTION_TIMER"),
    (53, "INVVPID"),
    (54, "WBINVD"),
    (55, "XSETBV"),
    (56, "APIC_WRITE"),
    (57, "RDRAND"),
    (58, "INVPCID"),
    (59, "VMFUNC"),
    (60, "ENCLS"),
    (61, "RDSEED"),
    (62, "PML_FULL"),
    (63, "XSAVES"),
    (64, "XRSTORS"),
    (67, "UMWAIT"),
    (68, "TPAUSE"),
    (74, "BUS_LOCK"),
    (75, "NOTIFY"),
    (77, "TDCALL"),
    (84, "MSR_READ_IMM"),
    (85, "MSR_WRITE_IMM"),
];

/// SVM exit codes and their names.
const SVM: &[(u32, &str)] = &[
    (0x0, "read_cr0"),
    (0x2, "read_cr2"),
    (0x3, "read_cr3"),
    (0x4, "read_cr4"),
    (0x8, "read_cr8"),
    (0x10, "write_cr0"),
    (0x12, "write_cr2"),
    (0x13, "write_cr3"),
    (0x14, "write_cr4"),
    (0x18, "write_cr8"),
    (0x20, "read_dr0"),
    (0x21, "read_dr1"),
    (0x22, "read_dr2"),
    (0x23, "read_dr3"),
    (0x24, "read_dr4"),
    (0x25, "read_dr5"),
    (0x26, "read_dr6"),
    (0x27, "read_dr7"),
    (0x30, "write_dr0"),
    (0x31, "write_dr1"),
    (0x32, "write_dr2"),
    (0x33, "write_dr3"),
    (0x34, "write_dr4"),
    (0x35, "write_dr5"),
    (0x36, "write_dr6"),
    (0x37, "write_dr7"),
    (0x40, "DE excp"),
    (0x41, "DB excp"),
    (0x43, "BP excp"),
    (0x44, "OF excp"),
    (0x45, "BR excp"),
    (0x46, "UD excp"),
    (0x47, "NM excp"),
    (0x48, "DF excp"),
    (0x4a, "TS excp"),
    (0x4b, "NP excp"),
    (0x4c, "SS excp"),
    (0x4d, "GP excp"),
    (0x4e, "PF excp"),
    (0x50, "MF excp"),
    (0x51, "AC excp"),
    (0x52, "MC excp"),
    (0x53, "XF excp"),
    (0x60, "interrupt"),
    (0x61, "nmi"),
    (0x62, "smi"),
    (0x63, "init"),
    (0x64, "vintr"),
    (0x65, "cr0_sel_write"),
    (0x66, "read_idtr"),
    (0x67, "read_gdtr"),
    (0x68, "read_ldtr"),
    (0x69, "read_rt"),
    (0x6a, "write_idtr"),
    (0x6b, "write_gdtr"),
    (0x6c, "write_ldtr"),
    (0x6d, "write_rt"),
    (0x6e, "rdtsc"),
    (0x6f, "rdpmc"),
    (0x70, "pushf"),
    (0x71, "popf"),
    (0x72, "cpuid"),
    (0x73, "rsm"),
    (0x74, "iret"),
    (0x75, "swint"),
    (0x76, "invd"),
    (0x77, "pause"),
    (0x78, "hlt"),
    (0x79, "invlpg"),
    (0x7a, "invlpga"),
    (0x7b, "io"),
    (0x7c, "msr"),
    (0x7d, "task_switch"),
    (0x7e, "ferr_freeze"),
    (0x7f, "shutdown"),
    (0x80, "vmrun"),
    (0x81, "hypercall"),
    (0x82, "vmload"),
    (0x83, "vmsave"),
    (0x84, "stgi"),
    (0x85, "clgi"),
    (0x86, "skinit"),
    (0x87, "rdtscp"),
    (0x88, "icebp"),
    (0x89, "wbinvd"),
    (0x8a, "monitor"),
    (0x8b, "mwait"),
    (0x8d, "xsetbv"),
    (0x8f, "write_efer_trap"),
    (0x90, "write_cr0_trap"),
    (0x94, "write_cr4_trap"),
    (0x98, "write_cr8_trap"),
    (0xa2, "invpcid"),
    (0xa5, "buslock"),
    (0xa6, "idle-halt"),
    (0x400, "npf"),
    (0x401, "avic_incomplete_ipi"),
    (0x402, "avic_unaccelerated_access"),
    (0x403, "vmgexit"),
    (0x80000001, "vmgexit_mmio_read"),
    (0x80000002, "vmgexit_mmio_write"),
    (0x80000003, "vmgexit_nmi_complete"),
    (0x80000004, "vmgexit_ap_hlt_loop"),
    (0x80000005, "vmgexit_ap_jump_table"),
    (0x80000010, "vmgexit_page_state_change"),
    (0x80000011, "vmgexit_guest_request"),
    (0x80000012, "vmgexit_ext_guest_request"),
    (0x80000013, "vmgexit_ap_creation"),
    (0x8000fffd, "vmgexit_hypervisor_feature"),
    (0x80000000, "FAILED_VMENTRY"),
];

/// The plugin's names of SVM exit codes, without their `EXIT_`.
const SVM_PLUGIN: &[(u32, &str)] = &[
    (0x0, "READ_CR0"),
    (0x3, "READ_CR3"),
    (0x4, "READ_CR4"),
    (0x8, "READ_CR8"),
    (0x10, "WRITE_CR0"),
    (0x13, "WRITE_CR3"),
    (0x14, "WRITE_CR4"),
    (0x18, "WRITE_CR8"),
    (0x20, "READ_DR0"),
    (0x21, "READ_DR1"),
    (0x22, "READ_DR2"),
    (0x23, "READ_DR3"),
    (0x24, "READ_DR4"),
    (0x25, "READ_DR5"),
    (0x26, "READ_DR6"),
    (0x27, "READ_DR7"),
    (0x30, "WRITE_DR0"),
    (0x31, "WRITE_DR1"),
    (0x32, "WRITE_DR2"),
    (0x33, "WRITE_DR3"),
    (0x34, "WRITE_DR4"),
    (0x35, "WRITE_DR5"),
    (0x36, "WRITE_DR6"),
    (0x37, "WRITE_DR7"),
    (0x40, "EXCP_DE"),
    (0x41, "EXCP_DB"),
    (0x43, "EXCP_BP"),
    (0x44, "EXCP_OF"),
    (0x45, "EXCP_BR"),
    (0x46, "EXCP_UD"),
    (0x47, "EXCP_NM"),
    (0x48, "EXCP_DF"),
    (0x4a, "EXCP_TS"),
    (0x4b, "EXCP_NP"),
    (0x4c, "EXCP_SS"),
    (0x4d, "EXCP_GP"),
    (0x4e, "EXCP_PF"),
    (0x50, "EXCP_MF"),
    (0x51, "EXCP_AC"),
    (0x52, "EXCP_MC"),
    (0x53, "EXCP_XF"),
    (0x60, "INTR"),
    (0x61, "NMI"),
    (0x62, "SMI"),
    (0x63, "INIT"),
    (0x64, "VINTR"),
    (0x65, "CR0_SEL_WRITE"),
    (0x66, "IDTR_READ"),
    (0x67, "GDTR_READ"),
    (0x68, "LDTR_READ"),
    (0x69, "TR_READ"),
    (0x6a, "IDTR_WRITE"),
    (0x6b, "GDTR_WRITE"),
    (0x6c, "LDTR_WRITE"),
    (0x6d, "TR_WRITE"),
    (0x6e, "RDTSC"),
    (0x6f, "RDPMC"),
    (0x70, "PUSHF"),
    (0x71, "POPF"),
    (0x72, "CPUID"),
    (0x73, "RSM"),
    (0x74, "IRET"),
    (0x75, "SWINT"),
    (0x76, "INVD"),
    (0x77, "PAUSE"),
    (0x78, "HLT"),
    (0x79, "INVLPG"),
    (0x7a, "INVLPGA"),
    (0x7b, "IOIO"),
    (0x7c, "MSR"),
    (0x7d, "TASK_SWITCH"),
    (0x7e, "FERR_FREEZE"),
    (0x7f, "SHUTDOWN"),
    (0x80, "VMRUN"),
    (0x81, "VMMCALL"),
    (0x82, "VMLOAD"),
    (0x83, "VMSAVE"),
    (0x84, "STGI"),
    (0x85, "CLGI"),
    (0x86, "SKINIT"),
    (0x87, "RDTSCP"),
    (0x88, "ICEBP"),
    (0x89, "WBINVD"),
    (0x8a, "MONITOR"),
    (0x8b, "MWAIT"),
    (0x8c, "MWAIT_COND"),
    (0x8d, "XSETBV"),
    (0x400, "NPF"),
    (0x401, "AVIC_INCOMPLETE_IPI"),
    (0x402, "AVIC_UNACCELERATED_ACCESS"),
];

/// Why `KVM_RUN` returns: the numbers `KVM_EXIT_*` of include/uapi/linux/kvm.h, without that beginning.
const TO_VMM: &[(u32, &str)] = &[
    (0, "UNKNOWN"),
    (1, "EXCEPTION"),
    (2, "IO"),
    (3, "HYPERCALL"),
    (4, "DEBUG"),
    (5, "HLT"),
    (6, "MMIO"),
    (7, "IRQ_WINDOW_OPEN"),
    (8, "SHUTDOWN"),
    (9, "FAIL_ENTRY"),
    (10, "INTR"),
    (11, "SET_TPR"),
    (12, "TPR_ACCESS"),
    (16, "NMI"),
    (17, "INTERNAL_ERROR"),
    (21, "WATCHDOG"),
    (24, "SYSTEM_EVENT"),
    (26, "IOAPIC_EOI"),
    (27, "HYPERV"),
    (29, "X86_RDMSR"),
    (30, "X86_WRMSR"),
    (31, "DIRTY_RING_FULL"),
    (32, "AP_RESET_HOLD"),
    (33, "X86_BUS_LOCK"),
    (34, "XEN"),
    (37, "NOTIFY"),
    (39, "MEMORY_FAULT"),
    (40, "TDX"),
];

/// Exits in which the vCPU waits for an interrupt: VMX's HLT; SVM's hlt and idle-halt.
const HALTS: [(Isa, u32); 3] = [(Isa::Vmx, 12), (Isa::Svm, 0x78), (Isa::Svm, 0xa6)];

/// The kernel's name of a reason of `kvm_userspace_exit`, without its `KVM_EXIT_`; `None` for a number that x86 does not use.
pub fn vmm_exit_name(reason: u32) -> Option<&'static str> {
    TO_VMM.iter().find(|(c, _)| *c == reason).map(|(_, n)| *n)
}

/// The number of a reason of `kvm_userspace_exit` by that name, in letters of any size.
pub fn vmm_exit_by_name(name: &str) -> Option<u32> {
    TO_VMM.iter().find(|(_, n)| n.eq_ignore_ascii_case(name)).map(|(c, _)| *c)
}

/// Whether the guest left because it has nothing to do until an interrupt comes.
pub fn is_halt(isa: Isa, reason: u32) -> bool {
    HALTS.contains(&(isa, reason))
}

/// The number and back-end of a reason that a text names. VMX and SVM names differ at least in case, so case matters.
pub(crate) fn by_name(name: &str) -> Option<(u32, Option<Isa>)> {
    let find = |t: &[(u32, &str)], n: &str| t.iter().find(|(_, s)| *s == n).map(|(c, _)| *c);
    if let Some(c) = find(VMX, name) {
        return Some((c, Some(Isa::Vmx)));
    }
    // These names are of older kernels and of the plugin.
    if name == "PENDING_INTERRUPT" {
        return Some((7, Some(Isa::Vmx)));
    }
    if let Some(c) = find(SVM, name) {
        return Some((c, Some(Isa::Svm)));
    }
    if let Some(rest) = name.strip_prefix("EXIT_") {
        return find(SVM_PLUGIN, rest).map(|c| (c, Some(Isa::Svm)));
    }
    // A reason that is in no table is printed as a number: `0x…` by the kernel, `UNKNOWN (n)` by the plugin.
    if let Some(hex) = name.strip_prefix("0x") {
        return u32::from_str_radix(hex, 16).ok().map(|c| (c, None));
    }
    name.strip_prefix("UNKNOWN (")
        .and_then(|n| n.strip_suffix(')'))
        .and_then(|n| n.parse().ok())
        .map(|c| (c, None))
}

/// The kernel's name of a reason; `None` for an unknown back-end or number. Only the basic reason of VMX (bits 15:0) has a name.
pub fn name(isa: Isa, reason: u32) -> Option<&'static str> {
    let (table, code) = match isa {
        Isa::Vmx => (VMX, reason & 0xffff),
        Isa::Svm => (SVM, reason),
        Isa::Other(_) => return None,
    };
    table.iter().find(|(c, _)| *c == code).map(|(_, n)| *n)
}

/// The names of all reasons as interned strings, for decoders that share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExitNames {
    vmx: Vec<StrId>,
    svm: Vec<StrId>,
    /// SVM numbers that are far from the others (-1: invalid).
    far: Vec<(u32, StrId)>,
}

/// Numbers from here on are not looked up by index.
const FAR: u32 = 4096;

impl ExitNames {
    /// The names in the order in which they are interned.
    pub(crate) fn new(mut intern: impl FnMut(&str) -> StrId) -> Self {
        let mut table = |t: &[(u32, &str)]| {
            let near = || t.iter().filter(|(c, _)| *c < FAR);
            let mut ids = vec![StrId::default(); near().map(|(c, _)| *c as usize + 1).max().unwrap_or(0)];
            for (code, name) in near() {
                ids[*code as usize] = intern(name);
            }
            ids
        };
        let (vmx, svm) = (table(VMX), table(SVM));
        let far = SVM.iter().filter(|(c, _)| *c >= FAR).map(|(c, n)| (*c, intern(n))).collect();
        Self { vmx, svm, far }
    }

    /// The name of a reason; the empty string where it has none.
    #[inline]
    pub(crate) fn get(&self, isa: Option<Isa>, reason: u32) -> StrId {
        let id = match isa {
            Some(Isa::Vmx) => self.vmx.get(reason as usize & 0xffff),
            Some(Isa::Svm) if reason >= FAR => self.far.iter().find(|(c, _)| *c == reason).map(|(_, id)| id),
            Some(Isa::Svm) => self.svm.get(reason as usize),
            _ => None,
        };
        id.copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(by_name("EPT_VIOLATION"), Some((48, Some(Isa::Vmx))));
        assert_eq!(by_name("npf"), Some((0x400, Some(Isa::Svm))));
        assert_eq!(by_name("EXIT_NPF"), Some((0x400, Some(Isa::Svm))));
        assert_eq!(by_name("PF excp"), Some((0x4e, Some(Isa::Svm))));
        assert_eq!(by_name("0x53"), Some((0x53, None)));
        assert_eq!(by_name("EXIT_OF_THE_STAGE"), None);
        assert_eq!(name(Isa::Vmx, 0x8000_0021), Some("INVALID_STATE"));
        assert_eq!(name(Isa::Svm, 0x7b), Some("io"));
        assert_eq!(
            (vmm_exit_name(6), vmm_exit_name(39), vmm_exit_name(13)),
            (Some("MMIO"), Some("MEMORY_FAULT"), None)
        );
        assert_eq!((vmm_exit_by_name("memory_fault"), vmm_exit_by_name("memory")), (Some(39), None));
        assert!(is_halt(Isa::Vmx, 12) && is_halt(Isa::Svm, 0x78) && !is_halt(Isa::Svm, 12));
    }
}
