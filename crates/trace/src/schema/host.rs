//! What the host does to the guest's memory, and the texts that programs write into a trace.

macro_rules! host {
    ([$($more:ident)*] $($all:tt)*) => { gather! { [$($more)*] $($all)*
        /// `kvm_unmap_hva_range`: an mmu_notifier invalidates this range of host virtual addresses.
        UnmapHvaRange {
            tracepoint: kvm "kvm_unmap_hva_range";
            class: Host;
            record: [mmu, faults];
            fields: {
                start: u64 => start;
                end: u64 => end;
            }
            text: [.. ": " {start: hex} " -- " {end: hex}];
            example: "mmu notifier unmap range: 0x000000004d1000 -- 0x000000004d2000";
        }

        /// `kvm_age_hva`: an mmu_notifier ages this range of host virtual addresses.
        AgeHva {
            tracepoint: kvm "kvm_age_hva";
            class: Host;
            record: [mmu];
            fields: {
                start: u64 => start;
                end: u64 => end;
            }
            text: [.. ": " {start: hex} " -- " {end: hex}];
            example: "mmu notifier age hva: 0x007ff70c67c000 -- 0x007ff70c67d000";
        }

        /// `kvm_test_age_hva`: an mmu_notifier asks whether the page at this host virtual address is young.
        TestAgeHva {
            tracepoint: kvm "kvm_test_age_hva";
            class: Host;
            record: [mmu];
            fields: { hva: u64 => address; }
            text: [.. ": " {hva: hex}];
            example: "mmu notifier test age hva: 0x007ff70c67c000";
        }

        /// `kvm_set_spte_hva` (5.13 to 6.9): an mmu_notifier changes the page at this host virtual address.
        SetSpteHva {
            tracepoint: kvm "kvm_set_spte_hva";
            class: Host;
            record: [mmu];
            fields: { hva: u64 => address; }
            text: [.. ": " {hva: hex}];
            example: "mmu notifier set pte hva: 0x000000004d1000";
        }

        /// `kvm_age_page` (up to 5.12): one page was aged.
        AgePage {
            tracepoint: kvm "kvm_age_page";
            class: Host;
            record: [mmu];
            fields: {
                hva: u64 => address;
                gfn: u64;
                level: u8 => level;
                young: bool = ["referenced"] => flag;
            }
            frames: { gfn: gfn; names: sized(gfn, level); }
            text: ["hva " {hva: hex} " gfn " {gfn: hex} " level " {level: dec} {young: young}];
            example: "hva 7ff70c67c000 gfn 1c level 1 YOUNG";
        }

        /// `kvm_try_async_get_page`, and `kvm_async_pf_repeated_fault` (`repeated`; `kvm_async_pf_doublefault` up to 5.18).
        TryAsyncGetPage {
            tracepoint: kvm "kvm_try_async_get_page", "kvm_async_pf_repeated_fault" | "kvm_async_pf_doublefault" if repeated;
            class: Host;
            record: [mmu, faults];
            fields: {
                gva: u64 => gva;
                gfn: u64;
                repeated: bool = [second] => flag;
            }
            frames: { gfn: gfn; names: one(gfn); }
            text: ["gva = " {gva: hex} ", gfn = " {gfn: hex}];
            example: "gva = 0x7f8a000, gfn = 0x7f8a";
        }

        /// `kvm_async_pf_not_present` (`ready` false) and `kvm_async_pf_ready`.
        AsyncPf {
            tracepoint: kvm "kvm_async_pf_not_present", "kvm_async_pf_ready" if ready;
            series: "kvm_async_pf";
            class: Host;
            record: [mmu, faults];
            fields: {
                token: u64 => token;
                gva: u64 => gva;
                ready: bool = [second];
            }
            text: ["token " {token: hex} " gva " {gva: hex}];
            example: "token 0x1001 gva 0x7f8a000";
        }

        /// `kvm_async_pf_completed`: `address` is a host virtual address.
        AsyncPfCompleted {
            tracepoint: kvm "kvm_async_pf_completed";
            class: Host;
            record: [mmu, faults];
            fields: {
                address: u64 => address;
                gva: u64 => gva;
            }
            text: ["gva " {gva: hex} " address " {address: hex}];
            example: "gva 0x7f8a000 address 0x7ff70c67c000";
        }

        /// `kvm_vm_set_mem_attributes`: memory attributes of the frames `start..end` change; bit 3 means private.
        SetMemAttributes {
            tracepoint: kvm "kvm_vm_set_mem_attributes";
            class: Host;
            record: [mmu];
            fields: {
                start: u64 => start;
                end: u64 => end;
                attributes: u64 = ["attr" | "attributes"] => attributes;
            }
            frames: { covers: Some((start, end)); names: Some((start, end)); }
            text: [{start: hex} " -- " {end: hex} " [" {attributes: hex}];
            example: "0x00000000001000 -- 0x00000000002000 [0x8]";
        }

        /// A text that was written to trace_marker (`tracing_mark_write`, `ftrace:print`). In a [`stream`](crate::stream), get it with
        /// [`Strings::text`](crate::Strings::text).
        Marker {
            tracepoint: ftrace "tracing_mark_write" | "print";
            series: "marker";
            class: Marker;
            record: [];
            fields: { text: StrId = [by marker()] => text; }
            text: [{text: marker}];
            example: "a step of the test begins";
        }
    } };
}
