//! Installs of entries and other changes to them.

macro_rules! entries {
    ([$($more:ident)*] $($all:tt)*) => { gather! { [$($more)*] $($all)*
        /// `kvm_mmu_set_spte`: a leaf was installed; the value is read again when the event is traced. `sptep` is a host *physical* address. `u` is
        /// `None` where the paging mode has no user bit or the format does not show it.
        SetSpte {
            tracepoint: kvmmmu "kvm_mmu_set_spte";
            class: Install;
            record: [mmu, faults];
            fields: {
                gfn: u64;
                spte: u64 => spte;
                sptep: u64 => sptep;
                level: u8 => level;
                r: bool => r;
                w: bool = [by writable(spte)] => w;
                x: bool => x;
                u: Option<bool> = [by user_letter()] => u;
            }
            frames: { gfn: gfn; covers: covered(gfn, level); names: sized(gfn, level); }
            text: ["gfn " {gfn: hex} " spte " {spte: hex} " (" {r, w, x, u: letters(spte)} " level " {level: dec} " at " {sptep: hex}];
            example: "gfn 2 spte 7e6fe67 (rwxu) level 1 at 9c16a010";
        }

        /// `kvm_mmu_spte_requested`: the slow path is about to map the frame. `access` (ACC bits) exists since 7.2.
        SpteRequested {
            tracepoint: kvmmmu "kvm_mmu_spte_requested";
            class: Install;
            record: [mmu, faults];
            fields: {
                gfn: u64;
                pfn: u64 => pfn;
                level: u8 => level;
                access: Option<u32> => access;
            }
            frames: { gfn: gfn; covers: covered(gfn, level); names: one(gfn); }
            text: ["gfn " {gfn: hex} " pfn " {pfn: hex} " level " {level: dec} [" access " {access: hex}]];
            example: "gfn 2 pfn 7e6f level 1";
        }

        /// `kvm_tdp_mmu_spte_changed`: an SPTE of the TDP MMU changed its value.
        TdpSpteChanged {
            tracepoint: kvmmmu "kvm_tdp_mmu_spte_changed";
            class: Install;
            record: [mmu, faults];
            fields: {
                as_id: u8 => as_id;
                gfn: u64;
                level: u8 => level;
                old_spte: u64 => old_spte;
                new_spte: u64 => new_spte;
            }
            frames: { gfn: gfn; covers: covered(gfn, level); names: sized(gfn, level); }
            text: [
                "as id " {as_id: dec} " gfn " {gfn: hex} " level " {level: dec} " old_spte " {old_spte: hex} " new_spte " {new_spte: hex}
            ];
            example: "as id 0 gfn 0 level 4 old_spte 0 new_spte 9c168827";
        }

        /// `kvm_mmu_split_huge_page`: `spte` is the old huge SPTE, `level` its level, `errno` 0 or negative.
        SplitHugePage {
            tracepoint: kvmmmu "kvm_mmu_split_huge_page";
            class: Change;
            record: [mmu];
            fields: {
                gfn: u64;
                spte: u64 => spte;
                level: u8 => level;
                errno: i32 => errno;
            }
            frames: { gfn: gfn; covers: covered(gfn, level); names: sized(gfn, level); }
            text: ["gfn " {gfn: hex} " spte " {spte: hex} " level " {level: dec} " errno " {errno: int}];
            example: "gfn 2000 spte d400ee7 level 2 errno 0";
        }

        /// `fast_page_fault`: the lockless path ended. `sptep` is a kernel *virtual* address (`None` where text hashed it).
        FastPageFault {
            tracepoint: kvmmmu "fast_page_fault";
            class: Change;
            record: [mmu, faults];
            fields: {
                vcpu: u32 = ["vcpu_id" decimal];
                cr2_or_gpa: u64 = ["cr2_or_gpa" | "gva"] => address;
                error_code: u64 = [decimal] => error_code;
                sptep: Option<u64> = [pointer] => sptep;
                old_spte: u64 => old_spte;
                new_spte: u64 => new_spte;
                result: FastPfResult = [by fast_result(old_spte, new_spte)] => result;
            }
            frames: { names: one(cr2_or_gpa >> 12); }
            text: [
                "vcpu " {vcpu: dec} " gva " {cr2_or_gpa: hex} " error_code " {error_code: pferr} " sptep " {sptep: pointer}
                " old " {old_spte: hex} " new " {new_spte: hex} {result: fast_flags}
            ];
            example: "vcpu 0 gva 400000 error_code P|W|U sptep 000000005ca88288 old 0x32b1825 new 32b1825 spurious 0 fixed 0";
        }
    } };
}
