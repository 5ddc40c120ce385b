//! Kprobes on functions of KVM, for changes that have no tracepoint. `mmuscope record` sets them by itself; one that was set by hand is read
//! by the function that it is on, whatever the event is called (`crate::probed`).
//!
//! A probe is hit when the function is entered, so the change comes just after the event. `kvm` is the address of the VM's `struct kvm`, where
//! the probe records it. `sptep` is a kernel *virtual* address.

macro_rules! probes {
    ([$($more:ident)*] $($all:tt)*) => { gather! { [$($more)*] $($all)*
        /// `mmu_spte_update` and `mmu_spte_update_no_track`: a shadow or legacy MMU sets an entry to a new value.
        ProbeSpteUpdate {
            tracepoint: probe "mmu_spte_update", "mmu_spte_update_no_track" if no_track;
            class: Change;
            midway: true;
            record: [];
            fields: {
                no_track: bool = [second];
                kvm: Option<u64>;
                sptep: u64 = ["sptep" | "sp"] => sptep;
                new_spte: u64 = ["new_spte" | "new" | "val" | "value" | "spte"] => new_spte;
            }
            text: ["(" .. ")" [" kvm=" {kvm: hex}] " sptep=" {sptep: hex} " new_spte=" {new_spte: hex}];
            example: "(mmu_spte_update+0x0/0x1a0 [kvm]) sptep=0xffff88800cfec030 new_spte=0x29cda25";
        }

        /// `mmu_spte_clear_track_bits`: a shadow or legacy MMU zaps a leaf. `old_spte` is what the probe read there. (`drop_spte` calls it, and so do
        /// others: a probe on that alone does not show every zap.)
        ProbeSpteClear {
            tracepoint: probe "mmu_spte_clear_track_bits";
            class: Change;
            midway: true;
            record: [];
            fields: {
                kvm: Option<u64>;
                sptep: u64 = ["sptep" | "sp"] => sptep;
                old_spte: Option<u64> = ["old_spte" | "old"] => old_spte;
            }
            text: ["(" .. ")" [" kvm=" {kvm: hex}] " sptep=" {sptep: hex} [" old_spte=" {old_spte: hex}]];
            example: "(mmu_spte_clear_track_bits+0x0/0x1b0 [kvm]) sptep=0xffff88800cfea000 old_spte=0x32b1825";
        }

        /// `__handle_changed_spte`: an SPTE of the TDP MMU changed its value. From 5.11 on, the function itself traces
        /// `kvm_tdp_mmu_spte_changed`.
        ProbeSpteChanged {
            tracepoint: probe "__handle_changed_spte" | "handle_changed_spte";
            class: Install;
            midway: true;
            record: [];
            fields: {
                kvm: Option<u64>;
                as_id: u8 = ["as_id" | "as"] => as_id;
                gfn: u64;
                old_spte: u64 = ["old_spte" | "old"] => old_spte;
                new_spte: u64 = ["new_spte" | "new"] => new_spte;
                level: u8 => level;
            }
            frames: { gfn: gfn; covers: covered(gfn, level); names: sized(gfn, level); }
            text: [
                "(" .. ")" [" kvm=" {kvm: hex}] " as_id=" {as_id: dec} " gfn=" {gfn: hex} " old_spte=" {old_spte: hex}
                " new_spte=" {new_spte: hex} " level=" {level: dec}
            ];
            example: "(__handle_changed_spte+0x0/0x420 [kvm]) as_id=0 gfn=0x2 old_spte=0x0 new_spte=0x7e6fe67 level=1";
        }

        /// `kvm_set_memory_region`: the VMM makes, changes, moves or deletes a memory slot. The fields are those of the VMM's request, as far as
        /// the probe reads them: `size` is in bytes and 0 for a slot that is deleted, `hva` is where the slot's memory lies in the VMM.
        ProbeSetMemoryRegion {
            tracepoint: probe "kvm_set_memory_region" | "__kvm_set_memory_region";
            class: Host;
            record: [];
            fields: {
                kvm: Option<u64>;
                slot: Option<u32> => slot;
                flags: Option<u32>;
                gpa: Option<u64> => gpa;
                size: Option<u64>;
                hva: Option<u64>;
            }
            frames: { names: region(gpa, size); }
            text: [
                "(" .. ")" [" kvm=" {kvm: hex}] [" slot=" {slot: dec}] [" flags=" {flags: dec}] [" gpa=" {gpa: hex}] [" size=" {size: hex}]
                [" hva=" {hva: hex}]
            ];
            example: "(__kvm_set_memory_region+0x0/0x4e0 [kvm]) kvm=0xffffc900003e5000 slot=0 flags=0 gpa=0x0 size=0x4000000 hva=0x7f5725000000";
        }

        /// `kvm_get_dirty_log_protect` and `kvm_clear_dirty_log_protect`: the VMM reads, or clears, the dirty log of a memory slot, for which
        /// pages are write-protected or their Dirty bits cleared.
        ProbeDirtyLog {
            tracepoint: probe "kvm_get_dirty_log_protect", "kvm_clear_dirty_log_protect" if clear;
            series: "dirty_log";
            class: Dirty;
            record: [];
            fields: {
                clear: bool = [second];
                kvm: Option<u64>;
                slot: Option<u32> => slot;
            }
            text: ["(" .. ")" [" kvm=" {kvm: hex}] [" slot=" {slot: dec}]];
            example: "(kvm_get_dirty_log_protect+0x0/0x250 [kvm]) kvm=0xffffc900003e5000";
        }
    } };
}
