//! Dirty logging.

macro_rules! dirty {
    ([$($more:ident)*] $($all:tt)*) => { gather! { [$($more)*] $($all)*
        /// `kvm_pml_full`: the page-modification log of this vCPU is full.
        PmlFull {
            tracepoint: kvm "kvm_pml_full";
            class: Dirty;
            record: [mmu];
            fields: { vcpu: u32 = ["vcpu_id" decimal]; }
            text: ["vcpu " {vcpu: dec}];
            example: "vcpu 0: PML full";
        }

        /// `kvm_dirty_ring_push`: a page was added to the dirty ring.
        DirtyRingPush {
            tracepoint: kvm "kvm_dirty_ring_push";
            class: Dirty;
            record: [];
            fields: {
                index: i32 => index;
                dirty_index: u32;
                reset_index: u32;
                slot: u32 = [decimal] => slot;
                offset: u64 => offset;
            }
            text: [
                "ring " {index: int} ": dirty " {dirty_index: hex} " reset " {reset_index: hex} " slot " {slot: dec} " offset " {offset: hex}
            ];
            example: "ring 0: dirty 0x12 reset 0x10 slot 1 offset 0x3f (used 2)";
        }

        /// `kvm_dirty_ring_reset`: user space has collected entries of the dirty ring.
        DirtyRingReset {
            tracepoint: kvm "kvm_dirty_ring_reset";
            class: Dirty;
            record: [mmu];
            fields: {
                index: i32 => index;
                dirty_index: u32;
                reset_index: u32;
            }
            text: ["ring " {index: int} ": dirty " {dirty_index: hex} " reset " {reset_index: hex}];
            example: "ring 0: dirty 0x12 reset 0x12 (used 0)";
        }

        /// `kvm_dirty_ring_exit`: the vCPU exits because its dirty ring is full.
        DirtyRingExit {
            tracepoint: kvm "kvm_dirty_ring_exit";
            class: Dirty;
            record: [mmu];
            fields: { vcpu: u32 = ["vcpu_id" decimal]; }
            text: ["vcpu " {vcpu: dec}];
            example: "vcpu 0";
        }
    } };
}
