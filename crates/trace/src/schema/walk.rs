//! Walks over the guest's own page tables.

macro_rules! walk {
    ([$($more:ident)*] $($all:tt)*) => { gather! { [$($more)*] $($all)*
        /// `kvm_mmu_pagetable_walk`: a software walk of guest page tables starts.
        PagetableWalk {
            tracepoint: kvmmmu "kvm_mmu_pagetable_walk";
            class: Walk;
            record: [];
            fields: {
                addr: u64 => address;
                pferr: u32 => error_code;
            }
            columns: { encoding: "pf"; }
            text: ["addr " {addr: hex} " pferr " {pferr: hex}];
            example: "addr 6022 pferr 10 F";
        }

        /// `kvm_mmu_paging_element`: one guest PTE read in such a walk.
        PagingElement {
            tracepoint: kvmmmu "kvm_mmu_paging_element";
            class: Walk;
            record: [];
            fields: {
                pte: u64 => value;
                level: u32 = [decimal] => level;
            }
            text: ["pte " {pte: hex} " level " {level: dec}];
            example: "pte 3027 level 4";
        }

        /// `kvm_mmu_set_accessed_bit`: the walker set A in the guest PTE at this guest physical address.
        SetAccessedBit {
            tracepoint: kvmmmu "kvm_mmu_set_accessed_bit";
            class: Walk;
            record: [mmu];
            fields: { gpa: u64 => gpa; }
            frames: { names: one(gpa >> 12); }
            text: ["gpa " {gpa: hex}];
            example: "gpa 2000";
        }

        /// `kvm_mmu_set_dirty_bit`: the walker set D in the guest PTE at this guest physical address.
        SetDirtyBit {
            tracepoint: kvmmmu "kvm_mmu_set_dirty_bit";
            class: Walk;
            record: [mmu];
            fields: { gpa: u64 => gpa; }
            frames: { names: one(gpa >> 12); }
            text: ["gpa " {gpa: hex}];
            example: "gpa 10000";
        }

        /// `kvm_mmu_walker_error`: the walk ends in a fault for the guest.
        WalkerError {
            tracepoint: kvmmmu "kvm_mmu_walker_error";
            class: Walk;
            record: [mmu, faults];
            fields: { pferr: u32 => error_code; }
            columns: { encoding: "pf"; }
            text: ["pferr " {pferr: hex}];
            example: "pferr 6 W|U";
        }
    } };
}
