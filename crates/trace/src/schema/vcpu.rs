//! What vCPUs do: faults, exits, entries, nested guests, system management mode, emulation.

macro_rules! vcpu {
    ([$($more:ident)*] $($all:tt)*) => { gather! { [$($more)*] $($all)*
        /// `kvm_page_fault`: a guest fault is handled. Which address `address` is depends on `encoding`.
        PageFault {
            tracepoint: kvm "kvm_page_fault";
            class: Vcpu;
            record: [mmu, faults, mmio];
            fields: {
                vcpu: Option<u32> = ["vcpu_id" decimal];
                rip: Option<u64> = ["guest_rip"] => rip;
                address: u64 = ["fault_address"] => address;
                error_code: u64 => error_code;
                encoding: ErrorEncoding = [by ambiguous()] => encoding;
            }
            columns: {
                gpa: physical(address, encoding);
                gva: linear(address, encoding);
            }
            frames: {
                gfn: physical(address, encoding).map(|gpa| gpa >> 12);
                names: if encoding == ErrorEncoding::PageFault { None } else { Some(one(address >> 12)) };
            }
            text: [
                ["vcpu " {vcpu: dec} " rip " {rip: hex}] " address " {address: hex} " error_code " {error_code: hex} {encoding: ambiguous}
            ];
            example: "vcpu 0 rip 0x6000 address 0x0000000000002000 error_code 0x200000006";
        }

        /// `kvm_exit`. `isa` is `None` where only the name of the reason was recorded and the name belongs to no known back-end. `reason` is the raw
        /// number, or `None` where a text has a name that is not in the tables; `reason_name` is the name in the text.
        Exit {
            tracepoint: kvm "kvm_exit";
            class: Vcpu;
            record: [mmu, faults, mmio];
            fields: {
                vcpu: Option<u32> = ["vcpu_id" decimal];
                reason: Option<u32> = [required "exit_reason" decimal] => reason;
                isa: Option<Isa>;
                reason_name: StrId = [by exit_name(isa, reason)];
                rip: u64 = ["guest_rip"] => rip;
                info1: Option<u64> => info1;
                info2: Option<u64> => info2;
                intr_info: Option<u32> => intr_info;
                error_code: Option<u32> => error_code;
                requests: Option<u64> => requests;
            }
            columns: {
                reason_name: exit_word(reason, isa, reason_name);
                isa: isa_word(isa);
            }
            frames: { names: nested_fault(isa, reason, info2).map(|gpa| one(gpa >> 12)); }
            text: [{vcpu, reason, isa, reason_name, rip, info1, info2, intr_info, error_code, requests: exit}];
            example: "vcpu 0 reason npf rip 0x6000 info1 0x0000000200000006 info2 0x0000000000002000 intr_info 0x00000000 error_code 0x00000000";
        }

        /// `kvm_entry`: a vCPU enters the guest.
        Entry {
            tracepoint: kvm "kvm_entry";
            class: Vcpu;
            record: [mmu, faults];
            fields: {
                vcpu: u32 = ["vcpu_id" decimal];
                rip: Option<u64> => rip;
                immediate_exit: Option<bool> => flag;
                intr_info: Option<u32> => intr_info;
                error_code: Option<u32> => error_code;
            }
            // The kernel prints the words only when the flag is set, so that a kernel without the field prints the same.
            text: [
                "vcpu " {vcpu: dec} [","] [" rip " {rip: hex}] [" intr_info " {intr_info: hex}] [" error_code " {error_code: hex}]
                ["[immediate exit]" {immediate_exit: yes}]
            ];
            example: "vcpu 0, rip 0x6000";
        }

        /// `kvm_userspace_exit`: KVM_RUN returns; `reason` is KVM_EXIT_*, `errno` negative on error (the kernel's text then leaves the reason
        /// out, which is 0 here).
        UserspaceExit {
            tracepoint: kvm "kvm_userspace_exit";
            class: Vcpu;
            record: [mmu, faults, mmio];
            fields: {
                reason: u32 = [decimal] => reason;
                errno: i32 => errno;
            }
            text: ["reason " {reason, errno: userspace_exit}];
            example: "reason KVM_EXIT_IO (2)";
        }

        /// `kvm_nested_vmexit`: an exit while L2 ran. It comes whether KVM handles the exit itself or passes it to L1.
        NestedVmexit {
            tracepoint: kvm "kvm_nested_vmexit";
            class: Vcpu;
            record: [];
            fields: {
                vcpu: Option<u32> = ["vcpu_id" decimal];
                reason: Option<u32> = [required "exit_reason" decimal | "exit_code"] => reason;
                isa: Option<Isa>;
                rip: Option<u64> = ["guest_rip" | "rip"] => rip;
                info1: Option<u64> = ["info1" | "exit_info1"] => info1;
                info2: Option<u64> = ["info2" | "exit_info2"] => info2;
            }
            columns: {
                reason_name: exit_word(reason, isa, StrId::default());
                isa: isa_word(isa);
            }
            text: [{vcpu, reason, isa, rip, info1, info2: nested_exit}];
            example: "vcpu 0 reason npf rip 0x1000 info1 0x0000000100000006 info2 0x0000000000003000 intr_info 0x00000000 error_code 0x00000000";
        }

        /// `kvm_nested_vmenter` or `kvm_nested_vmrun`: the vCPU goes from L1 to L2. `nested_pgd` is L1's EPT or NPT pointer where recorded.
        NestedVmenter {
            tracepoint: kvm "kvm_nested_vmenter" | "kvm_nested_vmrun";
            class: Vcpu;
            record: [mmu];
            fields: {
                rip: Option<u64> => rip;
                nested_rip: Option<u64> => nested_rip;
                nested_pgd: Option<u64> = ["guest_pgd" | "nested_pgd" | "nested_cr3"] => nested_pgd;
            }
            text: [{rip, nested_rip, nested_pgd: nested_enter}];
            example: "rip: 0x0000000000401000 vmcb: 0x0000000000005000 nested_rip: 0x0000000000007000 int_ctl: 0x00000000 event_inj: 0x00000000 nested_npt=y nested_cr3: 0x0000000000009000";
        }

        /// `kvm_rmp_fault` (SEV-SNP): a fault in the reverse map table.
        RmpFault {
            tracepoint: kvm "kvm_rmp_fault";
            class: Vcpu;
            record: [mmu, faults];
            fields: {
                vcpu: u32 = ["vcpu_id" decimal];
                gpa: u64 => gpa;
                pfn: u64 => pfn;
                error_code: u64 => error_code;
                rmp_level: i32 => level;
                psmash_ret: i32 => errno;
            }
            frames: { gfn: gpa >> 12; names: one(gpa >> 12); }
            text: [
                "vcpu " {vcpu: dec} " gpa " {gpa: hex} " pfn " {pfn: hex} " error_code " {error_code: hex}
                " rmp_level " {rmp_level: int} " psmash_ret " {psmash_ret: int}
            ];
            example: "vcpu 0 gpa 0000000000200000 pfn 0x12340 error_code 0x100000006 rmp_level 2 psmash_ret 0";
        }

        /// `kvm_smm_transition`: the vCPU enters or leaves system management mode.
        SmmTransition {
            tracepoint: kvm "kvm_smm_transition" | "kvm_enter_smm";
            class: Vcpu;
            record: [mmu];
            fields: {
                vcpu: u32 = ["vcpu_id" decimal];
                smbase: u64 => address;
                entering: bool => flag;
            }
            text: ["vcpu " {vcpu: dec} ":" {entering: entering} " SMM, smbase " {smbase: hex}];
            example: "vcpu 0: entering SMM, smbase 0x30000";
        }

        /// `kvm_emulate_insn`: an instruction is being emulated.
        EmulateInsn {
            tracepoint: kvm "kvm_emulate_insn";
            class: Vcpu;
            record: [mmio];
            fields: {
                rip: u64 => rip;
                failed: bool = [or 0] => flag;
            }
            text: [{rip, failed: emulated}];
            example: "0:6022:c7 00 01 00 00 00 (prot64)";
        }
    } };
}
