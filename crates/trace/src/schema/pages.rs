//! Page-table pages as wholes.

macro_rules! pages {
    ([$($more:ident)*] $($all:tt)*) => { gather! { [$($more)*] $($all)*
        /// `kvm_mmu_get_page`: a page-table page was found (`created` false) or made. In the TDP MMU, the page is not linked yet.
        GetPage {
            tracepoint: kvmmmu "kvm_mmu_get_page";
            class: Page;
            record: [mmu];
            fields: {
                page: Page = [by page()] => page;
                created: bool => created;
            }
            frames: { gfn: page.gfn; covers: above(&page); names: table(&page); }
            text: [{page, created: new_page}];
            example: "sp gen 0 gfn 0 l4 8-byte q0 direct wux nxe ad root 0 sync new";
        }

        /// `kvm_mmu_sync_page`: the page is brought up to date with the guest's table.
        SyncPage {
            tracepoint: kvmmmu "kvm_mmu_sync_page";
            class: Page;
            record: [mmu];
            fields: {
                page: Page = [by page()] => page;
            }
            frames: { gfn: page.gfn; covers: above(&page); names: table(&page); }
            text: [{page: page}];
            example: "sp gen 0 gfn 20 l1 8-byte q0 wux !nxe ad root 0 unsync";
        }

        /// `kvm_mmu_unsync_page`: the guest's table becomes writable, so the page may be out of sync from now on.
        UnsyncPage {
            tracepoint: kvmmmu "kvm_mmu_unsync_page";
            class: Page;
            record: [mmu];
            fields: {
                page: Page = [by page()] => page;
            }
            frames: { gfn: page.gfn; covers: above(&page); names: table(&page); }
            text: [{page: page}];
            example: "sp gen 0 gfn 20 l1 8-byte q0 wux !nxe ad root 0 sync";
        }

        /// `kvm_mmu_prepare_zap_page`: the page with all its entries is being destroyed.
        PrepareZapPage {
            tracepoint: kvmmmu "kvm_mmu_prepare_zap_page";
            class: Page;
            record: [mmu];
            fields: {
                page: Page = [by page()] => page;
            }
            frames: { gfn: page.gfn; covers: above(&page); names: table(&page); }
            text: [{page: page}];
            example: "sp gen 0 gfn 2000 l1 8-byte q0 direct wux nxe ad root 0 sync";
        }

        /// `kvm_mmu_zap_all_fast` (5.4 and later) or `kvm_mmu_invalidate_zap_all_pages` (before): all roots become obsolete.
        ZapAllFast {
            tracepoint: kvmmmu "kvm_mmu_zap_all_fast" | "kvm_mmu_invalidate_zap_all_pages";
            class: Change;
            record: [mmu, faults, mmio];
            fields: {
                mmu_valid_gen: u64 = [decimal] => mmu_valid_gen;
                mmu_used_pages: u32 = [or 0] => used_pages;
            }
            text: ["kvm-mmu-valid-gen " {mmu_valid_gen, mmu_used_pages: generation}];
            example: "kvm-mmu-valid-gen 0 used_pages 0";
        }
    } };
}
