//! MMIO entries and accesses.

macro_rules! mmio {
    ([$($more:ident)*] $($all:tt)*) => { gather! { [$($more)*] $($all)*
        /// `mark_mmio_spte`. `sptep` is a kernel *virtual* address (`None` where text hashed it).
        MarkMmioSpte {
            tracepoint: kvmmmu "mark_mmio_spte";
            class: MmioSpte;
            record: [mmu, faults, mmio];
            fields: {
                sptep: Option<u64> = [pointer] => sptep;
                gfn: u64;
                access: u32 => access;
                generation: u32 = ["gen"] => generation;
            }
            frames: { gfn: gfn; names: one(gfn); }
            text: ["sptep:" {sptep: pointer} " gfn " {gfn: hex} " access " {access: hex} " gen " {generation: hex}];
            example: "sptep:000000001d8c585e gfn d0000 access 7 gen 2";
        }

        /// `handle_mmio_page_fault`: the fault hit an MMIO SPTE of the current generation.
        HandleMmioPageFault {
            tracepoint: kvmmmu "handle_mmio_page_fault";
            class: MmioSpte;
            record: [mmu, faults, mmio];
            fields: {
                addr: u64 => address;
                gfn: u64;
                access: u32 => access;
            }
            frames: { gfn: gfn; names: one(gfn); }
            text: ["addr:" {addr: hex} " gfn " {gfn: hex} " access " {access: hex}];
            example: "addr:0 gfn d0000 access 6";
        }

        /// `check_mmio_spte`: the generation of an MMIO SPTE is compared with the current one.
        CheckMmioSpte {
            tracepoint: kvmmmu "check_mmio_spte";
            class: MmioSpte;
            record: [mmu, mmio];
            fields: {
                spte: u64 => spte;
                kvm_gen: u32 => kvm_generation;
                spte_gen: u32 => generation;
            }
            columns: { valid: kvm_gen == spte_gen; }
            text: ["spte " {spte: hex} " kvm_gen " {kvm_gen: hex} " spte-gen " {spte_gen: hex}];
            example: "spte 80000d0000017 kvm_gen 2 spte-gen 2 valid 1";
        }

        /// `kvm_mmio`: `kind` 0 unsatisfied read, 1 read, 2 write.
        Mmio {
            tracepoint: kvm "kvm_mmio";
            class: MmioAccess;
            record: [mmu, mmio];
            fields: {
                kind: u32 = ["type" decimal];
                len: u32 = [decimal] => length;
                gpa: u64 => gpa;
                val: u64 => value;
            }
            columns: { kind: mmio_kind(kind); }
            frames: { gfn: gpa >> 12; names: one(gpa >> 12); }
            text: ["mmio " {kind: mmio_word} " len " {len: dec} " gpa " {gpa: hex} " val " {val: hex}];
            example: "mmio write len 8 gpa 0xd0000000 val 0x20";
        }

        /// `vcpu_match_mmio`: the emulator used the vCPU's one-entry MMIO cache.
        VcpuMatchMmio {
            tracepoint: kvm "vcpu_match_mmio";
            class: MmioSpte;
            record: [mmu, mmio];
            fields: {
                gva: u64 => gva;
                gpa: u64 => gpa;
                write: bool;
                gpa_match: bool => flag;
            }
            columns: { kind: if write { "write" } else { "read" }; }
            frames: { gfn: gpa >> 12; names: one(gpa >> 12); }
            text: ["gva " {gva: hex} " gpa " {gpa: hex} {write, gpa_match: matched}];
            example: "gva 0xd0000000 gpa 0xd0000000 Write GPA";
        }

        /// `kvm_fast_mmio`: an ioeventfd kick inside the exit handler.
        FastMmio {
            tracepoint: kvm "kvm_fast_mmio";
            class: MmioAccess;
            record: [mmu, mmio];
            fields: { gpa: u64 => gpa; }
            frames: { gfn: gpa >> 12; names: one(gpa >> 12); }
            text: ["fast mmio at gpa " {gpa: hex}];
            example: "fast mmio at gpa 0xd0000000";
        }
    } };
}
